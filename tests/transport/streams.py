"""Two ends of Raft's streams for tests: the real sender and the real service, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from raftd.errors import NotLeader, RaftdError
from raftd.pb.consensus_pb2_grpc import add_ConsensusServicer_to_server
from raftd.raft.messages import AppendEntries, InstallSnapshot, Message, RequestVote
from raftd.raft.types import Entry, EntryType
from raftd.services.auth import PeerInterceptor
from raftd.services.consensus import ConsensusService
from raftd.services.server import server_options
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.faults import FaultTable
from raftd.transport.network import Network
from tests.services.hosts import FakeStores

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


class HeldIntake:
    """A snapshot that is taken in, and what became of it. ``on_chunk`` is told of every chunk before it is taken."""

    def __init__(self, announcement: InstallSnapshot, on_chunk: Callable[[int], None]) -> None:
        self.announcement = announcement
        self.data = b""
        self.sizes: list[int] = []
        self.finished = self.aborted = False
        self.damage: RaftdError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self._on_chunk = on_chunk

    async def write(self, data: bytes) -> None:
        """See ``Intake``."""
        self._on_chunk(len(self.sizes))
        await self.hold.wait()
        self.data += data
        self.sizes.append(len(data))

    async def finish(self) -> None:
        """See ``Intake``."""
        self._on_chunk(len(self.sizes))
        await self.hold.wait()
        if self.damage is not None:
            raise self.damage
        self.finished = True

    async def abort(self) -> None:
        """See ``Intake``."""
        self.aborted = not self.finished


class Detour:
    """A way to a port on which connections that are open can fall silent, both ways; later ones pass."""

    def __init__(self) -> None:
        self.port = 0
        self.connections_count = 0
        self._to_port = 0
        self._passing: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, to_port: int) -> None:
        """Lead there."""
        self._to_port = to_port
        self._passing = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def fall_silent(self) -> None:
        """Whatever is connected now hears nothing any more, and is not hung up on."""
        assert self._passing is not None
        self._passing.set()
        self._passing = asyncio.Event()

    async def stop(self) -> None:
        """Hang up."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        task = asyncio.current_task()
        assert task is not None
        assert self._passing is not None
        self._tasks.add(task)
        silent = self._passing
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        try:
            await asyncio.gather(
                self._pass(reader, there_writer, silent), self._pass(there_reader, writer, silent)
            )
        finally:
            writer.close()
            there_writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event
    ) -> None:
        while data := await reader.read(16 * 1024):
            if not silent.is_set():
                writer.write(data)
                await writer.drain()
        writer.close()


class Receiver:
    """Node n2, store 2: everything that it was delivered, and how it was cut into batches."""

    def __init__(
        self,
        path: Path,
        *,
        members: Mapping[str, int] | None = None,
        removed: Collection[int] = (),
        cluster: int = CLUSTER,
        store_id: int = 2,
    ):
        path.mkdir(exist_ok=True)
        self.local = LocalNode(cluster, store_id, "n2", "")
        self.faults = CountingFaults("n2", path / "cuts-n2.json", enabled=True)
        self.stores = FakeStores(members, removed)
        self.learned: list[RemoteNode] = []
        self.intakes: list[HeldIntake] = []
        self.on_chunk: Callable[[int], None] = lambda _: None
        self.taking_none: RaftdError | None = None
        self.idle_s = 30.0
        self.batches: list[Sequence[Message]] = []
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self.at_port = 0  # where others look for it, if not at its own

    def deliver(self, messages: Sequence[Message]) -> None:
        """See ``Node.deliver``."""
        self.batches.append(messages)

    # ``raftd.services.consensus.SnapshotIntake`` and ``ReadIndices``

    def begin(self, announcement: InstallSnapshot) -> HeldIntake:
        """See ``SnapshotIntake``."""
        if self.taking_none is not None:
            raise self.taking_none
        self.intakes.append(HeldIntake(announcement, self._tell_chunk))
        return self.intakes[-1]

    def _tell_chunk(self, number: int) -> None:
        self.on_chunk(number)  # which a test may change meanwhile

    async def read_index(self, *, timeout: float) -> int:
        """See ``Node.read_index``."""
        if timeout > 100:
            raise NotLeader("n2 does not lead")
        return 77

    @property
    def terms(self) -> list[int]:
        """Of all messages, in order."""
        return [message.term for batch in self.batches for message in batch]

    @property
    def remote(self) -> RemoteNode:
        """How n1 knows it."""
        return RemoteNode("n2", 2, f"127.0.0.1:{self.at_port or self.port}")

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = grpc.aio.server(
            interceptors=(PeerInterceptor(self.local, self.faults, self.stores),), options=server_options()
        )
        service = ConsensusService(
            local=self.local,
            stores=self.stores,
            faults=self.faults,
            deliver=self.deliver,
            learn=self.learned.append,
            snapshots=self,
            reads=self,
            idle_s=self.idle_s,
        )
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

    def __init__(
        self,
        path: Path,
        *,
        cluster: int = CLUSTER,
        store_id: int = 1,
        name: str = "n1",
        incarnation: int = 1,
        address: str = "n1:1",
        start: int = 11,
        linger_s: float = 60.0,
    ) -> None:
        path.mkdir(exist_ok=True)
        self.faults = FaultTable(name, path / f"cuts-{name}.json", enabled=True)
        self.local = LocalNode(cluster, store_id, name, "", address, start)
        self.network = Network(self.local, incarnation, self.faults, linger_s)
        self.unreachable: list[int] = []
        self.network.on_unreachable = self.unreachable.append
        self.refusals: list[RaftdError] = []
        self.network.on_refused = lambda _, error: self.refusals.append(error)


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
