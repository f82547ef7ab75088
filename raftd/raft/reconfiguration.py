"""When the membership may change, and what each role does when a change is applied (thesis §4).

A change takes effect on each node when that node *applies* it, not when it appends it. What makes that safe:

- A leader proposes a change only when it has applied the one before, and has committed an entry of its own term. So
  at any time the configurations in use anywhere are neighbours, and neighbours have a quorum in common.
- Nobody campaigns while a change is committed but not applied: it may have taken this node's vote (``election``).
- A log with two changes proves that the first is committed, whatever the disk says of the commit: ``Log`` takes that
  into account after a restart, or a node could stand for election by a configuration two steps old
  (docs/decisions/0009).
"""

from __future__ import annotations

from raftd.raft import leader, transfer
from raftd.raft.membership import LEAVE_JOINT, ConfChange, InvalidConfChange, next_configuration
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event
from raftd.raft.types import NO_NODE, Configuration, EntryType, InvariantViolation, Proposed, Role


def propose(state: RaftState, change: ConfChange, data: bytes) -> Proposed:
    """Append the change, or, where it may not be made now, an empty NORMAL entry in its place."""
    if change == LEAVE_JOINT or not data:
        raise ValueError(
            "a change without changes or data is the leader's own: it leaves the joint configuration"
        )
    leader.check_proposal(state, (data,))
    if not _may_change(state):
        return leader.append_proposal(state, (b"",))
    next_configuration(state.configuration, change)
    proposed = leader.append_proposal(state, (data,), EntryType.CONF_CHANGE)
    state.pending_change = proposed.index
    return proposed


def _may_change(state: RaftState) -> bool:
    """One at a time (thesis §4.1), and not before the own term's no-op has committed: without it a predecessor's
    change could still be overwritten by one that this node has never heard of, with no quorum in common."""
    return (
        state.has_committed_in_term()
        and state.pending_change <= state.log.applied
        and not state.configuration.outgoing
    )


def apply(state: RaftState, change: ConfChange) -> Configuration:
    """A CONF_CHANGE entry is applied: the change takes effect on this node."""
    try:
        configuration = next_configuration(state.configuration, change)
    except InvalidConfChange as refusal:
        raise InvariantViolation(
            f"a committed change cannot be made of {state.configuration}: {refusal}"
        ) from None
    install(state, configuration)
    return configuration


def install(state: RaftState, configuration: Configuration) -> None:
    """This configuration is in force from now on."""
    if state.role is Role.LEADER:
        for node, progress in state.tracker.peers():
            if node not in configuration.members():
                # The last that it hears: with it, it may learn that it has been removed.
                leader.tell_commit(state, node, progress)
    if configuration != state.configuration:
        state.tracker.reconfigure(configuration, state.log.last_index, leads=state.role is Role.LEADER)
        state.trace(Event.CONFIGURED)
    if state.role is not Role.FOLLOWER and not configuration.is_voter(state.id):
        _give_way(state)
    elif state.role is Role.LEADER:
        # Fewer may now be a quorum.
        if state.transfer_target not in (NO_NODE, *configuration.voters):
            state.transfer_target = NO_NODE
            state.trace(Event.HANDOVER_IN_VAIN)
        state.lease.restart()
        leader.maybe_commit(state)
        state.reads.confirm(state.tracker.confirmed_round())
        state.flush_wanted = True


def _give_way(state: RaftState) -> None:
    """This node votes no more, so it does not lead any more either (thesis §4.2.2).

    Only now, and not when it appended the change: until that was committed, nobody else could have done this.
    """
    if state.role is Role.LEADER:
        leader.flush(state)
        transfer.tell_heir(state)
    state.become_follower(state.term, NO_NODE, Event.NO_VOTER)


def applied(state: RaftState) -> None:
    """Something was applied. If it was a snapshot, its configuration wins over everything before it."""
    while state.restored and state.restored[0].index <= state.log.applied:
        install(state, state.restored.popleft().configuration)
    leave_joint(state)


def leave_joint(state: RaftState) -> None:
    """Something was applied: complete a joint change as soon as that may be done, whoever had begun it."""
    if (
        state.role is Role.LEADER
        and state.configuration.outgoing
        and state.has_committed_in_term()
        and state.pending_change <= state.log.applied
    ):
        state.pending_change = leader.append_proposal(state, (b"",), EntryType.CONF_CHANGE).index
