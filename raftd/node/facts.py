"""What a node can say of itself and of the stores that it knows, gathered from its parts.

What may live here: reading. What is asked for is declared by ``raftd.services.admin`` and ``raftd.services.consensus``.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.node.members import Members
from raftd.node.node import Node
from raftd.node.roster import Roster
from raftd.raft.ready import Status
from raftd.raft.types import NodeId
from raftd.scheduler.state import State
from raftd.storage.snapshots import SnapshotStore
from raftd.storage.thread import StorageThread


class Facts:
    """Facts of one node.

    Args:
        node: the loop.
        storage: the storage thread.
        files: the snapshots on the disk.
        state: the applied state.
        members: the members in it.
        roster: whether this node belongs to them.
        slots_ready: whether every slot is warm and the executor attached.
    """

    def __init__(
        self,
        node: Node,
        storage: StorageThread,
        files: SnapshotStore,
        state: Callable[[], State],
        members: Members,
        roster: Roster,
        slots_ready: Callable[[], bool],
    ) -> None:
        self._node = node
        self._storage = storage
        self._files = files
        self._state = state
        self._members = members
        self._roster = roster
        self._slots_ready = slots_ready

    # --- raftd.services.admin.NodeFacts -------------------------------------------------------------------------

    def status(self) -> Status:
        """What the core knows."""
        return self._node.status()

    @property
    def fsync_ms(self) -> float:
        """How long the last group commit took."""
        return self._storage.metrics().fsync_last_ms

    @property
    def storage_queue(self) -> int:
        """Writes that wait for the storage thread."""
        return self._storage.metrics().queue_depth

    @property
    def slots_ready(self) -> bool:
        """Every slot process is warm, and the executor is attached to a leader."""
        return self._slots_ready()

    @property
    def snapshot_bytes(self) -> int:
        """The size of the newest snapshot; 0 for none."""
        newest = self._files.newest
        return 0 if newest is None else newest.size_bytes

    @property
    def disk_full(self) -> bool:
        """Whether it takes no submissions because its disk is full."""
        return self._node.disk_full

    @property
    def removed_stores(self) -> frozenset[int]:
        """The stores that never come back."""
        return self._state().removed_stores

    @property
    def membership(self) -> str:
        """voter, learner, leaving, removed or joining."""
        if self._roster.is_removed:
            return "removed"
        own = self._members.by_store_id(self._node.status().id)
        if own is None:
            return "joining"
        return "leaving" if own.leaving else "voter" if own.voter else "learner"

    # --- raftd.services.consensus.Stores ------------------------------------------------------------------------

    def name_of(self, store_id: NodeId) -> str:
        """The member of this store id; empty for none."""
        return self._members.name(store_id)

    def store_of(self, name: str) -> NodeId:
        """The member of this name; 0 for none."""
        member = self._members.by_name(name)
        return 0 if member is None else member.store_id

    def is_removed(self, store_id: NodeId) -> bool:
        """Whether it was removed from the cluster, for good."""
        return store_id in self._state().removed_stores
