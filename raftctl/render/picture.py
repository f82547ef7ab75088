"""Writes a picture to a file: PNG for looking at, OpenEXR for working with.

The renderer's own image code does it, imported only here and only when a picture is written. PNG is 8 bits a channel
in sRGB, clipped at white; EXR keeps the linear float32 values as they are. Equal pixels give equal files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from raftctl.render.tiles import PIXEL_BYTES, Picture, TileError, assemble, read_tiles

SUFFIXES: Final = (".png", ".exr")


def check_output(path: Path) -> None:
    """Checks a path before hours are spent on what should go there.

    Raises:
        ValueError: its suffix names no format that can be written, or its directory does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: the picture's format is not known by its suffix, use .png or .exr")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such directory")


def write_picture(picture: Picture, path: Path) -> None:
    """Writes a PNG or an EXR, by the suffix of the path; an older file is replaced as a whole or not at all.

    Raises:
        ValueError: as ``check_output``.
        OSError: the file cannot be written.
    """
    check_output(path)
    data = encode_png(picture) if path.suffix.lower() == ".png" else encode_exr(picture)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def assemble_file(tiles: Path, path: Path) -> None:
    """Makes a picture of a file of tiles, such as the reference.

    Raises:
        TileError: the file holds anything but the tiles of one frame.
        ValueError: as ``check_output``.
        OSError: a file cannot be read or written.
    """
    check_output(path)
    write_picture(assemble(read_tiles(tiles.read_bytes())), path)


def encode_png(picture: Picture) -> bytes:
    """The picture as PNG: sRGB, 8 bits a channel."""
    mi = _mitsuba()
    pixels = _bitmap(picture).convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.UInt8, srgb_gamma=True)
    return _encode(pixels, mi.Bitmap.FileFormat.PNG)


def encode_exr(picture: Picture) -> bytes:
    """The picture as OpenEXR: linear RGB, float32."""
    return _encode(_bitmap(picture), _mitsuba().Bitmap.FileFormat.OpenEXR)


def _bitmap(picture: Picture) -> Any:
    mi = _mitsuba()
    stride = picture.width * PIXEL_BYTES
    if len(picture.pixels) != stride * picture.height:
        raise TileError(
            f"a picture of {picture.width}x{picture.height} does not have {len(picture.pixels)} bytes"
        )
    rows = [picture.pixels[start : start + stride] for start in range(0, len(picture.pixels), stride)]
    # PFM: one line of text, then float32 rows from the bottom up.
    stream = mi.MemoryStream()
    stream.write(f"PF\n{picture.width} {picture.height}\n-1.0\n".encode() + b"".join(reversed(rows)))
    stream.seek(0)
    return mi.Bitmap(stream, mi.Bitmap.FileFormat.PFM)


def _encode(bitmap: Any, file_format: Any) -> bytes:
    stream = _mitsuba().MemoryStream()
    bitmap.write(stream, file_format)
    return bytes(stream.raw_buffer())


def _mitsuba() -> Any:
    import mitsuba

    if mitsuba.variant() is None:
        mitsuba.set_variant("scalar_rgb")
    return mitsuba
