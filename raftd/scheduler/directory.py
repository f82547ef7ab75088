"""The directory of blobs: which nodes hold which bytes.

What may live here: the RecordBlob command, the check of references, and what becomes of the holders that go. The bytes
are elsewhere.
"""

from __future__ import annotations

import re

from raftd.scheduler.commands import RecordBlob
from raftd.scheduler.model import BlobRecord, BlobRef
from raftd.scheduler.replies import Recorded, Refused, Reply
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

MAX_BLOB_BYTES = 1 << 50

_DIGEST = re.compile(r"[0-9a-f]{64}")


def usable_digest(digest: str) -> bool:
    """Whether this is a SHA-256 as the store writes it: 64 lower-case hex digits."""
    return _DIGEST.fullmatch(digest) is not None


def usable_ref(ref: BlobRef) -> bool:
    """Whether this can refer to a blob at all."""
    return usable_digest(ref.digest) and 0 <= ref.size_bytes <= MAX_BLOB_BYTES


def record_blob(turn: Turn, command: RecordBlob) -> Reply:
    """Add holders to the directory's entry of a blob."""
    ref = command.ref
    if not usable_ref(ref):
        return Refused("invalid_request", f"{ref.digest[:80]!r} is no reference to a blob")
    known = turn.state.blob(ref.digest)
    if known is not None and known.ref != ref:
        return Refused(
            "invalid_request",
            f"blob {ref.digest[:12]} has {known.ref.size_bytes} bytes in the record, not {ref.size_bytes}",
        )
    return Recorded(ref.digest, record_holders(turn.state, ref, command.holders))


def record_holders(state: State, ref: BlobRef, holders: tuple[str, ...]) -> tuple[str, ...]:
    """Add those holders that are nodes of the cluster; returns all that the record then has, sorted."""
    known = state.blob(ref.digest)
    names = {*(known.holders if known else ()), *holders}
    members = {member.name for member in state.members}
    kept = tuple(sorted(name for name in names if name in state.nodes or name in members))
    if known is None or known.holders != kept:
        state.put_blob(BlobRecord(known.ref if known else ref, kept))
    return kept


def forget_holder(state: State, name: str) -> None:
    """A name belongs to nobody any more: who bears it next holds nothing that the one before did.

    It walks over the whole directory: names are freed by an operator, one at a time.
    """
    for key, record in [(key, record) for key, record in state.blobs.items() if name in record.holders]:
        kept = tuple([holder for holder in record.holders if holder != name])
        state.blobs.put(key, BlobRecord(record.ref, kept))
