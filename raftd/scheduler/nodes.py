"""SetEligibility, SetLabels and ForgetNode: what an operator says of a node.

What may live here: the rules by which an operator's word about a node is taken. It outlives the node's incarnations
(``registration``); only ForgetNode ends it. None of these ends an attempt: the planner asks what a drain stops to end.
"""

from __future__ import annotations

from dataclasses import replace

from raftd.scheduler.commands import ForgetNode, SetEligibility, SetLabels
from raftd.scheduler.effects import NodeChange
from raftd.scheduler.limits import MAX_LABELS
from raftd.scheduler.model import MAX_TIME_MS, Eligibility, Health, Node
from raftd.scheduler.registration import MAX_TEXT_CHARS, forget
from raftd.scheduler.replies import NodeForgotten, NodeSet, Refused, Reply
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn


def set_eligibility(turn: Turn, command: SetEligibility) -> Reply:
    """Say whether a node takes new attempts. To say what is so already changes nothing."""
    node = turn.state.nodes.get(command.name)
    if node is None:
        return _unknown(turn.state, command.name)
    if node.store_id in turn.state.removed_stores:
        return Refused(
            "store_removed", f"node {node.name} was removed from the cluster, and is gone when its lease ends"
        )
    deadline_ms = 0
    if command.eligibility is Eligibility.DRAINING:
        deadline_ms = min(command.deadline_ms, MAX_TIME_MS)
    return _put(turn, node, replace(node, eligibility=command.eligibility, drain_deadline_ms=deadline_ms))


def set_labels(turn: Turn, command: SetLabels) -> Reply:
    """Set labels over those that a node brings itself, and take back such ones; tasks that run stay where they are."""
    node = turn.state.nodes.get(command.name)
    if node is None:
        return _unknown(turn.state, command.name)
    names = [name for name, _ in command.set]
    if len({*names, *command.remove}) < len(names) + len(command.remove):
        return Refused("invalid_request", "a label is named twice", "set it or take it back, and once")
    texts = [text for label in command.set for text in label]
    if not all(names) or any(len(text) > MAX_TEXT_CHARS for text in texts):
        return Refused(
            "invalid_request", f"a label has a name, and it and its value at most {MAX_TEXT_CHARS} characters"
        )
    labels = {**dict(node.operator_labels), **dict(command.set)}
    for name in command.remove:
        labels.pop(name, None)
    if len(labels) > MAX_LABELS:
        return Refused(
            "invalid_request", f"node {node.name} would have {len(labels)} labels, the limit is {MAX_LABELS}"
        )
    return _put(turn, node, replace(node, operator_labels=tuple(sorted(labels.items()))))


def forget_node(turn: Turn, command: ForgetNode) -> Reply:
    """Drop the record of a worker that will not come back. One that does come back is a new node."""
    node = turn.state.nodes.get(command.name)
    if node is None:
        return _unknown(turn.state, command.name)
    if turn.state.member(node.store_id) is not None:
        return Refused(
            "rejected",
            f"node {node.name} is a member of the cluster",
            f"raftctl node remove {node.name}",
        )
    if node.health is not Health.LOST:
        return Refused(
            "rejected",
            f"node {node.name} is {node.health.name.lower()}",
            "stop it, and wait until its lease has run out",
            retryable=True,
        )
    forget(turn, node)
    return NodeForgotten(node.name)


def _put(turn: Turn, old: Node, new: Node) -> NodeSet:
    if new != old:
        new = replace(new, changed_index=turn.index)
        turn.state.put_node(new)
        turn.node_changed(NodeChange.UPDATED, new)
    return NodeSet(new.name, len(new.occupants))


def _unknown(state: State, name: str) -> Refused:
    known = ", ".join(sorted(state.nodes)) or "none yet"
    return Refused(
        "node_not_found",
        f"no node {name[:MAX_TEXT_CHARS]!r} has registered",
        f"the nodes are: {known[:1_000]}",
    )
