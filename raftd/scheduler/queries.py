"""Questions about the state: the two tables, counts, pages of tasks, what a node should be running.

What may live here: functions that read and change nothing. What is asked often costs as much as its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from raftd.scheduler.attach import Assignment
from raftd.scheduler.directory import usable_digest
from raftd.scheduler.indexes import task_of
from raftd.scheduler.model import (
    Attempt,
    BlobRecord,
    Job,
    Node,
    NodeRole,
    Task,
    TaskState,
)
from raftd.scheduler.slots import line_of
from raftd.scheduler.state import State

MAX_SCANNED = 4_000
"""How many records one page may look at: a rare state in a long list is found page by page, not in one stall."""


@dataclass(frozen=True, slots=True)
class ExecutingRow:
    """One line of the *Executing* table."""

    node: str
    slot: int
    task: Task
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class FreeNodeRow:
    """One line of the *Free Nodes* table."""

    node: str
    role: NodeRole
    slots_free: int
    slots: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks in the record are in each state."""

    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks in the order of their ids.

    Attributes:
        next_after: go on with the task after this id; None at the end. A page can be short, even empty, and have more
            after it.
    """

    tasks: tuple[Task, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs in the order of their ids; ``next_after`` as in ``TaskPage``."""

    jobs: tuple[Job, ...]
    next_after: int | None


def executing(state: State) -> tuple[ExecutingRow, ...]:
    """Every occupied slot, by node name and slot; a task of several slots is in each of them."""
    rows = []
    for name in sorted(state.nodes):
        for slot, task_id in enumerate(state.nodes[name].executing):
            if task_id is not None:
                task = state.tasks[task_id]
                rows.append(ExecutingRow(name, slot, task, task.attempts[-1]))
    return tuple(rows)


def free_nodes(state: State) -> tuple[FreeNodeRow, ...]:
    """Every node that is up, ready and has a free slot, by name."""
    return tuple(
        FreeNodeRow(node.name, node.role, node.slots_free, node.slots)
        for node in nodes(state)
        if node.takes_work
    )


def nodes(state: State) -> tuple[Node, ...]:
    """Every node that has registered, by name."""
    return tuple(state.nodes[name] for name in sorted(state.nodes))


def counts(state: State) -> Counts:
    """How many tasks are in each state; a reserved one is pending to everybody but its executor."""
    count = state.indexes.count
    return Counts(
        pending=state.indexes.pending_count,
        running=count(TaskState.RUNNING),
        succeeded=count(TaskState.SUCCEEDED),
        failed=count(TaskState.FAILED),
        cancelled=count(TaskState.CANCELLED),
    )


def task(state: State, task_id: int) -> Task | None:
    """The task, or None where there is none or its record is gone."""
    return state.tasks.get(task_id)


def job(state: State, job_id: int) -> Job | None:
    """The job, or None where there is none or its record is gone."""
    return state.jobs.get(job_id)


def blob(state: State, digest: str) -> BlobRecord | None:
    """The directory's entry for these bytes, or None."""
    return state.blob(digest) if usable_digest(digest) else None


def task_args(task: Task) -> tuple[str, ...]:
    """The task's arguments, the array index in the place of every ``{}``."""
    if task.array_index is None:
        return task.spec.args
    index = str(task.array_index)
    return tuple(arg.replace("{}", index) for arg in task.spec.args)


def task_page(
    state: State,
    *,
    after: int = 0,
    limit: int = 100,
    states: Collection[TaskState] = (),
    job_id: int | None = None,
) -> TaskPage:
    """The next tasks with ids above ``after``, of these states (empty: of all) and, if given, of this job."""
    if job_id is not None:
        found = state.jobs.get(job_id)
        if found is None:
            return TaskPage((), None)
        ids = found.task_ids
        first, end = max(after + 1, ids.start), ids.stop
    else:
        first, end = after + 1, state.next_task_id
    tasks: list[Task] = []
    for scanned, candidate in enumerate(_candidates(state, first, states)):
        if candidate.id >= end:
            break
        if len(tasks) == limit or scanned == MAX_SCANNED:
            return TaskPage(tuple(tasks), candidate.id - 1)
        if (not states or candidate.state in states) and (job_id is None or candidate.job_id == job_id):
            tasks.append(candidate)
    return TaskPage(tuple(tasks), None)


def job_page(state: State, *, after: int = 0, limit: int = 100, unfinished_only: bool = False) -> JobPage:
    """The next jobs with ids above ``after``, of which, if so asked, something is pending or running."""
    jobs: list[Job] = []
    for scanned, candidate in enumerate(state.jobs.from_key(after + 1)):
        if len(jobs) == limit or scanned == MAX_SCANNED:
            return JobPage(tuple(jobs), candidate.id - 1)
        if not unfinished_only or not candidate.finished_at_ms:
            jobs.append(candidate)
    return JobPage(tuple(jobs), None)


def next_pending(state: State, limit: int) -> tuple[Task, ...]:
    """The first pending tasks: those that may start, in the order of the queue, then those that wait for their time."""
    heads: list[int] = []
    for keys in state.indexes.queue.values():
        heads += islice(keys, limit)
    heads.sort()
    heads = heads[:limit]
    heads += islice(state.indexes.delayed, limit - len(heads))
    return tuple(state.tasks[task_of(key)] for key in heads)


def recently_ended(state: State, limit: int) -> tuple[Task, ...]:
    """The tasks that ended last, the latest first."""
    return tuple(state.tasks[task_of(key)] for key in islice(state.indexes.latest_ended(), limit))


def assignment(task: Task) -> Assignment:
    """What its node needs to run the current attempt of a running or reserved task."""
    attempt = task.attempts[-1]
    spec = task.spec
    return Assignment(
        task_id=task.id,
        attempt=attempt.number,
        token=attempt.token,
        slot=attempt.slot,
        kind=spec.kind,
        args=task_args(task),
        payload=spec.payload,
        env=dict(spec.env),
        run_timeout_ms=spec.run_timeout_ms,
        array_index=task.array_index,
        job_id=task.job_id,
        stop=attempt.stopping,
        extra_slots=attempt.extra_slots,
    )


def assignments(state: State, name: str) -> tuple[Assignment, ...]:
    """Everything that the node should be running, by slot, each followed by what waits for its turn there.

    Nothing for a node that is not there.
    """
    node = state.nodes.get(name)
    if node is None:
        return ()
    return tuple(assignment(state.tasks[task_id]) for task_id in assigned(node))


def assigned(node: Node) -> tuple[int, ...]:
    """The tasks that are on the node, by slot, each once: what executes, and what waits for its turn."""
    task_ids: dict[int, None] = {}
    for slot, task_id in enumerate(node.executing):
        if task_id is not None:
            task_ids[task_id] = None
            task_ids.update(dict.fromkeys(line_of(node, slot)))
    return tuple(task_ids)


def _candidates(state: State, first: int, states: Collection[TaskState]) -> Iterator[Task]:
    if states and all(wanted is TaskState.RUNNING for wanted in states):
        running = sorted(
            task_id for node in state.nodes.values() for task_id in node.occupants if task_id >= first
        )
        return (state.tasks[task_id] for task_id in running)
    return state.tasks.from_key(first)
