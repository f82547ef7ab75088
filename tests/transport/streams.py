"""Two ends of Raft's streams for tests: the real sender and the real service, over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from raftd.pb.consensus_pb2_grpc import add_ConsensusServicer_to_server
from raftd.raft.messages import AppendEntries, Message, RequestVote
from raftd.raft.types import Entry, EntryType
from raftd.services.auth import PeerInterceptor
from raftd.services.consensus import ConsensusService
from raftd.services.server import server_options
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.faults import FaultTable
from raftd.transport.network import Network

CLUSTER = 0xC1


def vote(term: int, sender: int = 1, receiver: int = 2) -> RequestVote:
    """A message that can be told from others by its term."""
    return RequestVote(sender, receiver, term, 0, 0)


def append(term: int, data: bytes, sender: int = 1, receiver: int = 2) -> AppendEntries:
    """A message of about the size of ``data``."""
    return AppendEntries(sender, receiver, term, 0, 0, (Entry(term, 1, EntryType.NORMAL, data),), 0)


class CountingFaults(FaultTable):
    """Counts how often it was asked about what comes in."""

    asked_count = 0

    def drops_from(self, peer: str) -> bool:
        """See ``FaultTable``."""
        self.asked_count += 1
        return super().drops_from(peer)


class Receiver:
    """Node n2, store 2: everything that it was delivered, and how it was cut into batches."""

    def __init__(
        self, path: Path, *, members: Sequence[int] = (1, 2, 3), cluster: int = CLUSTER, store_id: int = 2
    ):
        path.mkdir(exist_ok=True)
        self.local = LocalNode(cluster, store_id, "n2", "")
        self.faults = CountingFaults("n2", path / "cuts-n2.json", enabled=True)
        self.members = set(members)
        self.batches: list[Sequence[Message]] = []
        self._server: grpc.aio.Server | None = None
        self.port = 0

    def deliver(self, messages: Sequence[Message]) -> None:
        """See ``Node.deliver``."""
        self.batches.append(messages)

    @property
    def terms(self) -> list[int]:
        """Of all messages, in order."""
        return [message.term for batch in self.batches for message in batch]

    @property
    def remote(self) -> RemoteNode:
        """How n1 knows it."""
        return RemoteNode("n2", 2, f"127.0.0.1:{self.port}")

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = grpc.aio.server(
            interceptors=(PeerInterceptor(self.local, self.faults),), options=server_options()
        )
        service = ConsensusService(self.local, self.members.__contains__, self.faults, self.deliver)
        add_ConsensusServicer_to_server(service, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


class Sender:
    """Node n1, store 1, and what it was told of peers out of reach."""

    def __init__(self, path: Path, *, cluster: int = CLUSTER, store_id: int = 1) -> None:
        path.mkdir(exist_ok=True)
        self.faults = FaultTable("n1", path / "cuts-n1.json", enabled=True)
        self.network = Network(LocalNode(cluster, store_id, "n1", ""), 1, self.faults)
        self.unreachable: list[int] = []
        self.network.on_unreachable = self.unreachable.append


@asynccontextmanager
async def connected(sender: Sender, receiver: Receiver) -> AsyncIterator[None]:
    """The receiver listens and the sender knows where."""
    await receiver.start()
    await sender.network.set_members([receiver.remote])
    try:
        yield
    finally:
        await sender.network.close()
        await receiver.stop()
