"""Who leads, by name and address, for those who dial the leader.

What may live here: the translation of the core's leader id, and waiting for it to change.
"""

from __future__ import annotations

from raftd.node.members import Members
from raftd.node.node import Node

Leader = tuple[str, str]
"""A leader's name and its address."""


class Leaders:
    """The leader as this node knows it (``raftd.executor.protocols.LeaderWatch``)."""

    def __init__(self, node: Node, members: Members) -> None:
        self._node = node
        self._members = members

    def leader(self) -> Leader | None:
        """The leader's name and address, or None while none is known."""
        member = self._members.by_store_id(self._node.leader)
        return None if member is None else (member.name, member.address)

    async def changed(self, seen: Leader | None, /) -> Leader | None:
        """Wait until ``leader()`` is other than ``seen``, and return it."""
        while (leader := self.leader()) == seen:
            await self._node.leader_changed()
        return leader

    def failed(self, leader: Leader, /) -> None:
        """Nothing is learned from it: consensus knows who leads, and leaves one that is silent."""

    def worked(self, leader: Leader, /) -> None:
        """Nothing is learned from it either."""
