"""Handing leadership over on purpose (thesis §3.10): refuse proposals, bring the target level, tell it to stand.

The target asks for no pre-votes and its requests override the leases of the others, for this leader has agreed to be
replaced. It may fail: after one election timeout the leader takes proposals again.
"""

from __future__ import annotations

from raftd.raft.messages import TimeoutNow
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event
from raftd.raft.types import NO_NODE, InvalidTransfer, NodeId


def begin(state: RaftState, to: NodeId) -> None:
    """Hand over to this voter. A transfer to another one that is under way is given up, one to the same goes on."""
    if to not in state.configuration.voters:
        raise InvalidTransfer(to)
    if to in (state.id, state.transfer_target):
        return
    state.transfer_target = to
    state.transfer_elapsed = 0
    state.trace(Event.HANDS_OVER)
    # What the target lacks is sent even if it was sent before: it may be lost, and there is little time.
    state.tracker.progress[to].probe_sent = False
    state.flush_wanted = True
    tell_if_level(state, to)


def tell_if_level(state: RaftState, node: NodeId) -> None:
    """The node has acknowledged something: if it is the target and lacks nothing more, its moment has come."""
    if node == state.transfer_target and state.tracker.progress[node].match_index == state.log.last_index:
        tell(state, node)


def tell(state: RaftState, node: NodeId) -> None:
    """Have the node stand for election now. Its requests override what was promised to this leader."""
    state.lease.end()
    state.send(TimeoutNow(sender=state.id, receiver=node, term=state.term))


def tick(state: RaftState) -> None:
    """Give the transfer up when it has not succeeded for an election timeout."""
    if state.transfer_target == NO_NODE:
        return
    state.transfer_elapsed += 1
    if state.transfer_elapsed >= state.config.election_ticks:
        state.transfer_target = NO_NODE
        state.trace(Event.HANDOVER_TIMED_OUT)


def tell_heir(state: RaftState) -> None:
    """This leader is about to go for good: the voter that has most of its log need not wait for a timeout."""
    progress = state.tracker.progress
    heirs = [node for node in state.configuration.voters if node != state.id and node in progress]
    if heirs:
        tell(state, max(heirs, key=lambda node: progress[node].match_index))
