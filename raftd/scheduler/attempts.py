"""Occupy and Vacate: how an attempt begins, how it ends, and what its end makes of its task.

What may live here: the rules of one attempt. Both commands are checked against the record alone; what a leader thought
when it proposed them does not count.
"""

from __future__ import annotations

from itertools import pairwise

from raftd.scheduler.cancellation import stop_if_over
from raftd.scheduler.commands import Occupy, Vacate
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
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Occupied, Refused, Reply, Vacated
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
    """Start an attempt: the task pending and due, the node up and ready in that incarnation, the slot free."""
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
    state.token_counter += 1
    attempt = Attempt(
        number=task.attempts[-1].number + 1 if task.attempts else 1,
        node=node.name,
        slot=command.slot,
        incarnation=node.incarnation,
        token=FencingToken(state.epoch, state.token_counter),
        occupied_at_ms=turn.now_ms,
        extra_slots=command.extra_slots,
    )
    kept = task.attempts[-(state.settings.max_attempts_kept - 1) :] if task.attempts else ()
    running = Task(
        task.id,
        task.spec,
        TaskState.RUNNING,
        task.job_id,
        task.array_index,
        task.request_id,
        task.submitted_at_ms,
        task.not_before_ms,
        (*kept, attempt),
        task.failures,
        task.crashes,
        task.returns,
        None,
        "",
        0,
        turn.index,
    )
    state.replace_task(task, running)
    state.put_node(_with_slots(node, attempt.slots, task.id, turn.index))
    if task.job_id is not None:
        turn.count_in_job(task.job_id, TaskState.PENDING, TaskState.RUNNING)
    turn.effects.append(Assigned(turn.index, node.name, node.incarnation, running, attempt))
    turn.task_changed(TaskChange.RUNNING, running, node.name)
    return Occupied(task.id, attempt.number, attempt.token)


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
    node = state.nodes[attempt.node]
    state.put_node(_with_slots(node, attempt.slots, None, turn.index))
    return Vacated(task.id, ended.state)


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
    """End the current attempt of a running task and settle the task. The caller frees the slot.

    Returns:
        The task as it is then.
    """
    state = turn.state
    attempt = task.attempts[-1]
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
    turn.task_changed(_CHANGES[settled.state], settled, attempt.node, ended.reason)
    if task.job_id is not None:
        job = turn.count_in_job(task.job_id, TaskState.RUNNING, settled.state)
        stop_if_over(turn, job)
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
        if node.executing[slot] is not None:
            return _not_now(f"slot {slot} of node {node.name!r} is occupied")
    for name, value in spec.require:
        # A label may have been taken back since this was planned.
        if (name, value) not in node.all_labels:
            return _not_now(
                f"node {node.name!r} has no label {name}={value}, which t{command.task_id} requires"
            )
    return None


def _not_now(message: str) -> Refused:
    return Refused("rejected", message, retryable=True)


def _with_slots(node: Node, slots: tuple[int, ...], task_id: int | None, index: int) -> Node:
    executing = list(node.executing)
    for slot in slots:
        executing[slot] = task_id
    # Written out: `dataclasses.replace` costs as much as the rest of an Occupy.
    return Node(
        node.name,
        node.store_id,
        node.incarnation,
        node.role,
        node.labels,
        node.kinds,
        node.address,
        node.health,
        node.eligibility,
        tuple(executing),
        index,
        node.operator_labels,
        node.drain_deadline_ms,
        node.reserved,
    )


def _unusable(result: bytes | BlobRef | None, settings: Settings) -> str:
    if isinstance(result, BlobRef):
        return "" if usable_ref(result) else "its result is no reference to a blob"
    if result is not None and len(result) > settings.max_inline_result_bytes:
        return f"its inline result has {len(result)} bytes, the limit is {settings.max_inline_result_bytes}"
    return ""


def _sane_ms(time_ms: int) -> int:
    return min(max(time_ms, 0), MAX_TIME_MS)
