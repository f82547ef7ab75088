"""What a frame is, how it is cut into tiles, and how the arguments of ``render-tile`` are read.

Pure and light: this module runs at submit, inside the leader, for every ``render-tile`` that anyone sends. Only
arithmetic and text may live here; no Mitsuba, no files, no clock.

The arguments are those of a small command line::

    N [--width W] [--height H] [--samples S] [--tiles 8x8] [--seed K] [--scene spheres|blob:<sha256>]

Tiles are numbered row by row from 0. A frame that does not divide evenly is cut at ``column * width // tiles_x``,
so that tiles differ by at most one pixel in each direction and cover every pixel exactly once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raftd.errors import InvalidArguments

DEFAULT_WIDTH: Final = 400
DEFAULT_HEIGHT: Final = 225
DEFAULT_TILES: Final = 8
DEFAULT_SAMPLES: Final = 256
DEFAULT_SEED: Final = 1
SPHERES: Final = "spheres"

MAX_SIDE_PIXELS: Final = 16_384
MAX_SAMPLES: Final = 65_536
MAX_SEED: Final = 2**32 - 1
MAX_TILE_COUNT: Final = 65_536
MAX_TILE_PIXELS: Final = 2048 * 2048
"""A tile is one blob and sits in memory a few times over while it is made: 4 Mi pixels are 48 MiB."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_GRID = re.compile(r"([0-9]{1,6})[xX]([0-9]{1,6})")
_BLOB = re.compile(r"blob:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class TileRect:
    """A crop of the frame, in pixels; the origin is the top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """Everything that decides the pixels of a frame.

    Attributes:
        width, height: size in pixels.
        tiles_x, tiles_y: columns and rows of tiles; never more than there are pixels.
        samples: camera rays per pixel.
        seed: lays out the random field, and is part of the seed of every tile's noise.
        scene: ``spheres``, or ``blob:<sha256>`` of a scene bundle.

    Raises:
        InvalidArguments: a value is out of range; the message names it.
    """

    width: int = DEFAULT_WIDTH
    height: int = DEFAULT_HEIGHT
    tiles_x: int = DEFAULT_TILES
    tiles_y: int = DEFAULT_TILES
    samples: int = DEFAULT_SAMPLES
    seed: int = DEFAULT_SEED
    scene: str = SPHERES

    def __post_init__(self) -> None:
        _in_range("width", self.width, 1, MAX_SIDE_PIXELS, "pixels")
        _in_range("height", self.height, 1, MAX_SIDE_PIXELS, "pixels")
        _in_range("samples", self.samples, 1, MAX_SAMPLES, "rays a pixel")
        _in_range("seed", self.seed, 0, MAX_SEED, "")
        _check_grid(self)
        if self.scene != SPHERES and not _BLOB.fullmatch(self.scene):
            raise InvalidArguments(
                f"scene {_shown(self.scene)} is unknown",
                try_=f"use {SPHERES}, or blob: and the 64 lower-case hex digits of a scene bundle's SHA-256",
            )

    @property
    def tile_count(self) -> int:
        """How many tiles the frame has."""
        return self.tiles_x * self.tiles_y

    @property
    def scene_digest(self) -> str | None:
        """The SHA-256 of the scene bundle in the blob store; None for the built-in scene."""
        match = _BLOB.fullmatch(self.scene)
        return match.group(1) if match else None

    def tile_rect(self, index: int) -> TileRect:
        """The pixels of a tile.

        Raises:
            InvalidArguments: the tile is outside the frame.
        """
        if not 0 <= index < self.tile_count:
            raise InvalidArguments(
                f"tile {index} is outside the frame: {self.tiles_x}x{self.tiles_y} tiles are numbered 0 to "
                f"{self.tile_count - 1}"
            )
        row, column = divmod(index, self.tiles_x)
        left, right = (_cut(column + i, self.width, self.tiles_x) for i in (0, 1))
        top, bottom = (_cut(row + i, self.height, self.tiles_y) for i in (0, 1))
        return TileRect(left, top, right - left, bottom - top)

    def digest(self) -> bytes:
        """SHA-256 over every field: two tiles belong to one picture exactly when these are equal."""
        fields = (
            f"raftd-frame 1 {self.width}x{self.height} {self.tiles_x}x{self.tiles_y}"
            f" samples={self.samples} seed={self.seed} scene={self.scene}"
        )
        return hashlib.sha256(fields.encode()).digest()

    def tile_seed(self, index: int) -> int:
        """The renderer's 32-bit seed for a tile: a hash, so that neighbouring tiles share no noise."""
        material = self.digest() + index.to_bytes(4, "big")
        return int.from_bytes(hashlib.sha256(material).digest()[:4], "big")


@dataclass(frozen=True, slots=True)
class TileRequest:
    """One tile of one frame.

    Raises:
        InvalidArguments: the tile is outside the frame.
    """

    frame: FrameSpec
    tile: int

    def __post_init__(self) -> None:
        self.frame.tile_rect(self.tile)

    @property
    def rect(self) -> TileRect:
        """The pixels of this tile."""
        return self.frame.tile_rect(self.tile)

    @property
    def seed(self) -> int:
        """The renderer's seed for this tile."""
        return self.frame.tile_seed(self.tile)


def parse_args(args: Sequence[str]) -> TileRequest:
    """Reads the arguments of ``render-tile``.

    Raises:
        InvalidArguments: one of them is missing, unknown, given twice, malformed or out of range.
    """
    options, positional = _split(args)
    if not positional:
        raise InvalidArguments("render-tile needs the number of a tile", try_="raftctl submit render-tile 42")
    if len(positional) > 1:
        raise InvalidArguments(f"render-tile takes one tile number, got {' '.join(map(_shown, positional))}")
    tile = _integer("tile", positional[0])
    return TileRequest(_frame(options), tile)


def parse_frame_args(args: Sequence[str]) -> FrameSpec:
    """Reads the options of a whole frame: the same as ``parse_args``, without a tile number.

    Raises:
        InvalidArguments: as for ``parse_args``.
    """
    options, positional = _split(args)
    if positional:
        raise InvalidArguments(f"a frame takes options only, got {_shown(positional[0])}")
    return _frame(options)


def check(args: Sequence[str]) -> None:
    """The kind's own check, made at submit.

    Raises:
        InvalidArguments: these arguments can never render a tile.
    """
    parse_args(args)


_OPTIONS: Final = ("width", "height", "samples", "tiles", "seed", "scene")


def _split(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    positional: list[str] = []
    rest = iter(args)
    for arg in rest:
        if not arg.startswith("--"):
            positional.append(arg)
            continue
        name, equals, value = arg[2:].partition("=")
        if name not in _OPTIONS:
            known = " ".join(f"--{option}" for option in _OPTIONS)
            raise InvalidArguments(f"render-tile has no option {_shown(arg)}", try_=f"it has {known}")
        if name in options:
            raise InvalidArguments(f"--{name} is given twice")
        if not equals:
            following = next(rest, None)
            if following is None:
                raise InvalidArguments(f"--{name} needs a value")
            value = following
        options[name] = value
    return options, positional


def _frame(options: dict[str, str]) -> FrameSpec:
    tiles_x, tiles_y = _grid(options["tiles"]) if "tiles" in options else (DEFAULT_TILES, DEFAULT_TILES)
    return FrameSpec(
        width=_integer("width", options.get("width", str(DEFAULT_WIDTH))),
        height=_integer("height", options.get("height", str(DEFAULT_HEIGHT))),
        tiles_x=tiles_x,
        tiles_y=tiles_y,
        samples=_integer("samples", options.get("samples", str(DEFAULT_SAMPLES))),
        seed=_integer("seed", options.get("seed", str(DEFAULT_SEED))),
        scene=options.get("scene", SPHERES),
    )


def _grid(text: str) -> tuple[int, int]:
    match = _GRID.fullmatch(text)
    if match is None:
        raise InvalidArguments(f"tiles {_shown(text)} is not of the form COLUMNSxROWS", try_="--tiles 8x8")
    return int(match.group(1)), int(match.group(2))


def _check_grid(frame: FrameSpec) -> None:
    grid = f"tiles {frame.tiles_x}x{frame.tiles_y}"
    if frame.tiles_x < 1 or frame.tiles_y < 1:
        raise InvalidArguments(f"{grid}: there must be at least 1x1")
    if frame.tiles_x > frame.width or frame.tiles_y > frame.height:
        raise InvalidArguments(f"{grid} are more than the pixels of {frame.width}x{frame.height}")
    if frame.tile_count > MAX_TILE_COUNT:
        raise InvalidArguments(f"{grid} are {frame.tile_count}, the limit is {MAX_TILE_COUNT}")
    # The largest tile: a side that does not divide evenly rounds up somewhere.
    largest = -(-frame.width // frame.tiles_x) * -(-frame.height // frame.tiles_y)
    if largest > MAX_TILE_PIXELS:
        raise InvalidArguments(
            f"{grid} of {frame.width}x{frame.height} are up to {largest} pixels each, the limit is {MAX_TILE_PIXELS}",
            try_="cut the frame into more tiles",
        )


def _cut(position: int, pixels: int, tiles: int) -> int:
    return position * pixels // tiles


def _integer(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise InvalidArguments(f"{name} {_shown(text)} is not a whole number")
    return int(text)


def _in_range(name: str, value: int, low: int, high: int, unit: str) -> None:
    if not low <= value <= high:
        raise InvalidArguments(f"{name} {value} is out of range: {low} to {high} {unit}".rstrip())


def _shown(text: str) -> str:
    """The offending text, quoted and short enough for one line of an error."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
