"""The promise under a picture: a tile's bytes are a function of its request, whoever renders it and after what."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from raftctl.render.bundle import make_bundle
from raftctl.render.tiles import assemble, read_tile, read_tiles
from raftd.errors import InvalidArguments, InvalidRequest
from raftd.tasks.render import task, tile
from raftd.tasks.render.frame import FrameSpec, TileRequest
from raftd.tasks.render.reference import main as reference_main
from raftd.tasks.render.reference import render_frame
from raftd.tasks.render.tile import TileRenderer
from tests.tasks.scenes import write_scene

# Small, and of sizes that divide neither by the grid nor by the renderer's blocks.
FRAME = FrameSpec(width=83, height=47, tiles_x=4, tiles_y=3, samples=2, seed=5)
OPTIONS = ["--width", "83", "--height", "47", "--tiles", "4x3", "--samples", "2", "--seed", "5"]


def no_bundle(digest: str) -> Path:
    raise AssertionError(f"nothing should unpack {digest}")


@pytest.fixture(scope="module")
def reference() -> list[bytes]:
    """The tiles of ``FRAME``, one after the other in this process."""
    return list(render_frame(FRAME))


def test_tiles_in_any_order_have_the_same_bytes(reference: list[bytes]) -> None:
    renderer = TileRenderer()
    for number in (11, 0, 7, 7, 3, 10, 1, 2, 9, 8, 6, 5, 4, 0):
        assert renderer.render(TileRequest(FRAME, number), no_bundle) == reference[number], number


def test_tiles_of_other_frames_in_between_leave_no_trace(reference: list[bytes]) -> None:
    renderer = TileRenderer()
    others = [
        FrameSpec(60, 33, 2, 2, samples=3, seed=5),
        FrameSpec(83, 47, 4, 3, samples=1, seed=6),
        FrameSpec(83, 47, 1, 1, samples=1, seed=5),
    ]
    for number in (5, 6):
        for other in others:
            renderer.render(TileRequest(other, 0), no_bundle)
        assert renderer.render(TileRequest(FRAME, number), no_bundle) == reference[number]


def test_a_tile_in_a_process_of_its_own_has_the_same_bytes(reference: list[bytes], tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from raftd.tasks.render.task import run\n"
        "class Context:\n"
        "    blobs = None\n"
        "    workdir = pathlib.Path(sys.argv[1])\n"
        "sys.stdout.buffer.write(run(Context(), sys.argv[2:]))\n"
    )
    for number in (7, 0):
        command = [sys.executable, "-c", program, str(tmp_path), str(number), *OPTIONS]
        # Another hash seed: nothing may depend on the order of a set.
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        assert done.stdout == reference[number]


def test_tiles_put_together_in_any_order_equal_the_reference_file(
    reference: list[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "reference.tiles"
    assert reference_main(["--out", str(out), *OPTIONS]) == 0
    renderer = TileRenderer()
    numbers = sorted(range(FRAME.tile_count), key=lambda number: hashlib.sha256(bytes([number])).digest())
    separately = [read_tile(renderer.render(TileRequest(FRAME, number), no_bundle)) for number in numbers]
    assert out.read_bytes() == b"".join(reference)
    assert assemble(separately) == assemble(read_tiles(out.read_bytes()))


def test_what_a_task_writes_is_what_raftctl_reads(reference: list[bytes]) -> None:
    for number, data in enumerate(reference):
        read = read_tile(data)
        assert (read.frame_width, read.frame_height, read.tile_count) == (83, 47, 12)
        rect = FRAME.tile_rect(number)
        assert (read.number, read.x, read.y, read.width, read.height) == (
            number,
            rect.x,
            rect.y,
            rect.width,
            rect.height,
        )
        assert read.frame_digest == FRAME.digest()
        assert len(data) == tile.HEADER.size + 12 * rect.width * rect.height


def test_the_picture_shows_the_scene(reference: list[bytes]) -> None:
    picture = assemble(map(read_tile, reference))
    floats = memoryview(picture.pixels).cast("f")
    assert all(0.0 <= value < 1e4 for value in floats)
    upper, lower = floats[: 83 * 3 * 5], floats[-83 * 3 * 5 :]
    # The sky is brighter than the ground, and the picture is no flat colour.
    assert sum(upper) > sum(lower) > 0.0
    assert len(set(floats.tolist())) > 1000


def test_noise_differs_between_tiles_and_seeds() -> None:
    renderer = TileRenderer()

    def pixels(seed: int, number: int) -> bytes:
        # The first two tiles of the top row are both sky: what differs is the camera's noise alone.
        return read_tile(renderer.render(TileRequest(frame(seed), number), no_bundle)).pixels

    def frame(seed: int) -> FrameSpec:
        return FrameSpec(64, 36, 8, 8, samples=1, seed=seed)

    assert pixels(1, 0) != pixels(2, 0)
    assert pixels(1, 0) != pixels(1, 1)


def test_one_tile_keeps_one_thread_busy() -> None:
    renderer = TileRenderer()
    renderer.render(TileRequest(FRAME, 0), no_bundle)
    whole = FrameSpec(160, 90, 1, 1, samples=4)
    own_before, all_before = time.thread_time(), time.process_time()
    renderer.render(TileRequest(whole, 0), no_bundle)
    own, everything = time.thread_time() - own_before, time.process_time() - all_before
    # CPU time, not wall time: what any other thread of this process used while the caller waited is the difference.
    assert everything - own < 0.1 * everything


@dataclass
class FakeBlobs:
    """Blobs in a directory; counts how often each was asked for."""

    directory: Path
    asked: list[str] = field(default_factory=list)

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / digest).write_bytes(data)
        return digest

    def get(self, digest: str, /) -> Path:
        self.asked.append(digest)
        return self.directory / digest


@dataclass
class FakeContext:
    """What a slot hands to a task."""

    blobs: FakeBlobs
    workdir: Path


@pytest.fixture
def context_for(tmp_path: Path) -> Callable[[str], FakeContext]:
    store = tmp_path / "store"
    store.mkdir()
    blobs = FakeBlobs(store)

    def make(attempt: str) -> FakeContext:
        workdir = tmp_path / attempt
        workdir.mkdir()
        return FakeContext(blobs, workdir)

    return make


def test_a_users_scene_renders_in_tiles_in_any_order_and_through_the_reference(
    context_for: Callable[[str], FakeContext], tmp_path: Path
) -> None:
    bundle = make_bundle(write_scene(tmp_path / "mine"))
    first = context_for("attempt-0")
    digest = first.blobs.put(bundle)
    options = [
        "--width",
        "40",
        "--height",
        "22",
        "--tiles",
        "2x2",
        "--samples",
        "3",
        "--scene",
        f"blob:{digest}",
    ]
    tiles = {
        number: task.run(context_for(f"attempt-{number}"), [str(number), *options]) for number in (3, 1, 2)
    }
    tiles[0] = task.run(first, ["0", *options])
    # Loaded once, by the first of the tiles; the attempts' directories may go after that.
    assert first.blobs.asked == [digest]

    file = tmp_path / "bundle.zip"
    file.write_bytes(bundle)
    out = tmp_path / "reference.tiles"
    command = ["--out", str(out), "--bundle", str(file), *options[:-2]]
    assert reference_main(command) == 0
    assert out.read_bytes() == b"".join(tiles[number] for number in range(4))
    floats = memoryview(assemble(read_tiles(out.read_bytes())).pixels).cast("f")
    # The texture is red and cream: in the middle of the picture it shows.
    middle = floats[(11 * 40 + 20) * 3 :][:3].tolist()
    assert middle[0] > 1.2 * middle[2]


def test_a_scene_that_mitsuba_refuses_fails_with_its_words(
    context_for: Callable[[str], FakeContext], tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "mine")
    scene.write_text(scene.read_text().replace('emitter type="constant"', 'emitter type="lantern"'))
    context = context_for("attempt")
    digest = context.blobs.put(make_bundle(scene))
    with pytest.raises(InvalidRequest, match=r"the scene does not load: .*lantern"):
        task.run(context, ["0", "--samples", "1", "--scene", f"blob:{digest}"])


def test_the_reference_says_what_is_wrong(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert reference_main(["--out", str(tmp_path / "x"), "--samples", "none"]) == 2
    assert "samples 'none' is not a whole number" in capfd.readouterr().err
    assert reference_main(["--samples", "1"]) == 2
    assert "--out FILE is needed" in capfd.readouterr().err
    assert reference_main(["--out"]) == 2
    assert "--out needs a file" in capfd.readouterr().err
    assert reference_main(["--out", str(tmp_path / "no" / "x"), "--samples", "1"]) == 1
    assert reference_main(["--out", str(tmp_path / "x"), "--scene", "blob:" + "0" * 64]) == 2
    assert "is not at hand" in capfd.readouterr().err


def test_the_task_itself_checks_its_arguments(context_for: Callable[[str], FakeContext]) -> None:
    with pytest.raises(InvalidArguments, match="tile 64 is outside the frame"):
        task.run(context_for("attempt"), ["64"])
