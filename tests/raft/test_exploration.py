"""Every history of three cores within a tiny bound keeps the paper's promises, and broken rules are found there."""

from collections.abc import Callable

import pytest

from raftd.raft import election
from raftd.raft.log import Log
from raftd.raft.messages import RequestVote
from raftd.raft.state import RaftState
from raftd.raft.types import InvariantViolation
from tests.raft.exploration import Bound, Exploration, Violation


def explored(bound: Bound) -> Exploration:
    exploration = Exploration(bound)
    exploration.run()
    return exploration


@pytest.mark.parametrize(
    "bound",
    [Bound(terms=1, proposals=0, losses=1, crashes=0), Bound(terms=1, proposals=0, losses=0, crashes=1)],
    ids=str,
)
def test_no_history_within_the_bound_breaks_a_promise(bound: Bound) -> None:
    exploration = explored(bound)
    assert exploration.left_open == 0
    assert len(exploration.seen) > 1_000


def test_the_first_histories_of_two_terms_break_none_either() -> None:
    exploration = explored(Bound(states=15_000))
    assert exploration.left_open
    assert exploration.depth > 5


def votes_twice(patch: pytest.MonkeyPatch) -> None:
    handle = election.handle_request_vote

    def handle_request_vote(state: RaftState, message: RequestVote) -> None:
        state.vote = 0
        handle(state, message)

    patch.setattr(election, "handle_request_vote", handle_request_vote)
    patch.setattr("raftd.raft.invariants._broken_in_role", lambda state: [])


def commits_with_half_the_voters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("raftd.raft.quorum.majority", lambda count: max(1, count // 2))


def votes_for_any_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: True)


def takes_appends_that_leave_a_gap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "matches", lambda self, index, term: True)


@pytest.mark.parametrize(
    "mutant",
    [votes_twice, commits_with_half_the_voters, votes_for_any_log, takes_appends_that_leave_a_gap],
    ids=lambda mutant: mutant.__name__,
)
def test_a_broken_rule_is_found(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises((Violation, InvariantViolation)):
        explored(Bound(proposals=1, losses=0, crashes=0, states=200_000))
