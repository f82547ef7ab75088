"""Partitions in words and as cuts, and what a node that is down is to be told when it is back.

Pure but for one small file per node: who is asked to cut what is decided here, the asking is the commands'. A cut is a
directed pair of node names; each node acts on the cuts that name it, so a cut holds as soon as one of the two knows it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

from raftctl.cluster.layout import ClusterDirectory, write_json
from raftctl.errors import UsageError

Pair = tuple[str, str]
"""(from, to): what the first node says to the second is dropped."""


@dataclass(frozen=True, slots=True)
class FaultChange:
    """A change of a node's cuts, in this order: all lifted if `heal`, then `remove` lifted, then `add` set."""

    add: frozenset[Pair] = frozenset()
    remove: frozenset[Pair] = frozenset()
    heal: bool = False

    def of_node(self, name: str) -> "FaultChange":
        """The part of it that concerns this node."""
        return FaultChange(_naming(self.add, name), _naming(self.remove, name), self.heal)

    def then(self, later: "FaultChange") -> "FaultChange":
        """The one change that does what this one and then `later` would."""
        if later.heal:
            return later
        return FaultChange((self.add - later.remove) | later.add, self.remove | later.remove, self.heal)

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.heal)


def partition(groups: Sequence[Sequence[str]], names: Sequence[str]) -> FaultChange:
    """Every group cut off from every other, both ways, in place of all cuts before; nodes in no group form one more.

    Raises UsageError when a node is in two groups, or when all nodes are in one.
    """
    placed = [name for group in groups for name in group]
    twice = sorted({name for name in placed if placed.count(name) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} cannot be on two sides", "raftctl partition n1,n2 n3,n4,n5")
    rest = [name for name in names if name not in placed]
    sides = [list(group) for group in (*groups, rest) if group]
    if len(sides) < 2:
        raise UsageError("that is one group of all nodes: nothing to cut", "raftctl partition n1,n2 n3,n4,n5")
    cuts = {pair for one, other in permutations(sides, 2) for pair in product(one, other)}
    return FaultChange(add=frozenset(cuts), heal=True)


def isolate(chosen: Sequence[str], names: Sequence[str]) -> FaultChange:
    """Each of these nodes cut off from all others, both ways, besides the cuts that there are."""
    return FaultChange(add=_all_naming(chosen, names))


def cut(sender: str, receiver: str) -> FaultChange:
    """One direction between two nodes. Raises UsageError when they are one."""
    if sender == receiver:
        raise UsageError(f"{sender} cannot be cut off from itself", "raftctl chaos cut n1 n2")
    return FaultChange(add=frozenset({(sender, receiver)}))


def heal(chosen: Sequence[str], names: Sequence[str]) -> FaultChange:
    """Every cut lifted that names one of these nodes; every cut at all when none is named."""
    return FaultChange(remove=_all_naming(chosen, names)) if chosen else FaultChange(heal=True)


def sides(cuts: Iterable[Pair], names: Sequence[str]) -> list[list[str]] | None:
    """The groups, if these cuts are exactly a partition of the nodes; None if they are something else."""
    found = set(cuts)
    left, groups = list(names), []
    while left:
        group = [left.pop(0)]
        for member in group:  # grows as it is walked
            near = [name for name in left if (member, name) not in found or (name, member) not in found]
            group += near
            left = [name for name in left if name not in near]
        groups.append(sorted(group, key=list(names).index))
    whole = {pair for one, other in permutations(groups, 2) for pair in product(one, other)}
    return groups if whole == found else None


def pending(directory: ClusterDirectory, node_name: str) -> FaultChange:
    """What this node has yet to be told; nothing, mostly."""
    try:
        found = json.loads(_pending_file(directory, node_name).read_text(encoding="utf-8"))
        return FaultChange(_pairs(found["add"]), _pairs(found["remove"]), bool(found["heal"]))
    except (OSError, ValueError, KeyError, TypeError):
        return FaultChange()


def remember(directory: ClusterDirectory, node_name: str, change: FaultChange) -> None:
    """Keeps a change for a node that cannot be told now, on top of what it has yet to be told already."""
    whole = pending(directory, node_name).then(change)
    found: Mapping[str, object] = {
        "add": sorted(whole.add),
        "remove": sorted(whole.remove),
        "heal": whole.heal,
    }
    write_json(_pending_file(directory, node_name), found)


def forget(directory: ClusterDirectory, node_name: str) -> None:
    """The node has been told."""
    _pending_file(directory, node_name).unlink(missing_ok=True)


def _pending_file(directory: ClusterDirectory, node_name: str) -> Path:
    return directory.node(node_name) / "faults-to-tell.json"


def _pairs(found: Iterable[Sequence[str]]) -> frozenset[Pair]:
    return frozenset((str(sender), str(receiver)) for sender, receiver in found)


def _naming(cuts: frozenset[Pair], name: str) -> frozenset[Pair]:
    return frozenset(pair for pair in cuts if name in pair)


def _all_naming(chosen: Sequence[str], names: Sequence[str]) -> frozenset[Pair]:
    return frozenset(pair for pair in permutations(names, 2) if not set(chosen).isdisjoint(pair))
