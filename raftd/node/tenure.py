"""Who leads, as this node knows, and whether this node serves as the leader.

What may live here: the beginning and the end of this node's own leadership, and telling those who wait for either.
"""

from __future__ import annotations

import asyncio

from raftd.errors import NoLeader, NotLeader, RaftdError
from raftd.node.ports import Leading
from raftd.raft import types as raft


class Tenure:
    """Roles and leaders of one node's life.

    Args:
        own: this node's store id.

    Attributes:
        role: of this node.
        leader: who leads; 0 for nobody.
        term: in which this node serves as leader; 0 while it does not.
        leading: what it does while it serves.
    """

    def __init__(self, own: raft.NodeId) -> None:
        self._own = own
        self.role = raft.Role.FOLLOWER
        self.leader: raft.NodeId = raft.NO_NODE
        self.term = 0
        self.leading: Leading | None = None
        self._changed = asyncio.Event()

    @property
    def serves(self) -> bool:
        """Whether this node leads and has applied its own term's first entry: it may serve and plan."""
        return self.term != 0

    async def changed(self) -> None:
        """Return when the leader, or whether this node serves, has changed."""
        await self._changed.wait()

    def become(self, soft: raft.SoftState) -> bool:
        """The core has another role or leader; whether this node has just lost the leadership."""
        lost = self.role is raft.Role.LEADER and soft.role is not raft.Role.LEADER
        self.role, self.leader = soft.role, soft.leader
        if lost:
            self.end()
        self.announce()
        return lost

    def settle(self, term: int, applied_term: int) -> None:
        """Serve once the own term's no-op is applied: until then older commits may not be applied here."""
        if (
            self.role is raft.Role.LEADER
            and not self.term
            and self.leading is not None
            and applied_term == term
        ):
            self.term = term
            self.leading.begin(term)
            self.announce()

    def end(self) -> None:
        """Serve no longer."""
        if self.term and self.leading is not None:
            self.term = 0
            self.leading.end()

    def not_leader(self) -> RaftdError:
        """What callers are told who need a leader here."""
        if self.leader in (raft.NO_NODE, self._own):
            return NoLeader(
                "no leader is known to this node", try_="wait for an election, or start more nodes"
            )
        return NotLeader(f"this node does not lead; store {self.leader:016x} does")

    def announce(self) -> None:
        """Let those who wait for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()
