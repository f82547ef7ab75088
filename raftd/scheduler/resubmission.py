"""The Retry command: what an ended task was is submitted once more.

What may live here: that rule. A terminal state absorbs, so that whoever saw the end of a task saw all of it; what runs
again is a new task, under a request id of its own.
"""

from __future__ import annotations

from raftd.scheduler.commands import Retry
from raftd.scheduler.replies import Refused, Reply
from raftd.scheduler.submission import add_task, refuse_queue, remember, request_answer
from raftd.scheduler.turn import Turn


def retry(turn: Turn, command: Retry) -> Reply:
    """Submit the spec of an ended task anew; of what it came after nothing is left, for all of that has ended."""
    answer = request_answer(turn, command)
    if answer is not None:
        return answer
    state = turn.state
    old = state.tasks.get(command.task_id)
    if old is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    if not old.state.terminal:
        return Refused(
            "rejected",
            f"task t{old.id} is {old.state.seen_as.name.lower()}: only what has ended can be submitted again",
            f"raftctl task wait t{old.id}, or raftctl cancel t{old.id}",
            retryable=True,
        )
    refusal = refuse_queue(state, 1)
    if refusal is not None:
        return refusal
    task_id = state.next_task_id
    state.next_task_id = task_id + 1
    # The array index stays, for its arguments mean that one; the job's counts are those of its own tasks.
    add_task(turn, old.spec, command.request_id, task_id, array_index=old.array_index)
    return remember(turn, command, task_id, 1)
