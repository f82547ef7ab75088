"""The real Scheduler service over the in-memory cluster's real loops: network, disk and executors are stand-ins, but
followers ask for read indices over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from raftd.errors import InvalidArguments, LogsGone
from raftd.node.members import Members
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.services.cluster_view import ClusterView
from raftd.services.consensus import ConsensusService
from raftd.services.forwarding import Forwarder
from raftd.services.logs import KeptOutput, LogsReader
from raftd.services.scheduler import SchedulerService
from raftd.services.server import ServerHost, Services
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.caller import Caller
from raftd.transport.faults import FaultTable
from raftd.transport.reads import PeerReads
from tests.node.cluster import CLUSTER_ID, Cluster, Member
from tests.services.hosts import FakeAdmin, FakeBlobs, FakeStores, channel_to

PATIENCE_MS = 1_000


@dataclass
class ServedMember:
    """One member and the server in front of it."""

    member: Member
    server: ServerHost
    caller: Caller
    faults: FaultTable
    stub: SchedulerStub

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.port}"


def check(kind: str, args: tuple[str, ...]) -> None:
    """Refuses the argument ``bad``."""
    if "bad" in args:
        raise InvalidArguments(f"{kind} takes no such argument")


def no_output(task_id: int, attempt: int) -> KeptOutput:
    """Keeps nothing."""
    raise LogsGone(f"nothing is kept of attempt {attempt} of t{task_id}")


class ServedCluster:
    """A cluster whose members are served."""

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.cluster = cluster
        self.served: dict[int, ServedMember] = {}
        self._path = path

    async def leader(self) -> ServedMember:
        """The one that leads and serves."""
        return self.served[(await self.cluster.leader()).store_id]

    async def follower(self) -> ServedMember:
        """One that does not, and knows who does."""
        leader = await self.leader()
        return next(one for one in self.served.values() if one is not leader)

    async def serve(self, member: Member, stack: AsyncExitStack) -> None:
        """Put a server in front of a member."""
        local = LocalNode(CLUSTER_ID, member.store_id, member.name, "")
        faults = FaultTable(member.name, self._path / f"faults-{member.name}.json", enabled=True)
        caller = Caller(local, faults)
        members = Members(lambda: member.state)

        def remote(store_id: int) -> RemoteNode | None:
            other = self.served.get(store_id)
            if other is None or store_id == member.store_id:
                return None
            return RemoteNode(other.member.name, store_id, other.address)

        clock = member.clock
        scheduler = SchedulerService(
            node=member.node,
            state=lambda: member.state,
            sessions=member.sessions,
            history=member.history,
            view=ClusterView(
                member.name,
                lambda: member.state,
                member.node,
                members,
                member.sessions,
                member.cluster_clock,
                PATIENCE_MS,
            ),
            forwarder=Forwarder(member.node, remote, caller),
            logs=LogsReader(member.name, member.node, lambda: member.state, members, no_output, caller),
            check=check,
            faults=faults,
            clock=clock,
            leader_name=lambda: members.name(member.node.leader),
        )
        self.cluster.wire.reads[member.store_id] = PeerReads(caller, remote)
        consensus = ConsensusService(
            local=local,
            stores=FakeStores(),
            faults=faults,
            deliver=member.node.deliver,
            learn=lambda _: None,
            snapshots=member.snapshots,
            reads=member.node,
        )
        services = Services(scheduler, FakeAdmin(), FakeStores(), consensus, FakeBlobs())
        server = ServerHost("127.0.0.1:0", local, faults, member.node, services)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        stack.push_async_callback(caller.close)
        channel = await stack.enter_async_context(channel_to(f"127.0.0.1:{server.port}"))
        self.served[member.store_id] = ServedMember(member, server, caller, faults, SchedulerStub(channel))


@asynccontextmanager
async def served_cluster(path: Path, size: int) -> AsyncIterator[ServedCluster]:
    """A cluster of so many served members."""
    async with Cluster(size) as cluster, AsyncExitStack() as stack:
        served = ServedCluster(cluster, path)
        for member in cluster.members:
            await served.serve(member, stack)
        yield served
