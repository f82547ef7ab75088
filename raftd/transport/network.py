"""All peers of this node: who they are, where they are, and one sender each.

What may live here: the table of peers, kept in step with the membership, and the door through which the node's loop
sends. Messages to nobody are dropped: Raft repeats what matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftd.raft.messages import Message
from raftd.raft.types import NodeId
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.faults import FaultTable
from raftd.transport.peer import PeerSender


class Network:
    """Sends Raft's messages.

    Args:
        local: this node.
        incarnation: of this node.
        faults: what must not leave.
    """

    def __init__(self, local: LocalNode, incarnation: int, faults: FaultTable) -> None:
        self._local = local
        self._incarnation = incarnation
        self._faults = faults
        self._senders: dict[NodeId, PeerSender] = {}
        self._remotes: dict[NodeId, RemoteNode] = {}
        self.on_unreachable: Callable[[NodeId], None] = lambda _: None

    @property
    def remotes(self) -> tuple[RemoteNode, ...]:
        """The other members as this node knows them."""
        return tuple(self._remotes.values())

    def remote(self, store_id: NodeId) -> RemoteNode | None:
        """The member of this store id, or None."""
        return self._remotes.get(store_id)

    def by_name(self, name: str) -> RemoteNode | None:
        """The member of this name, or None."""
        return next((remote for remote in self._remotes.values() if remote.name == name), None)

    async def set_members(self, members: Iterable[RemoteNode]) -> None:
        """Keep exactly these peers; a peer whose address changed is dialled anew."""
        wanted = {remote.store_id: remote for remote in members if remote.store_id != self._local.store_id}
        for store_id in [known for known in self._senders if wanted.get(known) != self._remotes.get(known)]:
            await self._senders.pop(store_id).close()
        self._remotes = wanted
        for store_id, remote in wanted.items():
            if store_id not in self._senders:
                self._senders[store_id] = PeerSender(
                    self._local,
                    self._incarnation,
                    remote,
                    self._faults,
                    self._unreachable,
                )

    def send(self, messages: Iterable[Message]) -> None:
        """Queue messages, each for its receiver; never blocks."""
        for message in messages:
            sender = self._senders.get(message.receiver)
            if sender is not None:
                sender.send(message)

    def _unreachable(self, store_id: NodeId) -> None:
        # Looked up at the call: the node that listens is made after the network.
        self.on_unreachable(store_id)

    async def close(self) -> None:
        """End every stream."""
        while self._senders:
            _, sender = self._senders.popitem()
            await sender.close()
