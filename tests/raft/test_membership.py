"""What a change makes of a configuration, against a model that is too simple to be wrong."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from raftd.raft.membership import (
    LEAVE_JOINT,
    ChangeKind,
    ConfChange,
    InvalidConfChange,
    MemberChange,
    next_configuration,
)
from raftd.raft.types import Configuration
from tests.raft.changes import change_of, decode_change, encode_change
from tests.raft.test_quorum import quorums

NODE = st.integers(1, 6)
CONFIGURATIONS = st.builds(
    lambda voters, learners: Configuration(tuple(voters), tuple(set(learners) - set(voters))),
    st.sets(NODE, min_size=1, max_size=5),
    st.sets(NODE, max_size=3),
)
CHANGES = st.dictionaries(NODE, st.sampled_from(ChangeKind), min_size=1, max_size=4).map(
    lambda changes: ConfChange(tuple(MemberChange(kind, node) for node, kind in changes.items()))
)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (Configuration((1, 2, 3)), ("+4",), Configuration((1, 2, 3, 4))),
        (Configuration((1, 2, 3)), ("~4",), Configuration((1, 2, 3), (4,))),
        (Configuration((1, 2, 3), (4,)), ("+4",), Configuration((1, 2, 3, 4))),
        (Configuration((1, 2, 3)), ("-3",), Configuration((1, 2))),
        (Configuration((1, 2, 3)), ("~3",), Configuration((1, 2), (3,))),
        (Configuration((1, 2, 3), (4, 5)), ("-4", "-5"), Configuration((1, 2, 3))),
        (
            Configuration((1, 2, 3)),
            ("+4", "+5", "-2", "-3"),
            Configuration((1, 4, 5), outgoing=(1, 2, 3)),
        ),
        (Configuration((1, 2)), ("+3", "~2"), Configuration((1, 3), (2,), (1, 2))),
        (Configuration((1,)), ("+2", "~3"), Configuration((1, 2), (3,))),
    ],
)
def test_one_voter_more_or_less_is_one_step_and_more_are_joint(
    before: Configuration, changes: tuple[str, ...], after: Configuration
) -> None:
    assert next_configuration(before, change_of(*changes)) == after


@pytest.mark.parametrize(
    ("before", "changes", "why"),
    [
        (Configuration((1, 2, 3)), ("-4",), "not a member"),
        (Configuration((1, 2, 3)), ("+3",), "changes nothing"),
        (Configuration((1,)), ("-1",), "nobody would be left"),
        (Configuration((1,), (2,)), ("~1",), "nobody would be left"),
        (Configuration((1, 4), outgoing=(1, 2)), ("+5",), "is joint"),
        (Configuration((1, 2, 3)), (), "not joint"),
    ],
)
def test_a_change_without_sense_is_refused(before: Configuration, changes: tuple[str, ...], why: str) -> None:
    with pytest.raises(InvalidConfChange, match=why):
        next_configuration(before, change_of(*changes))


def test_a_change_names_nodes_and_each_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        change_of("+4", "-4")
    with pytest.raises(ValueError, match="positive"):
        change_of("+0")


@given(CONFIGURATIONS, CHANGES)
def test_a_change_leads_where_it_says_and_every_step_has_a_quorum_in_common_with_the_next(
    before: Configuration, change: ConfChange
) -> None:
    try:
        after = next_configuration(before, change)
    except InvalidConfChange:
        assume(False)
        raise
    final = next_configuration(after, LEAVE_JOINT) if after.outgoing else after
    voters, learners = set(before.voters), set(before.learners)
    for each in change.changes:
        voters.discard(each.node)
        learners.discard(each.node)
        if each.kind is not ChangeKind.REMOVE:
            (voters if each.kind is ChangeKind.ADD_VOTER else learners).add(each.node)
    assert (set(final.voters), set(final.learners), final.outgoing) == (voters, learners, ())
    for one, other in ((before, after), (after, final)):
        assert all(a & b for a in quorums(one) for b in quorums(other)), f"{one} and {other} are apart"
    assert decode_change(encode_change(change)) == change
