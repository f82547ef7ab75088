"""What the applied membership means for this node itself: whom it speaks to, and whether it belongs at all.

What may live here: watching the applied state for changes of the members and of this node's own record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from raftd.errors import OldCopy, RaftdError, StoreRemoved, StoreTwice
from raftd.node.members import Members, MemberView
from raftd.raft.types import NodeId
from raftd.scheduler.effects import Effect, MembersChanged, NodeChanged
from raftd.scheduler.state import State

log = logging.getLogger(__name__)


REFUSED_GRACE_S = 3.0
"""As long as those who have removed a node still send it what was queued for it."""

PATIENCE_S = 60.0
"""For a majority to be reachable that knows of a removal. Those that were to stay may have been replaced since."""


class Roster:
    """Keeps the peers of one node in step with the members.

    Args:
        name: of this node.
        store_id: of this node.
        incarnation: the highest that its data directory has given out.
        state: the applied state.
        members: the members in it.
        set_peers: speak to exactly these from now on.
        on_fatal: called if this node must not go on.
        refused_grace_s: so long after a refusal its own log may still say that it was removed.
        patience_s: so long after its removal a node waits for a majority of the others to know of it.
    """

    def __init__(
        self,
        name: str,
        store_id: int,
        incarnation: Callable[[], int],
        state: Callable[[], State],
        members: Members,
        set_peers: Callable[[Sequence[MemberView]], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
        refused_grace_s: float = REFUSED_GRACE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._name = name
        self._store_id = store_id
        self._incarnation = incarnation
        self._state = state
        self._members = members
        self._set_peers = set_peers
        self._on_fatal = on_fatal
        self._refused_grace_s = refused_grace_s
        self._patience_s = patience_s
        self._wake = asyncio.Event()
        self._removed = asyncio.Event()
        self._removed_at = 0
        self._was_removed = self.is_removed
        """The snapshot that it started from says so."""
        if self._was_removed:
            self._take_part_no_more()
        self._refusal: StoreRemoved | None = None
        self._refused_by: set[NodeId] = set()
        self._has_been_refused = asyncio.Event()

    async def told_to_go(self) -> None:
        """Return as soon as this node has heard that it was removed."""
        await self._removed.wait()

    async def removed(self, known: int = 0) -> None:
        """Return when this node has been removed from the cluster, and can be done without.

        It may be the only one that knows, or with whoever told it one of two. The others would then go on asking for
        its vote, and be told (docs/decisions/0009): it stays until most of the voters that remain have refused it, for
        they have that on their disks. After a while anyone is enough: the others can ask that one.

        Args:
            known: up to this entry, this node's own log knew what is committed when it started.

        Raises:
            StoreRemoved: it had been removed before, or while it could not hear of it.
        """
        await self._removed.wait()
        await self._known_to_the_others()
        if self._refusal is not None and not self.is_removed:
            raise self._refusal
        if self._was_removed or 0 < self._removed_at <= known:
            raise StoreRemoved(
                f"{self._name}, store {self._store_id:016x}, was removed from its cluster",
                try_="bring the node back with a new data directory: raftd init --join",
            )

    async def _known_to_the_others(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                while not self._known_to_most():
                    await self._next_refusal()
        except TimeoutError:
            waits_for = ", ".join(self._voters().values())
            log.warning("stays until one of %s is reachable and knows that this node was removed", waits_for)
            while not self._refused_by:
                await self._next_refusal()

    def _known_to_most(self) -> bool:
        voters = self._voters()
        return not voters or len(voters.keys() & self._refused_by) > len(voters) // 2

    def _voters(self) -> dict[NodeId, str]:
        """The voters that remain, as far as this node knows, and their names."""
        return {
            member.store_id: member.name
            for member in self._members.all()
            if member.voter and member.store_id != self._store_id
        }

    async def _next_refusal(self) -> None:
        self._has_been_refused.clear()
        await self._has_been_refused.wait()

    def refused(self, store_id: NodeId, error: RaftdError) -> None:
        """A peer, of this store id, takes nothing from this node.

        One that says "removed" is enough: it is of this cluster and the store that was meant, or it would have said
        that first, and no store that was removed comes back. So is one that has heard a copy. Everything else may be
        that one's own mistake.
        """
        if isinstance(error, OldCopy | StoreTwice):
            self._on_fatal(error)
        if not isinstance(error, StoreRemoved):
            return
        self._refused_by.add(store_id)
        self._has_been_refused.set()
        if self._refusal is None:
            self._refusal = error
            # Where it is being removed right now, its own log says so any moment.
            asyncio.get_running_loop().call_later(self._refused_grace_s, self._believe, error)

    def _believe(self, error: StoreRemoved) -> None:
        if not self._removed.is_set():
            log.warning("a peer says: %s", error.message)
            self._removed.set()

    @property
    def is_removed(self) -> bool:
        """Whether this node has been removed from the cluster."""
        return self._store_id in self._state().removed_stores

    def on_effects(self, index: int, effects: Sequence[Effect]) -> None:
        """Take what an applied entry changed."""
        if not self._removed.is_set():
            self._removed_at = index
        if any(isinstance(effect, MembersChanged | NodeChanged) for effect in effects):
            self.on_restored()

    def on_restored(self) -> None:
        """The state is another one."""
        self._wake.set()
        if self.is_removed and not self._removed.is_set():
            self._take_part_no_more()
        self._check_incarnation()

    def _take_part_no_more(self) -> None:
        log.warning("%s has been removed from the cluster: it takes part no more", self._name)
        self._removed.set()

    async def run(self) -> None:
        """Keep the peers in step; until it is cancelled."""
        told: tuple[MemberView, ...] = ()
        while True:
            await self._wake.wait()
            self._wake.clear()
            members = self._members.all()
            if members and members != told:
                told = members
                await self._set_peers(members)

    def _check_incarnation(self) -> None:
        """Every incarnation is on this disk before anybody hears of it: a higher one came from another copy of it."""
        node = self._state().nodes.get(self._name)
        if (
            node is not None
            and node.store_id == self._store_id
            and node.incarnation > (mine := self._incarnation())
        ):
            self._on_fatal(
                OldCopy(
                    f"this data directory is an old copy: the cluster knows incarnation {node.incarnation} of store "
                    f"{self._store_id:016x}, this directory has given out {mine}",
                    try_="what it promised since is lost: remove the node, and let it join with a new directory",
                )
            )
