"""Occupy and Vacate: how an attempt begins, how it ends, and what its end makes of its task.

What may live here: the rules of one attempt. The commands are checked against the record alone; what a leader thought
when it proposed them does not count.

An attempt can be *reserved*: it has its number and its token, its executor knows it, and it waits behind the one that
occupies its slot. When that one vacates, the next in line becomes the head, with no command of its own. Its executor
need not wait for that: it may have started the attempt, and even have ended it, before the record has the end of the
one before. So the end of a reserved attempt counts like that of any other.
"""

from __future__ import annotations

from itertools import pairwise

from raftd.scheduler.cancellation import stop_if_over
from raftd.scheduler.commands import Occupy, OccupyNew, Vacate
from raftd.scheduler.directory import record_holders, usable_ref
from raftd.scheduler.effects import Assigned, SlotFreed, TaskChange
from raftd.scheduler.model import (
    MAX_TIME_MS,
    Attempt,
    AttemptOutcome,
    BlobRef,
    Eligibility,
    FencingToken,
    Health,
    Node,
    Settings,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Accepted, Occupied, Refused, Reply, Vacated
from raftd.scheduler.slots import line_of, lined_up, occupied, vacated
from raftd.scheduler.state import State
from raftd.scheduler.transitions import Charge, Settlement, settle
from raftd.scheduler.turn import Turn

MAX_REASON_CHARS = 1_000

_CHANGES = {
    TaskState.PENDING: TaskChange.RETRYING,
    TaskState.SUCCEEDED: TaskChange.SUCCEEDED,
    TaskState.FAILED: TaskChange.FAILED,
    TaskState.CANCELLED: TaskChange.CANCELLED,
}


def occupy(turn: Turn, command: Occupy) -> Reply:
    """Start an attempt: the task pending and due, the node up and ready in that incarnation, the slot free.

    With ``reserve`` the slot may be occupied: the attempt is reserved, and has its turn when those before it are over.
    """
    state = turn.state
    task = state.tasks.get(command.task_id)
    if task is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    if task.state is not TaskState.PENDING:
        return _not_now(f"task t{task.id} is {task.state.name.lower()}, not pending")
    if task.after:
        return _not_now(f"task t{task.id} comes after {len(task.after)} others that have not ended")
    if task.not_before_ms > turn.now_ms:
        return _not_now(f"task t{task.id} waits until {task.not_before_ms}")
    node = state.nodes.get(command.node)
    if node is None:
        return Refused("node_not_found", f"no node {command.node!r} has registered")
    refusal = _refuse_node(node, command) or _refuse_slots(node, command, task.spec)
    if refusal is not None:
        return refusal
    # Where the slot has become free meanwhile, its turn is at once.
    waits = command.reserve and node.executing[command.slot] is not None
    if waits:
        refusal = _refuse_line(state, node, command.slot)
        if refusal is not None:
            return refusal
    state.token_counter += 1
    attempt = Attempt(
        number=task.attempts[-1].number + 1 if task.attempts else 1,
        node=node.name,
        slot=command.slot,
        incarnation=node.incarnation,
        token=FencingToken(state.epoch, state.token_counter),
        occupied_at_ms=0 if waits else turn.now_ms,
        extra_slots=command.extra_slots,
    )
    kept = task.attempts[-(state.settings.max_attempts_kept - 1) :] if task.attempts else ()
    placed = _with_attempts(task, TaskState.RESERVED if waits else TaskState.RUNNING, (*kept, attempt), turn)
    state.replace_task(task, placed)
    if waits:
        # Nothing that anybody but its executor could see has changed: the task is as pending as before.
        state.put_node(lined_up(node, command.slot, task.id, turn.index))
        turn.effects.append(Assigned(turn.index, node.name, node.incarnation, placed, attempt))
    else:
        state.put_node(occupied(node, attempt.slots, task.id, turn.index))
        turn.effects.append(Assigned(turn.index, node.name, node.incarnation, placed, attempt))
        _say_running(turn, placed, node.name)
    return Occupied(task.id, attempt.number, attempt.token)


def occupy_new(turn: Turn, command: OccupyNew) -> Reply:
    """Start an attempt of a task that a submission of the same entry has just made."""
    made = turn.replies[command.position] if 0 <= command.position < len(turn.replies) else None
    if not isinstance(made, Accepted) or made.duplicate:
        return _not_now(f"command {command.position} of this entry has made no task")
    if not 0 <= command.offset < made.count:
        return _not_now(f"command {command.position} of this entry has made {made.count} tasks")
    task_id = made.first_task_id + command.offset
    place = (command.node, command.incarnation, command.slot, command.extra_slots)
    return occupy(turn, Occupy(task_id, *place))


def vacate(turn: Turn, command: Vacate) -> Reply:
    """End an attempt: only the current one of its task, and only with an equal token."""
    state = turn.state
    task = state.tasks.get(command.task_id)
    if task is None:
        return Refused("task_not_found", f"no task t{command.task_id}")
    attempt = task.current
    if attempt is None or attempt.number != command.attempt or attempt.token != command.token:
        return Refused(
            "stale_token",
            f"attempt {command.attempt} of t{task.id} with token {command.token} is not the current one",
        )
    outcome, reason, result = command.outcome, command.reason, command.result
    unusable = _unusable(result, state.settings)
    if unusable:
        # Refusing the command would leave the slot occupied for ever; the attempt has not brought a result.
        if outcome is AttemptOutcome.SUCCEEDED:
            outcome, reason = AttemptOutcome.FAILED, unusable
        result = None
    ended = end_attempt(
        turn,
        task,
        outcome,
        reason,
        result,
        started_at_ms=command.started_at_ms,
        ended_at_ms=command.ended_at_ms,
    )
    if isinstance(ended.result, BlobRef):
        record_holders(state, ended.result, command.blob_holders)
    node, following = vacated(state.nodes[attempt.node], attempt.slots, task.id, turn.index)
    state.put_node(node)
    if following is not None:
        _promote(turn, state.tasks[following])
    return Vacated(task.id, ended.state)


def _promote(turn: Turn, task: Task) -> None:
    """It is the turn of a reserved task: its attempt is the head of its slot from now on."""
    attempt = task.attempts[-1]
    # To be withdrawn it would have to wait still.
    withdrawn = attempt.stopping is StopReason.WITHDRAWN
    head = Attempt(
        attempt.number,
        attempt.node,
        attempt.slot,
        attempt.incarnation,
        attempt.token,
        turn.now_ms,
        reason="" if withdrawn else attempt.reason,
        stopping=None if withdrawn else attempt.stopping,
    )
    running = _with_attempts(task, TaskState.RUNNING, (*task.attempts[:-1], head), turn)
    turn.state.replace_task(task, running)
    _say_running(turn, running, head.node)


def _say_running(turn: Turn, task: Task, node: str) -> None:
    if task.job_id is not None:
        turn.count_in_job(task.job_id, TaskState.PENDING, TaskState.RUNNING)
    turn.task_changed(TaskChange.RUNNING, task, node)


def _with_attempts(task: Task, state: TaskState, attempts: tuple[Attempt, ...], turn: Turn) -> Task:
    return Task(
        task.id,
        task.spec,
        state,
        task.job_id,
        task.array_index,
        task.request_id,
        task.submitted_at_ms,
        task.not_before_ms,
        attempts,
        task.failures,
        task.crashes,
        task.returns,
        None,
        "",
        0,
        turn.index,
    )


def end_attempt(
    turn: Turn,
    task: Task,
    outcome: AttemptOutcome,
    reason: str,
    result: bytes | BlobRef | None = None,
    *,
    started_at_ms: int = 0,
    ended_at_ms: int = 0,
) -> Task:
    """End the current attempt of a running or reserved task and settle the task. The caller frees the slot.

    Returns:
        The task as it is then.
    """
    state = turn.state
    attempt = task.attempts[-1]
    waited = task.state is TaskState.RESERVED
    reason = reason[:MAX_REASON_CHARS]
    settlement = settle(task, outcome, reason, state.settings.crash_limit, turn.random_u64)
    ended = Attempt(
        attempt.number,
        attempt.node,
        attempt.slot,
        attempt.incarnation,
        attempt.token,
        attempt.occupied_at_ms,
        _sane_ms(started_at_ms),
        _sane_ms(ended_at_ms) or turn.now_ms,
        outcome,
        reason or attempt.reason,
        attempt.stopping,
        attempt.extra_slots,
    )
    settled = _settled(turn, task, ended, settlement, result)
    state.replace_task(task, settled)
    turn.effects.append(
        SlotFreed(turn.index, attempt.node, attempt.incarnation, attempt.slot, task.id, attempt.token)
    )
    if settled.state is TaskState.PENDING and settlement.charge is Charge.NOTHING and waited:
        return settled  # it was pending to everybody but its executor, and is so still
    turn.task_changed(_CHANGES[settled.state], settled, attempt.node, ended.reason)
    if task.job_id is not None:
        stop_if_over(turn, turn.count_in_job(task.job_id, task.state, settled.state))
    return settled


def _settled(
    turn: Turn, task: Task, ended: Attempt, settlement: Settlement, result: bytes | BlobRef | None
) -> Task:
    terminal = settlement.state.terminal
    # What a task says of its own error is kept, where it is the last word.
    own_error = settlement.state is TaskState.FAILED and ended.outcome is AttemptOutcome.FAILED
    charge = settlement.charge
    return Task(
        task.id,
        task.spec,
        settlement.state,
        task.job_id,
        task.array_index,
        task.request_id,
        task.submitted_at_ms,
        min(turn.now_ms + settlement.delay_ms, MAX_TIME_MS) if settlement.delay_ms else task.not_before_ms,
        (*task.attempts[:-1], ended),
        task.failures + (charge is Charge.FAILURE),
        task.crashes + (charge is Charge.CRASH),
        task.returns + (charge is Charge.RETURN),
        result if own_error or settlement.state is TaskState.SUCCEEDED else None,
        settlement.reason,
        turn.now_ms if terminal else 0,
        turn.index,
    )


def _refuse_node(node: Node, command: Occupy) -> Refused | None:
    if node.health is not Health.UP or node.incarnation != command.incarnation:
        return _not_now(f"node {node.name!r} is not up as incarnation {command.incarnation}")
    if node.eligibility is not Eligibility.READY:
        return _not_now(f"node {node.name!r} is {node.eligibility.name.lower()}")
    return None


def _refuse_slots(node: Node, command: Occupy, spec: TaskSpec) -> Refused | None:
    slots = (command.slot, *command.extra_slots)
    if len(slots) != spec.slots:
        return _not_now(f"task t{command.task_id} needs {spec.slots} slots, not {len(slots)}")
    if any(not lower < upper for lower, upper in pairwise(slots)):
        return _not_now("the slots of an attempt are in ascending order")
    for slot in slots:
        if not 0 <= slot < node.slots:
            return _not_now(f"node {node.name!r} has no slot {slot}")
        if node.executing[slot] is not None and not (command.reserve and len(slots) == 1):
            return _not_now(f"slot {slot} of node {node.name!r} is occupied")
    for name, value in spec.require:
        # A label may have been taken back since this was planned.
        if (name, value) not in node.all_labels:
            return _not_now(
                f"node {node.name!r} has no label {name}={value}, which t{command.task_id} requires"
            )
    return None


def _refuse_line(state: State, node: Node, slot: int) -> Refused | None:
    head = state.tasks[node.executing[slot] or 0]
    if head.attempts[-1].extra_slots:
        return _not_now(
            f"slot {slot} of node {node.name!r} is one of several of t{head.id}: nothing waits there"
        )
    depth = state.settings.reserve_depth
    if len(line_of(node, slot)) >= depth:
        return _not_now(f"{depth} attempts wait for slot {slot} of node {node.name!r}: that is the limit")
    return None


def _not_now(message: str) -> Refused:
    return Refused("rejected", message, retryable=True)


def _unusable(result: bytes | BlobRef | None, settings: Settings) -> str:
    if isinstance(result, BlobRef):
        return "" if usable_ref(result) else "its result is no reference to a blob"
    if result is not None and len(result) > settings.max_inline_result_bytes:
        return f"its inline result has {len(result)} bytes, the limit is {settings.max_inline_result_bytes}"
    return ""


def _sane_ms(time_ms: int) -> int:
    return min(max(time_ms, 0), MAX_TIME_MS)
