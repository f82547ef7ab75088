"""Behind which slots short tasks may wait for their turn, and when they are better off elsewhere.

What may live here: a leader's knowledge of how long tasks of a kind take, and the choice of a line; policy, like all of
the planner: nothing of it is in the log.

A reservation saves the two rounds between the end of one task and the start of the next; it costs a task its freedom
to run wherever a slot is free first. So it is made only where the wait is sure to be short: behind tasks of kinds that
have been short so far. Where that was wrong, or another slot has become idle, it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from raftd.scheduler.commands import MarkStopping
from raftd.scheduler.effects import Assigned, Effect, NodeChanged, SlotFreed, StopRequested, TaskChanged
from raftd.scheduler.indexes import TaskClass, class_of
from raftd.scheduler.model import AttemptOutcome, Eligibility, Health, Node, StopReason, Task
from raftd.scheduler.ordered import OrderedKeys
from raftd.scheduler.slots import line_of
from raftd.scheduler.state import State

MAX_WAIT_US = 50_000
"""So long a task may be expected to wait for its turn."""

OVERDUE_MS = 250
"""A head that has run for longer was not as short as it was taken for."""

WORTHWHILE_US = 10_000
"""A shorter wait is over before the task could have started on a slot that is idle."""

HANDOVER_US = 300
"""Added to every run: between two tasks of one slot."""

_MEASURED = (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT)

Kinds = tuple[str, ...]
"""That a node offers."""

Place = tuple[int, str, int]
"""The expected wait in us, the node and the slot."""


class RunTimes:
    """How long tasks of each kind have taken lately, as this leader has seen it."""

    def __init__(self) -> None:
        self._us: dict[str, int] = {}

    def observe(self, task: Task) -> None:
        """The latest attempt of the task has ended."""
        attempt = task.attempts[-1]
        if attempt.outcome not in _MEASURED or not 0 < attempt.started_at_ms <= attempt.ended_at_ms:
            return
        run_us = 1_000 * (attempt.ended_at_ms - attempt.started_at_ms)
        known_us = self._us.get(task.spec.kind, run_us)
        # Upwards fast, downwards slowly: one long wait does more harm than several reservations do good.
        weight = 2 if run_us > known_us else 8
        self._us[task.spec.kind] = known_us + (run_us - known_us) // weight

    def short_us(self, kind: str) -> int | None:
        """What a task of this kind adds to the wait of those behind it; None where nothing should wait for that."""
        run_us = self._us.get(kind)
        return None if run_us is None or run_us > MAX_WAIT_US else run_us + HANDOVER_US

    def clear(self) -> None:
        """Forget everything."""
        self._us.clear()


class Lines:
    """The slots behind which a task may wait, the shortest wait first.

    It is kept from plan to plan, and only nodes of which something has changed are looked at again; so it costs as
    much as what happens, and not as what there is.

    Attributes:
        run_times: of the kinds.
    """

    def __init__(self) -> None:
        self.run_times = RunTimes()
        self._touched: dict[str, None] = {}
        self._lengths: dict[tuple[str, int], int] = {}
        self._places: dict[str, tuple[Kinds, list[Place]]] = {}
        self._ranked: dict[Kinds, OrderedKeys[Place]] = {}
        # Of the plan that is being made.
        self._excluded: AbstractSet[str] = frozenset()
        self._closed: set[str] = set()
        self._closed_kinds: set[Kinds] = set()

    def begin(self, names: Iterable[str]) -> None:
        """A leader begins with these nodes, and knows nothing of any kind."""
        self.run_times.clear()
        self._touched = dict.fromkeys(names)
        self._lengths.clear()
        self._places.clear()
        self._ranked.clear()

    def touch(self, name: str) -> None:
        """Something of this node has changed."""
        self._touched[name] = None

    def learn(self, effects: Iterable[Effect]) -> None:
        """This has happened."""
        for effect in effects:
            match effect:
                case Assigned() | SlotFreed() | StopRequested():
                    self._touched[effect.node] = None
                case NodeChanged():
                    self._touched[effect.node.name] = None
                case TaskChanged() if effect.task.attempts:
                    if effect.task.attempts[-1].outcome is not None:
                        self.run_times.observe(effect.task)
                case _:
                    pass

    def begin_plan(
        self,
        state: State,
        coming: Mapping[tuple[str, int], list[int]],
        stopping: AbstractSet[int],
        excluded: AbstractSet[str],
        now_ms: int,
    ) -> None:
        """A plan is being made: look again at what has changed.

        Args:
            coming: tasks that are on their way to the line of a slot.
            stopping: tasks that are on their way to be stopped.
            excluded: nodes that nothing is placed on.
        """
        self._state, self._now_ms = state, now_ms
        self._excluded = excluded
        self._closed.clear()
        self._closed_kinds.clear()
        touched, self._touched = self._touched, {}
        for name in touched:
            self._drop(name)
            node = state.nodes.get(name)
            if node is None or node.health is not Health.UP or node.eligibility is not Eligibility.READY:
                continue
            places: list[Place] = []
            for slot, head_id in enumerate(node.executing):
                if head_id is None or head_id in stopping:
                    continue
                more = coming.get((name, slot), ())
                wait_us = self._wait_us(state, node, slot, more)
                length = len(line_of(node, slot)) + len(more)
                if wait_us is not None and length < state.settings.reserve_depth:
                    self._lengths[name, slot] = length
                    places.append((wait_us, name, slot))
            if places:
                self._add(node, places)

    def _wait_us(self, state: State, node: Node, slot: int, more: Iterable[int]) -> int | None:
        """How long one more would wait there; None where nobody should."""
        head = state.tasks[node.executing[slot] or 0]
        attempt = head.attempts[-1]
        if attempt.stopping is not None or attempt.extra_slots:
            return None
        wait_us = 0
        for task_id in (head.id, *line_of(node, slot), *more):
            task = state.tasks.get(task_id)
            run_us = None if task is None else self.run_times.short_us(task.spec.kind)
            if run_us is None:
                return None
            wait_us += run_us
        return wait_us if wait_us <= MAX_WAIT_US else None

    def _drop(self, name: str) -> None:
        kinds, places = self._places.pop(name, ((), []))
        # Where its lines are full it has no place, and the group may have gone with the last place of another node.
        ranked = self._ranked.get(kinds)
        if ranked is None:
            return
        for place in places:
            ranked.remove(place)
            del self._lengths[name, place[2]]
        if not ranked:
            del self._ranked[kinds]

    def serves(self, wanted: TaskClass) -> bool:
        """Whether tasks of this class have a say in who waits: there is a line where one could run."""
        return any(kinds not in self._closed_kinds for kinds in self._offering(wanted))

    def close(self, name: str) -> None:
        """Nobody more waits on this node, in this plan."""
        self._closed.add(name)

    def placed(self, name: str, slot: int, wanted: TaskClass) -> None:
        """The plan has put a task of this class on a free slot: others may follow it in the same entry."""
        state = self._state
        run_us = self.run_times.short_us(wanted[0])
        if run_us is not None and state.settings.reserve_depth:
            self._add(state.nodes[name], [(run_us, name, slot)])
            self._lengths[name, slot] = 0
            self._touched[name] = None

    def take(self, task: Task) -> tuple[str, int, int] | None:
        """A place in a line for this task: node name, incarnation and slot.

        Where it should not wait in any, nobody who comes after it does so either where it could run: it would never
        find a slot free.
        """
        wanted = class_of(task.spec)
        run_us = self.run_times.short_us(task.spec.kind)
        if run_us is None or not _may_wait(task):
            if task.spec.require:
                self._closed.update(name for name in self._state.nodes if self._labelled(name, wanted))
            else:
                self._closed_kinds.update(self._offering(wanted))
            return None
        firsts = [(place, kinds) for kinds in self._offering(wanted) if (place := self._first(kinds, wanted))]
        if not firsts:
            return None
        place, kinds = min(firsts)
        wait_us, name, slot = place
        node = self._state.nodes[name]
        self._places[name][1].remove(place)
        self._ranked[kinds].remove(place)
        length = self._lengths.pop((name, slot)) + 1
        if wait_us + run_us <= MAX_WAIT_US and length < self._state.settings.reserve_depth:
            self._add(node, [(wait_us + run_us, name, slot)])
            self._lengths[name, slot] = length
        # To be looked at again: this is not proposed yet.
        self._touched[name] = None
        return name, node.incarnation, slot

    def _add(self, node: Node, places: list[Place]) -> None:
        self._places.setdefault(node.name, (node.kinds, []))[1].extend(places)
        ranked = self._ranked.setdefault(node.kinds, OrderedKeys())
        for place in places:
            ranked.add(place)

    def _offering(self, wanted: TaskClass) -> list[Kinds]:
        return [kinds for kinds in self._ranked if wanted[0] in kinds]

    def _first(self, kinds: Kinds, wanted: TaskClass) -> Place | None:
        if kinds in self._closed_kinds:
            return None
        for place in self._ranked[kinds]:
            _, name, slot = place
            if (
                name not in self._excluded
                and name not in self._closed
                and self._labelled(name, wanted)
                and not _overdue(self._state, self._state.nodes[name], slot, self._now_ms)
            ):
                return place
        return None

    def _labelled(self, name: str, wanted: TaskClass) -> bool:
        labelled = self._state.indexes.labelled
        return all(name in labelled.get(label, ()) for label in wanted[1])


def _may_wait(task: Task) -> bool:
    """A task that has been tried stays out of lines, where the loss of a node would cost it nothing: a task that
    takes down its node must come to its limit."""
    return task.spec.slots == 1 and (
        all(attempt.outcome is AttemptOutcome.WITHDRAWN for attempt in task.attempts)
    )


def _overdue(state: State, node: Node, slot: int, now_ms: int) -> bool:
    head_id = node.executing[slot]
    return head_id is not None and now_ms - state.tasks[head_id].attempts[-1].occupied_at_ms > OVERDUE_MS


def withdrawals(
    state: State, run_times: RunTimes, stopping: AbstractSet[int], excluded: AbstractSet[str], now_ms: int
) -> list[MarkStopping]:
    """Who should wait no longer: behind heads that are not short after all, and while a slot is idle that nothing else
    waits for. Nodes that take no new work are the planner's own business (``planner._drains``).

    Args:
        stopping: tasks that are on their way to be stopped.
        excluded: nodes that nothing is placed on.
    """
    commands: list[MarkStopping] = []
    idle: dict[TaskClass, int] = {}
    for name in state.indexes.reserving:
        node = state.nodes[name]
        if node.eligibility is not Eligibility.READY:
            continue
        for slot, line in enumerate(node.reserved):
            if not line:
                continue
            head = state.tasks[node.executing[slot] or 0]
            hopeless = head.attempts[-1].stopping is not None or _overdue(state, node, slot, now_ms)
            waits_us = 0
            for ahead, task_id in zip((head.id, *line), line, strict=False):
                waits_us += run_times.short_us(state.tasks[ahead].spec.kind) or MAX_WAIT_US
                task = state.tasks[task_id]
                attempt = task.attempts[-1]
                if attempt.stopping is not None or task_id in stopping:
                    continue
                wanted = class_of(task.spec)
                if not hopeless:
                    if waits_us <= WORTHWHILE_US or wanted in state.indexes.queue:
                        continue
                    if wanted not in idle:
                        idle[wanted] = _idle_slots(state, wanted, excluded)
                    if not idle[wanted]:
                        continue
                    idle[wanted] -= 1
                commands.append(MarkStopping(task_id, attempt.number, attempt.token, StopReason.WITHDRAWN))
    return commands


def _idle_slots(state: State, wanted: TaskClass, excluded: AbstractSet[str]) -> int:
    labelled = state.indexes.labelled
    return sum(
        state.nodes[name].slots_free
        for kinds, ranked in state.indexes.free.items()
        if wanted[0] in kinds
        for _, name in ranked
        if name not in excluded and all(name in labelled.get(label, ()) for label in wanted[1])
    )
