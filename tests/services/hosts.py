"""Whole servers for tests: the real host, interceptors and forwarder over a node that leads when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from raftd.errors import RaftdError
from raftd.pb import admin_pb2, blobs_pb2, consensus_pb2
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminServicer
from raftd.pb.blobs_pb2_grpc import BlobsServicer
from raftd.pb.consensus_pb2_grpc import ConsensusServicer
from raftd.pb.scheduler_pb2_grpc import SchedulerServicer
from raftd.services.forwarding import Forwarder
from raftd.services.server import ServerHost, Services
from raftd.services.status import remaining_s, served
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.caller import Caller
from raftd.transport.faults import FaultTable

CLUSTER = 0xC1
TOKEN = "open sesame"
Context = grpc.aio.ServicerContext[Any, Any]


class FakeStores:
    """The members and the stores that were removed, as the test says (``raftd.services.identity.Stores``)."""

    def __init__(self, members: Mapping[str, int] | None = None, removed: Collection[int] = ()) -> None:
        self.members = {"n1": 1, "n2": 2, "n3": 3} if members is None else dict(members)
        self.removed = set(removed)

    def name_of(self, store_id: int) -> str:
        """See ``Stores``."""
        return next((name for name, store in self.members.items() if store == store_id), "")

    def store_of(self, name: str) -> int:
        """See ``Stores``."""
        return self.members.get(name, 0)

    def is_removed(self, store_id: int) -> bool:
        """See ``Stores``."""
        return store_id in self.removed


class FakeNode:
    """Leads, or knows who does, as the test says."""

    def __init__(self) -> None:
        self.leads = False
        self.leader = 0
        self._changed = asyncio.Event()

    def follow(self, leader: int, *, leads: bool = False) -> None:
        """The leader has changed."""
        self.leader, self.leads = leader, leads
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def leader_known(self) -> bool:
        """See ``Node.leader_known``."""
        return self.leader != 0

    async def leader_changed(self) -> None:
        """See ``Node.leader_changed``."""
        await self._changed.wait()


class FakeScheduler(SchedulerServicer):
    """Answers through the forwarder, as the real one does; ``fail`` is raised in place of an answer on the leader."""

    def __init__(self, name: str, forwarder: Forwarder) -> None:
        self._name = name
        self._forwarder = forwarder
        self.fail: Callable[[], Exception | None] = lambda: None
        self.hold = asyncio.Event()
        self.hold.set()
        self.answered = 0
        self.remaining_s = 0.0

    async def _answer(self, context: Context) -> None:
        self.remaining_s = remaining_s(context)
        await self.hold.wait()
        if (error := self.fail()) is not None:
            raise error
        self.answered += 1

    @served
    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        async def local() -> pb.SubmitResponse:
            await self._answer(context)
            return pb.SubmitResponse(replies=[pb.SubmitReply(request_id=self._name)])

        return await self._forwarder.leader_or_forward("/raftd.v1.Scheduler/Submit", request, context, local)

    @served
    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        async def local() -> pb.StatusResponse:
            await self._answer(context)
            return pb.StatusResponse(read=pb.ReadInfo(answered_by=self._name))

        return await self._forwarder.leader_or_forward(
            "/raftd.v1.Scheduler/Status", request, context, local, repeatable=True
        )

    @served
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        yield pb.WatchResponse(next_index=1)
        await self.hold.wait()
        if (error := self.fail()) is not None:
            raise error
        yield pb.WatchResponse(next_index=2)

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        return pb.CancelResponse()

    @served
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        async def read(_: float) -> pb.GetResponse:
            await self._answer(context)
            return pb.GetResponse(read=pb.ReadInfo(answered_by=self._name))

        return await self._forwarder.read_here(context, read)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse()

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        return pb.ListResponse()

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        return pb.ExplainResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return pb.ListJobsResponse()

    async def SubmitGraph(self, request: pb.SubmitGraphRequest, context: Context) -> pb.SubmitGraphResponse:
        return pb.SubmitGraphResponse()

    async def Retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryResponse:
        return pb.RetryResponse()

    async def Purge(self, request: pb.PurgeRequest, context: Context) -> pb.PurgeResponse:
        return pb.PurgeResponse()

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        yield pb.LogsResponse()

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        async for _ in request_iterator:
            yield pb.AttachResponse()


class FakeAdmin(AdminServicer):
    """Answers with nothing."""

    async def NodeInfo(
        self, request: admin_pb2.NodeInfoRequest, context: Context
    ) -> admin_pb2.NodeInfoResponse:
        return admin_pb2.NodeInfoResponse()

    async def Members(self, request: admin_pb2.MembersRequest, context: Context) -> admin_pb2.MembersResponse:
        return admin_pb2.MembersResponse()

    async def SetFaults(
        self, request: admin_pb2.SetFaultsRequest, context: Context
    ) -> admin_pb2.SetFaultsResponse:
        return admin_pb2.SetFaultsResponse()

    async def GetFaults(
        self, request: admin_pb2.GetFaultsRequest, context: Context
    ) -> admin_pb2.GetFaultsResponse:
        return admin_pb2.GetFaultsResponse()

    async def WatchMembers(
        self, request: admin_pb2.WatchMembersRequest, context: Context
    ) -> AsyncIterator[admin_pb2.WatchMembersResponse]:
        yield admin_pb2.WatchMembersResponse()

    async def AddMember(
        self, request: admin_pb2.AddMemberRequest, context: Context
    ) -> admin_pb2.AddMemberResponse:
        return admin_pb2.AddMemberResponse()

    async def PromoteMember(
        self, request: admin_pb2.PromoteMemberRequest, context: Context
    ) -> admin_pb2.PromoteMemberResponse:
        return admin_pb2.PromoteMemberResponse()

    async def RemoveMember(
        self, request: admin_pb2.RemoveMemberRequest, context: Context
    ) -> admin_pb2.RemoveMemberResponse:
        return admin_pb2.RemoveMemberResponse()

    async def TransferLeadership(
        self, request: admin_pb2.TransferLeadershipRequest, context: Context
    ) -> admin_pb2.TransferLeadershipResponse:
        return admin_pb2.TransferLeadershipResponse()

    async def TakeSnapshot(
        self, request: admin_pb2.TakeSnapshotRequest, context: Context
    ) -> admin_pb2.TakeSnapshotResponse:
        return admin_pb2.TakeSnapshotResponse()

    async def SetEligibility(
        self, request: admin_pb2.SetEligibilityRequest, context: Context
    ) -> admin_pb2.SetEligibilityResponse:
        return admin_pb2.SetEligibilityResponse()

    async def SetLabels(
        self, request: admin_pb2.SetLabelsRequest, context: Context
    ) -> admin_pb2.SetLabelsResponse:
        return admin_pb2.SetLabelsResponse()

    async def ForgetNode(
        self, request: admin_pb2.ForgetNodeRequest, context: Context
    ) -> admin_pb2.ForgetNodeResponse:
        return admin_pb2.ForgetNodeResponse()

    async def GetSettings(
        self, request: admin_pb2.GetSettingsRequest, context: Context
    ) -> admin_pb2.GetSettingsResponse:
        return admin_pb2.GetSettingsResponse()

    async def SetSettings(
        self, request: admin_pb2.SetSettingsRequest, context: Context
    ) -> admin_pb2.SetSettingsResponse:
        return admin_pb2.SetSettingsResponse()


class FakeConsensus(ConsensusServicer):
    """Takes everything."""

    async def InstallSnapshot(
        self, request_iterator: AsyncIterator[consensus_pb2.SnapshotChunk], context: Context
    ) -> consensus_pb2.SnapshotReceived:
        async for _ in request_iterator:
            pass
        return consensus_pb2.SnapshotReceived()

    async def GetReadIndex(
        self, request: consensus_pb2.ReadIndexRequest, context: Context
    ) -> consensus_pb2.ReadIndexResponse:
        return consensus_pb2.ReadIndexResponse()

    async def Stream(
        self, request_iterator: AsyncIterator[consensus_pb2.PeerBatch], context: Context
    ) -> consensus_pb2.StreamClosed:
        async for _ in request_iterator:
            pass
        return consensus_pb2.StreamClosed()


class FakeBlobs(BlobsServicer):
    """Counts the frames of a Put."""

    def __init__(self) -> None:
        self.frame_count = 0

    async def Put(
        self, request_iterator: AsyncIterator[blobs_pb2.PutRequest], context: Context
    ) -> blobs_pb2.PutResponse:
        async for _ in request_iterator:
            self.frame_count += 1
        return blobs_pb2.PutResponse()

    async def Record(
        self, request: blobs_pb2.RecordBlobRequest, context: Context
    ) -> blobs_pb2.RecordBlobResponse:
        return blobs_pb2.RecordBlobResponse()

    async def Get(
        self, request: blobs_pb2.GetBlobRequest, context: Context
    ) -> AsyncIterator[blobs_pb2.GetBlobResponse]:
        yield blobs_pb2.GetBlobResponse()

    async def Stat(self, request: blobs_pb2.StatBlobRequest, context: Context) -> blobs_pb2.StatBlobResponse:
        return blobs_pb2.StatBlobResponse()


@dataclass
class Host:
    """One served node of a test."""

    local: LocalNode
    node: FakeNode
    faults: FaultTable
    caller: Caller
    forwarder: Forwarder
    scheduler: FakeScheduler
    blobs: FakeBlobs
    stores: FakeStores
    server: ServerHost
    others: dict[int, RemoteNode] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def remote(self) -> RemoteNode:
        """How others know it."""
        return RemoteNode(self.local.name, self.local.store_id, self.address)


def make_host(
    path: Path,
    number: int = 1,
    *,
    token: str = "",
    listen: str = "127.0.0.1:0",
    consensus: ConsensusServicer | None = None,
    admin: AdminServicer | None = None,
    make_admin: Callable[[Forwarder], AdminServicer] | None = None,
    scheduler: type[FakeScheduler] = FakeScheduler,
    blobs: Callable[[LocalNode, Forwarder, Caller, dict[int, RemoteNode]], BlobsServicer] | None = None,
) -> Host:
    """Node ``n<number>`` with the store id ``number``, bound but not started."""
    local = LocalNode(CLUSTER, number, f"n{number}", token)
    path.mkdir(exist_ok=True)
    faults = FaultTable(local.name, path / f"faults-{number}.json", enabled=True)
    caller = Caller(local, faults)
    node = FakeNode()
    others: dict[int, RemoteNode] = {}
    forwarder = Forwarder(node, others.get, caller)
    served_scheduler = scheduler(local.name, forwarder)
    fake_blobs = FakeBlobs()
    served_blobs = fake_blobs if blobs is None else blobs(local, forwarder, caller, others)
    stores = FakeStores()
    if make_admin is not None:
        admin = make_admin(forwarder)
    services = Services(
        served_scheduler, admin or FakeAdmin(), stores, consensus or FakeConsensus(), served_blobs
    )
    server = ServerHost(listen, local, faults, node, services)
    return Host(local, node, faults, caller, forwarder, served_scheduler, fake_blobs, stores, server, others)


@asynccontextmanager
async def serving(*hosts: Host) -> AsyncIterator[None]:
    """Starts the hosts, introduces them to each other, and stops them at the end."""
    for host in hosts:
        host.others.update({other.local.store_id: other.remote for other in hosts if other is not host})
        await host.server.start()
    try:
        yield
    finally:
        for host in hosts:
            await host.caller.close()
            await host.server.stop(0)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A client's channel."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def failure_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, dict[str, str]]:
    """The status of a call that must fail, and our part of its trailing metadata."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        pairs = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
        return error.code(), {key: value for key, value in pairs.items() if key.startswith("raftd-")}
    raise AssertionError(f"the call was answered: {answer}")


def run(scenario: Awaitable[None]) -> None:
    """Runs one scenario on a loop of its own, for a minute at most."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


def once(error: RaftdError) -> Callable[[], Exception | None]:
    """A ``fail`` that fails the first time only."""
    left = [error]
    return lambda: left.pop() if left else None
