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


@given(st.lists(CHANGES, max_size=4).map(tuple))
def test_changes_come_back_as_they_were(changes: tuple[MembershipChange, ...]) -> None:
    data = encode_conf_change(changes)
    assert data, "without data it would leave the joint configuration"
    assert decode_conf_change(data) == changes


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
    ],
)
def test_what_this_build_does_not_know_halts(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        decode_conf_change(data)
