"""What a leader does: propose, replicate, commit, confirm reads, and notice when it should not lead any more."""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft import transfer
from raftd.raft.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, InstallSnapshotReply
from raftd.raft.progress import Progress, ProgressState
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event, role_after
from raftd.raft.types import (
    NO_NODE,
    Entry,
    EntryTooLarge,
    EntryType,
    NodeId,
    Proposed,
    TransferUnderWay,
    UncommittedLimit,
)

Slice = tuple[tuple[Entry, ...], int]


def become_leader(state: RaftState) -> None:
    """Won: probe everyone and append the no-op that lets the predecessors' entries commit (the paper, §5.4.2, §8)."""
    state.role = role_after(state.role, Event.WON)
    state.leader = state.id
    state.election_elapsed = 0
    state.heartbeat_elapsed = 0
    state.round = 0
    state.lease.begin_term()
    state.quota.clear()
    state.tracker.votes.clear()
    state.tracker.reset_progress(state.log.last_index)
    # What it inherits may have a change in it: suppose so.
    state.pending_change = state.log.last_index
    own = state.tracker.progress.get(state.id)
    if own is not None:
        own.acknowledge(state.log.durable_index)
    _append(state, (b"",))
    state.trace(Event.WON)


def propose(state: RaftState, datas: Sequence[bytes]) -> Proposed:
    """Append entries to the own log. They are sent when the next Ready is made, together with what else came up."""
    check_proposal(state, datas)
    return append_proposal(state, datas)


def check_proposal(state: RaftState, datas: Sequence[bytes]) -> None:
    """Raise unless there is room for them, and this leader means to stay."""
    if state.transfer_target != NO_NODE:
        raise TransferUnderWay(state.transfer_target)
    limit = state.config.max_entry_bytes
    total = 0
    for data in datas:
        if len(data) > limit:
            raise EntryTooLarge(len(data), limit)
        total += len(data)
    quota = state.quota
    if not quota.accepts(total):
        raise UncommittedLimit(quota.bytes, quota.limit_bytes)


def append_proposal(
    state: RaftState, datas: Sequence[bytes], type_: EntryType = EntryType.NORMAL
) -> Proposed:
    """Append what was found to have room."""
    first = state.log.last_index + 1
    _append(state, datas, type_)
    last = state.log.last_index
    state.quota.add(last, sum(map(len, datas)))
    return Proposed(state.term, first, last)


def _append(state: RaftState, datas: Sequence[bytes], type_: EntryType = EntryType.NORMAL) -> None:
    first, term = state.log.last_index + 1, state.term
    state.log.append([Entry(term, first + i, type_, data) for i, data in enumerate(datas)])
    state.flush_wanted = True


def tick(state: RaftState) -> None:
    """Beat, and step down when no quorum answers or the own disk does not."""
    config = state.config
    state.election_elapsed += 1
    state.heartbeat_elapsed += 1
    stalled_since = state.durability.oldest_tick()
    patience = config.election_ticks if config.disk_stall_ticks is None else config.disk_stall_ticks
    if patience and stalled_since is not None and state.ticks - stalled_since > patience:
        # Its heartbeats need no disk and would keep it in office for ever, committing nothing.
        state.become_follower(state.term, NO_NODE, Event.DISK_STALLED)
        return
    if state.election_elapsed >= config.election_ticks:
        state.election_elapsed = 0
        if not state.tracker.quorum_is_active() and config.check_quorum:
            state.become_follower(state.term, NO_NODE, Event.NO_QUORUM)
            return
    transfer.tick(state)
    if state.heartbeat_elapsed >= config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        if state.lease.is_on:
            _next_round(state)
        for node, progress in state.tracker.peers():
            _send_heartbeat(state, node, progress)


def _send_heartbeat(state: RaftState, node: NodeId, progress: Progress) -> None:
    log = state.log
    prev = progress.match_index
    prev_term = log.term(prev)
    if prev_term is None:  # compacted: only (0, 0) is sure to fit
        prev, prev_term = 0, 0
    state.send(
        AppendEntries(
            sender=state.id,
            receiver=node,
            term=state.term,
            prev_log_index=prev,
            prev_log_term=prev_term,
            entries=(),
            leader_commit=min(prev, told_commit(state)),
            round=state.round,
            heartbeat=True,
        )
    )


def told_commit(state: RaftState) -> int:
    """How far the followers may hear that it is committed: a change no sooner than this disk has that it is.

    Else they would have applied it before this leader may. One that is removed would then be refused by those whom it
    still has something to say: which of them is to lead.
    """
    return state.log.commit_before_change(state.durability.commit)


def flush(state: RaftState) -> None:
    """Cut the messages for everything that came up since the last Ready: a read round, new entries, a new commit."""
    if state.reads.waiting and state.has_committed_in_term():
        if state.lease.holds():
            state.reads.confirm_waiting(state.log.commit)
        else:
            _begin_round(state)
    if not state.flush_wanted:
        return
    state.flush_wanted = False
    # Followers that keep up all need the same slice: cut it once.
    cut: dict[int, Slice] = {}
    for node, progress in state.tracker.peers():
        _replicate(state, node, progress, cut)


def _next_round(state: RaftState) -> None:
    state.round += 1
    state.lease.sent(state.round)
    own = state.tracker.progress.get(state.id)
    if own is not None:
        own.acked_round = state.round
    state.lease.confirm(state.tracker.confirmed_round())


def _begin_round(state: RaftState) -> None:
    _next_round(state)
    state.reads.begin(state.round, state.log.commit)
    for node, progress in state.tracker.peers():
        if not progress.is_learner:
            _send_heartbeat(state, node, progress)
    state.reads.confirm(state.tracker.confirmed_round())


def _replicate(state: RaftState, node: NodeId, progress: Progress, cut: dict[int, Slice]) -> None:
    """All that the follower's window allows."""
    last = state.log.last_index
    if progress.state is ProgressState.PROBE:
        if not progress.probe_sent and progress.next_index <= last:
            _send_append(state, node, progress, cut)
        return
    if progress.state is ProgressState.SNAPSHOT:
        return
    while progress.next_index <= last and not progress.inflights.is_full():
        if not _send_append(state, node, progress, cut):
            return
    if progress.next_index > last and progress.sent_commit < told_commit(state):
        _send_append(state, node, progress, cut)


def _send_append(state: RaftState, node: NodeId, progress: Progress, cut: dict[int, Slice]) -> bool:
    """One append from next_index on, empty if there is nothing or no room. False if only a snapshot can help."""
    log = state.log
    first = progress.next_index
    prev_term = log.term(first - 1)
    if prev_term is None or first < log.first_index:
        _send_snapshot(state, node, progress)
        return False
    streaming = progress.state is ProgressState.REPLICATE
    entries: tuple[Entry, ...] = ()
    size = 0
    if not streaming or not progress.inflights.is_full():
        if first not in cut:
            cut[first] = log.slice(first, log.last_index + 1, state.config.max_message_bytes)
        entries, size = cut[first]
    commit = told_commit(state)
    state.send(
        AppendEntries(
            sender=state.id,
            receiver=node,
            term=state.term,
            prev_log_index=first - 1,
            prev_log_term=prev_term,
            entries=entries,
            leader_commit=commit,
            round=state.round,
        )
    )
    last_sent = first - 1 + len(entries)
    progress.sent_commit = max(progress.sent_commit, min(commit, last_sent))
    if not streaming:
        progress.probe_sent = True
    elif entries:
        progress.inflights.add(last_sent, size)
        progress.next_index = last_sent + 1
    return True


def tell_commit(state: RaftState, node: NodeId, progress: Progress) -> None:
    """Send the commit at once to a follower that keeps up, for it will not be sent anything later."""
    if progress.state is ProgressState.REPLICATE:
        _send_append(state, node, progress, {})


def _send_snapshot(state: RaftState, node: NodeId, progress: Progress) -> None:
    """The newest, to a follower that lives: to another one the stream would only be opened in vain."""
    snapshot = state.snapshot
    # One that ends before this log begins would leave a gap; the host has compacted more than it has snapshots for.
    if snapshot is None or snapshot.index < state.log.first_index - 1 or not progress.recent_active:
        return
    progress.become_snapshot(snapshot.index)
    state.send(InstallSnapshot(sender=state.id, receiver=node, term=state.term, snapshot=snapshot))


def _acknowledged(state: RaftState, node: NodeId, progress: Progress, index: int) -> None:
    if progress.acknowledge(index):
        maybe_commit(state)
    state.flush_wanted = True
    transfer.tell_if_level(state, node)


def handle_reply(state: RaftState, message: AppendEntriesReply | InstallSnapshotReply) -> None:
    """A follower answered something of this term."""
    progress = state.tracker.progress.get(message.sender)
    if progress is None or message.match_index > state.log.last_index:
        return
    progress.recent_active = True
    if isinstance(message, AppendEntriesReply):
        _handle_append_reply(state, message, progress)
    elif message.success:
        _acknowledged(state, message.sender, progress, message.match_index)


def _handle_append_reply(state: RaftState, message: AppendEntriesReply, progress: Progress) -> None:
    if progress.acked_round < message.round <= state.round:
        progress.acked_round = message.round
        confirmed = state.tracker.confirmed_round()
        state.reads.confirm(confirmed)
        state.lease.confirm(confirmed)
    if message.heartbeat:
        _handle_heartbeat_reply(state, message.sender, progress)
    elif message.success:
        _acknowledged(state, message.sender, progress, message.match_index)
    else:
        agree_at_most, _ = state.log.last_at_or_below(message.hint_index, message.hint_term)
        # Where this log begins above the hint, that answers no entry that could agree.
        if progress.reject(message.reject_index, min(agree_at_most, message.hint_index)):
            state.flush_wanted = True


def _handle_heartbeat_reply(state: RaftState, node: NodeId, progress: Progress) -> None:
    """The follower lives. If it should know more than it has acknowledged, ask: appends or their answers may be lost.

    One empty append leaves even through a full window: if all that is in it was lost, nothing else would tell.
    """
    if progress.state is ProgressState.SNAPSHOT:
        return
    progress.probe_sent = False
    if progress.state is ProgressState.PROBE or progress.match_index < state.log.last_index:
        _send_append(state, node, progress, {})


def own_writes_durable(state: RaftState) -> None:
    """The leader's own acknowledgement: its entries count for the quorum once its own disk has them."""
    own = state.tracker.progress.get(state.id)
    if own is not None and own.acknowledge(state.log.durable_index):
        maybe_commit(state)
    # That a change is committed may be durable now: followers have not heard of it yet.
    state.flush_wanted = True


def maybe_commit(state: RaftState) -> None:
    """Commit what a quorum holds, if it is of this term: older entries commit only beneath one (§5.4.2, figure 8)."""
    log = state.log
    index = state.tracker.committed_index()
    if index > log.commit and log.term(index) == state.term:
        log.commit_to(index)
        state.quota.release_to(index)
        state.flush_wanted = True
