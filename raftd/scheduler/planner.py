"""What a leader proposes: which task goes to which slot, which node is lost, which attempt has run too long.

What may live here: policy. It reads the state and the leader's observations, changes neither, and is never replayed:
it can change without changing what the log means, because ``apply`` checks every command again.

One plan costs as much as the commands it makes, not as what is pending: tasks come in order out of the queues of the
classes that some node can take now, and nodes come in order of load out of the ranking of those with a free slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, merge

from raftd.scheduler.commands import Command, Expire, MarkStopping, NodeLost, Occupy, OccupyNew
from raftd.scheduler.indexes import TaskClass, class_of, order_of, task_of
from raftd.scheduler.model import MAX_TIME_MS, Health, StopReason, Task
from raftd.scheduler.placement import Held, Ranking
from raftd.scheduler.reserving import Lines
from raftd.scheduler.state import State

MAX_COMMANDS = 512
"""Of one plan; what is left over comes with the next."""

RUN_TIMEOUT_GRACE_MS = 10_000
"""How much longer than its run timeout an attempt may take before the leader speaks for a silent executor."""


@dataclass(slots=True)
class InFlight:
    """What this leader has proposed and not yet seen applied: it must not be proposed twice.

    Dropped as a whole when the leader steps down.
    """

    tasks: set[int] = field(default_factory=set)
    slots: dict[str, set[int]] = field(default_factory=dict)
    lines: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """By node and slot: tasks that will wait for their turn there."""
    stopping: set[int] = field(default_factory=set)
    expiring: set[int] = field(default_factory=set)
    lost: set[tuple[str, int]] = field(default_factory=set)

    def proposed(self, commands: Iterable[Command]) -> None:
        """These are on their way."""
        for command in commands:
            match command:
                case Occupy(reserve=True):
                    self.tasks.add(command.task_id)
                    self.lines.setdefault((command.node, command.slot), []).append(command.task_id)
                case Occupy():
                    self.tasks.add(command.task_id)
                    self._take(command)
                case OccupyNew():
                    self._take(command)
                case MarkStopping():
                    self.stopping.add(command.task_id)
                case Expire():
                    self.expiring.add(command.task_id)
                case NodeLost():
                    self.lost.add((command.name, command.incarnation))
                case _:
                    pass

    def settled(self, commands: Iterable[Command]) -> None:
        """These were applied or dropped: from now on the state alone speaks."""
        for command in commands:
            match command:
                case Occupy(reserve=True):
                    self.tasks.discard(command.task_id)
                    line = self.lines.get((command.node, command.slot), [])
                    if command.task_id in line:
                        line.remove(command.task_id)
                    if not line:
                        self.lines.pop((command.node, command.slot), None)
                case Occupy():
                    self.tasks.discard(command.task_id)
                    self._give_back(command)
                case OccupyNew():
                    self._give_back(command)
                case MarkStopping():
                    self.stopping.discard(command.task_id)
                case Expire():
                    self.expiring.discard(command.task_id)
                case NodeLost():
                    self.lost.discard((command.name, command.incarnation))
                case _:
                    pass

    def _take(self, command: Occupy | OccupyNew) -> None:
        self.slots.setdefault(command.node, set()).update((command.slot, *command.extra_slots))

    def _give_back(self, command: Occupy | OccupyNew) -> None:
        slots = self.slots.get(command.node)
        if slots is not None:
            slots.difference_update((command.slot, *command.extra_slots))
            if not slots:
                del self.slots[command.node]

    def clear(self) -> None:
        """Forget everything: this node does not lead any more, or leads anew."""
        self.tasks.clear()
        self.slots.clear()
        self.lines.clear()
        self.stopping.clear()
        self.expiring.clear()
        self.lost.clear()


@dataclass(frozen=True, slots=True)
class PlanningView:
    """The state as it will be: what is applied, and this leader's own proposals that are not.

    Attributes:
        lines: behind which slots tasks may wait; a plan without it reserves nothing.
    """

    state: State
    in_flight: InFlight
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class Observations:
    """What the leader sees and the log does not know.

    Attributes:
        expired: nodes whose lease has run out (``LeaseBook.expired``), as (name, incarnation).
        silent: nodes without a working Attach stream to this leader: nothing new is placed on them.
    """

    expired: tuple[tuple[str, int], ...] = ()
    silent: frozenset[str] = frozenset()


def plan(
    view: PlanningView, observations: Observations, now_ms: int, *, max_commands: int = MAX_COMMANDS
) -> tuple[Command, ...]:
    """What to propose now. Losses come first: they free the tasks that are placed next time.

    Args:
        now_ms: cluster time; the batch's header must carry this time or a later one.
    """
    commands: list[Command] = []
    commands += _losses(view, observations)
    commands += _timeouts(view, now_ms, max_commands - len(commands))
    commands += _drains(view, now_ms, max_commands - len(commands))
    lost = {command.name for command in commands if isinstance(command, NodeLost)}
    expiring = {command.task_id for command in commands if isinstance(command, Expire)}
    left = max_commands - len(commands)
    ranking = _ranking(view, lost | observations.silent)
    commands += _placements(view, ranking, now_ms, left, expiring)
    return tuple(commands)


def held_back(view: PlanningView, observations: Observations, now_ms: int) -> Held | None:
    """What a plan would hold back now for a task of several slots."""
    ranking = _ranking(view, observations.silent)
    _placements(view, ranking, now_ms, MAX_COMMANDS, frozenset())
    return ranking.held


def next_wakeup_ms(state: State, now_ms: int) -> int | None:
    """The cluster time, after now, at which a plan may have something new to propose though nothing is applied.

    None where there is no such time. What is due already is not counted: a plan has just been made.
    """
    times_ms = []
    for key in state.indexes.delayed:
        if order_of(key) > now_ms:
            times_ms.append(order_of(key))
            break
    for key in state.indexes.queue_deadlines:
        if order_of(key) > now_ms:
            times_ms.append(order_of(key))
            break
    for key in state.indexes.run_deadlines:
        if order_of(key) + RUN_TIMEOUT_GRACE_MS > now_ms:
            times_ms.append(order_of(key) + RUN_TIMEOUT_GRACE_MS)
            break
    for deadline_ms, _ in state.indexes.unready:
        if now_ms < deadline_ms < MAX_TIME_MS:
            times_ms.append(deadline_ms)
            break
    return min(times_ms, default=None)


def _losses(view: PlanningView, observations: Observations) -> list[Command]:
    commands: list[Command] = []
    for name, incarnation in observations.expired:
        node = view.state.nodes.get(name)
        if node is None or node.health is not Health.UP or node.incarnation != incarnation:
            continue
        if (name, incarnation) not in view.in_flight.lost:
            commands.append(NodeLost(name, incarnation))
    return commands


def _timeouts(view: PlanningView, now_ms: int, limit: int) -> list[Command]:
    commands: list[Command] = []
    for key in view.state.indexes.run_deadlines:
        if len(commands) >= limit or order_of(key) + RUN_TIMEOUT_GRACE_MS > now_ms:
            break
        task_id = task_of(key)
        if task_id not in view.in_flight.stopping:
            attempt = view.state.tasks[task_id].attempts[-1]
            commands.append(MarkStopping(task_id, attempt.number, attempt.token, StopReason.TIMED_OUT))
    for key in view.state.indexes.queue_deadlines:
        if len(commands) >= limit or order_of(key) > now_ms:
            break
        task_id = task_of(key)
        # One that is being placed has its turn: if that comes to nothing, its time is up with the next plan.
        if task_id not in view.in_flight.expiring and task_id not in view.in_flight.tasks:
            commands.append(Expire(task_id))
    return commands


def _drains(view: PlanningView, now_ms: int, limit: int) -> list[Command]:
    """Of nodes that take nothing new: what waits there for its turn goes at once, what runs when the drain ends."""
    state = view.state
    commands: list[Command] = []
    for deadline_ms, name in state.indexes.unready:
        node = state.nodes[name]
        asked = [(task_id, StopReason.WITHDRAWN) for line in node.reserved for task_id in line]
        if deadline_ms <= now_ms:
            asked += [(task_id, StopReason.DRAINED) for task_id in node.occupants]
        for task_id, reason in asked:
            attempt = state.tasks[task_id].attempts[-1]
            weaker = attempt.stopping is None or (
                attempt.stopping is StopReason.WITHDRAWN and reason is StopReason.DRAINED
            )
            if not weaker or task_id in view.in_flight.stopping:
                continue
            if len(commands) >= limit:
                return commands
            commands.append(MarkStopping(task_id, attempt.number, attempt.token, reason))
    return commands


def _ranking(view: PlanningView, unusable: AbstractSet[str]) -> Ranking:
    in_flight = view.in_flight
    return Ranking(view.state, in_flight.slots, {name for name, _ in in_flight.lost} | unusable)


def _placements(
    view: PlanningView, ranking: Ranking, now_ms: int, limit: int, expiring: AbstractSet[int]
) -> list[Command]:
    state, in_flight = view.state, view.in_flight
    lines = view.lines
    if lines is not None:
        lines.begin_plan(state, in_flight.lines, in_flight.stopping, ranking.excluded, now_ms)
    commands: list[Command] = []
    # One head per class; the smallest of them is the next task of the whole queue.
    due = _due(state, now_ms, limit + len(in_flight.tasks))
    # Those of several slots count though there is no room for them: slots may have to be held back.
    classes = [
        wanted
        for wanted in {**state.indexes.queue, **due}
        if wanted[2] > 1 or ranking.offers(wanted) or (lines is not None and lines.serves(wanted))
    ]
    streams = {wanted: merge(state.indexes.queue.get(wanted, ()), due.get(wanted, ())) for wanted in classes}
    heads = [(key, wanted) for wanted in classes if (key := next(streams[wanted], None)) is not None]
    heapify(heads)
    while heads and len(commands) < limit:
        key, wanted = heappop(heads)
        task_id = task_of(key)
        if task_id not in in_flight.tasks and task_id not in in_flight.expiring and task_id not in expiring:
            command = _place(ranking, lines, state.tasks[task_id], wanted)
            if command is None:
                # No room is left for this class: the rest of its queue need not be looked at.
                continue
            commands.append(command)
        following = next(streams[wanted], None)
        if following is not None:
            heappush(heads, (following, wanted))
    return commands


def _place(ranking: Ranking, lines: Lines | None, task: Task, wanted: TaskClass) -> Occupy | None:
    """A free slot, or else a place in a line; None where there is neither."""
    place = ranking.take(wanted)
    if place is not None:
        if lines is not None and wanted[2] == 1:
            lines.placed(place[0], place[2], wanted)
        return Occupy(task.id, *place)
    if wanted[2] > 1:
        ranking.hold(wanted, task.id)
        if lines is not None and ranking.held is not None:
            lines.close(ranking.held.node)
        return None
    line = None if lines is None else lines.take(task)
    return None if line is None else Occupy(task.id, *line, reserve=True)


def _due(state: State, now_ms: int, limit: int) -> dict[TaskClass, list[int]]:
    """Delayed tasks that are due but not yet released by an entry, as queue keys by class: the longest due ones."""
    keys: dict[TaskClass, list[int]] = {}
    for count, key in enumerate(state.indexes.delayed):
        if count >= limit or order_of(key) > now_ms:
            break
        task = state.tasks[task_of(key)]
        keys.setdefault(class_of(task.spec), []).append(state.indexes.queue_key(task))
    for found in keys.values():
        found.sort()
    return keys
