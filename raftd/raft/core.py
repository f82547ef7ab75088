"""The dispatch of the algorithm: which messages are heard at all, what their term does, and whose rule answers them.

Everything that comes from outside passes ``step`` and is judged here first, so that the rules in ``election``,
``follower`` and ``leader`` may rely on: the message is addressed to this node, well-formed, and of the current term
(except pre-votes and their grants, whose term is one that nobody has entered).
"""

from __future__ import annotations

from raftd.raft import election, follower, leader
from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event
from raftd.raft.types import MAX_TERM, NO_NODE, NodeId, Role


def tick(state: RaftState) -> None:
    """Time passed."""
    state.ticks += 1
    if state.role is Role.LEADER:
        leader.tick(state)
    else:
        election.tick(state)


def step(state: RaftState, message: Message) -> None:
    """Total: whatever is misdirected, malformed, stale or from nobody is dropped and changes nothing."""
    state.cause = message
    _step(state, message)
    state.cause = None


def _step(state: RaftState, message: Message) -> None:
    if not _is_addressed(state, message) or not _is_well_formed(message):
        return
    if message.term < state.term:
        _answer_stale(state, message)
        return
    if message.term > state.term and not _enter_term(state, message):
        return
    match message:
        case RequestVote():
            election.learn_commit(state, message)
            if message.transfer or not state.is_promised():
                election.handle_request_vote(state, message)
        case RequestVoteReply():
            election.learn_commit(state, message)
            election.handle_vote_reply(state, message)
        case AppendEntriesReply() | InstallSnapshotReply():
            if state.role is Role.LEADER:
                leader.handle_reply(state, message)
        case AppendEntries() | InstallSnapshot() | TimeoutNow():
            if _follows(state, message.sender):
                _obey(state, message)


def _obey(state: RaftState, message: AppendEntries | InstallSnapshot | TimeoutNow) -> None:
    match message:
        case AppendEntries():
            follower.handle_append(state, message)
        case InstallSnapshot():
            follower.handle_install_snapshot(state, message)
        case TimeoutNow():
            election.handle_timeout_now(state)


def _is_addressed(state: RaftState, message: Message) -> bool:
    """Requests are heard from anyone, for this node's configuration may be behind (the paper, §6); replies only from
    members, for nobody else was asked."""
    if message.receiver != state.id or message.sender == state.id or message.sender <= NO_NODE:
        return False
    if isinstance(message, AppendEntries | InstallSnapshot | RequestVote | TimeoutNow):
        return True
    configuration = state.configuration
    return configuration.is_voter(message.sender) or message.sender in configuration.learners


def _is_well_formed(message: Message) -> bool:
    """Whether a correct core could have sent it."""
    if not 0 < message.term <= MAX_TERM:
        return False
    match message:
        case AppendEntries():
            return _is_well_formed_append(message)
        case AppendEntriesReply():
            return (
                min(message.match_index, message.reject_index, message.hint_index, message.hint_term) >= 0
                and message.round >= 0
            )
        case RequestVote():
            # No candidate has an entry of the term it stands for, nor a term without an index.
            return (
                0 <= message.last_log_term < message.term
                and 0 <= message.last_log_index <= MAX_TERM
                and min(message.commit, message.commit_term) >= 0
            )
        case RequestVoteReply():
            return min(message.commit, message.commit_term) >= 0
        case InstallSnapshot():
            return _is_well_formed_snapshot(message)
        case InstallSnapshotReply():
            return message.match_index >= 0
        case TimeoutNow():
            return True


def _is_well_formed_snapshot(message: InstallSnapshot) -> bool:
    snapshot = message.snapshot
    return (
        0 < snapshot.index <= MAX_TERM
        and 0 < snapshot.term <= message.term
        and snapshot.size_bytes >= 0
        and bool(snapshot.configuration.voters)
    )


def _is_well_formed_append(message: AppendEntries) -> bool:
    index, term = message.prev_log_index, message.prev_log_term
    if not 0 <= index <= MAX_TERM or term < 0 or (index == 0) != (term == 0):
        return False
    if message.leader_commit < 0 or message.round < 0 or (message.heartbeat and message.entries):
        return False
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < term:
            return False
        term = entry.term
    return 0 < term <= message.term or (index == 0 and term == 0)


def _answer_stale(state: RaftState, message: Message) -> None:
    """Tell a leader or candidate of an older term of the newer one.

    Were it dropped, a node that is ahead of a leader with a lease could neither follow it (the term is old) nor
    unseat it (its votes are refused): the append's refusal is what makes that leader step down.
    """
    if isinstance(message, AppendEntries):
        state.send(
            AppendEntriesReply(
                sender=state.id,
                receiver=message.sender,
                term=state.term,
                success=False,
                reject_index=message.prev_log_index,
                heartbeat=message.heartbeat,
            )
        )
    elif isinstance(message, InstallSnapshot):
        state.send(
            InstallSnapshotReply(sender=state.id, receiver=message.sender, term=state.term, success=False)
        )
    elif isinstance(message, RequestVote):
        state.send_when_durable(
            RequestVoteReply(
                sender=state.id,
                receiver=message.sender,
                term=state.term,
                granted=False,
                pre_vote=message.pre_vote,
            )
        )


def _enter_term(state: RaftState, message: Message) -> bool:
    """A message from a later term: enter it, unless the message does not call for that. Answers whether to go on."""
    match message:
        case RequestVote():
            if state.is_leased() and not message.transfer:
                return False
            if message.pre_vote:
                return True
        case RequestVoteReply() if message.pre_vote and message.granted:
            # Its term is the one this node asked about; nobody is in it.
            return state.role is Role.PRE_CANDIDATE and message.term == state.term + 1
        case _:
            pass
    from_leader = (
        message.sender if isinstance(message, AppendEntries | InstallSnapshot | TimeoutNow) else NO_NODE
    )
    state.become_follower(message.term, from_leader, Event.HEARD_LATER_TERM)
    return True


def _follows(state: RaftState, leader: NodeId) -> bool:
    """Follow whoever speaks as the leader of this term, unless another one is known."""
    if state.leader not in (NO_NODE, leader):
        # Two leaders in one term cannot be; whoever this is, the one already known is the elected one.
        return False
    if state.role is not Role.FOLLOWER or state.leader == NO_NODE:
        state.become_follower(state.term, leader, Event.HEARD_LEADER)
    return True
