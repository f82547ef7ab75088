"""What happens to a node, and which roles it leads from and to (the paper's figure 4, with pre-votes).

The algorithm takes each new role from ``ROLE_CHANGES``, and the trace names what is in ``Event``: a role changes in no
other way. The figure in docs/raft.md is drawn from here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from raftd.raft.types import InvariantViolation, Role


class Event(enum.StrEnum):
    """One line of the trace says one of these. Those that are in no row of ``ROLE_CHANGES`` leave the role as it is."""

    STARTED = "started"
    ASKS_PRE_VOTES = "asks for pre-votes"
    STANDS = "stands for election"
    WON = "won the election"
    LOST = "lost the election"
    GAVE_VOTE = "gave a vote"
    HEARD_LATER_TERM = "heard a later term"
    HEARD_LEADER = "heard the leader"
    LEARNED_CHANGE = "learned of a change"
    NO_QUORUM = "no quorum heard"
    DISK_STALLED = "own disk stalled"
    NO_VOTER = "is no voter any more"
    CONFIGURED = "has another configuration"
    TAKES_SNAPSHOT = "takes a snapshot"
    INSTALLED_SNAPSHOT = "has installed a snapshot"
    HANDS_OVER = "hands over"
    TOLD_TO_STAND = "is told to stand"
    HANDOVER_TIMED_OUT = "did not hand over in time"
    HANDOVER_IN_VAIN = "has nobody to hand over to any more"


@dataclass(frozen=True, slots=True)
class RoleChange:
    """The roles in which it can happen, and the one that it leads to."""

    before: tuple[Role, ...]
    after: Role


_CAMPAIGNING = (Role.PRE_CANDIDATE, Role.CANDIDATE)
_NOT_LEADING = (Role.FOLLOWER, *_CAMPAIGNING)

ROLE_CHANGES: Mapping[Event, RoleChange] = {
    Event.ASKS_PRE_VOTES: RoleChange(_NOT_LEADING, Role.PRE_CANDIDATE),
    Event.STANDS: RoleChange(_NOT_LEADING, Role.CANDIDATE),
    Event.WON: RoleChange((Role.CANDIDATE,), Role.LEADER),
    Event.LOST: RoleChange(_CAMPAIGNING, Role.FOLLOWER),
    Event.GAVE_VOTE: RoleChange((Role.FOLLOWER, Role.PRE_CANDIDATE), Role.FOLLOWER),
    Event.HEARD_LATER_TERM: RoleChange((*_NOT_LEADING, Role.LEADER), Role.FOLLOWER),
    Event.HEARD_LEADER: RoleChange(_NOT_LEADING, Role.FOLLOWER),
    Event.LEARNED_CHANGE: RoleChange(_CAMPAIGNING, Role.FOLLOWER),
    Event.NO_QUORUM: RoleChange((Role.LEADER,), Role.FOLLOWER),
    Event.DISK_STALLED: RoleChange((Role.LEADER,), Role.FOLLOWER),
    Event.NO_VOTER: RoleChange((*_CAMPAIGNING, Role.LEADER), Role.FOLLOWER),
}


def role_after(role: Role, event: Event) -> Role:
    """The role that the event leads to. Raises InvariantViolation where it cannot happen."""
    change = ROLE_CHANGES[event]
    if role not in change.before:
        raise InvariantViolation(f"a {role} cannot be one that {event}")
    return change.after
