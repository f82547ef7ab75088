"""The SubmitGraph command: tasks that wait for each other, accepted as one job, or refused whole.

What may live here: the checks of a graph, the search for a cycle, and the making of its job.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.scheduler import dependencies
from raftd.scheduler.commands import GraphTask, SubmitGraph
from raftd.scheduler.dependencies import Outlook
from raftd.scheduler.model import Dependency
from raftd.scheduler.replies import Accepted, Refused, Reply
from raftd.scheduler.state import State
from raftd.scheduler.submission import (
    add_job,
    add_task,
    refuse_dependencies,
    refuse_kind,
    refuse_max_failures,
    refuse_queue,
    refuse_spec,
    remember,
    request_answer,
)
from raftd.scheduler.turn import Turn

_CYCLE_SHOWN = 8
"""So many positions of a cycle are named in the refusal."""


def submit_graph(turn: Turn, command: SubmitGraph) -> Reply:
    """Accept a graph, unless the request is known, conflicts, is too old, breaks a limit, or waits for itself."""
    answer = request_answer(turn, command)
    if answer is not None:
        return answer
    refusal = _refuse(turn.state, command)
    if refusal is not None:
        return refusal
    outlooks = _outlooks(turn.state, command.tasks)
    if isinstance(outlooks, Refused):
        return outlooks
    return _accept(turn, command, outlooks)


def find_cycle(edges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Positions that come after each other, each after the next one and the last after the first; empty: there is none.

    Args:
        edges: for each position the ones that it comes after.
    """
    waits_for = [len(before) for before in edges]
    followers: list[list[int]] = [[] for _ in edges]
    for position, before in enumerate(edges):
        for one in before:
            followers[one].append(position)
    ready = [position for position, count in enumerate(waits_for) if not count]
    for position in ready:
        for follower in followers[position]:
            waits_for[follower] -= 1
            if not waits_for[follower]:
                ready.append(follower)
    at = next((position for position, count in enumerate(waits_for) if count), None)
    if at is None:
        return ()
    # Each of those that are left comes after another of them: whoever goes on so comes back.
    seen: dict[int, int] = {}
    path: list[int] = []
    while at not in seen:
        seen[at] = len(path)
        path.append(at)
        at = next(one for one in edges[at] if waits_for[one])
    return tuple(path[seen[at] :])


def _refuse(state: State, command: SubmitGraph) -> Refused | None:
    settings, tasks = state.settings, command.tasks
    if not 0 < len(tasks) <= settings.max_graph:
        return Refused(
            "invalid_request",
            f"the graph has {len(tasks)} tasks, and may have 1 to {settings.max_graph}",
            "submit it in parts: a task may come after those of an earlier graph",
        )
    if len(command.name.encode()) > settings.max_args_bytes:
        return Refused("payload_too_large", f"the name has more than {settings.max_args_bytes} bytes")
    refusal = refuse_max_failures(command.max_failures)
    if refusal is None:
        refusal = _refuse_tasks(state, tasks)
    if refusal is None:
        edges = sum([len(task.after) + len(task.after_others) for task in tasks])
        refusal = dependencies.refuse_edges(state, edges) or refuse_queue(state, len(tasks))
    if refusal is not None:
        return refusal
    cycle = find_cycle([[edge.position for edge in task.after] for task in tasks])
    return Refused("invalid_request", _cycle_words(tasks, cycle), "take one of them out") if cycle else None


def _refuse_tasks(state: State, tasks: Sequence[GraphTask]) -> Refused | None:
    known_specs: set[int] = set()
    for position, task in enumerate(tasks):
        refusal = None
        if id(task.spec) not in known_specs:
            known_specs.add(id(task.spec))
            refusal = refuse_spec(task.spec, state.settings) or refuse_kind(state, task.spec.kind)
        if refusal is None:
            refusal = refuse_dependencies(len(task.after) + len(task.after_others), state.settings)
        if refusal is None and task.after:
            last = max([edge.position for edge in task.after])
            if not 0 <= min([edge.position for edge in task.after]) <= last < len(tasks):
                refusal = Refused(
                    "invalid_request",
                    f"it comes after a task at a position that is not one of 0 to {len(tasks) - 1}",
                )
        if refusal is not None:
            return Refused(
                refusal.code,
                f"task {position} of the graph: {refusal.message}",
                refusal.try_,
                refusal.retryable,
            )
    return None


def _outlooks(state: State, tasks: Sequence[GraphTask]) -> list[Outlook] | Refused:
    """What each has to wait for outside of the graph."""
    nothing = Outlook()
    outlooks: list[Outlook] = []
    for position, task in enumerate(tasks):
        outlook = dependencies.look_ahead(state, task.after_others) if task.after_others else nothing
        if isinstance(outlook, Refused):
            return Refused(outlook.code, f"task {position} of the graph: {outlook.message}", outlook.try_)
        outlooks.append(outlook)
    return outlooks


def _accept(turn: Turn, command: SubmitGraph, outlooks: Sequence[Outlook]) -> Accepted:
    state = turn.state
    first_task_id, count = state.next_task_id, len(command.tasks)
    job_id = add_job(turn, command.name, "", command.max_failures, first_task_id, count)
    state.next_task_id = first_task_id + count
    # Equal specs are kept once, and so are equal lists of dependencies.
    added = []
    for offset, (task, outlook) in enumerate(zip(command.tasks, outlooks, strict=True)):
        within = tuple(
            [Dependency(first_task_id + edge.position, False, edge.condition) for edge in task.after]
        )
        after = dependencies.merged((*outlook.unmet, *within))
        added.append(
            add_task(
                turn,
                turn.shared(task.spec),
                command.request_id,
                first_task_id + offset,
                job_id,
                after=turn.shared(after),
            )
        )
    for new, outlook in zip(added, outlooks, strict=True):
        if outlook.doomed:
            dependencies.cancel_doomed(turn, new, outlook.doomed)
    return remember(turn, command, first_task_id, count, job_id)


def _cycle_words(tasks: Sequence[GraphTask], cycle: Sequence[int]) -> str:
    first = cycle.index(min(cycle))
    turned = [*cycle[first:], *cycle[:first]]
    shown = [_word(tasks, position) for position in turned[:_CYCLE_SHOWN]]
    more = len(turned) - len(shown)
    end = f"{more} more, and so on" if more else _word(tasks, turned[0])
    return f"the graph has a cycle; each comes after the next: {', '.join(shown)}, {end}"


def _word(tasks: Sequence[GraphTask], position: int) -> str:
    name = tasks[position].spec.name
    return f"{position} ({name[:32]!r})" if name else str(position)
