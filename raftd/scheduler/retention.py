"""What is forgotten: ended tasks by count and age, request ids by age.

What may live here: the rules of forgetting. The work is spread: an entry forgets at most a few records more than it
made, so none has to pay for thousands. What is forgotten depends on the state and the entry alone.
"""

from __future__ import annotations

from dataclasses import replace

from raftd.scheduler.indexes import order_of, task_of
from raftd.scheduler.model import Task
from raftd.scheduler.state import State

_SPARE = 16


def forget_old(state: State, commands_count: int, created_count: int) -> None:
    """Forget what is over its time or number.

    Args:
        commands_count: of the entry.
        created_count: tasks that the entry made.
    """
    budget = _SPARE + 2 * (commands_count + created_count)
    _forget_tasks(state, budget)
    _forget_requests(state, budget)


def _forget_tasks(state: State, budget: int) -> None:
    ended, settings = state.indexes.ended, state.settings
    while budget and (key := ended.first) is not None:
        too_many = len(ended) > settings.tasks_kept
        too_old = state.cluster_time_ms - order_of(key) > settings.tasks_kept_ms
        if not too_many and not too_old:
            return
        task = state.tasks[task_of(key)]
        state.forget_task(task)
        if task.job_id is not None:
            _forget_in_job(state, task, task.job_id)
        budget -= 1


def _forget_in_job(state: State, task: Task, job_id: int) -> None:
    job = state.jobs[job_id]
    if job.forgotten + 1 == job.total:
        state.jobs.remove(job_id)
    else:
        state.jobs.put(job_id, replace(job, forgotten=job.forgotten + 1))


def _forget_requests(state: State, budget: int) -> None:
    while budget and state.oldest_request < state.next_request:
        record = state.requests[state.oldest_request]
        if record.expires_at_ms >= state.cluster_time_ms:
            return
        state.forget_oldest_request()
        budget -= 1
