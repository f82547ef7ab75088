"""Changes of the membership in bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.codec.conf_change import decode_conf_change, encode_conf_change, to_core
from raftd.errors import UnknownFormat
from raftd.pb import log_pb2 as pb
from raftd.raft.membership import ChangeKind, MemberChange
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind

CHANGES = st.builds(
    MembershipChange,
    st.sampled_from(MembershipChangeKind),
    st.integers(1, (1 << 64) - 1),
    st.text(max_size=70),
    st.text(max_size=70),
    st.booleans(),
    st.integers(0, (1 << 64) - 1),
)


@given(st.lists(CHANGES, min_size=1, max_size=4, unique_by=lambda change: change.store_id).map(tuple))
def test_changes_come_back_as_they_were(changes: tuple[MembershipChange, ...]) -> None:
    data = encode_conf_change(changes)
    assert data, "without data it would leave the joint configuration"
    assert decode_conf_change(data) == changes


@given(st.binary(max_size=80))
def test_bytes_that_are_no_changes_are_told(data: bytes) -> None:
    try:
        changes = decode_conf_change(data)
    except UnknownFormat:
        return
    assert decode_conf_change(encode_conf_change(changes)) == changes
    assert to_core(changes).changes


def removal(store_id: int) -> MembershipChange:
    return MembershipChange(MembershipChangeKind.REMOVE, store_id)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ((), "without changes"),
        ((removal(0),), "must be positive"),
        ((removal(1 << 64),), "out of range"),
        ((removal(2), removal(2)), "twice"),
    ],
)
def test_what_no_entry_can_change_is_not_written(changes: tuple[MembershipChange, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        encode_conf_change(changes)


def test_the_core_hears_of_stores_only() -> None:
    changes = (
        MembershipChange(MembershipChangeKind.ADD_VOTER, 6),
        MembershipChange(MembershipChangeKind.REMOVE, 2),
    )
    assert to_core(changes).changes == (
        MemberChange(ChangeKind.ADD_VOTER, 6),
        MemberChange(ChangeKind.REMOVE, 2),
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        b"",
        pb.LogConfChange(format_version=2).SerializeToString(),
        pb.LogConfChange(
            format_version=1, changes=[pb.LogMemberChange(kind=9, store_id=1)]
        ).SerializeToString(),
        pb.LogConfChange(format_version=1).SerializeToString(),
        pb.LogConfChange(format_version=1, changes=[pb.LogMemberChange(kind=3)]).SerializeToString(),
        pb.LogConfChange(
            format_version=1, changes=[pb.LogMemberChange(kind=kind, store_id=1) for kind in (1, 3)]
        ).SerializeToString(),
    ],
)
def test_what_this_build_does_not_know_halts(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        decode_conf_change(data)
