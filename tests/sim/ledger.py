"""What must hold of the scheduler, as a ledger beside it: an entry is booked once, when the first node applies it.

What may live here: a second, simple account of tasks, slots, tokens and requests, made from commands, replies and
effects alone, and the promises to clients, which are checked against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raftd.codec.commands import decode_batch
from raftd.raft.types import Entry
from raftd.scheduler.commands import Command, OccupyNew, Retry, Submit, SubmitGraph, Vacate
from raftd.scheduler.effects import Assigned, NodeChange, NodeChanged, SlotFreed, TaskChange, TaskChanged
from raftd.scheduler.model import AttemptOutcome, FencingToken, TaskState
from raftd.scheduler.replies import Accepted, Occupied, Refused, Reply, Vacated
from raftd.scheduler.state import State
from tests.sim.books import Books, Broken
from tests.sim.plan import Plan
from tests.sim.trace import Trace

Slot = tuple[str, int, int]
"""Node, incarnation, number."""

Submission = Submit | SubmitGraph | Retry


@dataclass(slots=True)
class _Booked:
    """A request that was accepted."""

    answer: Accepted
    content: Submission
    index: int
    term: int


class Ledger:
    """The books of one run."""

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self._plan = plan
        self._trace = trace
        self._books = Books(plan.settings, trace)
        self._states: dict[int, TaskState] = {}
        self._counts: Counter[TaskState] = Counter()
        self._returned = 0
        """How often a task went back to the queue, which has no limit for those."""
        self._tokens: dict[int, FencingToken] = {}
        """Task -> token of its current attempt."""
        self._slots: dict[Slot, FencingToken] = {}
        """Who occupies it."""
        self._extra: dict[FencingToken, tuple[Slot, ...]] = {}
        """Of an attempt that occupies several: those beside the first."""
        self._lines: dict[Slot, list[FencingToken]] = {}
        """Who waits for a turn, the next one first."""
        self._last_token = FencingToken(0, 0)
        self._requests: dict[str, _Booked] = {}
        self._acknowledged: dict[str, Accepted] = {}
        self._seen_index = 0
        """The highest index that any client has been told of, by an answer or by a read."""

    # What is applied.

    def applied(
        self, entry: Entry, replies: Sequence[Reply], effects: Sequence[object], state: State
    ) -> None:
        """Book an entry, when the first node has applied it.

        Raises:
            Broken: the books do not balance any more.
        """
        for effect in effects:
            match effect:
                case Assigned():
                    self._assigned(effect)
                case SlotFreed():
                    self._freed(effect)
                case TaskChanged():
                    self._changed(effect)
                case NodeChanged(change=NodeChange.LOST):
                    self._trace.count("node lost")
                case _:
                    pass
        if replies:
            freed = {effect.token for effect in effects if isinstance(effect, SlotFreed)}
            batch = decode_batch(entry.data)
            self._replies(entry, batch.commands, replies, freed)
            answered = tuple(zip(batch.commands, replies, strict=True))
            self._books.applied(answered, effects, batch.header.cluster_time_ms, state)
        for task_state in (TaskState.PENDING, TaskState.RESERVED, TaskState.RUNNING):
            if self._counts[task_state] != state.indexes.count(task_state):
                raise Broken(
                    "TasksConserved",
                    f"{self._counts[task_state]} are {task_state.name}, the state says otherwise",
                )
        if self._counts[TaskState.RUNNING] != len(set(self._slots.values())):
            raise Broken(
                "TablesPartition", f"{len(self._slots)} slots are occupied, not as many as tasks run"
            )
        if self._counts[TaskState.PENDING] > self._plan.settings.max_queue + self._returned:
            raise Broken("WithinLimits", f"{self._counts[TaskState.PENDING]} tasks are pending")

    def _assigned(self, effect: Assigned) -> None:
        task, token = effect.task, effect.attempt.token
        slot = (effect.node, effect.incarnation, effect.attempt.slot)
        if token <= self._last_token:
            raise Broken("TokenGrows", f"{token} after {self._last_token}")
        if self._states.get(task.id) is not TaskState.PENDING or task.id in self._tokens:
            raise Broken("TasksConserved", f"t{task.id} is started, and was not pending")
        self._last_token = self._tokens[task.id] = token
        if task.state is TaskState.RESERVED:
            if slot not in self._slots:
                raise Broken("TablesPartition", f"{token} waits for {slot}, which is free")
            if effect.attempt.extra_slots or self._slots[slot] in self._extra:
                raise Broken("TablesPartition", f"{token} waits for {slot}, and not for it alone")
            line = self._lines.setdefault(slot, [])
            line.append(token)
            if len(line) > self._books.settings.reserve_depth:
                raise Broken("WithinLimits", f"{len(line)} wait for {slot}")
            self._move(task.id, TaskState.RESERVED)
            self._trace.count("reserved")
            return
        extra = tuple((effect.node, effect.incarnation, number) for number in effect.attempt.extra_slots)
        for one in (slot, *extra):
            if one in self._slots:
                raise Broken("TablesPartition", f"{one} is occupied twice")
            self._slots[one] = token
        if extra:
            self._extra[token] = extra

    def _move(self, task_id: int, to: TaskState) -> None:
        before = self._states.get(task_id)
        if before is not None:
            self._counts[before] -= 1
        self._counts[to] += 1
        self._states[task_id] = to

    def _freed(self, effect: SlotFreed) -> None:
        slot = (effect.node, effect.incarnation, effect.slot)
        line = self._lines.get(slot, [])
        if effect.token in line:
            line.remove(effect.token)
        elif self._slots.pop(slot, None) != effect.token:
            raise Broken("OnlyCurrentTokenAccepted", f"{effect.token} frees {slot} of t{effect.task_id}")
        elif line:
            self._slots[slot] = line.pop(0)
        for one in self._extra.pop(effect.token, ()):
            if self._slots.pop(one, None) != effect.token:
                raise Broken("TablesPartition", f"{effect.token} frees {one}, and does not occupy it")
        if self._states[effect.task_id] is TaskState.RESERVED:
            # What its end makes of it follows, unless it is as pending as it was to everybody else.
            self._move(effect.task_id, TaskState.PENDING)
            self._returned += 1
        if self._tokens.pop(effect.task_id, None) != effect.token:
            raise Broken("OnlyCurrentTokenAccepted", f"{effect.token} is not the one of t{effect.task_id}")

    def _changed(self, effect: TaskChanged) -> None:
        task, before = effect.task, self._states.get(effect.task.id)
        if before is not None and before.terminal:
            raise Broken("TasksConserved", f"t{task.id} was {before.name} and is {task.state.name}")
        if (before is None) != (effect.change is TaskChange.SUBMITTED):
            raise Broken("TasksConserved", f"t{task.id} is {effect.change}, and was {before}")
        if before is TaskState.RUNNING and effect.change is TaskChange.CANCELLED:
            self._trace.count("cancelled while running")
        if before is TaskState.RESERVED and task.state is TaskState.RUNNING:
            if self._tokens[task.id] not in self._slots.values():
                raise Broken("TablesPartition", f"t{task.id} runs before its turn")
            self._trace.count("promoted")
        self._returned += before is TaskState.RUNNING and task.state is TaskState.PENDING
        self._move(task.id, task.state)

    def _replies(
        self, entry: Entry, commands: Sequence[Command], replies: Sequence[Reply], freed: set[FencingToken]
    ) -> None:
        for command, reply in zip(commands, replies, strict=True):
            match command:
                case Submit() | SubmitGraph() | Retry():
                    self._submitted(entry, command, reply)
                case Vacate():
                    self._vacated(command, reply, freed)
                case OccupyNew() if isinstance(reply, Occupied):
                    self._trace.count("rider accepted")
                case _:
                    pass

    def _vacated(self, command: Vacate, reply: Reply, freed: set[FencingToken]) -> None:
        if isinstance(reply, Refused):
            if reply.code == "stale_token":
                self._trace.count("stale token refused")
            return
        if not isinstance(reply, Vacated):
            raise Broken("ReplyStable", f"a Vacate is answered by {reply}")
        for outcome, name in (
            (AttemptOutcome.CRASHED, "attempt crashed"),
            (AttemptOutcome.FAILED, "attempt failed"),
            (AttemptOutcome.TIMED_OUT, "run timeout"),
            (AttemptOutcome.WITHDRAWN, "withdrawn"),
        ):
            if command.outcome is outcome:
                self._trace.count(name)
        # What was freed had the token that was current.
        if command.token not in freed:
            raise Broken(
                "OnlyCurrentTokenAccepted", f"{command.token} ends t{command.task_id}, and was not current"
            )

    def _submitted(self, entry: Entry, command: Submission, reply: Reply) -> None:
        booked, content = self._requests.get(command.request_id), _content(command)
        same = booked is not None and booked.content == content
        if isinstance(reply, Refused):
            if reply.code == "queue_full":
                self._trace.count("queue full")
            elif reply.code == "request_id_conflict":
                self._trace.count("same id, other request")
                if booked is None or same:
                    raise Broken("ReplyStable", f"{command.request_id} is no conflict")
            if same:
                raise Broken(
                    "ReplyStable", f"{command.request_id} was accepted, and is refused: {reply.code}"
                )
            return
        if not isinstance(reply, Accepted):
            raise Broken("ReplyStable", f"a submission is answered by {reply}")
        if booked is None:
            if reply.duplicate:
                raise Broken("ReplyStable", f"{command.request_id} is said to be known, and is not")
            self._requests[command.request_id] = _Booked(reply, content, entry.index, entry.term)
            return
        if not reply.duplicate or _plain(reply) != _plain(booked.answer) or not same:
            raise Broken("ReplyStable", f"{command.request_id} was answered {booked.answer}, now {reply}")
        self._trace.count("dedup hit")
        if entry.term != booked.term:
            self._trace.count("dedup hit after failover")

    # What clients are told.

    def acknowledged(self, request_id: str, answer: Accepted) -> None:
        """A client has been told that its submission is accepted.

        Raises:
            Broken: it is not, or was answered otherwise before.
        """
        booked = self._requests.get(request_id)
        if booked is None or _plain(booked.answer) != _plain(answer):
            raise Broken("AckedKept", f"{request_id} was acknowledged as {answer}, applied was {booked}")
        before = self._acknowledged.setdefault(request_id, answer)
        if _plain(before) != _plain(answer):
            raise Broken("ReplyStable", f"{request_id} was answered {before}, now {answer}")
        self._seen_index = max(self._seen_index, booked.index)
        self._trace.count("acknowledged submissions")

    @property
    def floor(self) -> int:
        """A read that begins now must see everything up to this index."""
        return self._seen_index

    def read(self, floor: int, applied_index: int) -> None:
        """A client has read, at this index; ``floor`` was taken when it asked.

        Raises:
            Broken: it has read what was.
        """
        if applied_index < floor:
            raise Broken("ReadFresh", f"a read saw entry {applied_index}, {floor} was known before it began")
        self._seen_index = max(self._seen_index, applied_index)
        self._trace.count("read confirmed")

    # At the end.

    @property
    def acknowledged_count(self) -> int:
        """How many submissions were acknowledged."""
        return len(self._acknowledged)

    def kept(self, state: State) -> None:
        """Everything that was acknowledged is in this state, and has ended.

        Raises:
            Broken: something is not.
        """
        for request_id, answer in self._acknowledged.items():
            record = state.requests.get(request_id)
            if record is None or (record.first_task_id, record.count) != (answer.first_task_id, answer.count):
                raise Broken(
                    "AckedKept", f"{request_id} was acknowledged as {answer}, the record is {record}"
                )
            for task_id in answer.task_ids:
                task = state.tasks.get(task_id)
                if self._books.purged(task_id):
                    if task is not None:
                        raise Broken("TasksConserved", f"t{task_id} was purged, and is {task}")
                elif task is None or task.state is not self._states[task_id]:
                    raise Broken("AckedKept", f"t{task_id} of {request_id} is {task}")


def _plain(answer: Accepted) -> tuple[int, int, int | None]:
    return answer.first_task_id, answer.count, answer.job_id


def _content(command: Submission) -> Submission:
    """What was asked for, without what stands for it."""
    return replace(command, digest=b"")
