"""Which node a task goes to: of those that offer its kind and have a free slot, the least busy one.

What may live here: the choice among nodes. "Least busy" is the share of slots in use, so that work spreads over the
cluster and a node of many slots takes more of it; ties fall by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from raftd.scheduler.indexes import load_of
from raftd.scheduler.state import State


class _Group:
    """Nodes that offer the same kinds, as they will be once what is on its way is applied.

    ``_ranked`` yields them by the load that is applied; their load to come is never lower, so a node can be left in
    it until a lower place than the best one pulled so far would be possible.
    """

    __slots__ = ("_heap", "_ranked", "_ranking", "_upcoming")

    def __init__(self, ranking: Ranking, ranked: Iterator[tuple[int, str]]) -> None:
        self._ranking = ranking
        self._ranked = ranked
        self._upcoming = next(ranked, None)
        self._heap: list[tuple[int, str]] = []

    def best(self) -> tuple[int, str] | None:
        """Load and name of the least busy node that still has a slot, or None."""
        heap = self._heap
        while self._upcoming is not None and (not heap or self._upcoming < heap[0]):
            name = self._upcoming[1]
            load = self._ranking.load_to_come(name)
            if load is not None:
                heappush(heap, (load, name))
            self._upcoming = next(self._ranked, None)
        return heap[0] if heap else None

    def took_best(self) -> None:
        """The best node has one slot less."""
        name = heappop(self._heap)[1]
        load = self._ranking.load_to_come(name)
        if load is not None:
            heappush(self._heap, (load, name))


class Ranking:
    """The free slots of one plan.

    Args:
        taken: slots by node name for which an Occupy is on its way.
        excluded: nodes that nothing is to be placed on.
    """

    def __init__(self, state: State, taken: Mapping[str, set[int]], excluded: set[str]) -> None:
        self._state = state
        self.excluded = excluded
        self._taken = taken
        self._mine: dict[str, set[int]] = {}
        self._groups = {kinds: _Group(self, iter(ranked)) for kinds, ranked in state.indexes.free.items()}
        self._by_kind: dict[str, list[_Group]] = {}
        for kinds, group in self._groups.items():
            for kind in kinds:
                self._by_kind.setdefault(kind, []).append(group)

    def offers(self, kind: str) -> bool:
        """Whether some node with a free slot offers this kind."""
        return any(group.best() is not None for group in self._by_kind.get(kind, ()))

    def take(self, kind: str) -> tuple[str, int, int] | None:
        """Take a slot for a task of this kind: node name, incarnation and slot; None where there is none."""
        candidates = [
            (best, group) for group in self._by_kind.get(kind, ()) if (best := group.best()) is not None
        ]
        if not candidates:
            return None
        (_, name), group = min(candidates, key=lambda candidate: candidate[0])
        node = self._state.nodes[name]
        slot = self._free_slots(name)[0]
        self._mine.setdefault(name, set()).add(slot)
        group.took_best()
        return name, node.incarnation, slot

    def load_to_come(self, name: str) -> int | None:
        """The node's load once everything on its way is applied; None where it has no slot left."""
        if name in self.excluded:
            return None
        free = len(self._free_slots(name))
        slots = self._state.nodes[name].slots
        return load_of(slots - free, slots) if free else None

    def _free_slots(self, name: str) -> list[int]:
        taken = self._taken.get(name, ())
        mine = self._mine.get(name, ())
        executing = self._state.nodes[name].executing
        return [
            slot
            for slot, task_id in enumerate(executing)
            if task_id is None and slot not in taken and slot not in mine
        ]
