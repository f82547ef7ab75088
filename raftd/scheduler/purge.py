"""The Purge command: records of ended tasks are forgotten now, because somebody says so.

What may live here: that rule. One command forgets at most ``MAX_PURGED`` records, so that no entry stops the loop;
whoever gets that number back asks again.
"""

from __future__ import annotations

from itertools import islice, takewhile

from raftd.scheduler.commands import Purge
from raftd.scheduler.indexes import order_of, task_of
from raftd.scheduler.model import TaskState
from raftd.scheduler.replies import Purged, Refused, Reply
from raftd.scheduler.retention import forget_task
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

MAX_PURGED = 2_000
"""Records that one command forgets, and names that it may carry."""


def purge(turn: Turn, command: Purge) -> Reply:
    """Forget what is named, or what ended before a time; who has not ended stays, and is told why."""
    state = turn.state
    names = len(command.task_ids) + len(command.job_ids)
    if names > MAX_PURGED:
        return Refused(
            "invalid_request",
            f"{names} tasks and jobs are named at once, the limit is {MAX_PURGED}",
            "name them in parts",
        )
    if bool(names) == bool(command.ended_before_ms):
        return Refused("invalid_request", "a Purge names either tasks and jobs, or a time")
    lasting = [one for one in command.states if not one.terminal]
    if lasting:
        return Refused("invalid_request", f"a task that is {lasting[0].name.lower()} has not ended")
    if not names:
        return Purged(_purge_old(state, command.ended_before_ms, command.states))
    return _purge_named(state, command)


def _purge_named(state: State, command: Purge) -> Purged:
    refused: list[tuple[str, Refused]] = []
    count = 0
    for task_id in command.task_ids:
        task = state.tasks.get(task_id)
        if task is None:
            refused.append((f"t{task_id}", Refused("task_not_found", f"no task t{task_id}")))
        elif not task.state.terminal:
            word = task.state.seen_as.name.lower()
            refused.append((f"t{task_id}", _not_yet(f"task t{task_id} is {word}")))
        else:
            forget_task(state, task)
            count += 1
    for job_id in command.job_ids:
        job = state.jobs.get(job_id)
        if job is None:
            refused.append((f"j{job_id}", Refused("job_not_found", f"no job j{job_id}")))
        elif job.pending or job.running:
            words = f"of job j{job_id} {job.pending + job.running} tasks have not ended"
            refused.append((f"j{job_id}", _not_yet(words)))
        else:
            count += _purge_job(state, job_id, MAX_PURGED - count)
    return Purged(count, tuple(refused))


def _purge_job(state: State, job_id: int, limit: int) -> int:
    ids = state.jobs[job_id].task_ids
    of_job = takewhile(lambda task: task.id < ids.stop, state.tasks.from_key(ids.start))
    tasks = list(islice(of_job, limit))
    for task in tasks:
        forget_task(state, task)
    return len(tasks)


def _purge_old(state: State, ended_before_ms: int, states: tuple[TaskState, ...]) -> int:
    keys: list[int] = []
    for ended_state, ended in state.indexes.ended.items():
        if not states or ended_state in states:
            keys += islice(ended, MAX_PURGED)
    keys.sort()
    keys = [key for key in keys[:MAX_PURGED] if order_of(key) < ended_before_ms]
    for key in keys:
        forget_task(state, state.tasks[task_of(key)])
    return len(keys)


def _not_yet(message: str) -> Refused:
    return Refused("rejected", message, "cancel it first, or wait for its end", retryable=True)
