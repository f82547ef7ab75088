"""Quorum arithmetic against an oracle that tries every quorum."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from raftd.raft.quorum import VoteResult, committed_index, has_quorum, majority, vote_result
from raftd.raft.types import Configuration

NODES = st.sets(st.integers(1, 9), min_size=1, max_size=7)
CONFIGURATIONS = st.builds(
    lambda voters, outgoing: Configuration(tuple(voters), outgoing=tuple(outgoing)),
    NODES,
    NODES | st.just(set[int]()),
)


def quorums(configuration: Configuration) -> list[set[int]]:
    """Every set of voters that holds more than half of each majority."""
    sides = [set(side) for side in (configuration.voters, configuration.outgoing) if side]
    everyone = configuration.all_voters()
    subsets = [set(c) for size in range(len(everyone) + 1) for c in combinations(everyone, size)]
    return [subset for subset in subsets if all(2 * len(subset & side) > len(side) for side in sides)]


@given(CONFIGURATIONS, st.data())
def test_committed_is_the_highest_index_that_all_of_some_quorum_have(
    configuration: Configuration, data: st.DataObject
) -> None:
    match = {
        node: data.draw(st.integers(0, 5), label=f"match of {node}") for node in configuration.all_voters()
    }
    expected = max(min(match[node] for node in quorum) for quorum in quorums(configuration))
    assert committed_index(configuration, match.__getitem__) == expected


@given(CONFIGURATIONS, st.data())
def test_an_election_is_won_or_lost_when_no_further_vote_can_change_it(
    configuration: Configuration, data: st.DataObject
) -> None:
    votes = {
        node: vote
        for node in range(1, 10)
        if (vote := data.draw(st.none() | st.booleans(), label=f"vote of {node}")) is not None
    }
    all_quorums = quorums(configuration)
    won = any(all(votes.get(node) is True for node in quorum) for quorum in all_quorums)
    lost = all(any(votes.get(node) is False for node in quorum) for quorum in all_quorums)
    expected = VoteResult.WON if won else VoteResult.LOST if lost else VoteResult.PENDING
    assert vote_result(configuration, votes) is expected
    granted = [node for node, vote in votes.items() if vote]
    assert has_quorum(configuration, granted) is won


@given(CONFIGURATIONS)
def test_two_quorums_always_meet(configuration: Configuration) -> None:
    everyone = set(configuration.all_voters())
    # A quorum that met another one not at all would leave it whole among the rest.
    assert not any(has_quorum(configuration, everyone - quorum) for quorum in quorums(configuration))


def test_nobody_decides_anything_without_voters() -> None:
    nobody = Configuration(())
    assert committed_index(nobody, lambda node: 9) == 0
    assert vote_result(nobody, {1: True}) is VoteResult.LOST
    assert [majority(count) for count in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]
