"""Tasks that come after others: what a submission may name, and what the end of a task or job does to who waits for it.

What may live here: the rules of dependencies. A record names only what has not ended yet, so everything that is named
is there: whoever ends is taken out of the records that name it by the same command, before anybody can forget it.
A submission can only name what was there before it, and a graph is refused with a cycle in it: nobody waits for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raftd.scheduler.cancellation import cancel_pending
from raftd.scheduler.effects import TaskChange
from raftd.scheduler.model import Condition, Dependency, Job, Task, TaskState
from raftd.scheduler.replies import Refused
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

MAX_EDGES = 100_000
"""Of one submission: tasks, times what each comes after."""

_MAX_UNMET = 8
"""For each task that the queue may hold, in all: what the queue may hold of dependencies."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of a task with these dependencies.

    Attributes:
        unmet: what it has to wait for.
        doomed: why it never runs, where what it needs has ended otherwise; or empty.
    """

    unmet: tuple[Dependency, ...] = ()
    doomed: str = ""


def merged(after: Sequence[Dependency]) -> tuple[Dependency, ...]:
    """The same without repetition: what is named twice has to succeed if either says so."""
    found: dict[tuple[bool, int], Dependency] = {}
    for one in after:
        known = found.get((one.job, one.target))
        if known is None or one.condition < known.condition:
            found[one.job, one.target] = one
    return tuple(found.values())


def refuse_edges(state: State, count: int) -> Refused | None:
    """Why a submission with so many dependencies in all is refused, or None."""
    if count > MAX_EDGES:
        return Refused(
            "invalid_request",
            f"the tasks come after {count} others in all, the limit is {MAX_EDGES}",
            "let them come after one task, or after a job, that comes after those",
        )
    unmet, limit = len(state.indexes.dependents), _MAX_UNMET * state.settings.max_queue
    if count and unmet + count > limit:
        return Refused(
            "queue_full",
            f"the pending tasks come after {unmet} others in all, the limit is {limit}",
            "try again when tasks have ended",
            retryable=True,
        )
    return None


def look_ahead(state: State, after: Sequence[Dependency]) -> Outlook | Refused:
    """What becomes of a task that comes after these; refused where one of them is not there (any more)."""
    unmet: list[Dependency] = []
    doomed = ""
    for one in merged(after):
        target = state.jobs.get(one.target) if one.job else state.tasks.get(one.target)
        if target is None:
            what = "job j" if one.job else "task t"
            code = "job_not_found" if one.job else "task_not_found"
            return Refused(
                code,
                f"no {what}{one.target}, which it is to come after",
                "leave out what has ended and is forgotten",
            )
        if not _over(target):
            unmet.append(one)
        elif one.condition is Condition.OK and not _succeeded(target):
            doomed = doomed or _why(target)
    return Outlook(tuple(unmet), doomed)


def cancel_doomed(turn: Turn, task: Task, why: str) -> None:
    """Cancel a pending task that can never run."""
    cancel_pending(turn, task, why)
    if task.job_id is not None:
        turn.count_in_job(task.job_id, TaskState.PENDING, TaskState.CANCELLED)


def settle(turn: Turn) -> None:
    """Tell whoever waits for what has ended, and whoever waits for those that this ends, until there is nobody more.

    A list that grows and no recursion: a chain may be as long as the queue.
    """
    for ended in turn.ended:
        _settle_one(turn, ended)
    turn.ended.clear()


def _settle_one(turn: Turn, ended: Task | Job) -> None:
    state = turn.state
    job = isinstance(ended, Job)
    fails = not _succeeded(ended)
    waited: tuple[Dependency, ...] = ()
    left: tuple[Dependency, ...] = ()
    condition = Condition.ANY
    for task_id in state.indexes.dependents_of(ended.id, job):
        task = state.tasks[task_id]
        if task.after is not waited:
            # The tasks of an array share one list, and go on sharing one.
            waited = task.after
            condition = next(one.condition for one in waited if one.target == ended.id and one.job == job)
            left = tuple([one for one in waited if one.target != ended.id or one.job != job])
        if fails and condition is Condition.OK:
            cancel_doomed(turn, task, _why(ended))
        else:
            _wait_for_less(turn, task, left, ended.id, job)


def _wait_for_less(turn: Turn, task: Task, left: tuple[Dependency, ...], target: int, job: bool) -> None:
    waiting = Task(
        task.id,
        task.spec,
        task.state,
        task.job_id,
        task.array_index,
        task.request_id,
        task.submitted_at_ms,
        # Its queue timeout runs from when it may start.
        task.not_before_ms if left else max(task.not_before_ms, turn.now_ms),
        task.attempts,
        task.failures,
        task.crashes,
        task.returns,
        task.result,
        task.reason,
        task.finished_at_ms,
        turn.index,
        left,
    )
    turn.state.meet_dependency(waiting, target, job)
    if not left:
        turn.task_changed(TaskChange.RELEASED, waiting)


def _over(target: Task | Job) -> bool:
    if isinstance(target, Task):
        return target.state.terminal
    return not target.pending and not target.running


def _succeeded(target: Task | Job) -> bool:
    if isinstance(target, Task):
        return target.state is TaskState.SUCCEEDED
    return target.succeeded == target.total


def _why(target: Task | Job) -> str:
    if isinstance(target, Task):
        word = "failed" if target.state is TaskState.FAILED else "was cancelled"
        return f"t{target.id}, which it comes after, {word}"
    return (
        f"j{target.id}, which it comes after, did not succeed: of {target.total} tasks {target.failed} failed "
        f"and {target.cancelled} were cancelled"
    )
