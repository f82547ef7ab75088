"""One entry being applied: the state, the entry's clock and chance, and the effects so far.

What may live here: what every rule needs in the same way: saying what changed, and keeping a job's counts.
"""

from __future__ import annotations

from dataclasses import replace

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
from raftd.scheduler.state import State


class Turn:
    """The work on one entry."""

    __slots__ = ("effects", "index", "now_ms", "random_u64", "state")

    def __init__(self, state: State, index: int, random_u64: int) -> None:
        self.state = state
        self.index = index
        self.now_ms = state.cluster_time_ms
        self.random_u64 = random_u64
        self.effects: list[Effect] = []

    def task_changed(self, change: TaskChange, task: Task, node: str = "", message: str = "") -> None:
        """Say that a task is now so."""
        self.effects.append(TaskChanged(self.index, self.now_ms, change, task, node, message))

    def node_changed(self, change: NodeChange, node: Node) -> None:
        """Say that a node is now so."""
        self.effects.append(NodeChanged(self.index, self.now_ms, change, node))

    def job_changed(self, change: JobChange, job: Job) -> None:
        """Say that a job is now so."""
        self.effects.append(JobChanged(self.index, self.now_ms, change, job))

    def count_in_job(self, job_id: int, left: TaskState, entered: TaskState, count: int = 1) -> Job:
        """So many tasks of a job went from one state to another; says so when the job has ended by it."""
        job = self.state.jobs[job_id]
        counts = {
            TaskState.PENDING: job.pending,
            TaskState.RUNNING: job.running,
            TaskState.SUCCEEDED: job.succeeded,
            TaskState.FAILED: job.failed,
            TaskState.CANCELLED: job.cancelled,
        }
        counts[left] -= count
        counts[entered] += count
        finished = not counts[TaskState.PENDING] and not counts[TaskState.RUNNING]
        job = replace(
            job,
            pending=counts[TaskState.PENDING],
            running=counts[TaskState.RUNNING],
            succeeded=counts[TaskState.SUCCEEDED],
            failed=counts[TaskState.FAILED],
            cancelled=counts[TaskState.CANCELLED],
            finished_at_ms=self.now_ms if finished else 0,
            changed_index=self.index,
        )
        self.state.jobs.put(job_id, job)
        if finished:
            self.job_changed(JobChange.FINISHED, job)
        return job
