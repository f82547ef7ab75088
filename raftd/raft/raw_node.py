"""The one door into the core: calls go in, a :class:`Ready` comes out. Single-threaded, no I/O, no clock.

A core is driven by one loop: ``tick`` and ``step`` and ``propose`` as things happen, then ``while has_ready():
ready()`` once for the whole batch. Messages are cut when the Ready is made, so that proposals, and reads, that came
in between two Readys travel together.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft import core, election, leader, reconfiguration, transfer
from raftd.raft.log import LogReader
from raftd.raft.membership import ConfChange
from raftd.raft.messages import Message
from raftd.raft.ready import ProgressStatus, Ready, Status
from raftd.raft.state import RaftState, TransitionHook
from raftd.raft.transitions import Event
from raftd.raft.types import (
    Config,
    Configuration,
    HardState,
    NodeId,
    NotLeader,
    Proposed,
    ReadContext,
    ReadContextInUse,
    Role,
    Snapshot,
    SoftState,
)


class RawNode:
    """One consensus participant, started from its hard state, its log, and the configuration as of ``applied``.

    ``applied`` is where the snapshot ends that the host has restored its state from, and ``snapshot`` is that one.

    Raises :class:`InvariantViolation` when the log is shorter than the hard state's commit (acknowledged entries
    are missing) or when ``applied`` is not within the log.
    """

    __slots__ = ("_hard_state", "_number", "_soft_state", "state")

    def __init__(
        self,
        config: Config,
        configuration: Configuration,
        hard_state: HardState,
        log: LogReader,
        applied: int = 0,
        on_transition: TransitionHook | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.state = RaftState(config, configuration, hard_state, log, applied, on_transition, snapshot)
        """Read by ``invariants`` and by tests; a host uses the methods."""
        self._number = 0
        self._hard_state = hard_state
        self._soft_state = SoftState(Role.FOLLOWER, self.state.leader)

    def tick(self) -> None:
        """Time passed. The only clock; its length is the host's (default 50 ms)."""
        core.tick(self.state)

    def step(self, message: Message) -> None:
        """A message came in. Total: what is stale, misdirected or absurd is ignored.

        Raises InvariantViolation only for what a correct leader could never send: an append of the current term that
        would replace a committed entry.
        """
        core.step(self.state, message)

    def campaign(self) -> None:
        """Stand for election now. Nothing happens on a leader, on a node that may not vote, while a committed
        CONFIGURATION or CONF_CHANGE entry is not applied, or while the disk stands still."""
        election.campaign(self.state)

    def propose(self, data: bytes) -> Proposed:
        """Append one NORMAL entry. Raises NotLeader, EntryTooLarge, UncommittedLimit, TransferUnderWay."""
        return self.propose_batch((data,))

    def propose_batch(self, datas: Sequence[bytes]) -> Proposed:
        """Append several, all or none. Raises as :meth:`propose`; ValueError when there are none."""
        self._require_leader()
        if not datas:
            raise ValueError("a batch of no proposals")
        return leader.propose(self.state, datas)

    def propose_conf_change(self, change: ConfChange, data: bytes) -> Proposed:
        """Append a CONF_CHANGE entry with that data, which tells every host what to apply.

        While another change is pending, or before this leader has committed an entry of its own term, an empty NORMAL
        entry is appended in its place: who proposed has failed unless a CONF_CHANGE is applied at that index and term.

        Raises as :meth:`propose`, and InvalidConfChange where the change makes no sense; ValueError without data.
        """
        self._require_leader()
        return reconfiguration.propose(self.state, change, data)

    def apply_conf_change(self, change: ConfChange) -> Configuration:
        """The host applies a CONF_CHANGE entry (one without data is LEAVE_JOINT): it takes effect now, before
        :meth:`applied` is called for it. Answers the configuration in force from now on.

        Raises InvariantViolation for a change that no leader could have proposed.
        """
        return reconfiguration.apply(self.state, change)

    def apply_configuration(self, configuration: Configuration) -> None:
        """The host applies a CONFIGURATION entry that says something else than what this node was started with, as
        where it joins and learns only now whom the cluster was founded with."""
        reconfiguration.install(self.state, configuration)

    def read_index(self, context: ReadContext) -> None:
        """Ask for a linearizable read (thesis §6.4); answered in ``read_states`` or ``reads_dropped`` of a later
        Ready. Raises NotLeader, ReadContextInUse."""
        self._require_leader()
        if context in self.state.reads:
            raise ReadContextInUse(context)
        self.state.reads.add(context)

    def holds_lease(self) -> bool:
        """Whether this node leads and surely nobody else does at this moment. Always False where leases are off."""
        return self.state.role is Role.LEADER and self.state.lease.holds()

    def transfer_leadership(self, to: NodeId) -> None:
        """Hand the leadership over to a voter; the soft state says when it is gone. Proposals are refused until then,
        or until an election timeout has passed without success. Nothing happens where ``to`` leads already.

        Raises NotLeader, InvalidTransfer.
        """
        self._require_leader()
        transfer.begin(self.state, to)

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """The host has a complete and durable snapshot, from now on the one to be sent. An older one changes nothing.

        Raises ValueError for one of what is not applied.
        """
        state = self.state
        if snapshot.index > state.log.applied:
            raise ValueError(f"a snapshot of {snapshot.index}, but {state.log.applied} is applied")
        if state.snapshot is None or snapshot.index > state.snapshot.index:
            state.snapshot = snapshot

    def report_snapshot(self, node: NodeId, ok: bool) -> None:
        """The stream of a snapshot to the node has ended: ``ok`` if its host has stepped the message. Nothing on a
        non-leader."""
        progress = self.state.tracker.progress.get(node)
        if progress is not None:
            progress.snapshot_reported(ok)

    def report_unreachable(self, node: NodeId) -> None:
        """The transport lost messages to the node: go back from streaming to probing it. Nothing on a non-leader."""
        progress = self.state.tracker.progress.get(node)
        if progress is not None and node != self.state.id and progress.unreachable():
            self.state.flush_wanted = True

    def has_ready(self) -> bool:
        """Whether :meth:`ready` would carry anything."""
        state = self.state
        if state.role is Role.LEADER:
            leader.flush(state)
        return bool(
            state.messages
            or state.held
            or state.log.unstable.has_untaken()
            or state.log.has_committed(state.durability.commit)
            or state.reads.confirmed
            or state.reads.dropped
            or self._hard_state_changed()
            or self._soft_state_changed()
        )

    def ready(self) -> Ready:
        """Take everything there is to do. May be called again before the last one is durable."""
        state = self.state
        if state.role is Role.LEADER:
            leader.flush(state)
        self._number += 1
        soft_state = None
        if self._soft_state_changed():
            soft_state = self._soft_state = SoftState(state.role, state.leader)
        before = self._hard_state
        hard_state = None
        if self._hard_state_changed():
            hard_state = self._hard_state = state.hard_state()
        snapshot = state.log.unstable.take_snapshot(self._number)
        entries = state.log.unstable.take(self._number)
        # A commit that is lost in a crash is learned again from any leader: alone it is worth no fsync. That of a
        # CONF_CHANGE may be lost with all who knew of it, and it is handed out only when it is durable.
        promised = (before.term, before.vote) != (state.term, state.vote)
        must_sync = (
            bool(entries)
            or promised
            or snapshot is not None
            or state.log.commit_before_change(before.commit) < state.log.commit
        )
        if must_sync:
            state.durability.begin(self._number, state.ticks, hard_state)
        messages, held = state.messages, state.held
        if held and not state.durability:
            messages, held = messages + held, []
        reads = state.reads
        ready = Ready(
            number=self._number,
            soft_state=soft_state,
            hard_state=hard_state,
            entries=entries,
            must_sync=must_sync,
            messages=tuple(messages),
            messages_after_persist=tuple(held),
            committed_entries=state.log.take_committed(
                state.config.max_committed_bytes_per_ready, state.durability.commit
            ),
            read_states=tuple(reads.confirmed),
            reads_dropped=tuple(reads.dropped),
            snapshot=snapshot,
        )
        state.messages, state.held = [], []
        reads.confirmed, reads.dropped = [], []
        return ready

    def persisted(self, number: int) -> None:
        """The Ready of that number and all before it are durable. Repeats and older numbers change nothing.

        Raises ValueError for a Ready that was never taken.
        """
        if number > self._number:
            raise ValueError(f"Ready {number} was never taken; the last one is {self._number}")
        state = self.state
        state.durability.complete(number)
        installed = state.log.durable(number)
        if installed is not None:
            state.snapshot = installed
            state.trace(Event.INSTALLED_SNAPSHOT)
        if state.role is Role.CANDIDATE:
            election.own_vote_durable(state)
        elif state.role is Role.LEADER:
            leader.own_writes_durable(state)

    def applied(self, index: int) -> None:
        """Committed entries up to the index, or the snapshot that ends there, are applied. Raises InvariantViolation
        beyond what was handed out."""
        self.state.log.applied_to(index)
        reconfiguration.applied(self.state)
        election.campaign_if_told(self.state)

    def status(self) -> Status:
        """A snapshot for people and metrics."""
        state, log = self.state, self.state.log
        return Status(
            id=state.id,
            role=state.role,
            term=state.term,
            vote=state.vote,
            leader=state.leader,
            commit=log.commit,
            applied=log.applied,
            first_index=log.first_index,
            last_index=log.last_index,
            durable_index=log.durable_index,
            uncommitted_bytes=state.quota.bytes,
            pending_reads=len(state.reads),
            outstanding_readies=len(state.durability),
            transfer_target=state.transfer_target,
            snapshot_index=0 if state.snapshot is None else state.snapshot.index,
            configuration=state.configuration,
            progress=tuple(
                ProgressStatus(
                    node=node,
                    state=progress.state.value,
                    match_index=progress.match_index,
                    next_index=progress.next_index,
                    inflight_messages=len(progress.inflights),
                    inflight_bytes=progress.inflights.bytes,
                    recent_active=progress.recent_active,
                    is_learner=progress.is_learner,
                    pending_snapshot=progress.pending_snapshot,
                )
                for node, progress in state.tracker.progress.items()
            ),
        )

    def _require_leader(self) -> None:
        if self.state.role is not Role.LEADER:
            raise NotLeader(self.state.leader)

    def _hard_state_changed(self) -> bool:
        state, known = self.state, self._hard_state
        return state.log.commit != known.commit or state.term != known.term or state.vote != known.vote

    def _soft_state_changed(self) -> bool:
        return self._soft_state.role is not self.state.role or self._soft_state.leader != self.state.leader
