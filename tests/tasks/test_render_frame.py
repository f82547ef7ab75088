"""A frame's geometry and the arguments of ``render-tile``: what runs at submit, without a renderer."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.render.unroll import FrameOptions, parse_tiles
from raftd.errors import InvalidArguments
from raftd.tasks.render.frame import (
    MAX_TILE_PIXELS,
    FrameSpec,
    TileRequest,
    check,
    parse_args,
    parse_frame_args,
)

DIGEST = "0123456789abcdef" * 4


@st.composite
def frames(draw: st.DrawFn) -> FrameSpec:
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    tiles_x = draw(st.integers(1, min(width, 40)))
    tiles_y = draw(st.integers(1, min(height, 40)))
    return FrameSpec(width, height, tiles_x, tiles_y)


@given(frames())
def test_tiles_cover_every_pixel_exactly_once(frame: FrameSpec) -> None:
    covered = bytearray(frame.width * frame.height)
    for tile in range(frame.tile_count):
        rect = frame.tile_rect(tile)
        assert rect.width > 0
        assert rect.height > 0
        for y in range(rect.y, rect.y + rect.height):
            start = y * frame.width + rect.x
            for pixel in range(start, start + rect.width):
                covered[pixel] += 1
    assert covered == bytes([1]) * len(covered)


@given(frames())
def test_tiles_differ_by_at_most_one_pixel_and_are_numbered_row_by_row(frame: FrameSpec) -> None:
    rects = [frame.tile_rect(tile) for tile in range(frame.tile_count)]
    assert max(r.width for r in rects) - min(r.width for r in rects) <= 1
    assert max(r.height for r in rects) - min(r.height for r in rects) <= 1
    assert [(r.y, r.x) for r in rects] == sorted((r.y, r.x) for r in rects)


def test_the_default_frame_is_400x225_in_8x8_tiles() -> None:
    request = parse_args(["42"])
    assert request == TileRequest(FrameSpec(400, 225, 8, 8), 42)
    assert (request.rect.x, request.rect.y, request.rect.width, request.rect.height) == (100, 140, 50, 28)


def test_options_stand_before_or_after_the_tile_with_or_without_equals() -> None:
    expected = TileRequest(FrameSpec(64, 36, 4, 2, 9, 7, f"blob:{DIGEST}"), 5)
    words = ["--width", "64", "--height=36", "--samples", "9", "--tiles=4x2", "--seed", "7"]
    assert parse_args(["5", *words, "--scene", f"blob:{DIGEST}"]) == expected
    assert parse_args([f"--scene=blob:{DIGEST}", *words, "5"]) == expected
    assert parse_frame_args([*words, "--scene", f"blob:{DIGEST}"]) == expected.frame
    assert expected.frame.scene_digest == DIGEST


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "render-tile needs the number of a tile"),
        (["64"], "tile 64 is outside the frame: 8x8 tiles are numbered 0 to 63"),
        (["-1"], "tile -1 is outside the frame: 8x8 tiles are numbered 0 to 63"),
        (["4", "--tiles", "2x2"], "tile 4 is outside the frame: 2x2 tiles are numbered 0 to 3"),
        (["4x"], "tile '4x' is not a whole number"),
        (["4.0"], "tile '4.0' is not a whole number"),
        ([""], "tile '' is not a whole number"),
        (["\u0664"], "tile '\u0664' is not a whole number"),
        (["9" * 5000], "is not a whole number"),
        (["1", "2"], "render-tile takes one tile number, got '1' '2'"),
        (["1", "--width"], "--width needs a value"),
        (["1", "--width", "0"], "width 0 is out of range: 1 to 16384 pixels"),
        (["1", "--width", "16385"], "width 16385 is out of range: 1 to 16384 pixels"),
        (["1", "--height", "1e3"], "height '1e3' is not a whole number"),
        (["1", "--height", "-5"], "height -5 is out of range: 1 to 16384 pixels"),
        (["1", "--samples", "0"], "samples 0 is out of range: 1 to 65536 rays a pixel"),
        (["1", "--samples", "65537"], "samples 65537 is out of range: 1 to 65536 rays a pixel"),
        (["1", "--seed", "-1"], "seed -1 is out of range: 0 to 4294967295"),
        (["1", "--seed", "4294967296"], "seed 4294967296 is out of range: 0 to 4294967295"),
        (["1", "--seed", "1", "--seed=2"], "--seed is given twice"),
        (["1", "--tiles", "8"], "tiles '8' is not of the form COLUMNSxROWS"),
        (["1", "--tiles", "8x8x8"], "tiles '8x8x8' is not of the form COLUMNSxROWS"),
        (["1", "--tiles", "0x8"], "tiles 0x8: there must be at least 1x1"),
        (["1", "--tiles", "401x1"], "tiles 401x1 are more than the pixels of 400x225"),
        (["1", "--tiles", "1x226"], "tiles 1x226 are more than the pixels of 400x225"),
        (
            ["1", "--tiles", "300x300", "--width", "300", "--height", "300"],
            "tiles 300x300 are 90000, the limit is 65536",
        ),
        (
            ["0", "--tiles", "1x1", "--width", "4097", "--height", "1024"],
            "tiles 1x1 of 4097x1024 are up to 4195328 pixels each, the limit is 4194304",
        ),
        (["1", "--scene", "teapot"], "scene 'teapot' is unknown"),
        (["1", "--scene", "blob:" + DIGEST.upper()], "is unknown"),
        (["1", "--scene", "blob:" + DIGEST + "\n"], "is unknown"),
        (["1", "--scene", "blob:../../etc/passwd"], "scene 'blob:../../etc/passwd' is unknown"),
        (["1", "--colour", "red"], "render-tile has no option '--colour'"),
        (["1", "--"], "render-tile has no option '--'"),
    ],
)
def test_wrong_arguments_are_refused_and_the_value_is_named(args: list[str], message: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        check(args)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400


def test_limits_are_inclusive() -> None:
    check(["0", "--width", "16384", "--height", "16384", "--tiles", "8x8", "--samples", "65536"])
    check(["0", "--width", "1", "--height", "1", "--tiles", "1x1", "--samples", "1", "--seed", "0"])
    check(["0", "--width", "4096", "--height", str(MAX_TILE_PIXELS // 4096), "--tiles", "1x1"])


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_arguments_whatever_fail_in_another_way(args: list[str]) -> None:
    try:
        check(args)
    except InvalidArguments:
        return
    assert parse_args(args).rect.width > 0


def test_a_frame_cannot_be_made_of_arguments_for_a_tile() -> None:
    with pytest.raises(InvalidArguments, match="a frame takes options only, got '7'"):
        parse_frame_args(["7"])


def test_every_field_counts_for_the_digest_and_the_seed() -> None:
    base = FrameSpec(64, 36, 4, 4, 8, 1)
    others = [
        FrameSpec(65, 36, 4, 4, 8, 1),
        FrameSpec(64, 37, 4, 4, 8, 1),
        FrameSpec(64, 36, 5, 4, 8, 1),
        FrameSpec(64, 36, 4, 5, 8, 1),
        FrameSpec(64, 36, 4, 4, 9, 1),
        FrameSpec(64, 36, 4, 4, 8, 2),
        FrameSpec(64, 36, 4, 4, 8, 1, f"blob:{DIGEST}"),
    ]
    assert len({frame.digest() for frame in [base, *others]}) == len(others) + 1
    assert base.tile_seed(0) not in {frame.tile_seed(0) for frame in others}
    assert len({base.tile_seed(tile) for tile in range(16)}) == 16


def test_seeds_never_change() -> None:
    # A picture that was rendered by an older version must compare equal: these are part of the format.
    assert FrameSpec().digest().hex() == "3e12f3a22d8041fff2addf1c70baad1ac934146a20c12190775977bb45bf8ce9"
    assert [FrameSpec().tile_seed(tile) for tile in (0, 1, 63)] == [347767039, 1617700992, 994674084]


def test_the_check_at_submit_loads_no_renderer() -> None:
    program = (
        "import sys, raftd.tasks.render.frame as f, raftd.tasks.render.task as t; t.check(['3'])\n"
        "print(sorted({'mitsuba', 'drjit', 'numpy', 'asyncio', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_raftctl_unrolls_is_what_the_kind_reads() -> None:
    options = FrameOptions(64, 36, 9, (4, 2), 7, f"blob:{DIGEST}")
    requests = [
        parse_args([arg.replace("{}", str(tile)) for arg in options.array_args()])
        for tile in range(options.tile_count)
    ]
    frame = FrameSpec(64, 36, 4, 2, 9, 7, f"blob:{DIGEST}")
    assert requests == [TileRequest(frame, tile) for tile in range(8)]
    plain = [arg.replace("{}", "63") for arg in FrameOptions().array_args()]
    assert parse_args(plain) == TileRequest(FrameSpec(), 63)
    assert FrameOptions().tile_count == FrameSpec().tile_count


@pytest.mark.parametrize("text", ["8", "x8", "8x", "8x8x8", "-1x8", "a x b", "\u0664x8"])
def test_raftctl_refuses_a_malformed_grid(text: str) -> None:
    assert parse_tiles("8X4") == (8, 4)
    with pytest.raises(ValueError, match="not of the form"):
        parse_tiles(text)
