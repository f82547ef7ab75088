"""What must hold after a run, whatever was done to the cluster: the clients' word, the record and the ledger agree.

What may live here: the checks, each of which lists what breaks it. They read a history and a ledger and nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from raftctl.client.models import AttemptOutcome, TaskState
from tests.e2e.workload.history import (
    CANCEL,
    FAULT,
    RECORD,
    RESULT,
    SUBMIT,
    WATCH,
    AttemptView,
    Event,
    TaskView,
)
from tests.e2e.workload.ledger import DIE, END, FAIL, LAST_WORDS, START, Execution, Ledger
from tests.e2e.workload.operations import CASCADED, stopped_by_cluster, unexplained

LEASE_S = 6
FAULT_LASTS_S = 4 * LEASE_S
"""So long after its end a fault may still cost a node what it ran: a lease that nobody renews, a lease's margin, a new
leader in between who gives every node a full one, and a slow machine."""

_CHANGES = frozenset({"succeeded", "failed", "cancelled"})
_NEVER = 1 << 62


def audit(events: Sequence[Event], ledger: Ledger, clock_offset_ns: int) -> list[str]:
    """Everything that does not hold, in words; nothing, one hopes.

    Args:
        clock_offset_ns: what the clock of the day is ahead of the one in the history.
    """
    books = _Books(events, ledger, clock_offset_ns)
    found = [
        *books.lost_or_doubled(),
        *books.not_ended(),
        *books.overlapping(),
        *books.not_in_the_record(),
        *books.unexplained_attempts(),
        *books.out_of_turn(),
        *books.wrong_results(),
        *books.wrong_watch(),
    ]
    for key, verdict in unexplained(events).items():
        found.append(f"not linearizable: {key[0]}[{key[1]}]\n{verdict}")
    return found


@dataclass(frozen=True, slots=True)
class _FaultTime:
    """A fault, and from when to when, on the clock of the day."""

    words: str
    touched: frozenset[str]
    begun_ms: float
    over_ms: float


class _Books:
    """A run's history, sorted."""

    def __init__(self, events: Sequence[Event], ledger: Ledger, clock_offset_ns: int) -> None:
        self._events = events
        self._ledger = ledger
        [record] = [event for event in events if event.what == RECORD]
        self._rows = record.tasks
        self._record = {task.task_id: task for task in record.tasks}
        self._asked: dict[str, Mapping[str, Any]] = {}
        self._acknowledged: dict[str, tuple[str, ...]] = {}
        self._job_ids: dict[str, str] = {}
        self._cancels = {event.about for event in events if event.what == CANCEL}
        self._faults = [
            _FaultTime(
                event.about,
                frozenset(event.asked["touched"]),
                (event.invoked_ns + clock_offset_ns) / 1e6,
                (event.returned_ns + clock_offset_ns) / 1e6 + FAULT_LASTS_S * 1000,
            )
            for event in events
            if event.what == FAULT
        ]
        for event in events:
            if event.what == SUBMIT and event.answer is not None and "task_ids" in event.answer:
                self._asked[event.about] = event.asked
                self._acknowledged[event.about] = tuple(event.answer["task_ids"])
                self._job_ids[event.about] = event.answer["job_id"]

    # --- acknowledged, and once ---------------------------------------------------------------------------------------

    def lost_or_doubled(self) -> Iterator[str]:
        """What was acknowledged and is not in the record, or is there more than once; and what nobody asked for."""
        for task_id, count in Counter(task.task_id for task in self._rows).items():
            if count > 1:
                yield f"recorded twice: {task_id}"
        by_request: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for task in self._record.values():
            if task.position in by_request[task.request_id]:
                yield f"recorded twice: {task.request_id}[{task.position}] is {task.task_id} and another"
            by_request[task.request_id][task.position] = task.task_id
        for request_id, task_ids in self._acknowledged.items():
            if len(task_ids) != self._asked[request_id]["count"]:
                yield f"{request_id} asked for {self._asked[request_id]['count']} tasks and was told of {task_ids}"
            for position, task_id in enumerate(task_ids):
                found = by_request[request_id].get(position)
                if found != task_id:
                    yield f"lost: {request_id}[{position}] was acknowledged as {task_id}, the record has {found}"
        for request_id in by_request.keys() - self._acknowledged.keys():
            yield f"in the record, and acknowledged to nobody: {request_id}"

    def not_ended(self) -> Iterator[str]:
        """What was to end, and has not."""
        for task in self._record.values():
            if not task.state.terminal:
                yield f"not ended: {task.task_id} of {task.request_id} is {task.state}"

    # --- what ran -----------------------------------------------------------------------------------------------------

    def overlapping(self) -> Iterator[str]:
        """Two runs of one task at once: something of the first was written after the second had begun."""
        for task_id, executions in self._ledger.items():
            for execution in executions:
                whats = [line.what for line in execution.lines]
                words = [what for what in whats if what in LAST_WORDS]
                if (
                    whats.count(START) != 1
                    or whats[0] != START
                    or len({one.pid for one in execution.lines}) != 1
                ):
                    yield f"one attempt ran twice: {task_id} {execution.token}"
                if len(words) > 1 or (words and whats[-1] not in LAST_WORDS):
                    yield f"an attempt went on after its end: {task_id} {execution.token}: {whats[-3:]}"
            for one, other in pairwise(executions):
                if one.lines[-1].place > other.lines[0].place:
                    late_ms = (one.lines[-1].time_ns - other.lines[0].time_ns) / 1e6
                    yield f"two runs of {task_id} at once, for {late_ms:.0f} ms: {one.token} and {other.token}"
                if not (one.token < other.token and one.attempt < other.attempt):
                    yield f"tokens of {task_id} go backwards: {one.token}, then {other.token}"

    def not_in_the_record(self) -> Iterator[str]:
        """What ran and the record does not know, or knows otherwise."""
        for task_id, executions in self._ledger.items():
            task = self._record.get(task_id)
            if task is None:
                yield f"ran, and is not in the record: {task_id}"
                continue
            attempts = {one.token: one for one in task.attempts}
            for execution in executions:
                attempt = attempts.get(execution.token)
                if attempt is None or attempt.number != execution.attempt:
                    yield f"ran, and is not in the record: attempt {execution.attempt} of {task_id}, {execution.token}"

    def unexplained_attempts(self) -> Iterator[str]:
        """Attempts whose outcome is not borne out by the ledger, by what the task was to do, or by what was done."""
        for task in self._record.values():
            asked = self._asked.get(task.request_id)
            if asked is None:
                continue  # told already: acknowledged to nobody
            executions = {one.token: one for one in self._ledger.get(task.task_id, [])}
            for number, attempt in enumerate(task.attempts, start=1):
                why_not = self._why_not(task, attempt, executions.get(attempt.token), asked)
                if attempt.number != number:
                    why_not = f"it should be number {number}"
                if why_not:
                    what = f"attempt {attempt.number} of {task.task_id} ({task.request_id}) on {attempt.node}"
                    yield f"unexplained: {what} {attempt.outcome} ({attempt.reason}): {why_not}"
            for attempt in task.attempts[:-1]:
                if attempt.outcome is AttemptOutcome.SUCCEEDED:
                    yield f"run again after it had succeeded: {task.task_id} of {task.request_id}"
            yield from self._wrong_end(task, asked)

    def _why_not(
        self, task: TaskView, attempt: AttemptView, execution: Execution | None, asked: Mapping[str, Any]
    ) -> str:
        """Why this outcome cannot be; empty where it can."""
        last_word = execution.last_word if execution is not None else ""
        match attempt.outcome:
            case AttemptOutcome.SUCCEEDED:
                return "" if last_word == END else "it wrote no end"
            case AttemptOutcome.FAILED:
                return "" if last_word in (FAIL, DIE) else "it was not to fail, or wrote nothing of it"
            case AttemptOutcome.CRASHED if last_word == DIE:
                return ""  # in the slot's process, which died with it
            case AttemptOutcome.TIMED_OUT:
                timeout_ms = asked["run_timeout_ms"]
                lasted_ms = attempt.ended_ms - attempt.occupied_ms
                return "" if timeout_ms and lasted_ms >= timeout_ms else f"it lasted {lasted_ms} ms"
            case AttemptOutcome.CANCELLED:
                # Nobody asks for it where a node is stopped: it gives back what it runs.
                return "" if self._was_cancelled(task) or self._was_struck(attempt) else "nobody cancelled it"
            case "not_started" | "withdrawn":
                return "" if execution is None else "it had started"
            case AttemptOutcome.LOST | AttemptOutcome.CRASHED:
                return "" if self._was_struck(attempt) else "nothing was done to its node"
            case _:
                return "that is no end"

    def _wrong_end(self, task: TaskView, asked: Mapping[str, Any]) -> Iterator[str]:
        if task.state is TaskState.CANCELLED and not self._was_cancelled(task):
            yield f"cancelled by nobody: {task.task_id} of {task.request_id}, {task.reason}"
        charged = (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT)
        failures = sum(attempt.outcome in charged for attempt in task.attempts)
        crashes = sum(
            attempt.outcome in (AttemptOutcome.LOST, AttemptOutcome.CRASHED) for attempt in task.attempts
        )
        if task.state is TaskState.FAILED and failures <= asked["retries"] and crashes < 5:
            yield f"failed with retries left: {task.task_id} of {task.request_id}, {task.reason}"

    def _was_cancelled(self, task: TaskView) -> bool:
        asked_for = {task.task_id, self._job_ids.get(task.request_id) or task.task_id}
        return bool(asked_for & self._cancels) or stopped_by_cluster(task)

    def _was_struck(self, attempt: AttemptView) -> bool:
        return any(
            attempt.node in fault.touched
            and fault.begun_ms <= attempt.ended_ms
            and attempt.occupied_ms <= fault.over_ms
            for fault in self._faults
        )

    # --- what comes after others --------------------------------------------------------------------------------------

    def out_of_turn(self) -> Iterator[str]:
        """What ran before that had ended which it comes after, or though that had gone wrong; and what was cancelled
        because of something that did not go wrong."""
        ended = {event.about: index for event, index, change in self._told() if change in _CHANGES}
        running = [(event.about, index) for event, index, change in self._told() if change == "running"]
        begun = dict(reversed(running))  # the first counts
        for task in self._record.values():
            after = [
                (name, need, self._tasks_of(name))
                for name, need in self._asked.get(task.request_id, {}).get("after", ())
            ]
            for name, _, others in after:
                for other in others:
                    if self._wrote_before_the_end(task.task_id, other):
                        yield f"ran too soon: {task.task_id} began before {other} had ended, and comes after {name}"
                    if begun.get(task.task_id, _NEVER) < ended.get(other, 0):
                        yield f"recorded too soon: {task.task_id} began before {other} had ended, after {name}"
            wrong = [name for name, need, others in after if need == "ok" and not self._all_succeeded(others)]
            if wrong and (task.attempts or task.state is not TaskState.CANCELLED):
                yield f"not cancelled: {task.task_id} is {task.state}, though {', '.join(wrong)} did not succeed"
            if CASCADED in task.reason and task.reason.split(",")[0] not in wrong:
                yield f"cancelled for nothing: {task.task_id}, {task.reason}"

    def _tasks_of(self, name: str) -> tuple[str, ...]:
        """A task, or those of a job."""
        jobs = (self._acknowledged[request_id] for request_id, job in self._job_ids.items() if job == name)
        return next(jobs, (name,))

    def _all_succeeded(self, task_ids: Sequence[str]) -> bool:
        found = [self._record.get(task_id) for task_id in task_ids]
        return all(task is not None and task.state is TaskState.SUCCEEDED for task in found)

    def _wrote_before_the_end(self, task_id: str, other: str) -> bool:
        """Whether anything of a task is in the ledger before the last that another wrote."""
        first = min((one.lines[0].place for one in self._ledger.get(task_id, ())), default=_NEVER)
        return first < max((one.lines[-1].place for one in self._ledger.get(other, ())), default=-1)

    def wrong_results(self) -> Iterator[str]:
        """Results that are not those of the attempt that succeeded, or are missing."""
        results = {
            event.about: event.answer["result"]
            for event in self._events
            if event.what == RESULT and event.answer is not None
        }
        for task in self._record.values():
            if task.state is not TaskState.SUCCEEDED or task.request_id not in self._asked:
                continue
            last = task.attempts[-1]
            size = self._asked[task.request_id]["result_bytes"]
            expected = f"{task.task_id} {last.number} {last.token}".ljust(size, ".")
            if results.get(task.task_id) != expected:
                yield f"the result of {task.task_id} is {results.get(task.task_id)!r:.80}, not {expected!r:.80}"

    def _told(self) -> Iterator[tuple[Event, int, str]]:
        """The changes that the watch told, with their log index, as they came."""
        for event in self._events:
            if event.what == WATCH and event.answer is not None and "index" in event.answer:
                yield event, event.answer["index"], event.answer["change"]

    # --- the watch ----------------------------------------------------------------------------------------------------

    def wrong_watch(self) -> Iterator[str]:
        """Changes out of order, told twice, or left out though no gap was told."""
        changes = [event for event in self._events if event.what == WATCH and event.answer is not None]
        gap = any(event.answer is not None and event.answer.get("gap") for event in changes)
        last_index = 0
        told: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for event, index, change in self._told():
            if index < last_index:
                yield f"the watch went back from {last_index} to {index}"
            last_index = index
            if (index, change) in told[event.about]:
                yield f"the watch told twice of {event.about}: {change} at {index}"
            told[event.about].append((index, change))
        for task in self._record.values() if not gap and changes else ():
            seen = Counter(change for _, change in told[task.task_id])
            # An attempt that only waited in line was never running to anybody, and has no time at which it began.
            expected = {"submitted": 1, "running": sum(one.occupied_ms > 0 for one in task.attempts)}
            if (
                any(seen[change] != count for change, count in expected.items())
                or sum(seen[one] for one in _CHANGES) != 1
            ):
                yield f"the watch told of {task.task_id} ({task.state}, {len(task.attempts)} attempts): {dict(seen)}"
