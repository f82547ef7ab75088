"""Partitions as cuts: what the words mean, and that what a node missed adds up to what it would have been told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.cluster import faults
from raftctl.cluster.faults import FaultChange, Pair
from raftctl.cluster.layout import ClusterDirectory
from raftctl.errors import UsageError

NAMES = ("n1", "n2", "n3", "n4", "n5")
pairs = st.frozensets(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda pair: pair[0] != pair[1])
)
changes = st.builds(FaultChange, pairs, pairs, st.booleans())


def applied(cuts: frozenset[Pair], change: FaultChange) -> frozenset[Pair]:
    """What a node does with a change."""
    return (frozenset() if change.heal else cuts - change.remove) | change.add


def test_a_partition_cuts_both_ways_between_groups_and_not_within() -> None:
    change = faults.partition([["n1", "n2"], ["n3", "n4", "n5"]], NAMES)
    assert change.heal
    assert len(change.add) == 2 * 2 * 3
    assert ("n1", "n3") in change.add
    assert ("n3", "n1") in change.add
    assert ("n1", "n2") not in change.add


def test_nodes_that_are_not_named_form_a_group_of_their_own() -> None:
    assert (
        faults.partition([["n1"], ["n2", "n3"]], NAMES).add
        == faults.partition([["n1"], ["n2", "n3"], ["n4", "n5"]], NAMES).add
    )
    assert faults.partition([["n1", "n2"]], NAMES) == faults.partition(
        [["n1", "n2"], ["n3", "n4", "n5"]], NAMES
    )


@pytest.mark.parametrize("groups", [[["n1"], ["n1", "n2"]], [list(NAMES)], []])
def test_what_is_no_partition_is_refused(groups: list[list[str]]) -> None:
    with pytest.raises(UsageError):
        faults.partition(groups, NAMES)


def test_isolation_adds_and_names_only_the_isolated() -> None:
    change = faults.isolate(["n2"], NAMES)
    assert not change.heal
    assert len(change.add) == 8
    assert all("n2" in pair for pair in change.add)


def test_a_cut_is_one_way() -> None:
    assert faults.cut("n1", "n2").add == {("n1", "n2")}
    with pytest.raises(UsageError):
        faults.cut("n1", "n1")


def test_healing_some_leaves_the_others_cut() -> None:
    cuts = faults.isolate(["n1", "n2"], NAMES).add
    left = applied(cuts, faults.heal(["n1"], NAMES))
    assert left == {pair for pair in cuts if "n1" not in pair}
    assert left
    assert applied(cuts, faults.heal([], NAMES)) == frozenset()


def test_a_node_is_told_only_of_cuts_that_name_it() -> None:
    change = faults.partition([["n1", "n2"]], NAMES).of_node("n1")
    assert change.heal
    assert {pair for pair in change.add if "n1" in pair} == change.add
    assert len(change.add) == 6


def test_cuts_are_shown_as_sides_only_if_they_are_sides() -> None:
    assert faults.sides(faults.partition([["n1", "n2"]], NAMES).add, NAMES) == [
        ["n1", "n2"],
        ["n3", "n4", "n5"],
    ]
    assert faults.sides(faults.isolate(["n3"], NAMES).add, NAMES) == [["n1", "n2", "n4", "n5"], ["n3"]]
    assert faults.sides([("n1", "n2")], NAMES) is None
    assert faults.sides([], NAMES) == [list(NAMES)]


@given(st.lists(st.sampled_from(range(3)), min_size=5, max_size=5).filter(lambda sides: len(set(sides)) > 1))
def test_sides_are_read_back_from_the_cuts_of_any_partition(where: list[int]) -> None:
    groups = [[name for name, side in zip(NAMES, where, strict=True) if side == one] for one in set(where)]
    found = faults.sides(faults.partition(groups, NAMES).add, NAMES)
    assert found is not None
    assert sorted(found) == sorted(groups)


@given(pairs, changes, changes)
def test_two_changes_in_one_do_what_they_did_apart(
    cuts: frozenset[Pair], first: FaultChange, second: FaultChange
) -> None:
    assert applied(cuts, first.then(second)) == applied(applied(cuts, first), second)


def test_what_a_node_missed_is_kept_until_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = ClusterDirectory("c")
    directory.node("n1").mkdir(parents=True)
    assert not faults.pending(directory, "n1")
    faults.remember(directory, "n1", faults.isolate(["n1"], NAMES))
    faults.remember(directory, "n1", faults.heal(["n2"], NAMES))
    expected = faults.isolate(["n1"], NAMES).then(faults.heal(["n2"], NAMES))
    assert faults.pending(directory, "n1") == expected
    faults.remember(directory, "n1", faults.heal([], NAMES))
    assert faults.pending(directory, "n1") == FaultChange(heal=True)
    faults.forget(directory, "n1")
    assert not faults.pending(directory, "n1")
