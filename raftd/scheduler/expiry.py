"""The Expire command: a task that nothing has started within its queue timeout fails.

What may live here: that rule. The leader looks at the clock; whether the time has really passed is checked here, by
the time of the entry.
"""

from __future__ import annotations

from raftd.scheduler.cancellation import end_pending, stop_if_over
from raftd.scheduler.commands import Expire
from raftd.scheduler.indexes import queue_deadline_ms
from raftd.scheduler.model import TaskState
from raftd.scheduler.replies import Expired, Refused, Reply
from raftd.scheduler.turn import Turn


def expire(turn: Turn, command: Expire) -> Reply:
    """Fail a pending task that has never had its turn, once its queue timeout has passed."""
    task = turn.state.tasks.get(command.task_id)
    if task is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    waits = task.state is TaskState.PENDING and not task.after
    deadline_ms = queue_deadline_ms(task) if waits else None
    if deadline_ms is None or deadline_ms > turn.now_ms:
        return Refused("rejected", f"the queue timeout of task t{task.id} has not passed", retryable=True)
    reason = f"nothing started it within its queue timeout of {task.spec.queue_timeout_ms} ms"
    end_pending(turn, task, TaskState.FAILED, reason)
    if task.job_id is not None:
        stop_if_over(turn, turn.count_in_job(task.job_id, TaskState.PENDING, TaskState.FAILED))
    return Expired(task.id)
