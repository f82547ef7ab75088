"""The Admin service of a member: who it is, what its core knows, who leads, and changes of the members.

What may live here: reading this node, and handing an operator's wishes on (its cuts are ``services.faults``'). What an
operator asks when there is no leader is answered here; changes of the membership, of the leadership, of nodes and of
settings are the leader's, to whom they are forwarded, once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

import raftd
from raftd.config import fixed_address
from raftd.config import hex_id as parse_hex_id
from raftd.errors import DeadlinePassed
from raftd.node.bulletin import Bulletin
from raftd.node.members import Members
from raftd.pb import admin_pb2 as pb
from raftd.raft.ready import Status
from raftd.raft.types import Snapshot
from raftd.services.faults import FaultControl
from raftd.services.forwarding import Forwarder
from raftd.services.operations import Operations
from raftd.services.status import Context, remaining_s, served
from raftd.transport.base import LocalNode, hex_id
from raftd.transport.faults import FaultTable


class NodeFacts(Protocol):
    """What changes while the node runs; wiring gathers it."""

    def status(self) -> Status:
        """What the core knows."""

    @property
    def fsync_ms(self) -> float:
        """How long the last group commit took."""

    @property
    def storage_queue(self) -> int:
        """Writes that wait for the storage thread, or are being written."""

    @property
    def slots_ready(self) -> bool:
        """Every slot process is warm and the executor is attached."""

    @property
    def snapshot_bytes(self) -> int:
        """The size of the newest snapshot; 0 for none."""

    @property
    def disk_full(self) -> bool:
        """Whether it takes no submissions because its disk is full."""

    @property
    def membership(self) -> str:
        """voter, learner, leaving, removed or joining."""

    @property
    def removed_stores(self) -> Iterable[int]:
        """The stores that never come back."""


class MembershipControl(Protocol):
    """Changes of the membership and of the leadership (``raftd.node.membership.Membership``)."""

    async def add(
        self, name: str, store_id: int, address: str, *, learner: bool, replaces: str, timeout: float
    ) -> int:
        """Let a store in; the index of the entry that did."""

    async def promote(self, name: str, *, timeout: float) -> int:
        """Make a learner a voter; the index of the entry that did."""

    async def remove(self, name: str, *, timeout: float) -> int:
        """Take a member out; the index of the entry that did."""

    async def transfer(self, target: str, *, timeout: float) -> tuple[str, int]:
        """Hand the leadership over; the new leader and its term."""


class Snapshotting(Protocol):
    """Taking snapshots (``raftd.node.snapshots.Snapshots``)."""

    async def take_snapshot(self) -> Snapshot:
        """Take one of what is applied."""


SERVICE = "/raftd.v1.Admin/"

Response = TypeVar("Response", bound=Message)


class AdminService(FaultControl):
    """Answers operators on one node.

    Args:
        local: this node.
        incarnation: of this life of it.
        address: that others reach it under.
        started_at_ms: Unix milliseconds.
        members: names and addresses of the members.
        bulletin: tells of a change of them, or of the leader.
        facts: what changes while it runs.
        faults: the cuts in force.
        control: changes the membership and the leadership, on the leader.
        snapshots: takes snapshots.
        operations: carries out what an operator says of nodes and settings, on the leader.
        forwarder: the way to the leader.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        incarnation: int,
        address: str,
        started_at_ms: int,
        members: Members,
        bulletin: Bulletin,
        facts: NodeFacts,
        faults: FaultTable,
        control: MembershipControl,
        snapshots: Snapshotting,
        operations: Operations,
        forwarder: Forwarder,
    ) -> None:
        super().__init__(faults, lambda: {node.name for node in members.everybody()})
        self._local = local
        self._incarnation = incarnation
        self._address = address
        self._started_at_ms = started_at_ms
        self._members = members
        self._bulletin = bulletin
        self._facts = facts
        self._control = control
        self._snapshots = snapshots
        self._operations = operations
        self._forwarder = forwarder

    @served
    async def NodeInfo(self, request: pb.NodeInfoRequest, context: Context) -> pb.NodeInfoResponse:
        """Everything that this node knows of itself."""
        status = self._facts.status()
        leader = self._members.by_store_id(status.leader)
        return pb.NodeInfoResponse(
            name=self._local.name,
            cluster_id=hex_id(self._local.cluster_id),
            store_id=hex_id(self._local.store_id),
            incarnation=self._incarnation,
            address=self._address,
            pid=os.getpid(),
            version=raftd.__version__,
            role=str(status.role),
            leader="" if leader is None else leader.name,
            leader_address="" if leader is None else leader.address,
            term=status.term,
            voted_for=self._name(status.vote),
            commit_index=status.commit,
            last_applied=status.applied,
            first_index=status.first_index,
            last_index=status.last_index,
            peers=self._peers(status),
            fault_injection=self.faults.enabled,
            started_at_ms=self._started_at_ms,
            fsync_ms=self._facts.fsync_ms,
            storage_queue=self._facts.storage_queue,
            slots_ready=self._facts.slots_ready,
            membership=self._facts.membership,
            snapshot_index=status.snapshot_index,
            snapshot_bytes=self._facts.snapshot_bytes,
            disk_full=self._facts.disk_full,
            transfer_target=self._name(status.transfer_target),
        )

    def _peers(self, status: Status) -> list[pb.PeerProgress]:
        return [
            pb.PeerProgress(
                name=self._name(row.node),
                match_index=row.match_index,
                next_index=row.next_index,
                progress=row.state,
                in_flight=row.inflight_messages,
                recently_active=row.recent_active,
                learner=row.is_learner,
                pending_snapshot=row.pending_snapshot,
            )
            for row in status.progress
            if row.node != status.id
        ]

    def _name(self, store_id: int) -> str:
        """The member's name; of a store that is no member its id, so that it is seen."""
        return self._members.name(store_id) or (hex_id(store_id) if store_id else "")

    @served
    async def Members(self, request: pb.MembersRequest, context: Context) -> pb.MembersResponse:
        """The members, as the applied state has them."""
        return self._members_now()

    def _members_now(self) -> pb.MembersResponse:
        return pb.MembersResponse(
            members=[
                pb.Member(
                    name=member.name,
                    store_id=hex_id(member.store_id),
                    address=member.address,
                    voter=member.voter,
                    leaving=member.leaving,
                    promote=member.promote,
                    replaces=self._name(member.replaces),
                )
                for member in self._members.all()
            ],
            joint=bool(self._facts.status().configuration.outgoing),
            removed_stores=map(hex_id, sorted(self._facts.removed_stores)),
        )

    @served
    async def WatchMembers(
        self, request: pb.WatchMembersRequest, context: Context
    ) -> AsyncIterator[pb.WatchMembersResponse]:
        """Who leads and who the members are, now and after every change; see admin.proto."""
        told = None
        while True:
            notice = self._bulletin.now()
            if notice == told:
                await self._bulletin.changed()
                continue
            told = notice
            yield pb.WatchMembersResponse(
                node=self._local.name,
                leader="" if notice.leader is None else notice.leader.name,
                leader_address="" if notice.leader is None else notice.leader.address,
                term=notice.term,
                members=self._members_now(),
            )

    @served
    async def AddMember(self, request: pb.AddMemberRequest, context: Context) -> pb.AddMemberResponse:
        """Let a store in as a learner; see admin.proto."""
        store_id = parse_hex_id("store id", request.store_id)
        fixed_address(f"the address of {request.name}", request.address)

        async def local() -> pb.AddMemberResponse:
            index = await self._control.add(
                request.name,
                store_id,
                request.address,
                learner=request.learner,
                replaces=request.replaces,
                timeout=remaining_s(context),
            )
            return pb.AddMemberResponse(index=index)

        return await self._on_leader("AddMember", request, context, local)

    @served
    async def PromoteMember(
        self, request: pb.PromoteMemberRequest, context: Context
    ) -> pb.PromoteMemberResponse:
        """Make a learner a voter as soon as it has caught up; see admin.proto."""

        async def local() -> pb.PromoteMemberResponse:
            index = await self._control.promote(request.name, timeout=remaining_s(context))
            return pb.PromoteMemberResponse(index=index)

        return await self._on_leader("PromoteMember", request, context, local)

    @served
    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: Context
    ) -> pb.RemoveMemberResponse:
        """Take a member out of the configuration, for good; see admin.proto."""

        async def local() -> pb.RemoveMemberResponse:
            index = await self._control.remove(request.name, timeout=remaining_s(context))
            return pb.RemoveMemberResponse(index=index)

        return await self._on_leader("RemoveMember", request, context, local)

    @served
    async def TransferLeadership(
        self, request: pb.TransferLeadershipRequest, context: Context
    ) -> pb.TransferLeadershipResponse:
        """Hand the leadership over; see admin.proto."""

        async def local() -> pb.TransferLeadershipResponse:
            leader, term = await self._control.transfer(request.target, timeout=remaining_s(context))
            return pb.TransferLeadershipResponse(leader=leader, term=term)

        return await self._on_leader("TransferLeadership", request, context, local)

    @served
    async def SetEligibility(
        self, request: pb.SetEligibilityRequest, context: Context
    ) -> pb.SetEligibilityResponse:
        """Say whether a node takes new attempts; see admin.proto."""

        async def local() -> pb.SetEligibilityResponse:
            return await self._operations.set_eligibility(request, remaining_s(context))

        return await self._on_leader("SetEligibility", request, context, local)

    @served
    async def SetLabels(self, request: pb.SetLabelsRequest, context: Context) -> pb.SetLabelsResponse:
        """Set labels of a node, and take labels back; see admin.proto."""

        async def local() -> pb.SetLabelsResponse:
            return await self._operations.set_labels(request, remaining_s(context))

        return await self._on_leader("SetLabels", request, context, local)

    @served
    async def ForgetNode(self, request: pb.ForgetNodeRequest, context: Context) -> pb.ForgetNodeResponse:
        """Drop the record of a node that will not come back; see admin.proto."""

        async def local() -> pb.ForgetNodeResponse:
            return await self._operations.forget_node(request, remaining_s(context))

        return await self._on_leader("ForgetNode", request, context, local)

    @served
    async def SetSettings(self, request: pb.SetSettingsRequest, context: Context) -> pb.SetSettingsResponse:
        """Change replicated settings; see admin.proto."""

        async def local() -> pb.SetSettingsResponse:
            return await self._operations.set_settings(request, remaining_s(context))

        return await self._on_leader("SetSettings", request, context, local)

    @served
    async def GetSettings(self, request: pb.GetSettingsRequest, context: Context) -> pb.GetSettingsResponse:
        """The replicated settings in force, with their defaults and limits."""
        return await self._forwarder.read_here(context, self._operations.settings)

    @served
    async def TakeSnapshot(
        self, request: pb.TakeSnapshotRequest, context: Context
    ) -> pb.TakeSnapshotResponse:
        """Take a snapshot here, and compact the log; see admin.proto."""
        try:
            async with asyncio.timeout(remaining_s(context)):
                snapshot = await self._snapshots.take_snapshot()
        except TimeoutError:
            raise DeadlinePassed("the snapshot is still being written", try_="look at raft status") from None
        return pb.TakeSnapshotResponse(
            index=snapshot.index,
            term=snapshot.term,
            size_bytes=snapshot.size_bytes,
            first_index=self._facts.status().first_index,
        )

    async def _on_leader(
        self,
        method: str,
        request: Message,
        context: Context,
        local: Callable[[], Awaitable[Response]],
    ) -> Response:
        return await self._forwarder.leader_or_forward(
            SERVICE + method, request, context, local, unknown_try="look at the members, and at who leads"
        )
