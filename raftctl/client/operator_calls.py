"""What an operator asks through `AsyncClient`: the membership, the leadership, the nodes, the settings.

What may live here: one method per question, passed on to `administration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raftctl.client import nodes as n
from raftctl.client import overview
from raftctl.client.administration import Administration
from raftctl.client.channel import Router


class OperatorCalls:
    """The operator's part of a client."""

    _administration: Administration
    _router: Router

    # --- the membership and the leadership ----------------------------------------------------------------------------

    async def members(self, *, timeout_s: float | None = None) -> n.Membership:
        """Who belongs to the cluster: as the leader has applied it, or, where nobody leads, any node that answers.

        Raises:
            NodeUnreachable: nobody answers.
        """
        return await self._administration.members(timeout_s)

    async def add_member(
        self,
        name: str,
        store_id: str,
        address: str,
        *,
        learner: bool = False,
        replaces: str = "",
        timeout_s: float | None = None,
    ) -> int:
        """Lets the store in that ``raftd init --join`` made and that serves at `address`; the index of the entry.

        It comes as a learner, and votes as soon as it has caught up, unless it is to stay a `learner`; in that moment
        the member that it `replaces` leaves. The same call again does nothing more.

        Raises:
            Rejected: the change makes no sense now, or another one is under way.
            NodeNotFound: there is no member to be replaced.
            OutcomeUnknown: it may have been let in, or may be yet.
        """
        return await self._administration.add_member(
            name, store_id, address, learner=learner, replaces=replaces, timeout_s=timeout_s
        )

    async def promote_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """Makes a learner a voter as soon as it has caught up. Raises as `add_member`, and DeadlinePassed."""
        return await self._administration.promote_member(name, timeout_s=timeout_s)

    async def remove_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """Takes a member out of the configuration; its store never comes back. Raises as `add_member`."""
        return await self._administration.remove_member(name, timeout_s=timeout_s)

    async def transfer_leadership(self, target: str = "", *, timeout_s: float | None = None) -> n.Leadership:
        """Has a voter (empty: the one that has most of the log) lead; returns when it does.

        Raises:
            NodeNotFound, InvalidChange: it is no voter.
            TransferFailed: it did not take over; the leader goes on leading.
        """
        return await self._administration.transfer_leadership(target, timeout_s=timeout_s)

    async def take_snapshot(self, node: str, *, timeout_s: float | None = None) -> n.SnapshotTaken:
        """Has this node write a snapshot of what it has applied, and let go of the log behind it."""
        return await self._administration.take_snapshot(node, timeout_s=timeout_s)

    # --- one node -----------------------------------------------------------------------------------------------------

    async def node_info(self, node: str, *, timeout_s: float | None = None) -> n.NodeInfo:
        """What this node (name or address) says about itself. Needs no leader.

        Raises:
            NodeNotFound: no node has this name.
            NodeUnreachable: it does not answer.
        """
        return await self._administration.node_info(node, timeout_s)

    async def node_infos(self, *, timeout_s: float = overview.NODE_ANSWERS_S) -> dict[str, n.NodeInfo]:
        """The same of every node that answers, by name."""
        return (await overview.node_infos(self._router, timeout_s))[0]

    async def everybody(
        self, *, timeout_s: float = overview.NODE_ANSWERS_S
    ) -> tuple[dict[str, n.NodeInfo], tuple[str, ...]]:
        """The same, members that were not known before included, and the names of those that do not answer.

        Raises:
            NodeUnreachable: nobody answers.
        """
        return await self._administration.everybody(timeout_s)

    async def faults(self, node: str, *, timeout_s: float | None = None) -> n.Faults:
        """Which cuts this node acts on."""
        return await self._administration.faults(node, timeout_s)

    async def set_faults(
        self,
        node: str,
        *,
        add: Iterable[n.Cut] = (),
        remove: Iterable[n.Cut] = (),
        heal: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[n.Cut, ...]:
        """Changes which cuts this node acts on (`heal` first removes all); returns those that are now in force.

        Raises:
            FaultInjectionOff: it was started without fault injection.
        """
        return await self._administration.set_faults(node, add, remove, heal=heal, timeout_s=timeout_s)

    # --- what a node takes and offers ---------------------------------------------------------------------------------

    async def set_eligibility(
        self, node: str, eligibility: str, *, deadline_ms: int = 0, timeout_s: float | None = None
    ) -> int:
        """Whether a node takes new attempts: ``ready``, ``cordoned`` or ``draining``.

        Args:
            deadline_ms: of a drain, from now on: what still runs then goes back to the queue; 0 waits for ever.

        Returns:
            How many attempts are on its slots still.

        Raises:
            NodeNotFound: no node has this name.
        """
        return await self._administration.set_eligibility(node, eligibility, deadline_ms, timeout_s)

    async def set_labels(
        self,
        node: str,
        *,
        set_: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, str]:
        """Sets labels of a node over those that it brings itself, and takes such ones back; returns all in force."""
        return await self._administration.set_labels(node, set_ or {}, remove, timeout_s)

    async def forget_node(self, node: str, *, timeout_s: float | None = None) -> None:
        """Drops the record of a node that is lost and no member.

        Raises:
            NodeNotFound: no node has this name. Rejected: it is up, or a member.
        """
        await self._administration.forget_node(node, timeout_s)

    async def settings(self, *, timeout_s: float | None = None) -> tuple[n.Setting, ...]:
        """The replicated settings: limits, retention, leases."""
        return await self._administration.settings(timeout_s)

    async def set_settings(
        self, changes: Mapping[str, int], *, timeout_s: float | None = None
    ) -> tuple[n.Setting, ...]:
        """Changes replicated settings, all of them or none; returns them as they are then.

        Raises:
            InvalidRequest: one is unknown, or over its bounds.
        """
        return await self._administration.set_settings(changes, timeout_s)
