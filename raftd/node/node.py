"""What the services, the executor and an operator ask of a node: propose, read, change the members, hand over.

What may live here: calls that queue something for the loop (``loop``) and wait for what comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from raftd.errors import DeadlinePassed, DiskFull, InvalidChange, OutcomeUnknown
from raftd.node.loop import Loop
from raftd.node.proposals import Proposal, ProposedChange
from raftd.raft import types as raft
from raftd.scheduler.commands import Command, MembershipChange, Retry, Submit, SubmitGraph
from raftd.scheduler.replies import Reply

T = TypeVar("T")


class Node(Loop):
    """A node, as callers on its event loop see it."""

    async def propose(
        self, commands: Sequence[Command], *, timeout: float, size_bytes: int = 512
    ) -> tuple[Reply, ...]:
        """Have commands committed and applied; one reply each.

        Args:
            commands: applied in order, in one entry.
            timeout: seconds.
            size_bytes: about their encoded size.

        Raises:
            NotLeader: this node does not lead (yet); nothing was appended.
            DiskFull: this node's disk has no room for new work; nothing was appended.
            TooManyUncommitted: nothing was appended.
            OutcomeUnknown: it was appended, and then leadership was lost or time ran out.
            DeadlinePassed: time ran out before it was appended.
        """
        self._check_leads()
        if self._disk_full and any(isinstance(command, Submit | SubmitGraph | Retry) for command in commands):
            raise DiskFull("the disk of the leader is full", try_="make room: it goes on by itself then")
        done: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()
        proposal = Proposal(tuple(commands), size_bytes, self._loop.time() + timeout, done)
        self._proposer.add(proposal)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            if not proposal.appended:
                raise DeadlinePassed("the deadline passed before it was proposed") from None
            raise OutcomeUnknown(
                "not committed in time: a majority of the voters did not confirm it"
            ) from None

    async def change_membership(self, changes: Sequence[MembershipChange], *, timeout: float) -> int:
        """Have a change of the membership committed and applied; the index of its entry.

        Raises:
            NotLeader, OutcomeUnknown, DeadlinePassed: as for ``propose``.
            InvalidChange, NameTaken, StoreRemoved, NodeNotFound: the change makes no sense now; nothing was changed.
            ChangePending: another change is under way; nothing was changed.
        """
        self._check_leads()
        change = ProposedChange(tuple(changes), self._loop.time() + timeout, self._loop.create_future())
        self._proposer.add_change(change)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await change.done
        except TimeoutError:
            if not change.appended:
                raise DeadlinePassed("the deadline passed before it was proposed") from None
            raise OutcomeUnknown("not committed in time: look at the members before trying again") from None

    def transfer_leadership(self, to: raft.NodeId) -> None:
        """Begin to hand over to a voter, or (0) to the one that has most of the log; ``leader_changed`` tells the end.

        Raises:
            NotLeader: this node does not lead.
            InvalidChange: it is no voter, or there is none that lives.
        """
        self._check_leads()
        to = to or self._handover.heir()
        if not to:
            raise InvalidChange("there is no other voter that could lead", try_="start or add a node")
        try:
            self._raw.transfer_leadership(to)
        except raft.InvalidTransfer as error:
            raise InvalidChange(error.message) from None
        self._wake.set()

    async def read(self, read: Callable[[], T], *, timeout: float) -> T:
        """Call ``read`` when this node's applied state is fresh (holds everything committed before this call), and
        return what it returns.

        A leader has a quorum confirm that it leads, or relies on its lease; another node asks the leader for an index
        and waits until it has applied that much (thesis §6.4).

        Raises:
            NoLeader: nobody leads that this node knows of.
            NotLeader: leadership was lost before a quorum confirmed it.
            DeadlinePassed: no quorum confirmed it in time.
        """
        try:
            async with asyncio.timeout(timeout):
                if self.leads or self._leader_reads is None or self._stopping:
                    return await self._read_as_leader(read)
                await self._until_applied(await self._leader_reads.read_index(self._known_leader(), timeout))
                return read()
        except TimeoutError:
            raise DeadlinePassed("a majority of the voters did not confirm the read in time") from None

    async def read_barrier(self, *, timeout: float) -> int:
        """Return once this node's applied state is fresh, and how far it is applied. Raises as ``read``."""
        return await self.read(lambda: self._applier.last_applied, timeout=timeout)

    async def read_index(self, *, timeout: float) -> int:
        """For another node: an index from which on its state is fresh. Only a leader answers. Raises as ``read``."""
        try:
            async with asyncio.timeout(timeout):
                return await self._read_as_leader(lambda: self._applier.last_applied)
        except TimeoutError:
            raise DeadlinePassed("a majority of the voters did not confirm the read in time") from None

    async def _read_as_leader(self, read: Callable[[], T]) -> T:
        while True:
            self._check_leads()
            waiter: asyncio.Future[bool] = self._loop.create_future()
            self._reads.add(waiter)
            self._wake.set()
            by_lease = await waiter
            result = read()
            # This process may have stood still since the lease was looked at, and another may lead by now.
            if not by_lease or self._raw.holds_lease():
                return result

    async def _until_applied(self, index: int) -> None:
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._reads.add_confirmed(index, waiter)
        self._reads.applied(self._applier.last_applied)
        await waiter

    def _known_leader(self) -> raft.NodeId:
        leader = self._tenure.leader
        if leader in (raft.NO_NODE, self._raw.state.id):
            raise self._tenure.not_leader()
        return leader
