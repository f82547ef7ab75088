"""All peers of this node: who they are, where they are, and one sender each.

What may live here: the table of peers, kept in step with the membership, and the door through which the node's loop
sends. Messages to nobody are dropped: Raft repeats what matters.

Who has spoken to this node can be answered, member or not: a node that joins knows nobody yet, and one that is behind
does not know who has joined meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from raftd.errors import RaftdError
from raftd.raft.messages import Message
from raftd.raft.types import NodeId
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.faults import FaultTable
from raftd.transport.peer import PeerSender

LEARNED_KEPT = 16
"""Stores that are no members here and can be answered; the one that was heard longest ago goes first."""

LINGER_S = 3.0
"""A peer that is no member any more is still sent what was queued for it: the last that it hears (thesis §4.2.2)."""

KNOCK_S = 2.0
"""A few election timeouts: by then a node that belongs to a cluster that works has a leader."""


class Network:
    """Sends Raft's messages.

    Args:
        local: this node.
        incarnation: of this node.
        faults: what must not leave.
        linger_s: for how long a peer that left is still sent what was queued for it.
    """

    def __init__(
        self, local: LocalNode, incarnation: int, faults: FaultTable, linger_s: float = LINGER_S
    ) -> None:
        self._local = local
        self._incarnation = incarnation
        self._faults = faults
        self._linger_s = linger_s
        self._senders: dict[NodeId, PeerSender] = {}
        self._remotes: dict[NodeId, RemoteNode] = {}
        self._learned: OrderedDict[NodeId, RemoteNode] = OrderedDict()
        self._leaving: dict[NodeId, asyncio.TimerHandle] = {}
        """Peers that are no members any more, until their sender ends."""
        self._closing: set[asyncio.Task[None]] = set()
        self.on_unreachable: Callable[[NodeId], None] = lambda _: None
        self.on_refused: Callable[[NodeId, RaftdError], None] = lambda _, __: None
        """A peer, of this store id, takes nothing from this node, and says why."""

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
        loop = asyncio.get_running_loop()
        for store_id in before.keys() - wanted.keys():
            self._leaving[store_id] = loop.call_later(self._linger_s, self._end, store_id)
        for store_id, remote in wanted.items():
            self._learned.pop(store_id, None)
            self._speak_to(remote)

    def learn(self, remote: RemoteNode) -> None:
        """This store has spoken to us: it can be answered, though it is no member here."""
        store_id = remote.store_id
        if store_id in self._remotes or store_id == self._local.store_id or not remote.address:
            return
        self._learned[store_id] = remote
        self._learned.move_to_end(store_id)
        self._speak_to(remote)
        while len(self._learned) > LEARNED_KEPT:
            oldest, _ = self._learned.popitem(last=False)
            self._end(oldest)

    def _speak_to(self, remote: RemoteNode) -> None:
        """One sender for this peer, at this address."""
        store_id = remote.store_id
        leaving = self._leaving.pop(store_id, None)
        if leaving is not None:
            leaving.cancel()
        sender = self._senders.get(store_id)
        if sender is not None and sender.remote != remote:
            self._end(store_id)
            sender = None
        if sender is None:
            self._senders[store_id] = PeerSender(
                self._local, self._incarnation, remote, self._faults, self._unreachable, self._refused
            )

    def _end(self, store_id: NodeId) -> None:
        """Nothing more goes to this peer."""
        self._leaving.pop(store_id, None)
        task = asyncio.ensure_future(self._senders.pop(store_id).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def send(self, messages: Iterable[Message]) -> None:
        """Queue messages, each for its receiver; never blocks."""
        for message in messages:
            sender = self._senders.get(message.receiver)
            if sender is not None:
                sender.send(message)

    def _unreachable(self, store_id: NodeId) -> None:
        # Looked up at the call: the node that listens is made after the network.
        self.on_unreachable(store_id)

    def _refused(self, store_id: NodeId, error: RaftdError) -> None:
        self.on_refused(store_id, error)

    async def knock_while(self, lonely: Callable[[], bool], every_s: float = KNOCK_S) -> None:
        """Go to the peers now and then while ``lonely``, also with nothing to say; until it is cancelled.

        One that was removed while it was down hears from nobody, and a learner asks nobody either. One that knows
        that it was removed learns in this way who else does.
        """
        while True:
            await asyncio.sleep(every_s)
            if lonely():
                for sender in self._senders.values():
                    sender.knock()

    async def close(self) -> None:
        """End every stream; returns when the last has ended."""
        for leaving in self._leaving.values():
            leaving.cancel()
        for store_id in tuple(self._senders):
            self._end(store_id)
        # To their end, also those that ended before: one that is given up here would dial for ever.
        await asyncio.gather(*self._closing)
