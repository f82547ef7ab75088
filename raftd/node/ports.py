"""What the node's loop needs of its surroundings, as protocols.

What may live here: the shapes of the log, the network and the leader's work as ``node`` sees them, so that a test or a
simulator can stand in for any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raftd.errors import RaftdError
from raftd.raft import types as raft
from raftd.raft.messages import Message
from raftd.scheduler.commands import Command


class Storage(Protocol):
    """The durable log, as the loop uses it (``raftd.storage.thread.StorageThread``)."""

    def submit(
        self, number: int, hard_state: raft.HardState | None, entries: Sequence[raft.Entry], must_sync: bool
    ) -> None:
        """Queue one Ready's writes; its completion comes back through ``Node.durable``."""


class DurableView(Protocol):
    """The durable log in memory (``raftd.storage.log_store.LogStore``)."""

    def append(self, entries: Sequence[raft.Entry]) -> None:
        """Entries have become durable."""


class Peers(Protocol):
    """The way to the other members (``raftd.transport.network.Network``)."""

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages; never blocks."""


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

    def planned(self, commands: Sequence[Command], error: RaftdError | None) -> None:
        """What was planned is applied, or (``error``) was not appended or is given up."""

    def stalled(self, stall_ms: int) -> None:
        """The loop was late by this much: nobody could be heard meanwhile."""
