"""A user's scene on the node: a zip from the blob store, taken apart without trust, and fitted to a frame.

A bundle is a zip whose root holds ``scene.xml``; every file that the XML names lies inside. ``raftctl`` makes them,
but anyone can submit anything: here nothing is believed. Unpacking refuses paths that leave the directory, links and
bombs; ``prepare`` refuses XML that names files outside of it, and puts the frame's film, sampler and block size in
place of the scene's own, which decide how pixels are counted and not what is seen.
"""

from __future__ import annotations

import stat
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from raftd.errors import InvalidRequest

ROOT_NAME: Final = "scene.xml"
MAX_FILES: Final = 4096
MAX_NAME_BYTES: Final = 240
MAX_UNPACKED_BYTES: Final = 1 << 30
MAX_XML_BYTES: Final = 64 << 20
MAX_INCLUDE_DEPTH: Final = 15

INTEGRATORS: Final = frozenset({"depth", "direct", "path", "volpath", "volpathmis"})
"""Those that render a crop in seeded blocks of three channels; others count differently or trace from the light."""

SENSORS: Final = frozenset({"orthographic", "perspective", "thinlens"})

_UNREPEATABLE: Final = frozenset({"block_size", "samples_per_pass", "timeout"})
"""An integrator's settings that would make pixels depend on time or on how work is cut."""

_CHUNK_BYTES: Final = 1 << 20


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a bundle into a directory that does not exist yet.

    Returns:
        The directory.

    Raises:
        InvalidRequest: the file is no zip, or one of its entries is unsafe or over a limit.
    """
    into.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as bundle:
            entries = bundle.infolist()
            _check_entries(entries)
            budget = MAX_UNPACKED_BYTES
            for entry in entries:
                if not entry.is_dir():
                    budget -= _extract(bundle, entry, into, budget)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError is zipfile's word for an encrypted entry, and a kind of it for an unknown compression.
        raise InvalidRequest(f"the scene bundle cannot be unpacked: {error}") from error
    return into


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise InvalidRequest(f"the scene bundle has {len(entries)} files, the limit is {MAX_FILES}")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        if entry.header_offset < 0:
            raise zipfile.BadZipFile("an entry begins before the file does")
        if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
            raise InvalidRequest(f"the scene bundle has a path of more than {MAX_NAME_BYTES} bytes")
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
            raise InvalidRequest(f"the scene bundle has an unsafe path: {name!r}")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidRequest(
                f"the scene bundle has an entry that is neither file nor directory: {name!r}"
            )
        # Folded, because one of two names that differ by case alone would win on some file systems.
        if str(path).casefold() in seen:
            raise InvalidRequest(f"the scene bundle has two entries with one path: {name!r}")
        seen.add(str(path).casefold())
    if not any(entry.filename == ROOT_NAME for entry in entries):
        raise InvalidRequest(f"the scene bundle has no {ROOT_NAME} at its root")


def _extract(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path, budget: int) -> int:
    """Writes one file; returns its size. The size that the zip claims is not believed."""
    target = into.joinpath(*PurePosixPath(entry.filename).parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with bundle.open(entry) as source, target.open("xb") as sink:
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > budget:
                    raise InvalidRequest(f"the scene bundle unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                sink.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InvalidRequest(
            f"the scene bundle has a file in place of a directory: {entry.filename!r}"
        ) from error
    return size


def prepare(directory: Path, width: int, height: int, block_size: int) -> Path:
    """Checks the XML of an unpacked bundle and fits it to a frame, in place.

    Args:
        directory: what ``unpack`` returned.
        width, height: of the whole frame, in pixels.
        block_size: side of the renderer's blocks, in pixels.

    Returns:
        The XML file to load.

    Raises:
        InvalidRequest: the XML is malformed, names a file outside the bundle, or cannot be rendered in tiles.
    """
    root = directory.resolve()
    sensors = integrators = 0
    for path, tree in _documents(root):
        for sensor in tree.iter("sensor"):
            _fit_sensor(sensor, width, height)
            sensors += 1
        for integrator in tree.iter("integrator"):
            _fit_integrator(integrator, block_size)
            integrators += 1
        ET.ElementTree(tree).write(path, encoding="utf-8", xml_declaration=True)
    if sensors == 0:
        raise InvalidRequest("the scene has no sensor (camera)")
    if integrators > 1:
        raise InvalidRequest(f"the scene has {integrators} integrators, one is needed")
    if integrators == 0:
        _add_integrator(root / ROOT_NAME, block_size)
    return root / ROOT_NAME


def _documents(root: Path) -> Iterator[tuple[Path, ET.Element]]:
    """Yields ``scene.xml`` and what it includes, with every file name checked and made absolute."""
    waiting = [(root / ROOT_NAME, 0)]
    seen: set[Path] = set()
    while waiting:
        path, depth = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if depth > MAX_INCLUDE_DEPTH:
            raise InvalidRequest(f"the scene's includes are nested deeper than {MAX_INCLUDE_DEPTH}")
        tree = _parse(path)
        for element, attribute in _file_names(tree):
            target = _inside(root, path, element.get(attribute, ""))
            element.set(attribute, str(target))
            if element.tag == "include":
                waiting.append((target, depth + 1))
        yield path, tree


def _parse(path: Path) -> ET.Element:
    if path.stat().st_size > MAX_XML_BYTES:
        raise InvalidRequest(f"{path.name} is larger than {MAX_XML_BYTES} bytes")
    text = path.read_bytes()
    # No scene needs a document type, and entities are how a small file becomes a large one.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InvalidRequest(f"{path.name} declares a document type or an entity")
    try:
        tree = ET.fromstring(text)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InvalidRequest(f"{path.name} is not well-formed XML: {error}") from error
    if tree.tag != "scene":
        raise InvalidRequest(f"{path.name} is no Mitsuba scene: its root is <{tree.tag}>")
    return tree


def _file_names(tree: ET.Element) -> Iterator[tuple[ET.Element, str]]:
    """Yields each element that names a file, with the attribute that holds the name."""
    for element in tree.iter():
        if element.tag == "path":
            raise InvalidRequest("the scene adds a search path; name files relative to the scene instead")
        if "filename" in element.attrib:
            yield element, "filename"
        if element.tag == "string" and element.get("name", "").endswith("filename"):
            yield element, "value"
        if "$" in element.get("name", "") and element.tag in ("string", "default"):
            raise InvalidRequest("the scene computes the name of a property")


def _inside(root: Path, document: Path, name: str) -> Path:
    # A parameter could be set to anything after this check: only literal names can be judged.
    if not name or "$" in name or "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(f"{document.name} names a file as {name!r}: only a literal path can be shipped")
    target = (root / name).resolve()
    if not target.is_relative_to(root):
        raise InvalidRequest(f"{document.name} names a file outside the bundle: {name!r}")
    if not target.is_file():
        raise InvalidRequest(f"{document.name} names a file that the bundle does not hold: {name!r}")
    return target


def _fit_sensor(sensor: ET.Element, width: int, height: int) -> None:
    kind = sensor.get("type", "")
    if kind not in SENSORS:
        raise InvalidRequest(f"a sensor of type {kind!r} cannot be rendered in tiles", try_=_one_of(SENSORS))
    for child in list(sensor):
        if child.tag in ("film", "sampler"):
            sensor.remove(child)
    film = ET.SubElement(sensor, "film", type="hdrfilm")
    ET.SubElement(film, "integer", name="width", value=str(width))
    ET.SubElement(film, "integer", name="height", value=str(height))
    ET.SubElement(film, "string", name="pixel_format", value="rgb")
    ET.SubElement(film, "string", name="component_format", value="float32")
    ET.SubElement(film, "rfilter", type="box")
    ET.SubElement(sensor, "sampler", type="independent")


def _fit_integrator(integrator: ET.Element, block_size: int) -> None:
    kind = integrator.get("type", "")
    if kind not in INTEGRATORS:
        raise InvalidRequest(
            f"an integrator of type {kind!r} cannot be rendered in tiles", try_=_one_of(INTEGRATORS)
        )
    for child in list(integrator):
        if child.get("name") in _UNREPEATABLE:
            integrator.remove(child)
    ET.SubElement(integrator, "integer", name="block_size", value=str(block_size))


def _add_integrator(path: Path, block_size: int) -> None:
    tree = ET.parse(path)
    _fit_integrator(ET.SubElement(tree.getroot(), "integrator", type="path"), block_size)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _one_of(kinds: frozenset[str]) -> str:
    return "use one of " + ", ".join(sorted(kinds))
