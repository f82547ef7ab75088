"""What a worker serves: the output of the attempts that it ran, what it is, and its cuts.

What may live here: the few answers of a node that holds no log. Whatever else is asked of it is the members' to answer;
the one of them that leads is named. (gRPC takes a coroutine as the handler of a stream, too.)
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import raftd
from raftd.codec.attach import parse_id
from raftd.errors import NotLeader
from raftd.node.discovery import Discovery
from raftd.pb import admin_pb2, scheduler_pb2
from raftd.pb.scheduler_pb2_grpc import SchedulerServicer
from raftd.services.faults import FaultControl
from raftd.services.logs import OpenOutput, read_kept
from raftd.services.status import Context, served
from raftd.transport.base import LocalNode, hex_id
from raftd.transport.faults import FaultTable


def no_member(name: str, members: Discovery) -> NotLeader:
    """What a worker of this name answers where only a member can."""
    leader, address = members.leader() or ("", "")
    return NotLeader(
        f"{name} is a worker and holds no log",
        try_=f"ask {leader} at {address}" if leader else "ask a member of the cluster",
        leader=leader,
        address=address,
    )


class WorkerScheduler(SchedulerServicer):
    """Answers for the attempts that ran here, and sends everything else to the leader.

    Args:
        name: of this worker.
        output: opens what this worker keeps.
        members: who leads.
    """

    def __init__(self, name: str, output: OpenOutput, members: Discovery) -> None:
        self._name = name
        self._output = output
        self._members = members

    @served
    async def Logs(
        self, request: scheduler_pb2.LogsRequest, context: Context
    ) -> AsyncIterator[scheduler_pb2.LogsResponse]:
        """Captured output of an attempt that ran here; which one that is, a member knows and says."""
        if not request.attempt:
            raise no_member(self._name, self._members)
        output = self._output(parse_id(request.task_id, "t"), request.attempt)
        async for response in read_kept(output, self._name, request.attempt, request.follow):
            yield response

    @served
    async def _refuse(self, request: Any, context: Context) -> Any:
        raise no_member(self._name, self._members)

    Submit: Any = _refuse
    SubmitGraph: Any = _refuse
    Retry: Any = _refuse
    Purge: Any = _refuse
    Cancel: Any = _refuse
    Get: Any = _refuse
    GetJob: Any = _refuse
    ListJobs: Any = _refuse
    List: Any = _refuse
    Status: Any = _refuse
    Explain: Any = _refuse
    Watch: Any = _refuse
    Attach: Any = _refuse


class WorkerAdmin(FaultControl):
    """Answers operators on one worker.

    Args:
        local: this worker.
        incarnation: of this life of it.
        address: that others reach it under.
        started_at_ms: Unix milliseconds.
        members: who leads, and who there is.
        slots_ready: every slot process is warm, and the executor attached.
        faults: the cuts in force.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        incarnation: Callable[[], int],
        address: str,
        started_at_ms: int,
        members: Discovery,
        slots_ready: Callable[[], bool],
        faults: FaultTable,
    ) -> None:
        super().__init__(faults, lambda: ())
        self._local = local
        self._incarnation = incarnation
        self._address = address
        self._started_at_ms = started_at_ms
        self._members = members
        self._slots_ready = slots_ready

    @served
    async def NodeInfo(
        self, request: admin_pb2.NodeInfoRequest, context: Context
    ) -> admin_pb2.NodeInfoResponse:
        """Everything that this worker knows of itself."""
        leader = self._members.leader_name
        remote = self._members.remote(leader)
        return admin_pb2.NodeInfoResponse(
            name=self._local.name,
            cluster_id=hex_id(self._local.cluster_id),
            store_id=hex_id(self._local.store_id),
            incarnation=self._incarnation(),
            address=self._address,
            pid=os.getpid(),
            version=raftd.__version__,
            role="worker",
            leader=leader,
            leader_address="" if remote is None else remote.address,
            term=self._members.term,
            fault_injection=self.faults.enabled,
            started_at_ms=self._started_at_ms,
            slots_ready=self._slots_ready(),
            membership="worker",
        )

    @served
    async def Members(self, request: admin_pb2.MembersRequest, context: Context) -> admin_pb2.MembersResponse:
        """The members, as this worker has heard."""
        return admin_pb2.MembersResponse(
            members=[
                admin_pb2.Member(
                    name=member.name,
                    store_id=hex_id(member.store_id),
                    address=member.address,
                    voter=member.voter,
                )
                for member in self._members.members()
            ]
        )

    @served
    async def _refuse(self, request: Any, context: Context) -> Any:
        raise no_member(self._local.name, self._members)

    WatchMembers: Any = _refuse
    AddMember: Any = _refuse
    PromoteMember: Any = _refuse
    RemoveMember: Any = _refuse
    TransferLeadership: Any = _refuse
    TakeSnapshot: Any = _refuse
    SetEligibility: Any = _refuse
    SetLabels: Any = _refuse
    ForgetNode: Any = _refuse
    GetSettings: Any = _refuse
    SetSettings: Any = _refuse
