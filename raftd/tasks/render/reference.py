"""The reference picture: the same tiles with the same seeds, one after the other in this one process.

``python -m raftd.tasks.render --out FILE [--bundle ZIP] [options of a frame]`` writes the tiles of a whole frame, in
order, into one file, in the format that the tasks return. No cluster takes part, which is what makes it a reference.
Putting tiles together and writing an image is written once, in ``raftctl.render``: ``raftctl render --assemble FILE``
turns this file into a picture with the very code that a picture from a cluster goes through.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from raftd.errors import InvalidArguments, InvalidRequest, RaftdError
from raftd.tasks.render import bundle
from raftd.tasks.render.frame import FrameSpec, TileRequest, parse_frame_args
from raftd.tasks.render.tile import TileRenderer


def render_frame(frame: FrameSpec, bundle_file: Path | None = None) -> Iterator[bytes]:
    """Yields every tile of a frame, in order, rendered in this process.

    Args:
        frame: the frame.
        bundle_file: the scene bundle, where the frame's scene is one.

    Raises:
        InvalidRequest: the scene is refused, or is from the blob store and no file was given.
    """
    renderer = TileRenderer()
    with tempfile.TemporaryDirectory(prefix="raftd-reference-") as scratch:

        def unpack(digest: str) -> Path:
            if bundle_file is None or _sha256(bundle_file) != digest:
                raise InvalidRequest(f"the file of scene blob:{digest} is not at hand")
            return bundle.unpack(bundle_file, Path(scratch) / "scene")

        for tile in range(frame.tile_count):
            yield renderer.render(TileRequest(frame, tile), unpack)


def main(argv: Sequence[str]) -> int:
    """Runs the command line above; returns its exit code (2 for arguments, 1 for anything else that fails)."""
    try:
        out, bundle_file, rest = _own_options(argv)
        if bundle_file is not None:
            rest = [*rest, "--scene", f"blob:{_sha256(bundle_file)}"]
        frame = parse_frame_args(rest)
        with out.open("wb") as sink:
            for tile in render_frame(frame, bundle_file):
                sink.write(tile)
    except (RaftdError, OSError) as error:
        print(f"reference: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidRequest) else 1
    return 0


def _own_options(argv: Sequence[str]) -> tuple[Path, Path | None, list[str]]:
    found: dict[str, Path] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word in ("--out", "--bundle"):
            value = next(words, None)
            if value is None:
                raise InvalidArguments(f"{word} needs a file")
            found[word] = Path(value)
        else:
            rest.append(word)
    if "--out" not in found:
        raise InvalidArguments("--out FILE is needed: where the tiles go")
    return found["--out"], found.get("--bundle"), rest


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
