"""What a task waits for, where it may be put and what an attempt costs it: books of their own, beside the state.

What may live here: the rules of dependencies, delays, queue timeouts, requirements, several slots, purges, settings and
of what an operator says of nodes, checked from commands, replies and effects. Who holds which slot is ``ledger``'s.

An entry is read twice: first its effects, then its commands with their replies. So a rule sees whatever had ended by
the end of the entry; nothing is planned from an entry that is not applied, so that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from raftd.scheduler.commands import (
    Cancel,
    Command,
    Occupy,
    OccupyNew,
    Purge,
    RegisterNode,
    Retry,
    SetEligibility,
    SetLabels,
    SetSettings,
    Submit,
    SubmitGraph,
    Vacate,
)
from raftd.scheduler.effects import Assigned, SlotFreed, StopRequested, TaskChange, TaskChanged
from raftd.scheduler.model import (
    AttemptOutcome,
    Condition,
    Dependency,
    Eligibility,
    FencingToken,
    Placement,
    Settings,
    StopReason,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import (
    Accepted,
    Expired,
    NodeSet,
    Occupied,
    Purged,
    Refused,
    Registered,
    Reply,
    SettingsSet,
)
from raftd.scheduler.state import State
from tests.sim.trace import Trace

Answered = Sequence[tuple[Command, Reply]]


class Broken(AssertionError):
    """The books do not balance.

    Attributes:
        invariant: which one.
    """

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(what)
        self.invariant = invariant


@dataclass(slots=True)
class _Task:
    """A task as the books have it.

    Attributes:
        started: it has had its turn on a slot once.
        costs: failures, crashes and returns.
    """

    id: int
    spec: TaskSpec
    submitted_ms: int
    after: tuple[Dependency, ...] = ()
    job_id: int | None = None
    state: TaskState = TaskState.PENDING
    token: FencingToken | None = None
    started: bool = False
    costs: tuple[int, int, int] = (0, 0, 0)
    ended_ms: int = 0
    purged: bool = False


@dataclass(slots=True)
class _Job:
    task_ids: range
    left: int
    limited: bool
    ended_ms: int = 0
    succeeded: bool = True


@dataclass(slots=True)
class _Node:
    labels: dict[str, str] = field(default_factory=dict)
    set_labels: dict[str, str] = field(default_factory=dict)
    eligibility: Eligibility = Eligibility.READY


class Books:
    """The books of one run.

    Attributes:
        settings: as they should be.
    """

    def __init__(self, settings: Settings, trace: Trace) -> None:
        self.settings = settings
        self._trace = trace
        self._now_ms = 0
        self._tasks: dict[int, _Task] = {}
        self._jobs: dict[int, _Job] = {}
        self._nodes: dict[str, _Node] = {}
        self._dependents: dict[tuple[bool, int], list[_Task]] = {}
        self._stops: dict[FencingToken, StopReason] = {}
        # Of the entry that is being read.
        self._ended: list[_Task] = []
        self._affected: dict[int, _Task] = {}
        """Tasks whose dependencies have to be looked at."""
        self._freed: set[int] = set()
        """Tasks of which an attempt has ended."""
        self._cancelled: list[_Task] = []
        """Without an attempt that ended so."""

    def applied(
        self, answered: Answered, effects: Sequence[object], cluster_time_ms: int, state: State
    ) -> None:
        """Book an entry.

        Raises:
            Broken: the books do not balance any more.
        """
        self._now_ms = max(self._now_ms, cluster_time_ms)
        self._ended.clear()
        self._affected.clear()
        self._freed.clear()
        self._cancelled.clear()
        self._effects(answered, effects)
        replies = [reply for _, reply in answered]
        for command, reply in answered:
            self._command(command, reply, replies, state)
        self._settle()
        for task in self._cancelled:
            self._require_cause(task, answered)

    def purged(self, task_id: int) -> bool:
        """Whether somebody had the record forgotten."""
        return self._tasks[task_id].purged

    # What happened.

    def _effects(self, answered: Answered, effects: Iterable[object]) -> None:
        vacated = {
            command.token: command
            for command, reply in answered
            if isinstance(command, Vacate) and not isinstance(reply, Refused)
        }
        expired = {reply.task_id for _, reply in answered if isinstance(reply, Expired)}
        for effect in effects:
            match effect:
                case Assigned():
                    task = self._tasks[effect.task.id]
                    task.token = effect.attempt.token
                    if effect.task.state is TaskState.RESERVED:
                        task.state = TaskState.RESERVED
                case StopRequested():
                    waits = self._tasks[effect.task_id].state is TaskState.RESERVED
                    if effect.reason is StopReason.WITHDRAWN and not waits:
                        raise Broken("CostsAsDue", f"t{effect.task_id} is withdrawn, and has its turn")
                    self._stops[effect.token] = effect.reason
                case SlotFreed():
                    self._attempt_ended(effect, vacated.get(effect.token))
                case TaskChanged():
                    self._changed(effect, expired)
                case _:
                    pass

    def _attempt_ended(self, effect: SlotFreed, command: Vacate | None) -> None:
        """What the end of an attempt costs the task."""
        task = self._tasks[effect.task_id]
        self._freed.add(task.id)
        stop = self._stops.pop(effect.token, None)
        outcome = AttemptOutcome.LOST if command is None else command.outcome
        waited = task.state is TaskState.RESERVED
        if waited:
            task.state = TaskState.PENDING
        if command is not None and command.started_at_ms:
            task.started = True
        failures, crashes, returns = task.costs
        if outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.WITHDRAWN) or stop is StopReason.CANCELLED:
            return
        if stop is StopReason.DRAINED:
            self._trace.count("stopped by a drain")
        elif stop is StopReason.TIMED_OUT or outcome in (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT):
            failures += 1
        elif outcome is AttemptOutcome.LOST and waited:
            self._trace.count("lost before its turn")
        elif outcome in (AttemptOutcome.CRASHED, AttemptOutcome.LOST):
            crashes += 1
        else:
            returns += 1
        task.costs = failures, crashes, returns

    def _changed(self, effect: TaskChanged, expired: set[int]) -> None:
        now = effect.task
        if effect.change is TaskChange.SUBMITTED:
            self._tasks[now.id] = _Task(now.id, now.spec, self._now_ms)
            return
        task = self._tasks[now.id]
        if (now.failures, now.crashes, now.returns) != task.costs:
            raise Broken(
                "CostsAsDue",
                f"t{task.id} has {(now.failures, now.crashes, now.returns)} failures, crashes and returns, "
                f"due are {task.costs}",
            )
        if effect.change is TaskChange.RUNNING:
            token = now.attempts[-1].token
            if token != task.token:
                raise Broken(
                    "OnlyCurrentTokenAccepted", f"t{task.id} was given {task.token}, and runs as {token}"
                )
            if self._stops.get(token) is StopReason.WITHDRAWN:
                del self._stops[token]
            if not task.started and task.spec.delay_ms:
                self._trace.count("delay over")
            if not task.started and task.after:
                self._trace.count("ran after others")
            task.started = True
        elif effect.change is TaskChange.FAILED and task.id not in self._freed:
            self._require_expired(task, expired)
        elif effect.change is TaskChange.CANCELLED and task.id not in self._freed:
            self._cancelled.append(task)
        task.state = now.state
        if now.state.terminal:
            self._end(task)

    def _end(self, task: _Task) -> None:
        task.ended_ms = self._now_ms
        self._ended.append(task)

    def _require_expired(self, task: _Task, expired: set[int]) -> None:
        spec = task.spec
        since_ms = max(task.submitted_ms + spec.delay_ms, *(self._ended_ms(one) for one in task.after), 0)
        fine = task.id in expired and spec.queue_timeout_ms and not task.started
        if not fine or self._now_ms < since_ms + spec.queue_timeout_ms:
            raise Broken(
                "QueueTimeouts",
                f"t{task.id} fails in the queue at {self._now_ms}: {spec.queue_timeout_ms} ms since {since_ms}, "
                f"started {task.started}",
            )
        self._trace.count("queue timeout")

    # What was asked.

    def _command(self, command: Command, reply: Reply, replies: Sequence[Reply], state: State) -> None:
        if isinstance(command, Submit | SubmitGraph | Retry):
            self._submission(command, reply)
        elif isinstance(command, Occupy | OccupyNew):
            if isinstance(reply, Occupied):
                self._placed(command, reply, replies)
        elif isinstance(command, Purge):
            if isinstance(reply, Purged):
                self._purged(command, reply, state)
        else:
            self._word(command, reply, state)

    def _word(self, command: Command, reply: Reply, state: State) -> None:
        """Of an operator, or of a node about itself."""
        match command:
            case RegisterNode() if isinstance(reply, Registered):
                self._nodes.setdefault(command.name, _Node()).labels = dict(command.labels)
            case SetEligibility() if isinstance(reply, NodeSet):
                self._nodes[command.name].eligibility = command.eligibility
                self._trace.count(f"node {command.eligibility.name.lower()}")
            case SetLabels() if isinstance(reply, NodeSet):
                labels = self._nodes[command.name].set_labels
                labels |= dict(command.set)
                for name in command.remove:
                    labels.pop(name, None)
                self._trace.count("labels set")
            case SetSettings():
                if isinstance(reply, SettingsSet):
                    changes: dict[str, Any] = dict(command.changes)
                    if "placement" in changes:
                        changes["placement"] = Placement(changes["placement"])
                    self.settings = replace(self.settings, **changes)
                self._trace.count("settings set" if isinstance(reply, SettingsSet) else "settings refused")
                if state.settings != self.settings:
                    raise Broken("SettingsAsSaid", f"{state.settings}, said was {self.settings}")
            case _:
                pass

    def _submission(self, command: Submit | SubmitGraph | Retry, reply: Reply) -> None:
        if isinstance(command, SubmitGraph):
            self._cycles(command, reply)
        if not isinstance(reply, Accepted) or reply.duplicate:
            return
        limited, parts = self._parts(command, reply)
        if reply.job_id is not None:
            self._jobs[reply.job_id] = _Job(reply.task_ids, reply.count, limited)
        for task_id, (spec, after) in zip(reply.task_ids, parts, strict=True):
            self._made(task_id, spec, after, reply.job_id)

    def _parts(
        self, command: Submit | SubmitGraph | Retry, reply: Accepted
    ) -> tuple[bool, list[tuple[TaskSpec, tuple[Dependency, ...]]]]:
        """Whether failures end the job, and what each task is and comes after."""
        if isinstance(command, Submit):
            limited = command.array is not None and command.array.max_failures > 0
            return limited, [(command.spec, command.after)] * reply.count
        if isinstance(command, SubmitGraph):
            self._trace.count("graph accepted")
            first = reply.first_task_id
            parts: list[tuple[TaskSpec, tuple[Dependency, ...]]] = []
            for task in command.tasks:
                within = [Dependency(first + edge.position, False, edge.condition) for edge in task.after]
                parts.append((task.spec, (*task.after_others, *within)))
            return command.max_failures > 0, parts
        self._trace.count("submitted again")
        old = self._tasks[command.task_id]
        if not old.state.terminal or old.purged:
            raise Broken("TasksConserved", f"t{old.id} is submitted again, and is {old.state.name}")
        return False, [(old.spec, ())]

    def _made(self, task_id: int, spec: TaskSpec, after: tuple[Dependency, ...], job_id: int | None) -> None:
        task = self._tasks[task_id]
        if task.spec != spec:
            raise Broken("AckedKept", f"t{task_id} is {task.spec}, asked for was {spec}")
        task.after, task.job_id = after, job_id
        for one in after:
            if self._is_forgotten(one):
                raise Broken("DependenciesHold", f"t{task_id} comes after {one}, which is forgotten")
            if self._ended_ms(one):
                self._trace.count("came after what had ended")
            self._dependents.setdefault((one.job, one.target), []).append(task)
        if after:
            self._affected[task_id] = task

    def _cycles(self, command: SubmitGraph, reply: Reply) -> None:
        try:
            TopologicalSorter(
                {at: [edge.position for edge in task.after] for at, task in enumerate(command.tasks)}
            ).prepare()
            cyclic = False
        except CycleError:
            cyclic = True
        if cyclic and isinstance(reply, Accepted):
            raise Broken("DependenciesHold", f"{command.request_id} is a cycle, and was accepted")
        if isinstance(reply, Refused) and "cycle" in reply.message:
            self._trace.count("cycle refused")
            if not cyclic:
                raise Broken("DependenciesHold", f"{command.request_id} is no cycle: {reply.message}")

    def _placed(self, command: Occupy | OccupyNew, reply: Occupied, replies: Sequence[Reply]) -> None:
        task, node = self._tasks[reply.task_id], self._nodes[command.node]
        if isinstance(command, OccupyNew):
            made = replies[command.position]
            if not isinstance(made, Accepted) or made.duplicate or task.id not in made.task_ids:
                raise Broken("RidersRideAlong", f"t{task.id} rides with {made}")
        slots = {command.slot, *command.extra_slots}
        if len(slots) != task.spec.slots:
            raise Broken("PlacedAsRequired", f"t{task.id} is put on {slots}, it takes {task.spec.slots}")
        if len(slots) > 1:
            self._trace.count("several slots occupied")
        if node.eligibility is not Eligibility.READY:
            raise Broken(
                "PlacedAsRequired", f"t{task.id} is put on {command.node}, which is {node.eligibility.name}"
            )
        labels = {**node.labels, **node.set_labels}
        if any(labels.get(name) != value for name, value in task.spec.require):
            raise Broken(
                "PlacedAsRequired", f"t{task.id} requires {task.spec.require}, {command.node} has {labels}"
            )
        if task.spec.require:
            self._trace.count("required label found")
        if self._now_ms < task.submitted_ms + task.spec.delay_ms:
            raise Broken("DependenciesHold", f"t{task.id} is put on a slot before its delay has passed")
        for one in task.after:
            ended = self._ended_ms(one)
            if not ended or (one.condition is Condition.OK and not self._has_succeeded(one)):
                raise Broken("DependenciesHold", f"t{task.id} is put on a slot, and comes after {one}")

    def _purged(self, command: Purge, reply: Purged, state: State) -> None:
        refused = {name for name, _ in reply.refused}
        gone = [task_id for task_id in command.task_ids if f"t{task_id}" not in refused]
        for job_id in command.job_ids:
            if f"j{job_id}" not in refused:
                gone += [task for task in self._jobs[job_id].task_ids if not self._tasks[task].purged]
        if command.ended_before_ms:
            gone += self._purged_by_age(command, state)
        for task_id in gone:
            task = self._tasks[task_id]
            if not task.state.terminal or task.purged:
                raise Broken("TasksConserved", f"t{task_id} is purged, and is {task.state.name}")
            if state.tasks.get(task_id) is not None:
                raise Broken("TasksConserved", f"t{task_id} is purged, and still there")
            task.purged = True
        if reply.count != len(gone):
            raise Broken("TasksConserved", f"{reply.count} are purged, and {len(gone)} are gone")
        self._trace.count("purged", len(gone))
        self._trace.count("purge refused", len(refused))

    def _purged_by_age(self, command: Purge, state: State) -> list[int]:
        old = [
            task
            for task in self._tasks.values()
            if task.state.terminal and not task.purged and task.ended_ms < command.ended_before_ms
            if not command.states or task.state in command.states
        ]
        kept = [task for task in old if state.tasks.get(task.id) is not None]
        if any(task not in self._ended for task in kept):
            raise Broken("TasksConserved", f"{[task.id for task in kept]} should have been purged")
        return [task.id for task in old if task not in kept]

    # What follows from it.

    def _settle(self) -> None:
        """Whoever needs what has failed is cancelled, in the entry in which that is known."""
        for task in self._ended:
            self._look_at_dependents(False, task.id)
            job = None if task.job_id is None else self._jobs[task.job_id]
            if job is not None:
                job.left -= 1
                job.succeeded &= task.state is TaskState.SUCCEEDED
                if not job.left and task.job_id is not None:
                    job.ended_ms = self._now_ms
                    self._look_at_dependents(True, task.job_id)
        for task in self._affected.values():
            if self._is_doomed(task):
                if task.state is not TaskState.CANCELLED:
                    raise Broken(
                        "DependenciesHold", f"t{task.id} is {task.state.name}, and what it needs has failed"
                    )
                self._trace.count("cancelled with what it needs")

    def _look_at_dependents(self, job: bool, target: int) -> None:
        for task in self._dependents.get((job, target), ()):
            self._affected[task.id] = task

    def _require_cause(self, task: _Task, answered: Answered) -> None:
        asked = any(
            isinstance(command, Cancel)
            and (command.task_id == task.id or (task.job_id is not None and command.job_id == task.job_id))
            for command, _ in answered
        )
        limited = task.job_id is not None and self._jobs[task.job_id].limited
        if not asked and not limited and not self._is_doomed(task):
            raise Broken("DependenciesHold", f"t{task.id} is cancelled, and nobody asked for it")

    def _is_doomed(self, task: _Task) -> bool:
        return any(
            one.condition is Condition.OK and self._ended_ms(one) and not self._has_succeeded(one)
            for one in task.after
        )

    def _ended_ms(self, one: Dependency) -> int:
        """When it ended; 0 while it has not."""
        return (self._jobs if one.job else self._tasks)[one.target].ended_ms

    def _has_succeeded(self, one: Dependency) -> bool:
        if one.job:
            return self._jobs[one.target].succeeded
        return self._tasks[one.target].state is TaskState.SUCCEEDED

    def _is_forgotten(self, one: Dependency) -> bool:
        if one.job:
            return all(self._tasks[task_id].purged for task_id in self._jobs[one.target].task_ids)
        return self._tasks[one.target].purged
