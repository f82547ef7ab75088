"""The cheap checks of one core notice a state that cannot be."""

from collections.abc import Callable

import pytest

from raftd.raft import invariants
from raftd.raft.messages import AppendEntries
from raftd.raft.state import RaftState
from raftd.raft.types import InvariantViolation, Role
from tests.raft.cluster import Cluster


def set_to(name: str, value: object) -> Callable[[RaftState], None]:
    return lambda state: setattr(state, name, value)


BROKEN: dict[str, Callable[[RaftState], None]] = {
    "the disk's term is not ahead": set_to("term", 0),
    "leads exactly if it is its own leader": set_to("leader", 2),
    "a campaigning node has no leader": set_to("role", Role.CANDIDATE),
    "a durable vote is not taken back": set_to("vote", 3),
    "handed_out <= commit": lambda state: setattr(state.log, "commit", 1),
    "applied <= handed_out": lambda state: setattr(state.log, "applied", 9),
    "match < next": lambda state: setattr(state.tracker.progress[2], "next_index", 1),
    "match <= last_index": lambda state: setattr(state.tracker.progress[2], "match_index", 9),
    "only a leader tracks progress": set_to("role", Role.FOLLOWER),
    "nothing carries a term that is not durable": lambda state: state.messages.append(
        AppendEntries(1, 2, 9, 0, 0, (), 0)
    ),
}


@pytest.mark.parametrize(("claim", "breaks"), BROKEN.items(), ids=BROKEN.keys())
def test_a_broken_invariant_is_named(claim: str, breaks: Callable[[RaftState], None]) -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x")
    node = cluster[1].raw
    invariants.check(node)
    breaks(node.state)
    with pytest.raises(InvariantViolation, match=claim):
        invariants.check(node)


def test_every_transition_is_told() -> None:
    cluster = Cluster(1)
    told = []
    cluster[1].on_transition = lambda peer, transition: told.append((transition.event, transition.role))
    cluster.elect(1)
    assert told == [
        ("asks for pre-votes", Role.PRE_CANDIDATE),
        ("stands for election", Role.CANDIDATE),
        ("won the election", Role.LEADER),
    ]
