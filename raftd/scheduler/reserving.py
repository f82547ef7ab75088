"""Behind which slots short tasks may wait for their turn, and when they are better off elsewhere.

What may live here: a leader's knowledge of how long tasks of a kind take, and the choice of a line; policy, like all of
the planner: nothing of it is in the log.

A reservation saves the two rounds between the end of one task and the start of the next; it costs a task its freedom
to run wherever a slot is free first. So it is made only where the wait is sure to be short: behind tasks of kinds that
have been short so far. Where that was wrong, or another slot has become idle, it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from raftd.scheduler.commands import MarkStopping
from raftd.scheduler.effects import Assigned, Effect, NodeChanged, SlotFreed, StopRequested, TaskChanged
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
        self._places: dict[str, tuple[tuple[str, ...], list[Place]]] = {}
        self._ranked: dict[tuple[str, ...], OrderedKeys[Place]] = {}

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

    def refresh(
        self, state: State, coming: Mapping[tuple[str, int], list[int]], stopping: AbstractSet[int]
    ) -> None:
        """Look again at what has changed.

        Args:
            coming: tasks that are on their way to the line of a slot.
            stopping: tasks that are on their way to be stopped.
        """
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
                self._places[name] = (node.kinds, places)
                ranked = self._ranked.setdefault(node.kinds, OrderedKeys())
                for place in places:
                    ranked.add(place)

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
        for place in places:
            self._ranked[kinds].remove(place)
            del self._lengths[name, place[2]]
        if kinds and not self._ranked[kinds]:
            del self._ranked[kinds]

    def open(self, state: State, excluded: AbstractSet[str], now_ms: int) -> OpenLines:
        """What there is for one plan."""
        return OpenLines(self, state, excluded, now_ms)

    def _groups(self) -> dict[tuple[str, ...], OrderedKeys[Place]]:
        return self._ranked

    def _take(self, kinds: tuple[str, ...], place: Place, run_us: int | None, depth: int) -> None:
        """One more waits there; to be looked at again when that is applied, or was not proposed."""
        wait_us, name, slot = place
        places = self._places[name][1]
        places.remove(place)
        self._ranked[kinds].remove(place)
        length = self._lengths.pop((name, slot)) + 1
        if run_us is not None and wait_us + run_us <= MAX_WAIT_US and length < depth:
            longer = (wait_us + run_us, name, slot)
            places.append(longer)
            self._ranked[kinds].add(longer)
            self._lengths[name, slot] = length
        self._touched[name] = None

    def _head(self, state: State, node: Node, slot: int, kind: str) -> None:
        """A task of this kind is on its way to a free slot: others may follow it in the same entry."""
        run_us = self.run_times.short_us(kind)
        if run_us is None or not state.settings.reserve_depth:
            return
        self._touched[node.name] = None
        place = (run_us, node.name, slot)
        self._places.setdefault(node.name, (node.kinds, []))[1].append(place)
        self._ranked.setdefault(node.kinds, OrderedKeys()).add(place)
        self._lengths[node.name, slot] = 0


class OpenLines:
    """The lines as one plan sees them: some nodes excluded, and some kinds of node closed on the way."""

    def __init__(self, lines: Lines, state: State, excluded: AbstractSet[str], now_ms: int) -> None:
        self._lines = lines
        self._state = state
        self._excluded = excluded
        self._now_ms = now_ms
        self._closed: set[tuple[str, ...]] = set()

    def serves(self, kind: str) -> bool:
        """Whether a task of this kind has a say in who waits: some node with a line offers it."""
        return any(True for _ in self._offering(kind))

    def placed(self, name: str, slot: int, kind: str) -> None:
        """The plan has put a task of this kind on a free slot."""
        self._lines._head(self._state, self._state.nodes[name], slot, kind)

    def take(self, task: Task) -> tuple[str, int, int] | None:
        """A place in a line for this task: node name, incarnation and slot.

        Where it should not wait in any, nothing that comes after it does so either on the nodes that it could run on:
        it would never find one of their slots free.
        """
        kind = task.spec.kind
        run_us = self._lines.run_times.short_us(kind)
        if not _may_wait(task) or run_us is None:
            self._closed.update(list(self._offering(kind)))
            return None
        best: tuple[Place, tuple[str, ...]] | None = None
        for kinds in self._offering(kind):
            place = self._first(kinds)
            if place is not None and (best is None or place < best[0]):
                best = (place, kinds)
        if best is None:
            return None
        (wait_us, name, slot), kinds = best
        self._lines._take(kinds, (wait_us, name, slot), run_us, self._state.settings.reserve_depth)
        return name, self._state.nodes[name].incarnation, slot

    def _offering(self, kind: str) -> Iterator[tuple[str, ...]]:
        for kinds in self._lines._groups():
            if kind in kinds and kinds not in self._closed:
                yield kinds

    def _first(self, kinds: tuple[str, ...]) -> Place | None:
        for place in self._lines._groups().get(kinds, ()):
            _, name, slot = place
            if name not in self._excluded and not _overdue(
                self._state, self._state.nodes[name], slot, self._now_ms
            ):
                return place
        return None


def _may_wait(task: Task) -> bool:
    """A task that has been tried stays out of lines, where the loss of a node would cost it nothing: a task that
    takes down its node must come to its limit."""
    spec = task.spec
    return (
        spec.slots == 1
        and not spec.require
        and all(attempt.outcome is AttemptOutcome.WITHDRAWN for attempt in task.attempts)
    )


def _overdue(state: State, node: Node, slot: int, now_ms: int) -> bool:
    head_id = node.executing[slot]
    return head_id is not None and now_ms - state.tasks[head_id].attempts[-1].occupied_at_ms > OVERDUE_MS


def withdrawals(
    state: State, run_times: RunTimes, stopping: AbstractSet[int], excluded: AbstractSet[str], now_ms: int
) -> list[MarkStopping]:
    """Who should wait no longer: on nodes that take no new work, behind heads that are not short after all, and
    while a slot is idle that nothing else waits for.

    Args:
        stopping: tasks that are on their way to be stopped.
        excluded: nodes that nothing is placed on.
    """
    commands: list[MarkStopping] = []
    idle: dict[str, int] = {}
    for name in state.indexes.reserving:
        node = state.nodes[name]
        for slot, line in enumerate(node.reserved):
            if not line:
                continue
            head = state.tasks[node.executing[slot] or 0]
            hopeless = (
                node.eligibility is not Eligibility.READY
                or head.attempts[-1].stopping is not None
                or _overdue(state, node, slot, now_ms)
            )
            waits_us = 0
            for ahead, task_id in zip((head.id, *line), line, strict=False):
                waits_us += run_times.short_us(state.tasks[ahead].spec.kind) or MAX_WAIT_US
                task = state.tasks[task_id]
                attempt = task.attempts[-1]
                if attempt.stopping is not None or task_id in stopping:
                    continue
                kind = task.spec.kind
                if not hopeless:
                    if waits_us <= WORTHWHILE_US or state.indexes.queue.get(kind):
                        continue
                    if kind not in idle:
                        idle[kind] = _idle_slots(state, kind, excluded)
                    if not idle[kind]:
                        continue
                    idle[kind] -= 1
                commands.append(MarkStopping(task_id, attempt.number, attempt.token, StopReason.WITHDRAWN))
    return commands


def _idle_slots(state: State, kind: str, excluded: AbstractSet[str]) -> int:
    return sum(
        state.nodes[name].slots_free
        for kinds, ranked in state.indexes.free.items()
        if kind in kinds
        for _, name in ranked
        if name not in excluded
    )
