"""Changes of the membership and of the leadership, as an operator asks for them, and what a leader does by itself.

What may live here: from a name and a wish to a change of the configuration, and when a learner is ready to vote. What
a change may be is ``raftd.scheduler.membership``'s and the core's to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from raftd.errors import (
    DeadlinePassed,
    InvalidChange,
    NodeNotFound,
    RaftdError,
    TransferFailed,
)
from raftd.node.members import Members, MemberView
from raftd.node.node import Node
from raftd.raft.types import NO_NODE, NodeId, Role
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind

log = logging.getLogger(__name__)

CHECK_S = 0.2
"""How often a leader looks at its learners. One that needs no longer than this for what was committed meanwhile would,
as a voter, not hold up the others (thesis §4.2.1: rounds of catching up, the last shorter than an election timeout)."""

CHANGE_S = 10.0
LOOK_S = 0.05


Greet = Callable[[str, int, str, float], Awaitable[None]]
"""Goes to a name, store and address within a time, and raises ``RaftdError`` unless that node is there."""


class Membership:
    """Members come, go and take over (``raftd.services.admin.MembershipControl``).

    Args:
        node: the loop.
        members: the members as they are applied.
        greet: asked before a store is let in; without it, everybody is believed.
    """

    def __init__(self, node: Node, members: Members, greet: Greet | None = None) -> None:
        self._node = node
        self._members = members
        self._greet = greet
        self._goals: dict[NodeId, int] = {}

    async def add(
        self, name: str, store_id: int, address: str, *, learner: bool, replaces: str, timeout: float
    ) -> int:
        """Let a store in as a learner; unless it is to stay one, the leader promotes it when it has caught up.

        Args:
            name: of the new node.
            store_id: minted with its data directory.
            address: where it serves.
            learner: whether to stay a learner.
            replaces: the voter that leaves when this one is promoted, or empty.
            timeout: seconds.

        Returns:
            The index of the entry that let it in.

        Raises:
            RaftdError: as ``Node.change_membership``; NodeNotFound: there is no member to be replaced.
            WrongIdentity, PeerUnreachable: that store is not at that address, or of another cluster.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        known = self._members.by_store_id(store_id)
        if known is not None and (known.name, known.address) == (name, address):
            return await self._node.read_barrier(timeout=timeout)  # the answer to the first call was lost
        replaced = self._named(replaces).store_id if replaces else 0
        if self._greet is not None:
            await self._greet(name, store_id, address, timeout)
        change = MembershipChange(
            MembershipChangeKind.ADD_LEARNER, store_id, name, address, promote=not learner, replaces=replaced
        )
        return await self._node.change_membership(
            (change,), timeout=deadline - asyncio.get_running_loop().time()
        )

    async def promote(self, name: str, *, timeout: float) -> int:
        """Make a learner a voter, as soon as it has caught up; the index of the entry that did.

        Raises:
            RaftdError: as ``Node.change_membership``; NodeNotFound; InvalidChange: it votes already.
            DeadlinePassed: it does not catch up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            member = self._named(name)
            if member.voter:
                raise InvalidChange(f"{name} is a voter already")
            if self._has_caught_up(member.store_id):
                return await self._node.change_membership(
                    self._promotion(member), timeout=deadline - loop.time()
                )
            if loop.time() + CHECK_S > deadline:
                raise DeadlinePassed(
                    f"{name} has not caught up with the log",
                    try_=f"look at raft status, and whether {name} runs",
                )
            await asyncio.sleep(CHECK_S)

    async def remove(self, name: str, *, timeout: float) -> int:
        """Take a member out of the configuration; the index of the entry that did. Its store never comes back.

        Raises:
            RaftdError: as ``Node.change_membership``; NodeNotFound.
        """
        member = self._named(name)
        change = MembershipChange(MembershipChangeKind.REMOVE, member.store_id, member.name, member.address)
        return await self._node.change_membership((change,), timeout=timeout)

    async def transfer(self, target: str, *, timeout: float) -> tuple[str, int]:
        """Hand the leadership over to a voter, or (empty) to the one that has most of the log.

        Returns:
            The name of the new leader and its term.

        Raises:
            NotLeader: this node does not lead.
            NodeNotFound, InvalidChange: there is no such voter.
            TransferFailed: it did not take over in time.
        """
        to = self._named(target).store_id if target else NO_NODE
        own = self._node.status().id
        if to == own and self._node.leads:
            return target, self._node.status().term
        self._node.transfer_leadership(to)
        try:
            async with asyncio.timeout(timeout):
                await self._until_handed_over()
        except TimeoutError:
            raise DeadlinePassed("nobody is known to lead yet", try_="look at raft status") from None
        return self._members.name(self._node.leader), self._node.status().term

    async def hand_over(self, timeout: float) -> None:
        """Before this node stops: have another take over, if it leads and another can."""
        if not self._node.leads:
            return
        try:
            leader, term = await self.transfer("", timeout=timeout)
            log.info("handed the leadership over to %s in term %d", leader, term)
        except RaftdError as error:
            log.info("stops as the leader: %s", error.message)

    async def run(self) -> None:
        """Promote learners while this node leads; until it is cancelled."""
        while True:
            if not self._node.leads:
                self._goals.clear()
                await self._node.leader_changed()
                continue
            await self._promote_ready()
            await asyncio.sleep(CHECK_S)

    async def _until_handed_over(self) -> None:
        own = self._node.status().id
        while (leader := self._node.leader) in (NO_NODE, own):
            status = self._node.status()
            if leader == own and status.role is Role.LEADER and status.transfer_target == NO_NODE:
                raise TransferFailed(
                    "the leadership was not taken over within an election timeout",
                    try_="look at raft status: the target may be behind or cut off",
                )
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._node.leader_changed()
            except TimeoutError:
                continue  # the core gives a transfer up without a change of the leader

    async def _promote_ready(self) -> None:
        for member in self._members.all():
            if not member.promote or member.voter or not self._has_caught_up(member.store_id):
                continue
            try:
                index = await self._node.change_membership(self._promotion(member), timeout=CHANGE_S)
            except RaftdError as error:
                log.info("%s is not promoted yet: %s", member.name, error.message)
            else:
                log.info("%s has caught up and votes since entry %d", member.name, index)
            return

    def _promotion(self, member: MemberView) -> tuple[MembershipChange, ...]:
        kind = MembershipChangeKind.ADD_VOTER
        promotion = MembershipChange(kind, member.store_id, member.name, member.address)
        replaced = self._members.by_store_id(member.replaces) if member.replaces else None
        if replaced is None:
            return (promotion,)
        # In one step: there is no moment at which one voter more must agree, or one less.
        return promotion, MembershipChange(
            MembershipChangeKind.REMOVE, replaced.store_id, replaced.name, replaced.address
        )

    def _has_caught_up(self, store_id: NodeId) -> bool:
        """Whether it holds what was committed when this was asked last."""
        status = self._node.status()
        row = next((row for row in status.progress if row.node == store_id), None)
        goal = self._goals.get(store_id)
        self._goals[store_id] = status.commit
        return (
            row is not None
            and row.recent_active
            and row.state == "replicate"
            and goal is not None
            and row.match_index >= goal
        )

    def _named(self, name: str) -> MemberView:
        member = self._members.by_name(name)
        if member is None:
            names = ", ".join(member.name for member in self._members.all())
            raise NodeNotFound(f"there is no member {name}", try_=f"the members are {names}")
        return member
