"""The Admin service: who the asked node is, what its core knows, which faults it injects.

What may live here: reading this node, and the table of its cuts. Nothing is forwarded, and nothing needs a leader: this
is what an operator asks when there is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

import raftd
from raftd.errors import InvalidRequest, NodeNotFound
from raftd.node.members import Members
from raftd.pb import admin_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminServicer
from raftd.raft.ready import Status
from raftd.services.status import Context, served
from raftd.transport.base import LocalNode, hex_id
from raftd.transport.faults import Cut, FaultTable


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


class AdminService(AdminServicer):
    """Answers operators on one node.

    Args:
        local: this node.
        incarnation: of this life of it.
        address: that others reach it under.
        started_at_ms: Unix milliseconds.
        members: names and addresses of the members.
        facts: what changes while it runs.
        faults: the cuts in force.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        incarnation: int,
        address: str,
        started_at_ms: int,
        members: Members,
        facts: NodeFacts,
        faults: FaultTable,
    ) -> None:
        self._local = local
        self._incarnation = incarnation
        self._address = address
        self._started_at_ms = started_at_ms
        self._members = members
        self._facts = facts
        self._faults = faults

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
            fault_injection=self._faults.enabled,
            started_at_ms=self._started_at_ms,
            fsync_ms=self._facts.fsync_ms,
            storage_queue=self._facts.storage_queue,
            slots_ready=self._facts.slots_ready,
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
        return pb.MembersResponse(
            members=[
                pb.Member(
                    name=member.name,
                    store_id=hex_id(member.store_id),
                    address=member.address,
                    voter=member.voter,
                )
                for member in self._members.all()
            ]
        )

    @served
    async def SetFaults(self, request: pb.SetFaultsRequest, context: Context) -> pb.SetFaultsResponse:
        """Set and lift cuts; see admin.proto."""
        add, remove = _cuts(request.add), _cuts(request.remove)
        known = {member.name for member in self._members.all()}
        unknown = sorted({name for cut in add for name in cut} - known)
        if unknown and known:
            raise NodeNotFound(
                f"there is no node {unknown[0]}", try_=f"the nodes are {', '.join(sorted(known))}"
            )
        self._faults.change(add, remove, request.heal)
        return pb.SetFaultsResponse(cuts=self._cuts())

    @served
    async def GetFaults(self, request: pb.GetFaultsRequest, context: Context) -> pb.GetFaultsResponse:
        """The cuts in force here."""
        return pb.GetFaultsResponse(fault_injection=self._faults.enabled, cuts=self._cuts())

    def _cuts(self) -> list[pb.Cut]:
        return [pb.Cut(from_node=source, to_node=target) for source, target in self._faults.cuts]


def _cuts(cuts: Iterable[pb.Cut]) -> list[Cut]:
    for cut in cuts:
        if not cut.from_node or not cut.to_node or cut.from_node == cut.to_node:
            raise InvalidRequest(f"a cut is between two nodes, not from {cut.from_node!r} to {cut.to_node!r}")
    return [(cut.from_node, cut.to_node) for cut in cuts]
