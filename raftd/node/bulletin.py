"""What a node tells those who hold no log: who leads, and who the members are.

What may live here: noticing that either has changed. Whoever watches is woken and looks for himself, so that nothing is
kept for those who are slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raftd.node.members import Members, MemberView
from raftd.raft.ready import Status
from raftd.scheduler.effects import Effect, MembersChanged, NodeChanged


class Core(Protocol):
    """What is needed of the node's loop."""

    def status(self) -> Status:
        """What the core knows."""

    async def leader_changed(self) -> None:
        """Return when the leader has changed."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What there is to know at one moment.

    Attributes:
        leader: None while nobody is known to lead.
        term: of the node that says so.
        members: all of them, with the addresses under which they are reached now.
        joint: a change of theirs is half done.
    """

    leader: MemberView | None
    term: int
    members: tuple[MemberView, ...]
    joint: bool


class Bulletin:
    """The latest notice of one node.

    Args:
        core: the node's loop.
        members: the members in the applied state.
    """

    def __init__(self, core: Core, members: Members) -> None:
        self._core = core
        self._members = members
        self._changed = asyncio.Event()

    def now(self) -> Notice:
        """The present notice."""
        status = self._core.status()
        leader = self._members.by_store_id(status.leader)
        term = 0 if leader is None else status.term
        return Notice(leader, term, self._members.all(), bool(status.configuration.outgoing))

    async def changed(self) -> None:
        """Return when it may be another one. Called without an await since the look at ``now``, it misses nothing."""
        await self._changed.wait()

    def on_effects(self, _index: int, effects: Sequence[Effect]) -> None:
        """Take what an applied entry changed; a member that has registered may have another address."""
        if any(isinstance(effect, MembersChanged | NodeChanged) for effect in effects):
            self.on_restored()

    def on_restored(self) -> None:
        """The state is another one."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Notice changes of the leader; until it is cancelled."""
        while True:
            self.on_restored()
            await self._core.leader_changed()
