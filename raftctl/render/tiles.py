"""Reads the tiles that ``render-tile`` returns, and puts the tiles of a frame together.

Only bytes are handled here; ``picture`` makes an image file of them. The format is defined and documented in
``raftd.tasks.render.tile`` (``raftctl`` imports nothing of ``raftd``; a test holds the two together): a header of 76
bytes (magic, version, frame size, tile count and number, rectangle, digest of the frame), then linear RGB as
little-endian float32, row by row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"RAFTTILE"
FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct("<8s9I32s")
PIXEL_BYTES: Final = 12


class TileError(ValueError):
    """The tiles are damaged, or do not make up one frame; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile as a task returned it.

    Attributes:
        frame_width, frame_height: size of the frame in pixels.
        tile_count: how many tiles the frame has.
        number: which of them this is, row by row from 0.
        x, y, width, height: its place in the frame, in pixels.
        frame_digest: equal for tiles of one picture.
        pixels: linear RGB, float32, row by row.
    """

    frame_width: int
    frame_height: int
    tile_count: int
    number: int
    x: int
    y: int
    width: int
    height: int
    frame_digest: bytes
    pixels: bytes


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole frame: linear RGB, little-endian float32, row by row from the top left."""

    width: int
    height: int
    pixels: bytes


def read_tile(data: bytes) -> Tile:
    """Reads one tile.

    Raises:
        TileError: the bytes are no tile of a version that this build knows, or are cut short.
    """
    tile, end = _read_at(data, 0)
    if end != len(data):
        raise TileError(f"tile {tile.number} is followed by {len(data) - end} bytes that do not belong to it")
    return tile


def read_tiles(data: bytes) -> Iterator[Tile]:
    """Reads tiles that stand one after the other, as in the reference file.

    Raises:
        TileError: as for ``read_tile``.
    """
    offset = 0
    while offset < len(data):
        tile, offset = _read_at(data, offset)
        yield tile


def assemble(tiles: Iterable[Tile]) -> Picture:
    """Puts the tiles of one frame together, in whatever order they come.

    Raises:
        TileError: there are none, they are of different frames, one is there twice, or some are missing.
    """
    rest = iter(tiles)
    first = next(rest, None)
    if first is None:
        raise TileError("there are no tiles")
    stride = first.frame_width * PIXEL_BYTES
    pixels = bytearray(stride * first.frame_height)
    placed: set[int] = set()
    area = 0
    for tile in (first, *rest):
        _check_belongs(tile, first, placed)
        placed.add(tile.number)
        area += tile.width * tile.height
        row_bytes = tile.width * PIXEL_BYTES
        for row in range(tile.height):
            start = (tile.y + row) * stride + tile.x * PIXEL_BYTES
            pixels[start : start + row_bytes] = tile.pixels[row * row_bytes : (row + 1) * row_bytes]
    missing = sorted(set(range(first.tile_count)) - placed)
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise TileError(f"{len(missing)} of {first.tile_count} tiles are missing: {shown}")
    if area != first.frame_width * first.frame_height:
        raise TileError(f"the tiles cover {area} of {first.frame_width * first.frame_height} pixels")
    return Picture(first.frame_width, first.frame_height, bytes(pixels))


def _read_at(data: bytes, offset: int) -> tuple[Tile, int]:
    if len(data) - offset < HEADER.size:
        raise TileError(
            f"a tile is cut short: {len(data) - offset} bytes, its header alone has {HEADER.size}"
        )
    magic, version, *place, digest = HEADER.unpack_from(data, offset)
    if magic != MAGIC:
        raise TileError("these bytes are no tile: they do not begin with RAFTTILE")
    if version != FORMAT_VERSION:
        raise TileError(f"the tile's format is version {version}, this build reads version {FORMAT_VERSION}")
    start = offset + HEADER.size
    frame_width, frame_height, tile_count, number, x, y, width, height = place
    end = start + width * height * PIXEL_BYTES
    if end > len(data):
        raise TileError(f"tile {number} is cut short: {len(data) - start} of {end - start} bytes of pixels")
    pixels = data[start:end]
    tile = Tile(frame_width, frame_height, tile_count, number, x, y, width, height, digest, pixels)
    _check_placement(tile)
    return tile, end


def _check_placement(tile: Tile) -> None:
    inside = tile.x + tile.width <= tile.frame_width and tile.y + tile.height <= tile.frame_height
    if not inside or tile.number >= tile.tile_count or not tile.width or not tile.height:
        raise TileError(f"tile {tile.number} of {tile.tile_count} lies outside its frame")


def _check_belongs(tile: Tile, first: Tile, placed: set[int]) -> None:
    shape = (tile.frame_width, tile.frame_height, tile.tile_count, tile.frame_digest)
    if shape != (first.frame_width, first.frame_height, first.tile_count, first.frame_digest):
        raise TileError(f"tiles {first.number} and {tile.number} are of different frames")
    if tile.number in placed:
        raise TileError(f"tile {tile.number} is there twice")
