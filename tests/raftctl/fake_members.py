"""The membership of the fake cluster, and the calls that change it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from raftd.pb import admin_pb2

if TYPE_CHECKING:
    from tests.raftctl.fake_server import FakeCluster, FakeNode


class FakeMembership:
    """Who belongs. A learner that is to be promoted gets its vote when it has been looked at `patience` times."""

    def __init__(self) -> None:
        self.members: dict[str, admin_pb2.Member] = {}
        self.removed: list[str] = []
        self.joint = False
        self.patience = 2
        self.index = 10

    def found(self, nodes: Iterable[FakeNode]) -> None:
        """Begins with these voters."""
        for node in nodes:
            self.members[node.name] = admin_pb2.Member(
                name=node.name, store_id=f"{node.pid:016x}", address=node.address, voter=True
            )

    def response(self) -> admin_pb2.MembersResponse:
        """What is known now; time passes with every look."""
        answer = admin_pb2.MembersResponse(
            members=self.members.values(), joint=self.joint, removed_stores=self.removed
        )
        learners = [member for member in self.members.values() if member.promote]
        if learners and self.patience == 0:
            for member in learners:
                self.promote(member.name)
        self.patience = max(0, self.patience - 1)
        return answer

    def add(self, request: admin_pb2.AddMemberRequest) -> None:
        """A new learner."""
        self.members[request.name] = admin_pb2.Member(
            name=request.name,
            store_id=request.store_id,
            address=request.address,
            promote=not request.learner,
            replaces=request.replaces,
        )

    def promote(self, name: str) -> None:
        """It votes, and whom it replaces is gone."""
        member = self.members[name]
        if member.replaces:
            self.remove(member.replaces)
        member.voter, member.promote, member.replaces = True, False, ""

    def remove(self, name: str) -> None:
        """It is gone for good."""
        self.removed.append(self.members.pop(name).store_id)


class MemberHandlers:
    """What a node answers to calls about the membership; part of ``tests.raftctl.fake_server``."""

    cluster: FakeCluster
    node: FakeNode

    def Members(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "Members", context)
        with self.cluster.changed:
            return self.cluster.membership.response()

    def AddMember(self, request: Any, context: grpc.ServicerContext) -> Any:
        late = self.cluster.enter(self.node, "AddMember", context)
        with self.cluster.changed:
            if request.name in self.cluster.membership.members:
                self._refuse(context, "name_taken", f"there is a member {request.name} already")
            self.cluster.membership.add(request)
        if late is not None:
            self.cluster.fail(context, self.node, late)
        return admin_pb2.AddMemberResponse(index=11)

    def PromoteMember(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "PromoteMember", context)
        with self.cluster.changed:
            self.cluster.membership.promote(request.name)
        return admin_pb2.PromoteMemberResponse(index=12)

    def RemoveMember(self, request: Any, context: grpc.ServicerContext) -> Any:
        late = self.cluster.enter(self.node, "RemoveMember", context)
        with self.cluster.changed:
            if request.name not in self.cluster.membership.members:
                self._refuse(context, "node_not_found", f"there is no member {request.name}")
            self.cluster.membership.remove(request.name)
        if late is not None:
            self.cluster.fail(context, self.node, late)
        return admin_pb2.RemoveMemberResponse(index=13)

    def TransferLeadership(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "TransferLeadership", context)
        target = request.target or next(name for name in self.cluster.nodes if name != self.cluster.leader)
        self.cluster.lead(target, term=self.node.term + 1)
        return admin_pb2.TransferLeadershipResponse(leader=target, term=self.node.term)

    def TakeSnapshot(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "TakeSnapshot", context)
        return admin_pb2.TakeSnapshotResponse(index=900, term=3, size_bytes=4200, first_index=401)

    def _refuse(self, context: grpc.ServicerContext, code: str, message: str) -> NoReturn:
        from tests.raftctl.fake_server import Failure

        status = grpc.StatusCode.FAILED_PRECONDITION
        self.cluster.fail(context, self.node, Failure(code, message, status))
