"""What a node does with the leader's appends and snapshots (the paper, §5.3, §7, and the receivers of its figures)."""

from __future__ import annotations

from raftd.raft.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, InstallSnapshotReply
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event


def handle_append(state: RaftState, message: AppendEntries) -> None:
    """Take the entries in if they fit and answer. The caller has made sure that the sender leads this term."""
    state.heard_leader()
    log = state.log
    prev = message.prev_log_index
    if prev < log.first_index - 1:
        # Everything below what is held was committed and applied here, so the prefix agrees: say how far it does.
        _accept(state, message, log.commit)
    elif not log.matches(prev, message.prev_log_term):
        _refuse(state, message)
    else:
        entries = message.entries
        position = log.first_conflict(entries)
        # Cut only on a conflict of terms: a late, shorter append must not remove what a newer one brought.
        if position < len(entries):
            state.retract_from(entries[position].index)
            log.append(entries[position:])
        # Not the own last index: what lies beyond the append may be a predecessor's and still conflict.
        last_matched = prev + len(entries)
        log.commit_to(min(message.leader_commit, last_matched))
        _accept(state, message, last_matched)


def _accept(state: RaftState, message: AppendEntries, match_index: int) -> None:
    reply = AppendEntriesReply(
        sender=state.id,
        receiver=message.sender,
        term=state.term,
        success=True,
        match_index=match_index,
        round=message.round,
        heartbeat=message.heartbeat,
    )
    if message.heartbeat and match_index <= state.log.durable_index:
        # All that it attests is durable already (`send` sees to the term), so reads and the leader's count of its
        # quorum do not wait for this disk. It attests nothing new: a leader learns no match from a heartbeat.
        state.send(reply)
    else:
        state.send_when_durable(reply)


def _refuse(state: RaftState, message: AppendEntries) -> None:
    hint_index, hint_term = state.log.last_at_or_below(message.prev_log_index, message.prev_log_term)
    state.send_when_durable(
        AppendEntriesReply(
            sender=state.id,
            receiver=message.sender,
            term=state.term,
            success=False,
            reject_index=message.prev_log_index,
            hint_index=hint_index,
            hint_term=hint_term,
            round=message.round,
            heartbeat=message.heartbeat,
        )
    )


def handle_install_snapshot(state: RaftState, message: InstallSnapshot) -> None:
    """A snapshot has arrived: install it, unless this log has all that is in it. The sender leads this term."""
    state.heard_leader()
    snapshot, log = message.snapshot, state.log
    if snapshot.index > log.commit:
        if log.matches(snapshot.index, snapshot.term):
            # All of it is here as entries. It tells that they are committed; what comes after them stays.
            log.commit_to(snapshot.index)
        else:
            # Nothing beyond the commit is known to agree with it. Its configuration takes effect when it is applied.
            state.retract_from(log.commit + 1)
            log.restore(snapshot)
            state.restored.append(snapshot)
            state.trace(Event.TAKES_SNAPSHOT)
    state.send_when_durable(
        InstallSnapshotReply(
            sender=state.id,
            receiver=message.sender,
            term=state.term,
            success=True,
            # Whoever is ahead of it says how far.
            match_index=max(snapshot.index, log.commit),
        )
    )
