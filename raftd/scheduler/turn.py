"""One entry being applied: the state, the entry's clock and chance, and the effects so far.

What may live here: what every rule needs in the same way: saying what changed, and keeping a job's counts.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

from raftd.scheduler.effects import (
    Effect,
    JobChange,
    JobChanged,
    NodeChange,
    NodeChanged,
    TaskChange,
    TaskChanged,
)
from raftd.scheduler.model import Job, Node, Task, TaskState
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State

V = TypeVar("V", bound=Hashable)


class Turn:
    """The work on one entry.

    Attributes:
        ended: tasks and jobs that have ended, and whose dependents are to be told after the command
            (``dependencies.settle``).
        replies: to the commands before the one that is being applied.
    """

    __slots__ = ("_values", "effects", "ended", "index", "now_ms", "random_u64", "replies", "state")

    def __init__(self, state: State, index: int, random_u64: int) -> None:
        self.state = state
        self.index = index
        self.now_ms = state.cluster_time_ms
        self.random_u64 = random_u64
        self.effects: list[Effect] = []
        self.ended: list[Task | Job] = []
        self.replies: list[Reply] = []
        self._values: dict[Any, Any] = {}

    def shared(self, value: V) -> V:
        """The value, or an equal one of an earlier command of this entry: what lies in many records is kept once."""
        found: V = self._values.setdefault(value, value)
        return found

    def task_changed(self, change: TaskChange, task: Task, node: str = "", message: str = "") -> None:
        """Say that a task is now so."""
        self.effects.append(TaskChanged(self.index, self.now_ms, change, task, node, message))
        if task.state.terminal and self.state.indexes.dependents:
            self.ended.append(task)

    def node_changed(self, change: NodeChange, node: Node) -> None:
        """Say that a node is now so."""
        self.effects.append(NodeChanged(self.index, self.now_ms, change, node))

    def job_changed(self, change: JobChange, job: Job) -> None:
        """Say that a job is now so."""
        self.effects.append(JobChanged(self.index, self.now_ms, change, job))
        if change is JobChange.FINISHED and self.state.indexes.dependents:
            self.ended.append(job)

    def count_in_job(self, job_id: int, left: TaskState, entered: TaskState, count: int = 1) -> Job:
        """So many tasks of a job went from one state to another; says so when the job has ended by it."""
        job = self.state.jobs[job_id]
        left, entered = left.seen_as, entered.seen_as
        if left is entered:
            return job
        pending, running, succeeded, failed, cancelled = (
            before + count * ((state is entered) - (state is left))
            for state, before in zip(_COUNTED, _counts(job), strict=True)
        )
        finished = not pending and not running
        job = Job(
            job.id,
            job.name,
            job.kind,
            job.max_failures,
            job.first_task_id,
            job.total,
            pending,
            running,
            succeeded,
            failed,
            cancelled,
            job.forgotten,
            job.stopping,
            job.submitted_at_ms,
            self.now_ms if finished else 0,
            self.index,
        )
        self.state.jobs.put(job_id, job)
        if finished:
            self.job_changed(JobChange.FINISHED, job)
        return job


_COUNTED = (
    TaskState.PENDING,
    TaskState.RUNNING,
    TaskState.SUCCEEDED,
    TaskState.FAILED,
    TaskState.CANCELLED,
)


def _counts(job: Job) -> tuple[int, int, int, int, int]:
    return job.pending, job.running, job.succeeded, job.failed, job.cancelled
