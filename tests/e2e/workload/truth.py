"""Whether what a cluster said of jobs and tasks was true when it said so.

What may live here: the checks of `job`, each of which lists what does not hold. They rest on one thing: the record
keeps of every ended task at which index of the log it ended, and every answer says up to which index it speaks. (What
was read of a job tells its latest change: nothing of it ended between that and the read.)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from raftctl.client import models as m
from raftctl.client.explanations import Explanation
from tests.e2e.workload.ledger import END, Ledger

Edges: TypeAlias = Mapping[str, Sequence[str]]
"""By task, what it comes after."""

_ON_ANOTHER = re.compile(r"(t\d+) \((\w+)\) to (?:succeed|end)")
_MAX_NAMED = 10
"""An explanation names so many and counts the rest."""


@dataclass(frozen=True, slots=True)
class CountsTold:
    """A job as somebody was told of it, in the order in which they were told."""

    by: str
    job_id: str
    index: int
    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int

    @staticmethod
    def of(by: str, job: m.Job) -> CountsTold:
        """What is kept of it."""
        return CountsTold(
            by,
            job.job_id,
            job.changed_index,
            job.total,
            job.pending,
            job.running,
            job.succeeded,
            job.failed,
            job.cancelled,
        )


@dataclass(frozen=True, slots=True)
class Explained:
    """What was said of a task.

    Attributes:
        index: up to which it speaks.
        waits_for: the tasks that it is said to wait for, each with its state, and how many more.
    """

    task_id: str
    index: int
    state: m.TaskState
    summary: str
    waits_for: tuple[tuple[str, str], ...]
    waits_count: int

    @staticmethod
    def of(told: Explanation) -> Explained:
        """What is kept of it."""
        waits_for = tuple(found.groups() for wait in told.waits if (found := _ON_ANOTHER.fullmatch(wait)))
        pairs = tuple((task_id, state) for task_id, state in waits_for)
        return Explained(
            told.task.task_id, told.read.applied_index, told.task.state, told.summary, pairs, len(told.waits)
        )


def untruths(
    expected: Mapping[str, int],
    tasks: Sequence[m.Task],
    edges: Edges,
    counts: Sequence[CountsTold],
    explained: Sequence[Explained],
) -> list[str]:
    """Everything that was not so.

    Args:
        expected: how many tasks each job has.
        tasks: all of them as they are at the end.
    """
    ends = {task.task_id: task.changed_index for task in tasks if task.state.terminal}
    by_job: defaultdict[str, list[int]] = defaultdict(list)
    for task in tasks:
        if task.state is not m.TaskState.SUCCEEDED:
            by_job[task.job_id or ""].append(1 << 62)
            continue
        by_job[task.job_id or ""].append(task.changed_index)
    return [
        *_not_whole(expected, tasks),
        *_wrong_counts(expected, {job_id: sorted(found) for job_id, found in by_job.items()}, counts),
        *_wrong_explanations(ends, edges, explained),
    ]


def _not_whole(expected: Mapping[str, int], tasks: Sequence[m.Task]) -> Iterator[str]:
    for job_id, count in expected.items():
        found = {task.task_id for task in tasks if task.job_id == job_id}
        if len(found) != count:
            yield f"{job_id} has {len(found)} tasks, not {count}"
    for task in tasks:
        if task.state is not m.TaskState.SUCCEEDED:
            yield f"{task.task_id} is {task.state}: {task.reason}"


def _wrong_counts(
    expected: Mapping[str, int], ends: Mapping[str, list[int]], counts: Sequence[CountsTold]
) -> Iterator[str]:
    before: dict[tuple[str, str], CountsTold] = {}
    for told in counts:
        parts = told.pending + told.running + told.succeeded + told.failed + told.cancelled
        if not told.total == parts == expected[told.job_id]:
            yield f"the counts add up to {parts}: {told}"
        last = before.get((told.by, told.job_id), told)
        if told.succeeded < last.succeeded or told.index < last.index:
            yield f"the counts went back: {last}, then {told}"
        before[told.by, told.job_id] = told
        so_far = bisect_right(ends[told.job_id], told.index)
        if told.succeeded != so_far or told.failed or told.cancelled:
            yield f"{so_far} had succeeded by then: {told}"


def _wrong_explanations(
    ends: Mapping[str, int], edges: Edges, explained: Sequence[Explained]
) -> Iterator[str]:
    never = 1 << 62
    for told in explained:
        if told.state.terminal != (ends.get(told.task_id, never) <= told.index):
            yield f"{told.task_id} ended at {ends.get(told.task_id)}, and was said otherwise: {told}"
        if told.state is not m.TaskState.PENDING:
            continue
        unmet = {other for other in edges.get(told.task_id, ()) if ends.get(other, never) > told.index}
        said = {task_id for task_id, _ in told.waits_for}
        if not said <= unmet:
            yield f"{told.task_id} waits for {sorted(said - unmet)} no longer: {told}"
        if len(said) < min(len(unmet), _MAX_NAMED):
            yield f"{told.task_id} waits for {sorted(unmet - said)} too: {told}"
        if any(state not in ("pending", "running") for _, state in told.waits_for):
            yield f"{told.task_id} waits for what has ended: {told}"
        if unmet and not told.summary.startswith(f"{told.task_id} waits for t"):
            yield f"{told.task_id} waits for others, and the summary does not say so: {told}"


def ran_wrongly(tasks: Sequence[m.Task], edges: Edges, ran: Ledger) -> list[str]:
    """What the ledger says otherwise than the record: every task ran to its end once, and after those before it."""
    found: list[str] = []
    for task in tasks:
        ends = [one.token for one in ran.get(task.task_id, ()) if one.last_word == END]
        last = task.last_attempt
        # One that came to its end on a node that died then has run again, and its first end counts for nothing.
        if last is None or last.fencing_token not in ends:
            found.append(f"{task.task_id} has not run to its end in the attempt that counts: {ends}")
        for one, other in zip(ran.get(task.task_id, ()), ran.get(task.task_id, ())[1:], strict=False):
            if one.lines[-1].place > other.lines[0].place:
                found.append(f"two runs of {task.task_id} at once: {one.token} and {other.token}")
        known = {attempt.fencing_token for attempt in task.attempts}
        unknown = [one.token for one in ran.get(task.task_id, ()) if one.token not in known]
        if unknown:
            found.append(f"{task.task_id} ran, and is not in the record: {unknown}")
    for task_id, others in edges.items():
        first = min((one.lines[0].place for one in ran.get(task_id, ())), default=0)
        late = [one for one in others if any(run.lines[-1].place > first for run in ran.get(one, ()))]
        if late:
            found.append(f"{task_id} ran before {late} had ended")
    return found
