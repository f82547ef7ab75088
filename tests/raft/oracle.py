"""Watches a cluster from outside and asserts what the paper promises (figure 3, and `raft.md`, Simulation).

It knows every durable image, every log and every message, and nothing of how the core comes to them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

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
from raftd.raft.quorum import has_quorum
from raftd.raft.ready import Ready, Transition
from raftd.raft.types import Configuration, Entry, EntryType, NodeId, ReadContext, Role, Snapshot
from tests.raft.changes import decode_change, expected
from tests.raft.peer import Peer


class Position(NamedTuple):
    """An entry, and the hash of the whole log that it ends."""

    term: int
    chain: int


class Oracle:
    """Global truth, gathered as it happens. Every method asserts."""

    def __init__(self, peers: Mapping[NodeId, Peer]) -> None:
        self._peers = peers
        self._leaders: dict[int, NodeId] = {}
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._chains: dict[tuple[int, int], int] = {}
        """(index, term) -> the chain of the log that it ends."""
        self._logs: dict[NodeId, list[Position]] = {}
        """Each node's log as its Readys gave it to the disk."""
        self._prefix: list[Position] = []
        """What is committed, as far as anybody has applied it."""
        self._applied: dict[int, tuple[int, bytes]] = {}
        self._committed: dict[int, tuple[int, int]] = {}
        """Term of a leader -> the highest (index, term of the entry) that it committed."""
        self._commits: dict[NodeId, int] = {}
        self._changes: dict[NodeId, list[int]] = {}
        """Where each node's log has a CONF_CHANGE."""
        self._configurations: dict[int, Configuration] = {}
        """The configuration in which each CONF_CHANGE was applied, by its index."""
        self._reads: dict[tuple[NodeId, ReadContext], int] = {}
        self._said_terms: dict[NodeId, int] = {}
        self.seen = dict.fromkeys(
            (
                "read confirmed",
                "read by lease",
                "read dropped",
                "long tail truncated",
                "tail in flight truncated",
                "old term committed",
                "change truncated",
                "joint",
                "handed over",
                "snapshot restored",
                "snapshot over a tail",
            ),
            0,
        )
        """Rare events, counted: a run in which one stayed at zero has tested less than it seems."""

    def started(self, peer: Peer) -> None:
        """A new life began: what was said must still be known."""
        self._begin_behind(peer.id, peer.disk.entries.base_index)
        self._commits[peer.id] = 0
        self._extend(peer.id, peer.disk.entries.held)
        durable = peer.disk.hard_state.term
        assert durable >= self._said_terms.get(peer.id, 0), (
            f"TermMonotone: {peer.id} came back in term {durable}"
        )
        self._reads = {key: floor for key, floor in self._reads.items() if key[0] != peer.id}

    def on_ready(self, peer: Peer, ready: Ready) -> None:
        """LogMatching, SameApply, ReadFresh, and what `look` sees."""
        if ready.entries and any(
            other.entries and other.entries[-1].index >= ready.entries[0].index for other in peer.pending
        ):
            self.seen["tail in flight truncated"] += 1
        if ready.snapshot is not None:
            self.seen["snapshot over a tail"] += len(self._logs[peer.id]) > self._commits[peer.id]
            self._begin_behind(peer.id, ready.snapshot.index)
        self._extend(peer.id, ready.entries)
        self.look(peer)
        self._stands_as_voter(peer)
        changes = self._changes[peer.id]
        assert len(changes) < 2 or peer.commit >= changes[-2], (
            f"OneChange: {peer.id} has changes at {changes} and has committed only {peer.commit}"
        )
        for read in ready.read_states:
            floor = self._reads.pop((peer.id, read.context))
            assert read.index >= floor, f"ReadFresh: {read}, but {floor} was committed when it was asked"
            self.seen["read by lease" if read.by_lease else "read confirmed"] += 1
        for context in ready.reads_dropped:
            del self._reads[peer.id, context]
            self.seen["read dropped"] += 1

    def on_apply(self, peer: Peer, entry: Entry) -> None:
        """SameApply, and the same configuration everywhere before the same entry."""
        self.look(peer)
        content = (entry.term, entry.data)
        if entry.index == len(self._prefix) + 1:
            self._prefix.append(Position(entry.term, self._chains[entry.index, entry.term]))
        known = self._applied.setdefault(entry.index, content)
        assert known == content, f"SameApply: {peer.id} applies {content} at {entry.index}, another {known}"
        if entry.type is EntryType.CONF_CHANGE:
            configuration = self._configurations.setdefault(entry.index, peer.configuration)
            assert configuration == peer.configuration, (
                f"SameApply: before {entry.index} {peer.id} has {peer.configuration}, another {configuration}"
            )

    def on_restored(self, peer: Peer, snapshot: Snapshot) -> None:
        """SnapshotEqualsReplay: of the state and of the configuration."""
        self.seen["snapshot restored"] += 1
        assert [entry.index for entry in peer.applied] == list(range(1, snapshot.index + 1))
        for entry in peer.applied:
            assert self._applied[entry.index] == (entry.term, entry.data), (
                f"SnapshotEqualsReplay: {snapshot} has another {entry.index}"
            )
        # An entry of a configuration that is being left was applied in the joint one.
        before = [index for index in self._configurations if index <= snapshot.index]
        if before:
            last = peer.applied[max(before) - 1]
            configuration = expected(self._configurations[last.index], decode_change(last.data))
            assert peer.configuration == configuration, (
                f"SameConfiguration: {peer.id} has {peer.configuration}, not {configuration}"
            )

    def on_changed(self, peer: Peer, entry: Entry) -> None:
        """A change has led to what it should."""
        configuration = expected(self._configurations[entry.index], decode_change(entry.data))
        assert peer.configuration == configuration, (
            f"SameConfiguration: {peer.id} has {peer.configuration}, not {configuration}"
        )
        self.seen["joint"] += bool(configuration.outgoing)
        self.look(peer)
        self._stands_as_voter(peer)

    def on_transition(self, peer: Peer, transition: Transition) -> None:
        """Even a leader of one moment must hold everything committed, and nobody stands by an old configuration."""
        if transition.role is Role.LEADER:
            self.look(peer)
        if transition.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            applied = peer.raw.state.log.applied
            unapplied = [index for index in self._changes[peer.id] if applied < index <= peer.commit]
            assert not unapplied, (
                f"StandsApplied: {peer.id} stands for election and has not applied {unapplied}"
            )

    def _stands_as_voter(self, peer: Peer) -> None:
        assert peer.role is Role.FOLLOWER or peer.configuration.is_voter(peer.id), (
            f"StandsAsVoter: {peer.id} is a {peer.role} and does not vote in {peer.configuration}"
        )

    def look(self, peer: Peer) -> None:
        """CommitMonotone, OneLeaderPerTerm, LeaderComplete, QuorumsMeet: what can be seen at any moment."""
        before, commit = self._commits[peer.id], peer.commit
        assert commit >= before, f"CommitMonotone: {peer.id} fell from {before} to {commit}"
        self._commits[peer.id] = commit
        if peer.role is not Role.LEADER:
            return
        if peer.term not in self._leaders:
            self._leaders[peer.term] = peer.id
            for other in self._peers.values():
                assert not other.is_up or other is peer or not other.raw.holds_lease(), (
                    f"LeaseExcludes: {other.id} holds a lease while {peer.id} is elected"
                )
            for term, position in self._committed.items():
                if term < peer.term:
                    self._holds(peer, *position)
        leader = self._leaders[peer.term]
        assert leader == peer.id, f"OneLeaderPerTerm: {leader} and {peer.id} both lead term {peer.term}"
        if commit > before:
            self._commit_rose(peer, before, commit)

    def _holds(self, leader: Peer, index: int, term: int) -> None:
        log = leader.raw.state.log
        assert index < log.first_index or log.term(index) == term, (
            f"LeaderComplete: {leader.id} ({leader.term}) lacks {index}@{term}"
        )

    def _commit_rose(self, leader: Peer, before: int, index: int) -> None:
        log = leader.raw.state.log
        term = log.term(index)
        assert term is not None
        if term != leader.term:
            # It learned that as a follower, a moment before it was elected.
            highest = max((known for known, _ in self._committed.values()), default=0)
            assert index <= highest, (
                f"OwnTermCommits: {leader.id} committed {index}@{term} by counting in term {leader.term}"
            )
            return
        holders = [
            peer.id
            for peer in self._peers.values()
            if peer.disk.entries.base_index > index
            or (peer.disk.entries.last_index >= index and peer.disk.entries.term(index) == term)
        ]
        assert has_quorum(leader.configuration, holders), (
            f"QuorumsMeet: {index}@{term} is durable only at {holders}"
        )
        self.seen["old term committed"] += any(
            log.term(i) != term for i in range(max(before + 1, log.first_index), index)
        )
        self._committed[term] = (index, term)
        for peer in self._peers.values():
            if peer.is_up and peer.role is Role.LEADER and peer.term > term:
                self._holds(peer, index, term)

    def on_message(self, peer: Peer, message: Message) -> None:
        """DurableBeforeSay and VoteOnce, at the moment the message leaves."""
        disk = peer.disk.hard_state
        if not (isinstance(message, RequestVote | RequestVoteReply) and message.pre_vote):
            assert message.term <= disk.term, f"DurableBeforeSay: {message}, but the disk has {disk}"
            self._said_terms[peer.id] = max(self._said_terms.get(peer.id, 0), message.term)
        match message:
            case RequestVote():
                self.seen["handed over"] += message.transfer
                if not message.pre_vote:
                    self._voted(peer, message.term, peer.id)
                disk_end = peer.disk.entries.last_index
                assert disk_end >= message.last_log_index, (
                    f"DurableBeforeSay: {message}, but the disk ends at {disk_end}"
                )
            case RequestVoteReply(pre_vote=False, granted=True):
                self._voted(peer, message.term, message.receiver)
            case AppendEntriesReply(success=True) | InstallSnapshotReply(success=True):
                self._acknowledged(peer, message)
            case AppendEntries() | InstallSnapshot() | TimeoutNow():
                leader = self._leaders[message.term]
                assert leader == peer.id, (
                    f"OneLeaderPerTerm: {peer.id} speaks as the leader of term {message.term}, which {leader} leads"
                )
            case _:
                pass

    def _voted(self, peer: Peer, term: int, candidate: NodeId) -> None:
        known = self._votes.setdefault((peer.id, term), candidate)
        assert known == candidate, f"VoteOnce: {peer.id} voted for {known} and {candidate} in {term}"
        disk = peer.disk.hard_state
        assert disk.term > term or (disk.term, disk.vote) == (term, candidate), (
            f"DurableBeforeSay: {peer.id} says it voted for {candidate} in {term}, its disk {disk}"
        )

    def _acknowledged(self, peer: Peer, message: AppendEntriesReply | InstallSnapshotReply) -> None:
        index, disk = message.match_index, peer.disk.entries
        assert disk.last_index >= index, (
            f"DurableBeforeSay: {message}, but the disk ends at {disk.last_index}"
        )
        leader = self._peers[message.receiver]
        leads = leader.is_up and leader.role is Role.LEADER and leader.term == message.term
        if leads and index >= disk.base_index:
            known = leader.raw.state.log.term(index)
            assert known in (None, disk.term(index)), (
                f"AcknowledgedMatches: {message}, but the logs differ there"
            )

    def read_asked(self, peer: Peer, context: ReadContext) -> None:
        """Remember what is committed anywhere: the answer must cover it."""
        self._reads[peer.id, context] = max(index for index, _ in [(0, 0), *self._committed.values()])

    def _begin_behind(self, node: NodeId, index: int) -> None:
        """The node's log begins with a snapshot."""
        self._logs[node] = self._prefix[:index]
        self._changes[node] = sorted(each for each in self._configurations if each <= index)

    def _extend(self, node: NodeId, entries: Iterable[Entry]) -> None:
        """LogMatching: an entry of equal index and term ends an equal log."""
        log, changes = self._logs[node], self._changes[node]
        for entry in entries:
            if entry.index <= len(log):
                self.seen["long tail truncated"] += len(log) > entry.index
                del log[entry.index - 1 :]
                while changes and changes[-1] >= entry.index:
                    changes.pop()
                    self.seen["change truncated"] += 1
            assert entry.index == len(log) + 1, f"NoGap: {node} writes {entry} after {len(log)}"
            chain = hash((log[-1].chain if log else 0, entry.term, entry.index, entry.data))
            known = self._chains.setdefault((entry.index, entry.term), chain)
            assert known == chain, f"LogMatching: {entry} at {node} ends another log than elsewhere"
            log.append(Position(entry.term, chain))
            if entry.type is EntryType.CONF_CHANGE:
                changes.append(entry.index)
