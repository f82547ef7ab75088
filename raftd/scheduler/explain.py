"""Why a task is where it is: what a pending one waits for, and what each node says to it.

What may live here: a question about the state and about what the leader sees. It changes nothing, and is asked by
people: it may cost as much as a plan, and one look at each node.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftd.scheduler.indexes import TaskClass, class_of
from raftd.scheduler.model import Condition, Dependency, Eligibility, Health, Node, Task, TaskState
from raftd.scheduler.placement import Held
from raftd.scheduler.planner import InFlight, Observations, PlanningView, held_back
from raftd.scheduler.slots import line_of
from raftd.scheduler.state import State

_MAX_NAMED = 10
"""So many dependencies are told one by one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one node says to a pending task.

    Attributes:
        fits: it could run it, now or when slots become free.
        available: it could run it now.
        reasons: why not, one requirement each.
    """

    node: str
    fits: bool
    available: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task is where it is.

    Attributes:
        summary: one line.
        waits: what it waits for, in the order in which it must happen.
        ahead: tasks before it in the queue that the same nodes could run.
        nodes: for a task that could be placed, by name.
    """

    task: Task
    summary: str
    waits: tuple[str, ...] = ()
    ahead: int = 0
    nodes: tuple[Verdict, ...] = ()


def explain(state: State, task: Task, now_ms: int, silent: frozenset[str] = frozenset()) -> Explanation:
    """Explain a task of this state.

    Args:
        now_ms: cluster time.
        silent: nodes without a working Attach stream to the leader (``Observations.silent``); only a leader knows.
    """
    match task.state:
        case TaskState.PENDING:
            return _explain_pending(state, task, now_ms, silent)
        case TaskState.RESERVED:
            return _explain_reserved(state, task)
        case TaskState.RUNNING:
            return Explanation(task, _running(task))
        case _:
            word = {TaskState.SUCCEEDED: "has succeeded", TaskState.FAILED: "has failed"}
            ended = word.get(task.state, "was cancelled")
            return Explanation(task, f"t{task.id} {ended}{f': {task.reason}' if task.reason else ''}")


def _running(task: Task) -> str:
    attempt = task.attempts[-1]
    slots = ", ".join(map(str, attempt.slots))
    words = f"t{task.id} runs on {attempt.node}, slot{'s' * bool(attempt.extra_slots)} {slots}"
    words += f", attempt {attempt.number}"
    return words if attempt.stopping is None else f"{words}, and is asked to end: {attempt.reason}"


def _explain_reserved(state: State, task: Task) -> Explanation:
    attempt = task.attempts[-1]
    node = state.nodes[attempt.node]
    line = line_of(node, attempt.slot)
    before = [node.executing[attempt.slot], *line[: line.index(task.id)]]
    words = (
        f"its turn on slot {attempt.slot} of {node.name}, after {', '.join(f't{other}' for other in before)}"
    )
    return Explanation(task, f"t{task.id} waits for {words}", (words,))


def _explain_pending(state: State, task: Task, now_ms: int, silent: frozenset[str]) -> Explanation:
    wanted = class_of(task.spec)
    waits = [_dependency(state, one) for one in task.after[:_MAX_NAMED]]
    if len(task.after) > _MAX_NAMED:
        waits.append(f"{len(task.after) - _MAX_NAMED} more to end")
    if task.not_before_ms > now_ms:
        waits.append(_delay(task, now_ms))
    held = None if waits else _held_before(state, task, now_ms, silent)
    verdicts = tuple(_verdict(state.nodes[name], wanted, silent, held) for name in sorted(state.nodes))
    ahead = 0 if waits else _ahead(state, task, silent)
    if waits:
        summary = f"t{task.id} waits for {waits[0]}"
        if len(waits) > 1:
            summary += f", and {len(waits) - 1} more"
    elif not any(verdict.fits for verdict in verdicts):
        waits.append("a node that could run it")
        summary = f"t{task.id} waits for a node that could run it: of {len(verdicts)} none can"
    elif any(verdict.available for verdict in verdicts):
        summary = f"t{task.id} is about to be placed"
    else:
        slots = "a slot" if task.spec.slots == 1 else f"{task.spec.slots} slots of one node"
        waits.append(f"{slots} to become free")
        summary = f"t{task.id} waits for {slots} to become free"
    if ahead:
        waits.append(f"{ahead} tasks that go before it" if ahead > 1 else "one task that goes before it")
        summary += f"; {ahead} {'go' if ahead > 1 else 'goes'} before it"
    return Explanation(task, summary, tuple(waits), ahead, verdicts)


def _dependency(state: State, one: Dependency) -> str:
    must = "succeed" if one.condition is Condition.OK else "end"
    if one.job:
        job = state.jobs.get(one.target)
        left = 0 if job is None else job.pending + job.running
        return f"the {left} tasks of j{one.target} that have not ended to {must}"
    target = state.tasks.get(one.target)
    return f"t{one.target} ({_word(target)}) to {must}"


def _word(task: Task | None) -> str:
    if task is None:
        return "forgotten"
    return "pending" if task.state is TaskState.RESERVED else task.state.name.lower()


def _delay(task: Task, now_ms: int) -> str:
    left_ms = task.not_before_ms - now_ms
    left = f"{left_ms // 1_000}.{left_ms % 1_000 // 100} s"
    if not task.attempts:
        return f"the end of its delay, in {left}"
    last = task.attempts[-1]
    ended = "" if last.outcome is None else f" ({last.outcome.name.lower()})"
    return f"its next try after attempt {last.number}{ended}, in {left}"


def _held_before(state: State, task: Task, now_ms: int, silent: frozenset[str]) -> Held | None:
    """Slots that a plan would hold back for a task that goes before this one."""
    held = held_back(PlanningView(state, InFlight()), Observations(silent=silent), now_ms)
    if held is None or held.task_id == task.id:
        return None
    key = state.indexes.queue_key
    return held if key(state.tasks[held.task_id]) < key(task) else None


def _ahead(state: State, task: Task, silent: frozenset[str]) -> int:
    """How many tasks go before this one and could run on a node that it could run on too."""
    key, mine = state.indexes.queue_key(task), class_of(task.spec)
    nodes = [node for node in state.nodes.values() if not _unfit(node, mine, silent)]
    ahead = 0
    for wanted, keys in state.indexes.queue.items():
        before = keys.count_below(key)
        if before and any(not _unfit(node, wanted, silent) for node in nodes):
            ahead += before
    return ahead


def _verdict(node: Node, wanted: TaskClass, silent: frozenset[str], held: Held | None) -> Verdict:
    reasons = _unfit(node, wanted, silent)
    fits = not reasons
    needed, free = wanted[2], node.slots_free
    if fits and free < needed:
        some = f"{free} of its {node.slots} slots {'is' if free == 1 else 'are'} free, {needed} are needed"
        reasons.append(some if free else "all its slots are busy")
    elif fits and held is not None and held.node == node.name:
        reasons.append(f"its free slots are held back for t{held.task_id}, which needs {held.slots}")
    return Verdict(node.name, fits, not reasons, tuple(reasons))


def _unfit(node: Node, wanted: TaskClass, silent: frozenset[str]) -> list[str]:
    """Why a node could not run tasks of this class whatever became of those that it runs."""
    kind, require, slots = wanted
    reasons: list[str] = []
    if node.health is not Health.UP:
        reasons.append("it is lost")
    elif node.name in silent:
        reasons.append("it has no working stream to the leader")
    if node.eligibility is not Eligibility.READY:
        reasons.append(f"it is {node.eligibility.name.lower()}")
    if kind not in node.kinds:
        reasons.append(f"it does not offer tasks of kind {kind}")
    labels = dict(node.all_labels) if require else {}
    for name, value in require:
        if name not in labels:
            reasons.append(f"label {name}={value} is missing")
        elif labels[name] != value:
            reasons.append(f"label {name} is {labels[name]}, not {value}")
    if node.slots < slots:
        reasons.append(f"it has {node.slots} slot{'s' * (node.slots != 1)}, {slots} are needed")
    return reasons
