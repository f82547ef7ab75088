"""Cancel and MarkStopping: intent is recorded at once, and what runs is asked to end.

What may live here: the rules by which tasks and jobs are stopped. Nothing here frees a slot: the attempt may still be
running, so its slot stays occupied until its Vacate, or until its node's incarnation is over.
"""

from __future__ import annotations

from dataclasses import replace

from raftd.scheduler.commands import Cancel, MarkStopping
from raftd.scheduler.effects import JobChange, StopRequested, TaskChange
from raftd.scheduler.model import Job, StopReason, Task, TaskState
from raftd.scheduler.replies import Cancelled, Marked, Refused, Reply
from raftd.scheduler.turn import Turn

_MAX_REASON_CHARS = 1_000
_CHANGES = {TaskState.FAILED: TaskChange.FAILED, TaskState.CANCELLED: TaskChange.CANCELLED}

_WORDS = {
    StopReason.CANCELLED: "cancelled",
    StopReason.TIMED_OUT: "its run timeout passed",
    StopReason.DRAINED: "its node is drained",
    StopReason.WITHDRAWN: "it can run elsewhere",
}

_WEIGHTS = {
    StopReason.WITHDRAWN: 0,
    StopReason.DRAINED: 1,
    StopReason.TIMED_OUT: 2,
    StopReason.CANCELLED: 3,
}
"""A request to end overrides a lighter one: what a timeout charges a drain does not forgive, and a cancel forbids even
the retry."""


def cancel(turn: Turn, command: Cancel) -> Reply:
    """Cancel a task or every task of a job. What has ended already stays as it is, and that is no refusal."""
    reason = command.reason[:_MAX_REASON_CHARS] or "cancelled"
    if (command.task_id is None) == (command.job_id is None):
        return Refused("invalid_request", "a Cancel names either a task or a job")
    if command.job_id is not None:
        job = turn.state.jobs.get(command.job_id)
        if job is None:
            return Refused("job_not_found", f"no job j{command.job_id}")
        return Cancelled(stop_job(turn, job, reason), None)
    assert command.task_id is not None
    task = turn.state.tasks.get(command.task_id)
    if task is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    if task.state is TaskState.PENDING:
        task = cancel_pending(turn, task, reason)
        if task.job_id is not None:
            turn.count_in_job(task.job_id, TaskState.PENDING, TaskState.CANCELLED)
        return Cancelled(1, task.state)
    if task.current is not None:
        # Also where it is reserved: its executor may have begun it.
        return Cancelled(int(_mark(turn, task, StopReason.CANCELLED, reason)), task.state)
    return Cancelled(0, task.state)


def mark_stopping(turn: Turn, command: MarkStopping) -> Reply:
    """Ask the current attempt to end; one that is asked already stays as it is."""
    task = turn.state.tasks.get(command.task_id)
    if task is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    attempt = task.current
    if attempt is None or attempt.number != command.attempt or attempt.token != command.token:
        return Refused("stale_token", f"attempt {command.attempt} of t{task.id} is not the current one")
    if command.reason is StopReason.WITHDRAWN and task.state is not TaskState.RESERVED:
        return Refused("rejected", f"t{task.id} does not wait for its turn any more", retryable=True)
    if command.reason is StopReason.TIMED_OUT and task.state is TaskState.RESERVED:
        return Refused("rejected", f"the time of t{task.id} counts from its turn", retryable=True)
    _mark(turn, task, command.reason, _WORDS[command.reason])
    return Marked(task.id)


def stop_job(turn: Turn, job: Job, reason: str) -> int:
    """Cancel what is pending in a job and ask what runs to end.

    Returns:
        How many tasks that changed.
    """
    if job.finished_at_ms or job.stopping:
        return 0
    job = replace(job, stopping=True, changed_index=turn.index)
    turn.state.jobs.put(job.id, job)
    turn.job_changed(JobChange.STOPPING, job)
    cancelled = marked = 0
    for task_id in job.task_ids:
        task = turn.state.tasks.get(task_id)
        if task is None:
            continue
        if task.state is TaskState.PENDING:
            cancel_pending(turn, task, reason)
            cancelled += 1
        elif task.current is not None:
            marked += _mark(turn, task, StopReason.CANCELLED, reason)
    if cancelled:
        turn.count_in_job(job.id, TaskState.PENDING, TaskState.CANCELLED, cancelled)
    return cancelled + marked


def stop_if_over(turn: Turn, job: Job) -> None:
    """Stop a job of which as many tasks have failed as may fail."""
    if job.max_failures and job.failed >= job.max_failures:
        stop_job(turn, job, f"job j{job.id} has reached its limit of {job.max_failures} failed tasks")


def cancel_pending(turn: Turn, task: Task, reason: str) -> Task:
    """Cancel a pending task; the caller counts it in its job."""
    return end_pending(turn, task, TaskState.CANCELLED, reason)


def end_pending(turn: Turn, task: Task, state: TaskState, reason: str) -> Task:
    """End a pending task without an attempt; the caller counts it in its job."""
    # Written out: `dataclasses.replace` costs several times as much, and a job may have thousands of tasks.
    ended = Task(
        task.id,
        task.spec,
        state,
        task.job_id,
        task.array_index,
        task.request_id,
        task.submitted_at_ms,
        task.not_before_ms,
        task.attempts,
        task.failures,
        task.crashes,
        task.returns,
        None,
        reason,
        turn.now_ms,
        turn.index,
    )
    turn.state.replace_task(task, ended)
    turn.task_changed(_CHANGES[state], ended, message=reason)
    return ended


def _mark(turn: Turn, task: Task, stopping: StopReason, reason: str) -> bool:
    """Mark the current attempt, unless it has been asked for as good a reason."""
    attempt = task.attempts[-1]
    if attempt.stopping is not None and _WEIGHTS[attempt.stopping] >= _WEIGHTS[stopping]:
        return False
    marked = replace(
        task,
        attempts=(*task.attempts[:-1], replace(attempt, stopping=stopping, reason=reason)),
        changed_index=turn.index,
    )
    turn.state.replace_task(task, marked)
    turn.effects.append(
        StopRequested(turn.index, attempt.node, attempt.incarnation, task.id, attempt.token, stopping)
    )
    if stopping is not StopReason.WITHDRAWN:
        turn.task_changed(TaskChange.STOPPING, marked, attempt.node, reason)
    return True
