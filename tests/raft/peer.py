"""One node with a disk that can be slow, and that forgets in a crash what was not synced.

The Peer is the host that `ready.py` describes, as small as it can be: it takes Readys, keeps their writes in a FIFO
until `persist` is called, and lets messages out when the contract allows.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raftd.raft import invariants
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Ready, Transition
from raftd.raft.types import (
    Config,
    Configuration,
    Entry,
    EntryType,
    HardState,
    NodeId,
    Proposed,
    ReadContext,
    Role,
    Snapshot,
)
from tests.raft.changes import change_of, decode_change, encode_change
from tests.raft.memory_log import MemoryLog


@dataclass
class Disk:
    """What would survive. `unsynced` was written without an fsync: it may survive or not."""

    hard_state: HardState
    entries: MemoryLog
    unsynced: HardState | None = None
    snapshot: Snapshot | None = None
    content: tuple[Entry, ...] = ()
    """Of the snapshot: everything that was applied, which is a good state machine for a test."""

    def write(self, ready: Ready, received: Mapping[Snapshot, tuple[Entry, ...]]) -> None:
        self.tear(ready, received)
        newest = ready.hard_state or self.unsynced or self.hard_state
        if ready.must_sync:
            self.hard_state, self.unsynced = newest, None
        else:
            self.unsynced = newest

    def tear(self, ready: Ready, received: Mapping[Snapshot, tuple[Entry, ...]]) -> None:
        """The write got as far as the entries."""
        if ready.snapshot is not None:
            self.snapshot, self.content = ready.snapshot, received[ready.snapshot]
            self.entries.reset(ready.snapshot.index, ready.snapshot.term)
        self.entries.write(ready.entries)


Observer = Callable[["Peer", Ready], None]


class Peer:
    """A RawNode and its host. `sent` is where its messages go; the cluster replaces it."""

    def __init__(
        self,
        node: NodeId,
        configuration: Configuration,
        *,
        log: Iterable[Entry] = (),
        hard_state: HardState | None = None,
        jitter: Callable[[int], int] = lambda n: 0,
        **settings: Any,
    ) -> None:
        self.id = node
        self.founded = configuration
        """The configuration that the log starts from."""
        self.config = Config(id=node, jitter=jitter, **{"heartbeat_ticks": 1, **settings})
        entries = MemoryLog(list(log))
        last_term = entries.term(entries.last_index)
        self.disk = Disk(hard_state or HardState(last_term, 0, 0), entries)
        self.sent: list[Message] = []
        self.write_through = True
        """Whether `work` also completes the writes, as a disk that is never slow."""
        self.on_transition: Callable[[Peer, Transition], None] = lambda peer, transition: None
        self.unwatched()
        self.apply_through = True
        """Whether what is committed is applied with the Ready that hands it out, and not only when told."""
        self.lives = 0
        self.start()

    def unwatched(self) -> "Peer":
        """From here on the test plays the others: an oracle, who knows their disks, must not watch."""
        self.on_ready: Observer = lambda peer, ready: None
        self.on_message: Callable[[Peer, Message], None] = lambda peer, message: peer.sent.append(message)
        self.on_apply: Callable[[Peer, Entry], None] = lambda peer, entry: None
        """Called before a committed entry is applied."""
        self.on_changed: Callable[[Peer, Entry], None] = lambda peer, entry: None
        """Called when a CONF_CHANGE has been applied."""
        self.on_restored: Callable[[Peer, Snapshot], None] = lambda peer, snapshot: None
        """Called when a snapshot has taken the place of the applied state."""
        self.on_moved: Callable[[Peer], None] = lambda peer: None
        """Called when the commit may have moved, before the role can change again."""
        return self

    def start(self) -> None:
        """A new life from the disk; everything else is forgotten."""
        self.lives += 1
        self.is_up = True
        self.visible = MemoryLog(self.disk.entries.held)
        self.visible.base_index, self.visible.base_term = (
            self.disk.entries.base_index,
            self.disk.entries.base_term,
        )
        snapshot = self.disk.snapshot
        self.raw = RawNode(
            self.config,
            self.founded if snapshot is None else snapshot.configuration,
            self.disk.hard_state,
            self.visible,
            applied=self.visible.base_index if snapshot is None else snapshot.index,
            on_transition=lambda transition: self.on_transition(self, transition),
            snapshot=snapshot,
        )
        self.received: dict[Snapshot, tuple[Entry, ...]] = {}
        """The bytes of snapshots that came in."""
        self.pending: deque[Ready] = deque()
        self.unapplied: deque[Entry | Snapshot] = deque()
        self.applied: list[Entry] = list(self.disk.content)
        self.reads: dict[ReadContext, int] = {}
        self.reads_dropped: list[ReadContext] = []

    def crash(self, keep_unsynced: bool = False) -> None:
        """Lose memory and every write that had not completed."""
        self.is_up = False
        if keep_unsynced and self.disk.unsynced is not None:
            self.disk.hard_state = self.disk.unsynced
        self.disk.unsynced = None
        self.pending.clear()

    @property
    def role(self) -> Role:
        return self.raw.state.role

    @property
    def term(self) -> int:
        return self.raw.state.term

    @property
    def leader(self) -> NodeId:
        return self.raw.state.leader

    @property
    def configuration(self) -> Configuration:
        return self.raw.state.configuration

    @property
    def commit(self) -> int:
        return self.raw.state.log.commit

    @property
    def terms(self) -> list[int]:
        """The terms of the whole log in memory, durable or not."""
        log = self.raw.state.log
        return [log.term(i) or 0 for i in range(log.first_index, log.last_index + 1)]

    def step(self, *messages: Message) -> list[Message]:
        """Step, do the work, and answer what left."""
        for message in messages:
            self.raw.step(message)
            self.on_moved(self)
        return self.work()

    def tick(self, count: int = 1) -> list[Message]:
        """Tick, doing the work after each, and answer what left."""
        return [message for _ in range(count) for message in self._tick()]

    def _tick(self) -> list[Message]:
        self.raw.tick()
        return self.work()

    def campaign(self) -> list[Message]:
        self.raw.campaign()
        return self.work()

    def propose(self, *datas: bytes) -> list[Message]:
        self.raw.propose_batch(datas)
        return self.work()

    def work(self) -> list[Message]:
        """Take every Ready, and complete the writes if the disk is not slow; answer what left meanwhile."""
        invariants.check(self.raw)
        if self.apply_through:
            self.apply(len(self.unapplied))
        while self.raw.has_ready() or (self.write_through and self.pending):
            if self.raw.has_ready():
                self.take_ready()
            if self.write_through and self.pending:
                self.persist()
        left, self.sent = self.sent, []
        return left

    def take_ready(self) -> Ready:
        """Take one Ready: send, queue the write, apply."""
        ready = self.raw.ready()
        invariants.check(self.raw)
        self.on_ready(self, ready)
        for message in ready.messages:
            self.on_message(self, message)
        if ready.entries or ready.hard_state or ready.messages_after_persist or ready.snapshot:
            self.pending.append(ready)
        self.unapplied += ready.committed_entries
        if self.apply_through:
            self.apply(len(self.unapplied))
        self.reads.update({state.context: state.index for state in ready.read_states})
        self.reads_dropped += ready.reads_dropped
        return ready

    def apply(self, count: int = 1) -> None:
        """Apply so many of the committed entries that were handed out."""
        for _ in range(min(count, len(self.unapplied))):
            entry = self.unapplied.popleft()
            if isinstance(entry, Snapshot):
                self._restore(entry)
                continue
            self.on_apply(self, entry)
            self.applied.append(entry)
            if entry.type is EntryType.CONF_CHANGE:
                self.raw.apply_conf_change(decode_change(entry.data))
                self.on_changed(self, entry)
        if self.applied:
            self.raw.applied(self.applied[-1].index)

    def _restore(self, snapshot: Snapshot) -> None:
        self.applied = list(self.received[snapshot])
        self.raw.applied(snapshot.index)
        self.on_restored(self, snapshot)

    def has_more_than_its_snapshot(self) -> bool:
        """Whether something is applied that no durable snapshot holds."""
        known = 0 if self.disk.snapshot is None else self.disk.snapshot.index
        return bool(self.applied) and self.applied[-1].index > known

    def take_snapshot(self, keep: int = 0) -> Snapshot:
        """Of what is applied; the log is compacted but for the last ``keep`` entries of that."""
        index, log = self.applied[-1].index, self.disk.entries
        snapshot = Snapshot(index, log.term(index), self.configuration, len(self.applied))
        self.disk.snapshot, self.disk.content = snapshot, tuple(self.applied)
        self.raw.snapshot_taken(snapshot)
        for image in (self.disk.entries, self.visible):
            if index - keep > image.base_index:
                image.compact(index - keep)
        return snapshot

    def receive(self, message: InstallSnapshot, content: tuple[Entry, ...]) -> None:
        """All bytes of a snapshot are here."""
        self.received[message.snapshot] = content
        self.raw.step(message)
        self.on_moved(self)

    def change(self, *changes: str) -> Proposed:
        """Propose a change of the membership, as `change_of` spells it."""
        change = change_of(*changes)
        return self.raw.propose_conf_change(change, encode_change(change))

    def persist(self) -> None:
        """The oldest write completes."""
        ready = self.pending.popleft()
        self.disk.write(ready, self.received)
        if ready.snapshot is not None:
            self.visible.reset(ready.snapshot.index, ready.snapshot.term)
        self.visible.write(ready.entries)
        for message in ready.messages_after_persist:
            self.on_message(self, message)
        self.raw.persisted(ready.number)
        invariants.check(self.raw)
        self.on_moved(self)
        if ready.snapshot is not None:
            self.unapplied.append(ready.snapshot)
            if self.apply_through:
                self.apply(len(self.unapplied))
