"""One tile: how it is rendered, and the bytes that are its result.

The format, version 1; integers are unsigned, 32 bits, little-endian. ``raftctl.render.tiles`` reads it:

======  ====  ==========================================================================
offset  size  field
======  ====  ==========================================================================
0       8     ``RAFTTILE``
8       4     version of the format, 1
12      8     width and height of the frame, in pixels
20      8     number of tiles of the frame, and the number of this one
28      16    x, y, width and height of this tile in the frame, in pixels
44      32    digest of the frame: equal for tiles that belong to one picture
76      ...   width * height pixels, row by row: linear red, green, blue as float32
======  ====  ==========================================================================

Nothing else is in it, no time and no name of a node, so that equal requests have equal bytes. As each tile tells its
own length, a file of tiles is simply one after the other.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from raftd.tasks.render import bundle, renderer
from raftd.tasks.render.frame import FrameSpec, TileRequest

MAGIC: Final = b"RAFTTILE"
FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct("<8s9I32s")

SCENES_KEPT: Final = 2
"""A slot usually renders tiles of one frame, sometimes of two that are submitted together."""

UnpackBundle = Callable[[str], Path]
"""Given a bundle's SHA-256, unpacks it into a directory of the caller's and returns that directory."""


class TileRenderer:
    """Renders tiles and keeps the scenes of the last frames in memory. One for each process."""

    def __init__(self) -> None:
        self._scenes: OrderedDict[tuple[str, int, int, int], renderer.LoadedScene] = OrderedDict()

    def render(self, request: TileRequest, unpack: UnpackBundle) -> bytes:
        """Renders a tile.

        Args:
            request: which tile of which frame.
            unpack: called only for a scene from the blob store that is not in memory.

        Returns:
            The tile in the format above: the same bytes for the same request, whatever was rendered before.

        Raises:
            InvalidRequest: the user's scene is refused.
        """
        pixels = self._scene(request.frame, unpack).render(request.rect, request.frame.samples, request.seed)
        return encode(request, pixels)

    def _scene(self, frame: FrameSpec, unpack: UnpackBundle) -> renderer.LoadedScene:
        key = (frame.scene, frame.seed, frame.width, frame.height)
        if key not in self._scenes:
            self._scenes[key] = _load(frame, unpack)
        self._scenes.move_to_end(key)
        while len(self._scenes) > SCENES_KEPT:
            self._scenes.popitem(last=False)
        return self._scenes[key]


def encode(request: TileRequest, pixels: bytes) -> bytes:
    """Puts the header before the pixels of a tile."""
    frame, rect = request.frame, request.rect
    header = HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        frame.width,
        frame.height,
        frame.tile_count,
        request.tile,
        rect.x,
        rect.y,
        rect.width,
        rect.height,
        frame.digest(),
    )
    return header + pixels


def _load(frame: FrameSpec, unpack: UnpackBundle) -> renderer.LoadedScene:
    if frame.scene_digest is None:
        return renderer.load_spheres(frame)
    directory = unpack(frame.scene_digest)
    return renderer.load_xml(bundle.prepare(directory, frame.width, frame.height, renderer.BLOCK_SIZE_PIXELS))
