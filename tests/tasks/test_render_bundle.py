"""A scene bundle: what raftctl packs, and what a node refuses to take apart."""

import io
import shutil
import stat
import struct
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.render.bundle import BundleError, make_bundle
from raftd.errors import InvalidRequest
from raftd.tasks.render import bundle
from tests.tasks.scenes import write_scene

EMPTY = b'<scene version="3.0.0"><sensor type="perspective"/></scene>'


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unpacked(tmp_path: Path, archive: bytes) -> Path:
    file = tmp_path / "bundle.zip"
    file.write_bytes(archive)
    return bundle.unpack(file, tmp_path / "into")


def prepared(tmp_path: Path, xml: str, **files: bytes) -> Path:
    directory = unpacked(tmp_path, zipped({"scene.xml": xml.encode(), **files}))
    return bundle.prepare(directory, 64, 36, 16)


def test_a_bundle_holds_what_the_scene_names_and_nothing_else(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "mine")
    (scene.parent / "diary.txt").write_text("not yours")
    with zipfile.ZipFile(io.BytesIO(make_bundle(scene))) as archive:
        names = archive.namelist()
        text = archive.read("scene.xml").decode()
    endings = sorted(name.partition("-")[2] for name in names)
    assert endings == ["", "camera.xml", "checks.png", "floor.obj", "triangle.ply"]
    assert "meshes/triangle.ply" not in text


def test_equal_scenes_make_equal_bundles_wherever_they_lie(tmp_path: Path) -> None:
    first = make_bundle(write_scene(tmp_path / "one"))
    scene = write_scene(tmp_path / "elsewhere/two")
    scene.touch()
    assert make_bundle(scene) == first
    (scene.parent / "parts/camera.xml").write_text(
        (scene.parent / "parts/camera.xml").read_text().replace('"45"', '"46"')
    )
    assert make_bundle(scene) != first


def test_files_above_the_scene_and_at_absolute_paths_travel_too(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "mine")
    shutil.move(scene.parent / "meshes/triangle.ply", tmp_path / "my triangle.ply")
    shutil.move(scene.parent / "meshes/floor.obj", tmp_path / "floor.obj")
    text = scene.read_text().replace("meshes/triangle.ply", "../my triangle.ply")
    scene.write_text(text.replace("./meshes/../meshes/floor.obj", str(tmp_path / "floor.obj")))
    directory = unpacked(tmp_path, make_bundle(scene))
    xml = bundle.prepare(directory, 64, 36, 16)
    assert str(tmp_path / "floor.obj") not in xml.read_text()
    assert {path.suffix for path in (directory / "files").iterdir()} == {".ply", ".obj", ".png", ".xml"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("meshes/triangle.ply", "meshes/gone.ply", "names a file that is not there: meshes/gone.ply"),
        ("meshes/triangle.ply", "$mesh", "only a literal path can be shipped"),
        ("parts/camera.xml", "scene.xml", "nested deeper than 15"),
        ("</scene>", "", "not well-formed XML"),
        ('<scene version="3.0.0">', '<scene version="3.0.0"><path value="/"/>', "<path> adds a search path"),
    ],
)
def test_a_scene_that_cannot_be_shipped_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    scene = write_scene(tmp_path / "mine")
    scene.write_text(scene.read_text().replace(old, new))
    with pytest.raises(BundleError) as refused:
        make_bundle(scene)
    assert message in str(refused.value)
    assert str(scene) in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "a\\..\\evil", "c:evil", "files/../../x", ".."],
)
def test_paths_that_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="unsafe path"):
        unpacked(tmp_path, zipped({"scene.xml": EMPTY, name: b"x"}))
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.zip", "into"}
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("scene.xml", EMPTY)
        entry = zipfile.ZipInfo("link")
        entry.create_system = 3
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InvalidRequest, match="neither file nor directory: 'link'"):
        unpacked(tmp_path, buffer.getvalue())


def test_bombs_are_refused_by_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED_BYTES", 1 << 20)
    half = bytes(1 << 19)
    fits = tmp_path / "fits"
    fits.mkdir()
    unpacked(fits, zipped({"scene.xml": b"", "a": half, "b": half}))
    with pytest.raises(InvalidRequest, match="unpacks to more than 1048576 bytes"):
        unpacked(tmp_path, zipped({"scene.xml": EMPTY, "a": half, "b": half}))


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    files = {"scene.xml": EMPTY} | {f"f{number}": b"" for number in range(bundle.MAX_FILES)}
    with pytest.raises(InvalidRequest, match="has 4097 files, the limit is 4096"):
        unpacked(tmp_path, zipped(files))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.xml": EMPTY}, "no scene.xml at its root"),
        ({"Scene.XML": EMPTY}, "no scene.xml at its root"),
        ({"deep/scene.xml": EMPTY}, "no scene.xml at its root"),
        ({"scene.xml": EMPTY, "a": b"1", "A": b"2"}, "two entries with one path: 'A'"),
        ({"scene.xml": EMPTY, "a": b"1", "./a": b"2"}, "two entries with one path"),
        ({"scene.xml": EMPTY, "a": b"1", "a/b": b"2"}, "a file in place of a directory: 'a/b'"),
    ],
)
def test_odd_contents_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        unpacked(tmp_path, zipped(files))
    assert message in str(refused.value)


def test_what_is_no_zip_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    good = zipped({"scene.xml": EMPTY * 100})
    flipped = bytearray(good)
    flipped[45] ^= 0xFF
    encrypted = bytearray(good)
    central = good.index(b"PK\x01\x02")
    for offset in (6, central + 8):
        encrypted[offset] |= 1
    unknown = bytearray(good)
    for offset in (8, central + 10):
        struct.pack_into("<H", unknown, offset, 77)
    cases = (b"", b"not a zip", good[:-5], good[30:], bytes(flipped), bytes(encrypted), bytes(unknown))
    for number, data in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(InvalidRequest, match="cannot be unpacked"):
            unpacked(place, data)


@given(st.data())
def test_no_damage_whatever_fails_in_another_way(data: st.DataObject) -> None:
    archive = bytearray(zipped({"scene.xml": EMPTY, "files/a.ply": b"ply" * 50}))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        try:
            directory = unpacked(Path(place), bytes(archive))
            bundle.prepare(directory, 64, 36, 16)
        except InvalidRequest:
            return
        assert (directory / "scene.xml").is_file()


def test_names_that_no_file_system_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="a path of more than 240 bytes"):
        unpacked(tmp_path, zipped({"scene.xml": EMPTY, "x" * 300: b""}))


def test_the_frame_decides_film_sampler_and_blocks(tmp_path: Path) -> None:
    xml = bundle.prepare(unpacked(tmp_path, make_bundle(write_scene(tmp_path / "mine"))), 64, 36, 16)
    (camera,) = xml.parent.glob("files/*camera.xml")
    sensor = ET.parse(camera).find("sensor")
    assert sensor is not None
    (film,), (sampler,) = sensor.findall("film"), sensor.findall("sampler")
    values = {child.get("name"): child.get("value") for child in film if child.tag != "rfilter"}
    assert values == {"width": "64", "height": "36", "pixel_format": "rgb", "component_format": "float32"}
    assert [child.get("type") for child in film.findall("rfilter")] == ["box"]
    assert sampler.get("type") == "independent"
    integrator = ET.parse(xml).find("integrator")
    assert integrator is not None
    settings = {child.get("name"): child.get("value") for child in integrator}
    assert settings == {"max_depth": "$depth", "block_size": "16"}


def test_a_scene_without_an_integrator_gets_a_path_tracer(tmp_path: Path) -> None:
    integrator = ET.parse(prepared(tmp_path, EMPTY.decode())).find("integrator")
    assert integrator is not None
    assert integrator.get("type") == "path"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "has no sensor"),
        ('<sensor type="batch"/>', "a sensor of type 'batch' cannot be rendered in tiles"),
        ('<sensor type="perspective"/><integrator type="ptracer"/>', "type 'ptracer' cannot be rendered"),
        (
            '<sensor type="perspective"/><integrator type="aov"><integrator type="path"/></integrator>',
            "'aov'",
        ),
        (
            '<sensor type="perspective"/><integrator type="path"/><integrator type="path"/>',
            "has 2 integrators",
        ),
        ('<shape type="ply"><string name="filename" value="/etc/hostname"/></shape>', "outside the bundle"),
        ('<shape type="ply"><string name="filename" value="../bundle.zip"/></shape>', "outside the bundle"),
        ('<shape type="ply"><string name="filename" value="$mesh"/></shape>', "only a literal path"),
        (f'<shape type="ply"><string name="filename" value="{"x" * 300}"/></shape>', "only a literal path"),
        ('<shape type="ply"><string name="filename"/></shape>', "only a literal path"),
        ('<shape type="ply"><string name="filename" value="gone.ply"/></shape>', "does not hold: 'gone.ply'"),
        ('<shape type="ply"><string name="$n" value="/etc/hostname"/></shape>', "computes the name"),
        ('<spectrum name="x" filename="/etc/hostname"/>', "outside the bundle"),
        ('<include filename="/etc/hostname"/>', "outside the bundle"),
        ('<include filename="notes"/>', "notes is not well-formed XML"),
        ('<path value="/etc"/>', "adds a search path"),
        ("<a></b>", "not well-formed XML"),
    ],
)
def test_xml_that_reaches_out_or_cannot_be_tiled_is_refused(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prepared(tmp_path, f'<scene version="3.0.0">{body}</scene>', notes=b"no markup")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE scene [<!ENTITY a "b">]><scene/>', "declares a document type"),
        ("<html/>", "is no Mitsuba scene: its root is <html>"),
        ('<?xml version="1.0" encoding="klingon"?><scene/>', "not well-formed XML"),
    ],
)
def test_documents_that_are_no_scene_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prepared(tmp_path, text)
    assert message in str(refused.value)


def test_includes_that_form_a_circle_are_read_once(tmp_path: Path) -> None:
    # Mitsuba itself then refuses them; what matters here is that the check ends.
    circle = '<scene version="3.0.0"><include filename="scene.xml"/><sensor type="perspective"/></scene>'
    assert prepared(tmp_path, circle).is_file()
