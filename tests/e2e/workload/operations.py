"""A history of clients as histories of single tasks, which `tests.linearizability` can check.

What may live here: who asked what of which task, and when what nobody asks for, Occupy and Vacate, must have happened.

A task is known by its request and its place in it. A call of the SDK may be sent more than once before it is answered,
so every cancel stands here twice: once as it was answered, and once as something that may or may not have happened. (A
submission that is sent twice happens once: that is what is tested.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from raftctl.client.models import AttemptOutcome, FencingToken, TaskState
from tests.e2e.workload.history import READ, RECORD, SUBMIT, WATCH, AttemptView, Event, TaskView
from tests.linearizability.checker import Operation, TooManyConfigurations, Unexplained, check_each
from tests.linearizability.task import (
    Accepted,
    Answer,
    Call,
    Cancel,
    Conflict,
    Done,
    Expire,
    NotFound,
    Occupy,
    Read,
    Run,
    Seen,
    State,
    Stopped,
    Submit,
    TakeTurn,
    TaskSpecification,
    Vacate,
)

Key: TypeAlias = tuple[str, int]
"""A request id, and the place of the task in the request."""

TaskHistory: TypeAlias = list[Operation[Call, Answer]]

CASCADED = "which it comes after"
"""In the reason of what was cancelled because something before it went wrong."""

THE_CLUSTER = "cluster"
"""Who asks for what no client does."""


def unexplained(
    events: Sequence[Event],
) -> Mapping[Key, Unexplained[State, Call, Answer] | TooManyConfigurations]:
    """The tasks whose history no order of the operations explains."""
    parts = Parts(events)
    return check_each(parts.histories, lambda key: TaskSpecification(parts.task_ids.get(key, "")))


class Parts:
    """The histories of all tasks of a run.

    Attributes:
        histories: by task.
        task_ids: what each task is called, as far as anybody was told.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.histories: defaultdict[Key, TaskHistory] = defaultdict(list)
        self.task_ids: dict[Key, str] = {}
        self._keys: dict[str, list[Key]] = {}
        """By task id, and by job id."""
        self._record: dict[str, TaskView] = {}
        self._learn(events)
        for event in events:
            self._add(event)
        self._add_what_nobody_asked_for(events)

    def _learn(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.what == SUBMIT and event.answer is not None and "task_ids" in event.answer:
                keys = [(event.about, place) for place in range(len(event.answer["task_ids"]))]
                for key, task_id in zip(keys, event.answer["task_ids"], strict=True):
                    self.task_ids.setdefault(key, task_id)
                    self._keys.setdefault(task_id, [key])
                if event.answer["job_id"]:
                    self._keys.setdefault(event.answer["job_id"], keys)
            elif event.what == RECORD:
                self._record = {task.task_id: task for task in event.tasks}
        for task in self._record.values():
            key = (task.request_id, task.position)
            self.task_ids.setdefault(key, task.task_id)
            self._keys.setdefault(task.task_id, [key])

    def _add(self, event: Event) -> None:
        match event.what:
            case "submit":
                self._add_submit(event)
            case "cancel":
                for key in self._keys[event.about]:
                    self._put(key, event, Cancel(), None)
                    if event.answer is not None:
                        self._put(key, event, Cancel(), _cancel_answer(event))
            case "read" if event.answer is not None:
                seen = {task.task_id: task for task in event.tasks}
                for key in self._keys[event.about]:
                    self._put(key, event, Read(), _seen(seen.get(self.task_ids[key])))
            case "record":
                for key, task_id in self.task_ids.items():
                    self._put(key, event, Read(), _seen(self._record.get(task_id)))

    def _add_submit(self, event: Event) -> None:
        call = Submit(event.asked["content"])
        for place in range(event.asked["count"]):
            answer: Answer | None = None
            if event.answer is not None and "conflict" in event.answer:
                answer = Conflict()
            elif event.answer is not None:
                task_ids = event.answer["task_ids"]
                answer = Accepted(task_ids[place] if place < len(task_ids) else "", event.answer["fresh"])
            self._put((event.about, place), event, call, answer)

    def _put(self, key: Key, event: Event, call: Call, answer: Answer | None) -> None:
        returned = None if answer is None else event.returned_ns
        self.histories[key].append(Operation(event.client, call, answer, event.invoked_ns, returned))

    def _add_what_nobody_asked_for(self, events: Sequence[Event]) -> None:
        begun, ended = _first_seen(events)
        for task_id, task in self._record.items():
            [key] = self._keys[task_id]
            if self.task_ids[key] != task_id:
                continue  # a second task of that place: the audit of the record says so
            since = min((one.invoked for one in self.histories[key]), default=0)
            history = self.histories[key]
            for attempt in task.attempts:
                token = attempt.token
                history.append(Operation(THE_CLUSTER, Occupy(token), Done(), since, begun[token]))
                history.append(Operation(THE_CLUSTER, TakeTurn(token), None, since, None))
                if attempt.outcome is not AttemptOutcome.RUNNING:
                    vacate = Vacate(token, attempt.outcome, _then(task, attempt))
                    history.append(Operation(THE_CLUSTER, vacate, Done(), since, ended[token]))
            if task.state is TaskState.FAILED and not task.attempts:
                until = max(event.returned_ns for event in events)
                history.append(Operation(THE_CLUSTER, Expire(), Done(), since, until))
            if stopped_by_cluster(task):
                history.append(Operation(THE_CLUSTER, Cancel(), None, since, None))


def stopped_by_cluster(task: TaskView) -> bool:
    """Whether the record says that this was cancelled by what it belongs to or depends on, and by no client."""
    words = ("has reached its limit", CASCADED)
    return task.state is TaskState.CANCELLED and any(one in task.reason for one in words)


def _then(task: TaskView, attempt: AttemptView) -> TaskState | None:
    """What the end of this attempt came to. What is cancelled now may have been pending in between."""
    if attempt is not task.attempts[-1]:
        return TaskState.PENDING
    return None if task.state is TaskState.CANCELLED else task.state


def _cancel_answer(event: Event) -> Answer:
    assert event.answer is not None
    if "not_found" in event.answer:
        return NotFound()
    state = event.answer["state"]
    return Stopped(None if state is None else TaskState(state))


def _seen(task: TaskView | None) -> Answer:
    if task is None:
        return NotFound()
    return Seen(task.task_id, task.state, tuple(Run(one.token, one.outcome) for one in task.attempts))


def _first_seen(events: Iterable[Event]) -> tuple[dict[FencingToken, int], dict[FencingToken, int]]:
    """By when each attempt had begun, and by when it had ended: somebody saw it then."""
    begun: dict[FencingToken, int] = {}
    ended: dict[FencingToken, int] = {}
    for event in events:
        if event.what not in (READ, WATCH, RECORD):
            continue
        for task in event.tasks:
            for attempt in task.attempts:
                if event.returned_ns < begun.get(attempt.token, event.returned_ns + 1):
                    begun[attempt.token] = event.returned_ns
                if attempt.outcome is AttemptOutcome.RUNNING:
                    continue
                if event.returned_ns < ended.get(attempt.token, event.returned_ns + 1):
                    ended[attempt.token] = event.returned_ns
    return begun, ended
