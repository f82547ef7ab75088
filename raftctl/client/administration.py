"""What an operator asks of a cluster: who belongs to it, who leads it, what one node knows and which faults it injects.

What may live here: one method per question of ``Admin``. `AsyncClient` passes its own on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from grpc import aio

from raftctl.client import errors, overview, wire
from raftctl.client.channel import Router, Stubs
from raftctl.client.nodes import (
    Cut,
    Faults,
    Leadership,
    Membership,
    NodeInfo,
    Setting,
    SnapshotTaken,
)
from raftd.pb import admin_pb2 as admin

Req = TypeVar("Req")
Res = TypeVar("Res")


class Administration:
    """The administrative part of a client.

    Args:
        router: finds the nodes.
        timeout_s: for each call.
    """

    def __init__(self, router: Router, timeout_s: float) -> None:
        self._router = router
        self._timeout_s = timeout_s

    # --- the membership -----------------------------------------------------------------------------------------------

    async def members(self, timeout_s: float | None) -> Membership:
        """The configuration: the leader's, or, where nobody leads, that of a node that answers."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        infos, _ = await overview.node_infos(self._router, min(limit_s, overview.NODE_ANSWERS_S))
        leader = overview.leading(infos.values())
        if leader is None and (named := next((info for info in infos.values() if info.leader_address), None)):
            # With --address the leader may not have been asked; whoever answers knows where it is.
            self._router.learn(named.leader or "", named.leader_address or "")
            infos, _ = await overview.node_infos(self._router, min(limit_s, overview.NODE_ANSWERS_S))
            leader = overview.leading(infos.values())
        chosen = leader or max(infos.values(), key=lambda info: info.last_applied, default=None)
        if chosen is None:
            raise overview.nobody_answers(self._router)
        if leader is not None:
            self._router.lead_by(leader.name, self._router.address_of(leader.name) or leader.address)
        request = admin.MembersRequest()
        answer = await self.ask(chosen.name, lambda s: s.admin.Members, request, limit_s)
        return wire.membership(answer, chosen.name, leads=leader is not None)

    async def add_member(
        self, name: str, store_id: str, address: str, *, learner: bool, replaces: str, timeout_s: float | None
    ) -> int:
        """Lets a store in."""
        request = admin.AddMemberRequest(
            name=name, store_id=store_id, address=address, learner=learner, replaces=replaces
        )
        return (await self._change(lambda s: s.admin.AddMember, request, timeout_s)).index

    async def promote_member(self, name: str, *, timeout_s: float | None) -> int:
        """Makes a learner a voter."""
        request = admin.PromoteMemberRequest(name=name)
        return (await self._change(lambda s: s.admin.PromoteMember, request, timeout_s)).index

    async def remove_member(self, name: str, *, timeout_s: float | None) -> int:
        """Takes a member out."""
        request = admin.RemoveMemberRequest(name=name)
        return (await self._change(lambda s: s.admin.RemoveMember, request, timeout_s)).index

    async def transfer_leadership(self, target: str, *, timeout_s: float | None) -> Leadership:
        """Has another voter lead."""
        request = admin.TransferLeadershipRequest(target=target)
        answer = await self._change(lambda s: s.admin.TransferLeadership, request, timeout_s)
        return Leadership(answer.leader, answer.term)

    async def take_snapshot(self, node: str, *, timeout_s: float | None) -> SnapshotTaken:
        """Has one node take a snapshot now."""
        request = admin.TakeSnapshotRequest()
        answer = await self.ask(node, lambda s: s.admin.TakeSnapshot, request, timeout_s)
        name = self._router.name_of(node) if ":" in node else node
        return SnapshotTaken(name, answer.index, answer.term, answer.size_bytes, answer.first_index)

    # --- what a node takes and offers ---------------------------------------------------------------------------------

    async def set_eligibility(
        self, node: str, eligibility: str, deadline_ms: int, timeout_s: float | None
    ) -> int:
        """Whether a node takes new attempts; how many are on its slots still."""
        request = admin.SetEligibilityRequest(node=node, eligibility=eligibility, deadline_ms=deadline_ms)
        return (await self._change(lambda s: s.admin.SetEligibility, request, timeout_s)).running

    async def set_labels(
        self, node: str, set_: Mapping[str, str], remove: Iterable[str], timeout_s: float | None
    ) -> dict[str, str]:
        """Sets labels over a node's own; all that are in force."""
        request = admin.SetLabelsRequest(node=node, set=dict(set_), remove=list(remove))
        return dict((await self._change(lambda s: s.admin.SetLabels, request, timeout_s)).labels)

    async def forget_node(self, node: str, timeout_s: float | None) -> None:
        """Drops the record of a node."""
        await self._change(lambda s: s.admin.ForgetNode, admin.ForgetNodeRequest(node=node), timeout_s)

    async def settings(self, timeout_s: float | None) -> tuple[Setting, ...]:
        """The replicated settings."""
        request = admin.GetSettingsRequest()
        return wire.settings((await self._change(lambda s: s.admin.GetSettings, request, timeout_s)).settings)

    async def set_settings(self, changes: Mapping[str, int], timeout_s: float | None) -> tuple[Setting, ...]:
        """Changes them."""
        request = admin.SetSettingsRequest(changes=dict(changes))
        return wire.settings((await self._change(lambda s: s.admin.SetSettings, request, timeout_s)).settings)

    async def _change(
        self,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float | None,
    ) -> Res:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await self._router.call_once(pick, request, limit_s)
        except errors.OutcomeUnknown as failure:
            raise errors.OutcomeUnknown(
                f"whether this was done is not known: {failure.message}", "raftctl raft members"
            ) from failure
        except errors.TransferFailed:
            raise  # it says all there is to say
        except errors.Unavailable as failure:
            raise await overview.explain(self._router, failure) from failure

    # --- one node -----------------------------------------------------------------------------------------------------

    async def node_info(self, node: str, timeout_s: float | None) -> NodeInfo:
        """What it says about itself."""
        return wire.node_info(
            await self.ask(node, lambda s: s.admin.NodeInfo, admin.NodeInfoRequest(), timeout_s)
        )

    async def faults(self, node: str, timeout_s: float | None) -> Faults:
        """Which cuts it acts on."""
        request = admin.GetFaultsRequest()
        answer = await self.ask(node, lambda s: s.admin.GetFaults, request, timeout_s)
        return Faults(answer.fault_injection, tuple(wire.cut(cut) for cut in answer.cuts))

    async def set_faults(
        self, node: str, add: Iterable[Cut], remove: Iterable[Cut], *, heal: bool, timeout_s: float | None
    ) -> tuple[Cut, ...]:
        """Changes which cuts it acts on; returns those that are now in force."""
        request = admin.SetFaultsRequest(
            add=[wire.cut_to_wire(cut) for cut in add],
            remove=[wire.cut_to_wire(cut) for cut in remove],
            heal=heal,
        )
        answer = await self.ask(node, lambda s: s.admin.SetFaults, request, timeout_s)
        return tuple(wire.cut(cut) for cut in answer.cuts)

    async def everybody(self, timeout_s: float) -> tuple[dict[str, NodeInfo], tuple[str, ...]]:
        """What every node says about itself, by name, and the names of those that do not answer.

        Raises:
            NodeUnreachable: nobody answers.
        """
        infos, silent = await overview.node_infos(self._router, timeout_s)
        if not infos:
            raise overview.nobody_answers(self._router)
        known = set(self._router.addresses)
        for member in await overview.members(self._router, timeout_s):
            self._router.learn(member.name, member.address)
        if known != set(self._router.addresses):
            infos, silent = await overview.node_infos(self._router, timeout_s)
        return infos, tuple(self._router.name_of(address) for address in silent)

    async def ask(
        self,
        node: str,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float | None,
    ) -> Res:
        """Asks this node (name or address), once."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        return await self._router.ask(await self._address_of(node), pick, request, limit_s)

    async def _address_of(self, node: str) -> str:
        if ":" in node:
            return node
        address = self._router.address_of(node)
        if address is None:
            for member in await overview.members(self._router, self._timeout_s):
                self._router.learn(member.name, member.address)
            address = self._router.address_of(node)
        if address is None:
            raise errors.NodeNotFound(f"no node is called {node!r}", "raftctl node list")
        return address
