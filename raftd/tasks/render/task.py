"""The task kind ``render-tile``, as the registry of kinds sees it: ``check`` at submit, ``run`` in a slot.

Light to import; Mitsuba is loaded by the first tile that a slot renders, and the scene stays for the next one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from raftd.tasks.render import bundle
from raftd.tasks.render.frame import check, parse_args

if TYPE_CHECKING:
    from raftd.tasks.render.tile import TileRenderer

__all__ = ["Blobs", "RenderContext", "check", "run"]


class Blobs(Protocol):
    """The blob store, as far as a tile needs it."""

    def get(self, digest: str, /) -> Path:
        """Returns a local file with the bytes of this SHA-256 (64 hex digits)."""
        ...


class RenderContext(Protocol):
    """What a tile needs of the context that every task gets."""

    @property
    def blobs(self) -> Blobs:
        """The cluster's blobs."""
        ...

    @property
    def workdir(self) -> Path:
        """A private directory that goes when the attempt ends."""
        ...


def run(ctx: RenderContext, args: Sequence[str]) -> bytes:
    """Renders one tile; the result is the tile in the format of ``raftd.tasks.render.tile``.

    Raises:
        InvalidArguments: the arguments are wrong (the check at submit refuses them earlier).
        InvalidRequest: the scene bundle is refused.
    """
    request = parse_args(args)

    def unpack(digest: str) -> Path:
        return bundle.unpack(ctx.blobs.get(digest), ctx.workdir / "scene")

    return _renderer().render(request, unpack)


@functools.cache
def _renderer() -> TileRenderer:
    from raftd.tasks.render.tile import TileRenderer

    return TileRenderer()
