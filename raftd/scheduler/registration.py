"""RegisterNode and NodeLost: the incarnations of a node begin and end.

What may live here: the rules by which a name, a store and an incarnation may appear, and what the end of an incarnation
does to what it ran.
"""

from __future__ import annotations

from dataclasses import replace

from raftd.scheduler.attempts import end_attempt
from raftd.scheduler.commands import NodeLost, RegisterNode
from raftd.scheduler.directory import forget_holder
from raftd.scheduler.effects import NodeChange
from raftd.scheduler.limits import MAX_KIND_CHARS, MAX_LABELS, MAX_SLOTS
from raftd.scheduler.model import AttemptOutcome, Eligibility, Health, Node
from raftd.scheduler.replies import Lost, Refused, Registered, Reply
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

MAX_NAME_CHARS = 64
MAX_KINDS = 256
MAX_TEXT_CHARS = 256
_MAX_U64 = (1 << 64) - 1


def register_node(turn: Turn, command: RegisterNode) -> Reply:
    """Take in an executor. Its earlier incarnation, if there is one, is over, and so is what it ran."""
    state = turn.state
    refusal = _refuse_form(command) or _refuse_identity(state, command)
    if refusal is not None:
        return refusal
    for rival in _rivals(state, command):
        forget(turn, rival)
    kinds = tuple(sorted(set(command.kinds)))
    labels = tuple(sorted(dict(command.labels).items()))
    for kind in kinds:
        state.kinds.setdefault(kind)
    old, member = state.nodes.get(command.name), state.member(command.store_id)
    if old is not None and old.incarnation == command.incarnation:
        updated = replace(old, labels=labels, kinds=kinds, address=command.address)
        if updated != old:
            updated = replace(updated, changed_index=turn.index)
            state.put_node(updated)
            turn.node_changed(NodeChange.UPDATED, updated)
        return Registered(command.name, command.incarnation, repeated=True)
    node = Node(
        name=command.name,
        store_id=command.store_id,
        incarnation=command.incarnation,
        role=command.role if member is None else member.role,
        labels=labels,
        kinds=kinds,
        address=command.address,
        health=Health.UP,
        # What an operator said of a node is not the process's to say: it outlives a restart.
        eligibility=Eligibility.READY if old is None else old.eligibility,
        executing=(None,) * command.slots,
        changed_index=turn.index,
        operator_labels=() if old is None else old.operator_labels,
        drain_deadline_ms=0 if old is None else old.drain_deadline_ms,
    )
    state.put_node(node)
    turn.node_changed(NodeChange.UP, node)
    if old is not None:
        _end_all(turn, old, f"node {old.name} was restarted")
    return Registered(command.name, command.incarnation)


def node_lost(turn: Turn, command: NodeLost) -> Reply:
    """An incarnation is over: its attempts end, and their tasks go back to the queue."""
    node = turn.state.nodes.get(command.name)
    if node is None:
        return Refused("node_not_found", f"no node {command.name!r} has registered")
    if node.incarnation != command.incarnation or node.health is Health.LOST:
        return Refused(
            "incarnation_lost", f"node {command.name!r} is not up as incarnation {command.incarnation}"
        )
    lost = replace(
        node, health=Health.LOST, executing=(None,) * node.slots, reserved=(), changed_index=turn.index
    )
    turn.state.put_node(lost)
    turn.node_changed(NodeChange.LOST, lost)
    ended = _end_all(turn, node, f"node {node.name} was lost")
    if node.store_id in turn.state.removed_stores:
        forget(turn, lost)
    return Lost(node.name, ended)


def forget(turn: Turn, node: Node) -> None:
    """Nothing is known any more of a node that is lost: its name is free, or its heir's."""
    turn.state.forget_node(node)
    forget_holder(turn.state, node.name)


def _end_all(turn: Turn, node: Node, reason: str) -> int:
    """End what the incarnation ran, and what waited for its turn there; its slots are free already.

    Returns:
        How many attempts that were.
    """
    task_ids = (*node.occupants, *(task_id for line in node.reserved for task_id in line))
    for task_id in task_ids:
        # Read now: the end of an earlier one may have stopped their job.
        end_attempt(turn, turn.state.tasks[task_id], AttemptOutcome.LOST, reason)
    return len(task_ids)


def _refuse_form(command: RegisterNode) -> Refused | None:
    texts = (command.address, *(text for label in command.labels for text in label))
    well_formed = (
        0 < len(command.name) <= MAX_NAME_CHARS
        and 0 <= command.slots <= MAX_SLOTS
        and 0 < command.store_id <= _MAX_U64
        and 0 < command.incarnation <= _MAX_U64
        and len(command.kinds) <= MAX_KINDS
        and all(0 < len(kind) <= MAX_KIND_CHARS for kind in command.kinds)
        and len(command.labels) <= MAX_LABELS
        and all(len(text) <= MAX_TEXT_CHARS for text in texts)
    )
    if well_formed:
        return None
    return Refused(
        "invalid_request",
        f"node {command.name[:MAX_NAME_CHARS]!r} describes itself with a value that is empty or over its limit",
        f"at most {MAX_SLOTS} slots, {MAX_KINDS} kinds, {MAX_LABELS} labels",
    )


def _refuse_identity(state: State, command: RegisterNode) -> Refused | None:
    if command.store_id in state.removed_stores:
        return Refused(
            "store_removed",
            f"store {command.store_id:016x} was removed from this cluster, and never comes back",
            "make a new data directory: raftd init --join",
        )
    for member in state.members:
        if (member.name == command.name) != (member.store_id == command.store_id):
            return _wrong_store(command, member.name, member.store_id)
    for rival in _rivals(state, command):
        refusal = _refuse_rival(state, command, rival)
        if refusal is not None:
            return refusal
    old = state.nodes.get(command.name)
    if (
        old is not None
        and old.store_id == command.store_id
        and (
            command.incarnation < old.incarnation
            or (command.incarnation == old.incarnation and old.health is Health.LOST)
        )
    ):
        return Refused(
            "incarnation_lost",
            f"incarnation {command.incarnation} of node {command.name!r} is over "
            f"(the record has {old.incarnation}, {old.health.name.lower()})",
            "raise the incarnation and register again",
        )
    return None


def _rivals(state: State, command: RegisterNode) -> tuple[Node, ...]:
    """The nodes that have the name or the store, and not both."""
    return tuple(
        node
        for node in state.nodes.values()
        if (node.name == command.name) != (node.store_id == command.store_id)
    )


def _refuse_rival(state: State, command: RegisterNode, rival: Node) -> Refused | None:
    """A name and a store that belong to a node stay with it; a member's are the member's once that node is lost."""
    is_member = state.member(command.store_id) is not None
    if is_member and rival.health is Health.LOST:
        return None
    if rival.store_id == command.store_id:
        return _wrong_store(command, rival.name, rival.store_id)
    return Refused(
        "name_taken",
        f"node name {command.name!r} belongs to store {rival.store_id:016x}, not {command.store_id:016x}",
        "wait until its lease has run out" if is_member else "give the new node another name",
        retryable=is_member,
    )


def _wrong_store(command: RegisterNode, name: str, store_id: int) -> Refused:
    return Refused(
        "wrong_identity",
        f"the record has node {name!r} with store {store_id:016x}, "
        f"not {command.name!r} with store {command.store_id:016x}",
        "start it with the data directory and the name that belong together",
    )
