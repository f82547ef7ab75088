"""What is forgotten: ended tasks by count and age, request ids by age and after their tasks.

What may live here: the rules of forgetting. The work is spread: an entry forgets at most a few records more than it
made, so none has to pay for thousands. What is forgotten depends on the state and the entry alone.
"""

from __future__ import annotations

from dataclasses import replace

from raftd.scheduler.indexes import order_of, task_of
from raftd.scheduler.model import RequestRecord, Task
from raftd.scheduler.requests import created_ms
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
    indexes, settings = state.indexes, state.settings
    while budget and (key := indexes.first_ended) is not None:
        too_many = indexes.ended_count > settings.tasks_kept
        too_old = state.cluster_time_ms - order_of(key) > settings.tasks_kept_ms
        if not too_many and not too_old:
            return
        forget_task(state, state.tasks[task_of(key)])
        budget -= 1


def forget_task(state: State, task: Task) -> None:
    """Forget the record of an ended task, and with the last one of a job that of the job."""
    state.forget_task(task)
    if task.job_id is not None:
        job = state.jobs[task.job_id]
        if job.forgotten + 1 < job.total:
            state.jobs.put(job.id, replace(job, forgotten=job.forgotten + 1))
            return
        state.jobs.remove(job.id)
    state.requests.forget_held(task.request_id)


def _forget_requests(state: State, budget: int) -> None:
    while budget and (oldest := state.requests.oldest) is not None:
        if oldest.expires_at_ms >= state.cluster_time_ms:
            return
        if _must_be_held(state, oldest):
            state.requests.hold_oldest()
        else:
            state.requests.forget_oldest()
        budget -= 1


def _must_be_held(state: State, record: RequestRecord) -> bool:
    """Whether the id could be taken for a new one while people still see what it made."""
    if created_ms(record.request_id):
        # It is refused for its age from now on.
        return False
    return record.job_id in state.jobs if record.job_id is not None else record.first_task_id in state.tasks
