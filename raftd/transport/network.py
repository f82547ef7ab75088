"""All peers of this node: who they are, where they are, and one sender each.

What may live here: the table of peers, kept in step with the membership, and the door through which the node's loop
sends. Messages to nobody are dropped: Raft repeats what matters.

Who has spoken to this node can be answered, member or not: a node that joins knows nobody yet, and one that is behind
does not know who has joined meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable

from raftd.raft.messages import Message
from raftd.raft.types import NodeId
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.faults import FaultTable
from raftd.transport.peer import PeerSender

LEARNED_KEPT = 16
"""Stores that are no members here and can be answered; the one that was heard longest ago goes first."""

LINGER_S = 3.0
"""A peer that is no member any more is still sent what was queued for it: the last that it hears (thesis §4.2.2)."""


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
        self._learned: OrderedDict[NodeId, RemoteNode] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self.on_unreachable: Callable[[NodeId], None] = lambda _: None

    @property
    def remotes(self) -> tuple[RemoteNode, ...]:
        """The other members as this node knows them."""
        return tuple(self._remotes.values())

    def remote(self, store_id: NodeId) -> RemoteNode | None:
        """The member of this store id, or who has spoken as that store; None for nobody."""
        return self._remotes.get(store_id) or self._learned.get(store_id)

    def by_name(self, name: str) -> RemoteNode | None:
        """The member of this name, or None."""
        return next((remote for remote in self._remotes.values() if remote.name == name), None)

    async def set_members(self, members: Iterable[RemoteNode]) -> None:
        """Keep these peers; one whose address changed is dialled anew, one that left is closed in a while."""
        wanted = {remote.store_id: remote for remote in members if remote.store_id != self._local.store_id}
        before, self._remotes = self._remotes, wanted
        for store_id, old in before.items():
            if store_id not in wanted:
                self._later(self._close_unless_wanted(store_id))
            elif wanted[store_id] != old and store_id in self._senders:
                await self._senders.pop(store_id).close()
        for store_id, remote in wanted.items():
            learned = self._learned.pop(store_id, None)
            if learned is not None and learned != remote and store_id in self._senders:
                await self._senders.pop(store_id).close()
            self._open(store_id, remote)

    def learn(self, remote: RemoteNode) -> None:
        """This store has spoken to us: it can be answered, though it is no member here."""
        store_id = remote.store_id
        if store_id in self._remotes or store_id == self._local.store_id or not remote.address:
            return
        known = self._learned.get(store_id)
        self._learned[store_id] = remote
        self._learned.move_to_end(store_id)
        if known is not None and known != remote and store_id in self._senders:
            self._later(self._senders.pop(store_id).close())
        self._open(store_id, remote)
        while len(self._learned) > LEARNED_KEPT:
            oldest, _ = self._learned.popitem(last=False)
            self._later(self._senders.pop(oldest).close())

    def _open(self, store_id: NodeId, remote: RemoteNode) -> None:
        if store_id not in self._senders:
            self._senders[store_id] = PeerSender(
                self._local, self._incarnation, remote, self._faults, self._unreachable
            )

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_unless_wanted(self, store_id: NodeId) -> None:
        await asyncio.sleep(LINGER_S)
        if store_id not in self._remotes and store_id not in self._learned and store_id in self._senders:
            await self._senders.pop(store_id).close()

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
        for task in tuple(self._closing):
            task.cancel()
        while self._senders:
            _, sender = self._senders.popitem()
            await sender.close()
