"""Tiles put together into a picture, and the files it is written to."""

import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.render.picture import assemble_file, check_output, encode_exr, encode_png, write_picture
from raftctl.render.tiles import Picture, Tile, TileError, assemble, read_tile, read_tiles
from raftd.tasks.render.frame import FrameSpec, TileRequest
from raftd.tasks.render.tile import encode


def pixel(x: int, y: int) -> bytes:
    return struct.pack("<3f", x, y, x * y + 0.5)


def tile_bytes(frame: FrameSpec, number: int) -> bytes:
    rect = frame.tile_rect(number)
    rows = range(rect.y, rect.y + rect.height)
    columns = range(rect.x, rect.x + rect.width)
    return encode(TileRequest(frame, number), b"".join(pixel(x, y) for y in rows for x in columns))


def tiles_of(frame: FrameSpec) -> list[Tile]:
    return [read_tile(tile_bytes(frame, number)) for number in range(frame.tile_count)]


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_pixel_comes_to_its_place(width: int, height: int, data: st.DataObject) -> None:
    frame = FrameSpec(
        width, height, data.draw(st.integers(1, min(width, 9))), data.draw(st.integers(1, min(height, 9)))
    )
    tiles = data.draw(st.permutations(tiles_of(frame)))
    expected = b"".join(pixel(x, y) for y in range(height) for x in range(width))
    assert assemble(tiles) == Picture(width, height, expected)


FRAME = FrameSpec(11, 7, 3, 2)


def test_a_file_of_tiles_reads_as_those_tiles() -> None:
    assert list(read_tiles(b"".join(tile_bytes(FRAME, number) for number in range(6)))) == tiles_of(FRAME)
    assert list(read_tiles(b"")) == []


def test_damaged_tiles_are_refused() -> None:
    good = tile_bytes(FRAME, 4)
    version = bytearray(good)
    version[8] = 2
    far = bytearray(good)
    far[28] = 99
    huge = bytearray(good)
    huge[36:44] = b"\xff" * 8
    for data, message in (
        (b"", "cut short: 0 bytes"),
        (good[:75], "cut short: 75 bytes"),
        (good[:-1], "tile 4 is cut short"),
        (good + b"x", "tile 4 is followed by 1 bytes"),
        (b"X" + good[1:], "do not begin with RAFTTILE"),
        (bytes(version), "format is version 2, this build reads version 1"),
        (bytes(far), "tile 4 of 6 lies outside its frame"),
        (bytes(huge), "cut short"),
    ):
        with pytest.raises(TileError, match=message):
            read_tile(data)


def test_tiles_that_make_no_frame_are_refused() -> None:
    tiles = tiles_of(FRAME)
    other = read_tile(tile_bytes(FrameSpec(11, 7, 3, 2, seed=2), 1))
    moved = replace(tiles[1], number=0, x=0)
    for given_tiles, message in (
        ([], "there are no tiles"),
        (tiles[:3] + tiles[4:], "1 of 6 tiles are missing: 3"),
        ([*tiles, tiles[2]], "tile 2 is there twice"),
        ([tiles[0], other, *tiles[2:]], "tiles 0 and 1 are of different frames"),
        ([replace(moved, number=0), *tiles[1:]], "cover"),
    ):
        with pytest.raises(TileError, match=message):
            assemble(given_tiles)


def sample_picture() -> Picture:
    draw = random.Random(3).random
    return Picture(9, 5, struct.pack("<135f", *(1.5 * draw() for _ in range(135))))


def srgb(value: float) -> int:
    value = min(max(value, 0.0), 1.0)
    curve = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return round(255 * curve)


def decoded_png(data: bytes) -> tuple[int, int, bytes]:
    """Decodes an 8-bit RGB PNG, independently of the code that wrote it."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (8, 2)
    packed = b""
    offset = 8
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"IDAT":
            packed += data[offset + 8 : offset + 8 + length]
        offset += 12 + length
    raw, stride = zlib.decompress(packed), 3 * width
    rows: list[bytearray] = [bytearray(stride)]
    for row in range(height):
        line = raw[row * (stride + 1) : (row + 1) * (stride + 1)]
        rows.append(_unfiltered(line[0], line[1:], rows[-1]))
    return width, height, b"".join(rows[1:])


def _unfiltered(kind: int, line: bytes, above: bytearray) -> bytearray:
    row = bytearray()
    for index, value in enumerate(line):
        left, up = (row[index - 3] if index >= 3 else 0), above[index]
        corner = above[index - 3] if index >= 3 else 0
        estimate = left + up - corner
        nearest = min((left, up, corner), key=lambda known: abs(estimate - known))
        row.append((value + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF)
    return row


def test_a_png_is_the_picture_in_srgb_the_right_way_up() -> None:
    picture = sample_picture()
    width, height, pixels = decoded_png(encode_png(picture))
    assert (width, height) == (9, 5)
    wanted = [srgb(value) for value in struct.unpack("<135f", picture.pixels)]
    assert all(abs(got - want) <= 1 for got, want in zip(pixels, wanted, strict=True))


def test_equal_pictures_make_equal_files_and_one_pixel_shows() -> None:
    picture = sample_picture()
    other = Picture(9, 5, struct.pack("<f", 0.0) + picture.pixels[4:])
    for encode_file in (encode_png, encode_exr):
        assert encode_file(picture) == encode_file(sample_picture())
        assert encode_file(picture) != encode_file(other)
    assert encode_exr(picture)[:4] == b"\x76\x2f\x31\x01"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"older")
    with pytest.raises(TileError, match="does not have 3 bytes"):
        write_picture(Picture(9, 5, b"abc"), path)
    assert path.read_bytes() == b"older"
    write_picture(sample_picture(), path)
    assert path.read_bytes() == encode_png(sample_picture())
    write_picture(sample_picture(), tmp_path / "OUT.EXR")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["OUT.EXR", "out.png"]


def test_a_file_of_tiles_becomes_a_picture(tmp_path: Path) -> None:
    tiles = tmp_path / "reference.tiles"
    tiles.write_bytes(b"".join(tile_bytes(FRAME, number) for number in (5, 0, 3, 1, 2, 4)))
    assemble_file(tiles, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == encode_png(assemble(tiles_of(FRAME)))


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.jpg", "use .png or .exr"), ("out", "use .png or .exr"), ("no/out.png", "no such directory")],
)
def test_an_output_that_cannot_be_written_is_refused_before(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name)
