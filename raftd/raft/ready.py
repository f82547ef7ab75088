"""What the core hands its host: the Ready (what to persist, send and apply, and in which order) and the Status.

The order of effects is stated here once and obeyed by one loop:

1. ``messages`` may leave at once, in parallel with the write.
2. Hand ``snapshot``, then ``entries``, then ``hard_state``, to the storage thread (one FIFO; in one Ready the entries
   are written before the hard state, so that a torn tail never leaves a commit above the log). ``must_sync`` says
   whether it needs an fsync; a changed commit alone does not, but it is durable when any later Ready is. That of a
   CONF_CHANGE does: only when it is durable is the entry handed out.
3. When the storage has done this Ready *and all before it*, in this order: have the ``LogReader`` begin behind
   ``snapshot`` and make ``entries`` visible through it, send ``messages_after_persist``, call
   ``RawNode.persisted(number)``, and then, if there is a ``snapshot``, replace the applied state by it and call
   ``RawNode.applied(its index)``.
4. Apply ``committed_entries`` in order, then call ``RawNode.applied(last index)``. They are durable already, so
   this need not wait for step 3. A CONF_CHANGE goes to ``RawNode.apply_conf_change`` when its turn comes.

The host may take the next Ready before the previous one is durable. It calls ``persisted`` at least for every Ready
that has ``must_sync`` or ``messages_after_persist``; a number attests every Ready before it. All that is applied is
applied in the order in which it was handed out, a snapshot at its step 3.

Snapshots. The core moves none; it says who needs one and what becomes of the log. The host

- takes them of the applied state, writes each under another name, syncs and renames it, and only then tells the core,
  with ``RawNode.snapshot_taken``, and compacts the log up to its index, or less, to keep a tail for slow followers;
- finds an ``InstallSnapshot`` among ``messages``: it streams that snapshot's bytes to the receiver over a connection of
  their own, the message at their head, and says how that ended with ``RawNode.report_snapshot``, once for every such
  message, whatever happens (``False`` where it has a newer snapshot by now and not that one any more);
- receiving such a stream, writes it under another name and, when it is complete and its checksum right, steps the
  message at its head. If the next Ready has that ``snapshot``, its write is to sync and rename the file and to
  replace the log; otherwise it was not needed and the file goes;
- after a crash starts from the newest complete snapshot: a log that ends before it or disagrees with it at its index is
  replaced, for the crash came between the rename and the replacing.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftd.raft.messages import Message
from raftd.raft.transitions import Event
from raftd.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    HardState,
    NodeId,
    ReadContext,
    Role,
    Snapshot,
    SoftState,
)


@dataclass(frozen=True, slots=True)
class ReadState:
    """A confirmed read: serve it from the state machine once that has applied ``index``.

    ``by_lease``: read the state, and then answer only if ``RawNode.holds_lease`` still says yes; else ask again.
    """

    context: ReadContext
    index: int
    by_lease: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """One batch of effects. See the module for their order; no field repeats what an earlier Ready carried."""

    number: int
    """1, 2, 3, ... within one life of the node."""
    soft_state: SoftState | None
    """Only when it changed since the last Ready."""
    hard_state: HardState | None
    """To persist; only when it changed since the last Ready."""
    entries: tuple[Entry, ...]
    """To persist. Contiguous; the first may overwrite: it replaces everything at its index and above."""
    must_sync: bool
    messages: tuple[Message, ...]
    messages_after_persist: tuple[Message, ...]
    committed_entries: tuple[Entry, ...]
    """To apply: at or below both the commit and what is durable here."""
    read_states: tuple[ReadState, ...]
    reads_dropped: tuple[ReadContext, ...]
    """Reads that will never be confirmed because leadership was lost: fail or forward them."""
    snapshot: Snapshot | None = None
    """To persist and to apply: it takes the place of the whole log, durable or not, and of the applied state."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the trace: what happened to the node, and how it stands now.

    Every change of its role, term, vote, leader and configuration is one, and so are the steps of a transfer and of
    installing a snapshot.
    """

    node: NodeId
    event: Event
    role: Role
    term: int
    vote: NodeId
    leader: NodeId
    last_index: int
    commit: int
    configuration: Configuration
    """The one in force."""
    transfer_target: NodeId = NO_NODE
    """Whom this leader is handing over to."""
    message: Message | None = None
    """What came in and caused it; None for ticks, for calls of the host and for writes that became durable."""


@dataclass(frozen=True, slots=True)
class ProgressStatus:
    """What a leader knows of one member."""

    node: NodeId
    state: str
    match_index: int
    next_index: int
    inflight_messages: int
    inflight_bytes: int
    recent_active: bool
    is_learner: bool
    pending_snapshot: int = 0
    """The index of the snapshot that is on its way to it; 0 for none."""


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot of the core for people and metrics."""

    id: NodeId
    role: Role
    term: int
    vote: NodeId
    leader: NodeId
    commit: int
    applied: int
    first_index: int
    last_index: int
    durable_index: int
    """The last index whose entry is durable here."""
    uncommitted_bytes: int
    pending_reads: int
    outstanding_readies: int
    """Readys with a sync that are not durable yet."""
    configuration: Configuration
    progress: tuple[ProgressStatus, ...]
    """Empty unless this node leads. Its own row is among them."""
    transfer_target: NodeId = NO_NODE
    """Whom this leader is handing over to."""
    snapshot_index: int = 0
    """Where the newest snapshot ends that this node can send; 0 for none."""
