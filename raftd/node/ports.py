"""What the node's loop needs of its surroundings, as protocols.

What may live here: the shapes of the log, the network and the leader's work as ``node`` sees them, so that a test or a
simulator can stand in for any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftd.errors import RaftdError
from raftd.raft import types as raft
from raftd.raft.messages import InstallSnapshot, Message
from raftd.scheduler.commands import Command
from raftd.scheduler.state import State


class Storage(Protocol):
    """The durable log, as the loop uses it (``raftd.storage.thread.StorageThread``)."""

    def submit(
        self,
        number: int,
        hard_state: raft.HardState | None,
        entries: Sequence[raft.Entry],
        must_sync: bool,
        install: Any = None,
    ) -> None:
        """Queue one Ready's writes; its completion comes back through ``Node.durable``.

        ``install`` is the file of a snapshot that takes the place of the whole log, before the entries.
        """

    def compact(self, index: int) -> None:
        """Queue the removal of what the log holds up to that index, or somewhat less."""


class DurableView(Protocol):
    """The durable log in memory (``raftd.storage.log_store.LogStore``)."""

    @property
    def first_index(self) -> int:
        """The lowest index that is held."""

    def append(self, entries: Sequence[raft.Entry]) -> None:
        """Entries have become durable."""

    def compact(self, index: int) -> None:
        """Forget what is held up to that index."""

    def restore(self, index: int, term: int) -> None:
        """A snapshot has taken the place of everything."""


class Peers(Protocol):
    """The way to the other members (``raftd.transport.network.Network``)."""

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages; never blocks."""


class SnapshotFile(Protocol):
    """A snapshot's file under a temporary name (``raftd.storage.snapshots.SnapshotWriter``)."""

    def write(self, data: bytes) -> None:
        """The next bytes."""

    def finish(self) -> None:
        """It is whole: sync it."""

    def abort(self) -> None:
        """Remove it; also after ``finish``."""

    def open(self) -> Any:
        """Read what was finished."""


@dataclass(frozen=True, slots=True)
class Received:
    """A snapshot that has arrived whole: what announced it, its synced file, and the state that is in it."""

    announcement: InstallSnapshot
    file: SnapshotFile
    state: State


class Snapshots(Protocol):
    """The snapshots, as the loop uses them (``raftd.node.snapshots.Snapshots``)."""

    def applied(self, entries: int, log_bytes: int) -> None:
        """So many entries of that size were applied."""

    def send(self, announcement: InstallSnapshot) -> None:
        """Stream a snapshot to a follower and report how it ended."""

    def discard(self, file: SnapshotFile) -> None:
        """The core did not need it."""


class LeaderReads(Protocol):
    """Asking the leader for a read index (``raftd.transport.reads.PeerReads``)."""

    async def read_index(self, leader: raft.NodeId, timeout_s: float) -> int:
        """An index from which on a state is fresh. Raises ``RaftdError``."""


class Leading(Protocol):
    """What this node does while it leads (``raftd.node.leadership.Leadership``)."""

    def begin(self, term: int) -> None:
        """This node leads, and everything that was committed before is applied."""

    def end(self) -> None:
        """It leads no more."""

    def plan(self, now_ms: int) -> Sequence[Command]:
        """What should be proposed now.

        Args:
            now_ms: monotonic, and never later than what ``stalled`` has been told of: a stall that the loop has not
                noticed yet must not look like the silence of others.
        """

    def ride(self, batch: Sequence[Command]) -> Sequence[Command]:
        """What should be proposed in the same entry as these."""

    def planned(self, commands: Sequence[Command], error: RaftdError | None) -> None:
        """What was planned is applied, or (``error``) was not appended or is given up."""

    def stalled(self, stall_ms: int) -> None:
        """The loop was late by this much: nobody could be heard meanwhile."""
