"""What names a blob, and what may not: digests, names, sizes, and the refusals for bad ones.

What may live here: pure checks of text and numbers, the errors of this package, and the framing constant.
``BlobRef`` itself is the scheduler's, for references travel in commands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from raftd.errors import BlobNotFound, InvalidArguments, InvalidRequest, PayloadTooLarge, Unavailable
from raftd.scheduler.model import BlobRef

__all__ = [
    "DEFAULT_MAX_BLOB_BYTES",
    "FRAME_BYTES",
    "BadBlobName",
    "BadDigest",
    "BlobCorrupt",
    "BlobRef",
    "ContentMismatch",
    "NotEnoughReplicas",
    "check_blob_name",
    "check_digest",
    "check_size",
    "frames_of",
    "ref_of",
]

FRAME_BYTES = 256 * 1024
"""Blobs travel and are hashed in pieces of at most this."""
DEFAULT_MAX_BLOB_BYTES = 4 * 1024**3
MAX_NAME_BYTES = 255

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadDigest(InvalidArguments):
    """Not a SHA-256 as this project writes it: 64 lower-case hex digits."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"{digest[:80]!r} is no blob digest", try_="give the SHA-256 as 64 lower-case hex digits"
        )


class BadBlobName(InvalidArguments):
    """Not a name that a blob may have."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name[:80]!r} is no name for a blob: {why}")


class ContentMismatch(InvalidRequest):
    """The bytes that came are not those that were announced: another digest or another length. Nothing was kept."""


class BlobCorrupt(BlobNotFound):
    """This node's copy is not what its name says. It was moved away and counts as missing."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"the copy of blob {digest[:12]} on this node was damaged and has been set aside")


class NotEnoughReplicas(Unavailable):
    """Too few nodes confirmed that they hold the bytes, fsynced. The copies that were made stay.

    Attributes:
        holders: the nodes that do hold them.
        failures: why each other node that was tried does not, by name.
    """

    def __init__(self, digest: str, needed: int, holders: tuple[str, ...], failures: dict[str, str]) -> None:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
        super().__init__(
            f"blob {digest[:12]} is on {len(holders)} of the {needed} nodes that must hold it"
            + (f" ({why})" if why else ""),
            try_="start or reconnect the missing nodes, or ask for fewer replicas",
        )
        self.holders = holders
        self.failures = failures


def check_digest(digest: str) -> str:
    """The digest itself. Raises ``BadDigest``; what passes is safe as a file name."""
    if _DIGEST.fullmatch(digest) is None:
        raise BadDigest(digest)
    return digest


def check_size(size_bytes: int, limit_bytes: int) -> int:
    """The size itself. Raises ``InvalidArguments`` below 0 and ``PayloadTooLarge`` over the limit."""
    if size_bytes < 0:
        raise InvalidArguments(f"a blob cannot have {size_bytes} bytes")
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(f"a blob of {size_bytes} bytes is over this node's limit of {limit_bytes}")
    return size_bytes


def check_blob_name(name: str) -> str:
    """The name itself: 1 to 255 bytes, parts joined by ``/``, none of them empty, ``.`` or ``..``, all printable.

    Raises ``BadBlobName``.
    """
    if not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES:
        raise BadBlobName(name, f"a name has 1 to {MAX_NAME_BYTES} bytes")
    if not name.isprintable():
        raise BadBlobName(name, "it holds characters that cannot be printed")
    if "\\" in name:
        raise BadBlobName(name, "parts are joined by /")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise BadBlobName(name, "no part may be empty, . or ..")
    return name


def ref_of(data: bytes) -> BlobRef:
    """What names these bytes."""
    return BlobRef(hashlib.sha256(data).hexdigest(), len(data))


def frames_of(data: bytes) -> Iterator[bytes]:
    """The bytes in frames; none at all for no bytes."""
    for start in range(0, len(data), FRAME_BYTES):
        yield data[start : start + FRAME_BYTES]
