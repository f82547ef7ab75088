"""Every history of three cores within a tiny bound keeps the paper's promises."""

import pytest

from tests.raft.exploration import Bound, Exploration


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
