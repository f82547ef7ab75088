"""Who the members are and where: names for the store ids that consensus speaks of; and where workers are.

What may live here: looking nodes up in the applied state. The address under which a node last registered wins over
the one it was founded or added with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftd.scheduler.model import Standing
from raftd.scheduler.state import State


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member as it is known now."""

    name: str
    store_id: int
    address: str
    voter: bool
    """Whether it counts in the configuration in force, in either half of a joint one."""
    leaving: bool = False
    """It votes only until the change under way is complete."""
    promote: bool = False
    """A learner that becomes a voter when it has caught up."""
    replaces: int = 0
    """The store that leaves when this one is promoted; 0 for none."""


class Members:
    """The members, read from the applied state at the moment of need."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def all(self) -> tuple[MemberView, ...]:
        """Every member, in the order in which they came."""
        state = self._state()
        views = []
        for member in state.members:
            node = state.nodes.get(member.name)
            registered = node is not None and node.store_id == member.store_id and node.address
            address = node.address if node is not None and registered else member.address
            views.append(
                MemberView(
                    member.name,
                    member.store_id,
                    address,
                    member.voter,
                    member.standing is Standing.LEAVING,
                    member.promote,
                    member.replaces,
                )
            )
        return tuple(views)

    def by_store_id(self, store_id: int) -> MemberView | None:
        """The member of this store id, or None."""
        return next((member for member in self.all() if member.store_id == store_id), None)

    def by_name(self, name: str) -> MemberView | None:
        """The member of this name, or None."""
        return next((member for member in self.all() if member.name == name), None)

    def everybody(self) -> tuple[MemberView, ...]:
        """Every member, and after them every other node that has registered: the workers."""
        members = self.all()
        names = {member.name for member in members}
        return (
            *members,
            *(
                MemberView(node.name, node.store_id, node.address, voter=False)
                for node in self._state().nodes.values()
                if node.name not in names and node.address
            ),
        )

    def node(self, name: str) -> MemberView | None:
        """The member or the worker of this name, or None."""
        return next((node for node in self.everybody() if node.name == name), None)

    def name(self, store_id: int) -> str:
        """The name of a store, or empty."""
        member = self.by_store_id(store_id)
        return "" if member is None else member.name

    def voters(self) -> tuple[MemberView, ...]:
        """The voting members."""
        return tuple(member for member in self.all() if member.voter)
