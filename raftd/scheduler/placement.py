"""Which node a task goes to, of those that could run it now: the least busy, or the busiest (``Settings.placement``).

What may live here: the choice among nodes. How busy a node is is the share of its slots in use, so that a node of many
slots takes more; ties fall by name.

Tasks of one class (kind, labels required, slots) have the same candidates. Of a class without labels they come in the
order of how busy they are, and only as many are looked at as a plan needs; those with a label are few, and known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heappop, heappush, merge

from raftd.scheduler.indexes import TaskClass, load_of
from raftd.scheduler.model import Eligibility, Health, Node, Placement
from raftd.scheduler.state import State

Place = tuple[str, int, int, tuple[int, ...]]
"""Node, incarnation, slot and further slots, as an Occupy has them."""


@dataclass(frozen=True, slots=True)
class Held:
    """The slots of a node that are held back for a task that needs so many of them."""

    node: str
    task_id: int
    slots: int


class _Candidates:
    """The nodes that could run tasks of one class, as they will be once what is on its way is applied.

    ``untouched`` yields nodes by the load that is applied, the preferred ones first. Nodes that something is on its
    way to are not taken from there: they are looked at anew whenever a slot of them is taken.
    """

    __slots__ = ("_class", "_heap", "_ranking", "_seen", "_untouched", "_upcoming")

    def __init__(self, ranking: Ranking, wanted: TaskClass, untouched: Iterator[tuple[int, str]]) -> None:
        self._ranking = ranking
        self._class = wanted
        self._untouched = untouched
        self._upcoming = next(untouched, None)
        self._heap: list[tuple[int, str]] = []
        self._seen = 0

    def best(self) -> str | None:
        """The preferred node that has room for a task of this class, or None."""
        heap, ranking = self._heap, self._ranking
        while self._seen < len(ranking.touched):
            self._offer(ranking.touched[self._seen])
            self._seen += 1
        while True:
            while heap and not self._holds(*heap[0]):
                heappop(heap)
            upcoming = self._upcoming
            if upcoming is None or (heap and heap[0][0] <= upcoming[0]):
                return heap[0][1] if heap else None
            self._upcoming = next(self._untouched, None)
            if not ranking.is_touched(upcoming[1]):
                self._offer(upcoming[1])

    def _offer(self, name: str) -> None:
        if self._ranking.has_room(name, self._class):
            heappush(self._heap, (self._ranking.rank(name), name))

    def _holds(self, rank: int, name: str) -> bool:
        """Whether what was put into the heap is still so."""
        return self._ranking.has_room(name, self._class) and self._ranking.rank(name) == rank


class Ranking:
    """The free slots of one plan.

    Args:
        taken: slots by node name for which an Occupy is on its way.
        excluded: nodes that nothing is to be placed on.

    Attributes:
        excluded: as it was given.
        touched: nodes that something is on its way to, again for each slot that this plan takes.
        held: what is held back for a task of several slots (``hold``), or None.
    """

    def __init__(self, state: State, taken: Mapping[str, set[int]], excluded: AbstractSet[str]) -> None:
        self._state = state
        self.excluded = excluded
        self._taken = taken
        self._mine: dict[str, set[int]] = {}
        self._sign = -1 if state.settings.placement is Placement.BINPACK else 1
        self._candidates: dict[TaskClass, _Candidates] = {}
        self.touched: list[str] = list(taken)
        self.held: Held | None = None

    def offers(self, wanted: TaskClass) -> bool:
        """Whether some node has room for a task of this class now."""
        return self._best(wanted) is not None

    def take(self, wanted: TaskClass) -> Place | None:
        """Take the slots for a task of this class; None where there is no room for it."""
        name = self._best(wanted)
        if name is None:
            return None
        slots = self._free_slots(name)[: wanted[2]]
        self._mine.setdefault(name, set()).update(slots)
        self.touched.append(name)
        return name, self._state.nodes[name].incarnation, slots[0], tuple(slots[1:])

    def hold(self, wanted: TaskClass, task_id: int) -> None:
        """Hold back, until the end of the plan, the slots of the node that comes closest to having room for this task.

        Without it a task of several slots could wait for ever: each slot that becomes free would go to a task of one.
        What is held back only grows from plan to plan, for nothing but what goes before that task is placed there. One
        node is held back at a time, and none for a task that no node could ever run.
        """
        if self.held is not None:
            return
        fitting = [node for node in self._known(wanted) if self._fits(node, wanted)]
        if fitting:
            node = min(fitting, key=lambda node: (-len(self._free_slots(node.name)), node.name))
            self.held = Held(node.name, task_id, wanted[2])

    def is_touched(self, name: str) -> bool:
        """Whether something is on its way to this node."""
        return name in self._taken or name in self._mine

    def rank(self, name: str) -> int:
        """The node's place once everything on its way is applied: the lower, the rather it is taken."""
        slots = self._state.nodes[name].slots
        return self._sign * load_of(slots - len(self._free_slots(name)), slots)

    def has_room(self, name: str, wanted: TaskClass) -> bool:
        """Whether a task of this class can be placed on the node now."""
        node = self._state.nodes.get(name)
        return (
            node is not None
            and (self.held is None or name != self.held.node)
            and self._fits(node, wanted)
            and len(self._free_slots(name)) >= wanted[2]
        )

    def _best(self, wanted: TaskClass) -> str | None:
        if any(label not in self._state.indexes.labelled for label in wanted[1]):
            return None  # many classes may wait for labels that no node has: they must cost a plan next to nothing
        candidates = self._candidates.get(wanted)
        if candidates is None:
            candidates = self._candidates[wanted] = _Candidates(self, wanted, self._untouched(wanted))
        return candidates.best()

    def _untouched(self, wanted: TaskClass) -> Iterator[tuple[int, str]]:
        if wanted[1]:
            names = (node.name for node in self._known(wanted) if self.has_room(node.name, wanted))
            return iter(sorted((self.rank(name), name) for name in names))
        groups = [ranked for kinds, ranked in self._state.indexes.free.items() if wanted[0] in kinds]
        if self._sign > 0:
            return merge(*groups)
        return ((-load, name) for load, name in merge(*map(reversed, groups), reverse=True))

    def _known(self, wanted: TaskClass) -> Iterable[Node]:
        """The nodes among which all are that a task of this class could ever run on."""
        nodes, labelled = self._state.nodes, self._state.indexes.labelled
        if not wanted[1]:
            return nodes.values()
        return [nodes[name] for name in min((labelled.get(label, {}) for label in wanted[1]), key=len)]

    def _fits(self, node: Node, wanted: TaskClass) -> bool:
        kind, require, slots = wanted
        return (
            node.health is Health.UP
            and node.eligibility is Eligibility.READY
            and node.slots >= slots
            and node.name not in self.excluded
            and kind in node.kinds
            and all(node.name in self._state.indexes.labelled.get(label, ()) for label in require)
        )

    def _free_slots(self, name: str) -> list[int]:
        taken = self._taken.get(name, ())
        mine = self._mine.get(name, ())
        executing = self._state.nodes[name].executing
        return [
            slot
            for slot, task_id in enumerate(executing)
            if task_id is None and slot not in taken and slot not in mine
        ]
