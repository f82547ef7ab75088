"""What is on the slots of a node: who executes, and who waits behind it.

What may live here: the making of node records with other slots. Who may come and go is ``attempts``' to say.
A slot is executing one task or is free; behind one that executes others may be *reserved*, first come first served.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.scheduler.model import Node

Line = tuple[int, ...]
"""Ids of the tasks that wait for their turn on one slot, the next one first."""


def line_of(node: Node, slot: int) -> Line:
    """Who waits behind the task that the slot executes."""
    return node.reserved[slot] if node.reserved else ()


def occupied(node: Node, slots: Sequence[int], task_id: int, index: int) -> Node:
    """The task executes on these slots, that were free."""
    executing = node.executing
    for slot in slots:
        executing = (*executing[:slot], task_id, *executing[slot + 1 :])
    return _with(node, executing, node.reserved, index)


def lined_up(node: Node, slot: int, task_id: int, index: int) -> Node:
    """The task waits on this slot, behind everyone else."""
    return _with(node, node.executing, _with_line(node, slot, (*line_of(node, slot), task_id)), index)


def vacated(node: Node, slots: Sequence[int], task_id: int, index: int) -> tuple[Node, int | None]:
    """The task is neither on these slots nor in their lines any more.

    Returns:
        The node, and the task whose turn it is now where there is one.
    """
    first = slots[0]
    line = line_of(node, first)
    if node.executing[first] != task_id:
        line = tuple(waiting for waiting in line if waiting != task_id)
        return _with(node, node.executing, _with_line(node, first, line), index), None
    following = line[0] if line else None
    executing = (*node.executing[:first], following, *node.executing[first + 1 :])
    for slot in slots[1:]:
        executing = (*executing[:slot], None, *executing[slot + 1 :])
    reserved = _with_line(node, first, line[1:]) if line else node.reserved
    return _with(node, executing, reserved, index), following


def _with_line(node: Node, slot: int, line: Line) -> tuple[Line, ...]:
    before = node.reserved or ((),) * node.slots
    lines = (*before[:slot], line, *before[slot + 1 :])
    return lines if any(lines) else ()


def _with(node: Node, executing: tuple[int | None, ...], reserved: tuple[Line, ...], index: int) -> Node:
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
        executing,
        index,
        node.operator_labels,
        node.drain_deadline_ms,
        reserved,
    )
