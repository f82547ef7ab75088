"""Changes of the membership between dataclass and bytes, and as the core knows them.

What may live here: the data of a CONF_CHANGE entry. One without data leaves the joint configuration; it is never
decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from raftd.codec.values import unknown
from raftd.pb import log_pb2 as pb
from raftd.raft.membership import ChangeKind, ConfChange, MemberChange
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind

FORMAT_VERSION = 1


def encode_conf_change(changes: Sequence[MembershipChange]) -> bytes:
    """The data of an entry: equal bytes for equal changes.

    Raises:
        ValueError: they are not what one entry can change, or hold a value that no entry can hold.
    """
    _check(changes)
    return pb.LogConfChange(
        format_version=FORMAT_VERSION,
        changes=[
            pb.LogMemberChange(
                kind=change.kind,
                store_id=change.store_id,
                name=change.name,
                address=change.address,
                promote=change.promote,
                replaces=change.replaces,
            )
            for change in changes
        ],
    ).SerializeToString(deterministic=True)


def decode_conf_change(data: bytes) -> tuple[MembershipChange, ...]:
    """What an entry changes.

    Raises:
        UnknownFormat: these are not such bytes, or of a version that this build does not know.
    """
    try:
        message = pb.LogConfChange.FromString(data)
        if message.format_version != FORMAT_VERSION:
            raise unknown(f"a change of the membership of format {message.format_version}")
        changes = tuple(
            MembershipChange(
                MembershipChangeKind(change.kind),
                change.store_id,
                change.name,
                change.address,
                change.promote,
                change.replaces,
            )
            for change in message.changes
        )
        _check(changes)
    except (DecodeError, ValueError):
        raise unknown("what is in a change of the membership") from None
    return changes


def to_core(changes: Sequence[MembershipChange]) -> ConfChange:
    """The same for consensus, which knows stores and no names.

    Raises:
        ValueError: one store is changed twice, or has no id.
    """
    return ConfChange(tuple(MemberChange(ChangeKind(change.kind), change.store_id) for change in changes))


def _check(changes: Sequence[MembershipChange]) -> None:
    """Without changes an entry would leave the joint configuration, whatever its data; the rest is the core's rule."""
    if not to_core(changes).changes:
        raise ValueError("a change of the membership without changes")
