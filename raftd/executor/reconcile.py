"""What to do when the leader has said what this node should be running.

What may live here: the decision, as a pure function; its table is in docs/attach.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from raftd.scheduler.attach import Assignment
from raftd.scheduler.model import FencingToken, StopReason


@dataclass(frozen=True, slots=True)
class Plan:
    """What the executor does, in this order."""

    kill: tuple[FencingToken, ...]
    """They run, and are given up."""
    stop: tuple[tuple[FencingToken, StopReason], ...]
    """They run, and shall end."""
    start: tuple[Assignment, ...]
    """In the order of their tokens, so that of two on one slot the earlier one comes first."""


def reconcile(
    desired: Sequence[Assignment],
    running: Collection[FencingToken],
    unrecorded: Collection[FencingToken],
    is_stale: Callable[[Assignment], bool],
) -> Plan:
    """Compares what should run with what does.

    Args:
        desired: everything that the record has on this node.
        running: what runs here, or waits for its slot.
        unrecorded: what has ended here, and is not known to be in the record.
        is_stale: whether a slot has accepted this token or a greater one already; such an attempt has been here and is
            gone, and is never started again.
    """
    wanted = {assignment.token: assignment for assignment in desired}
    kill = tuple(sorted(token for token in running if token not in wanted))
    stop = tuple(
        (token, assignment.stop)
        for token, assignment in sorted(wanted.items())
        if assignment.stop is not None and token in running
    )
    start = tuple(
        assignment
        for token, assignment in sorted(wanted.items())
        if token not in running and token not in unrecorded and not is_stale(assignment)
    )
    return Plan(kill, stop, start)
