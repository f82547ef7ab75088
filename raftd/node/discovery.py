"""Who leads, for a node that holds no log: one member at a time is listened to, and another when there is reason to.

What may live here: whom to ask, whom to believe, and whom to remember. A member that is listened to tells of a new
leader as soon as it knows, so that nothing is polled; the election itself is what takes time.

Believed is the leader of the highest term: an isolated node may go on naming an older one. There is reason to ask
another member when the present one is lost, when it knows no leader, when it names one that is older than another has
named, and when the leader that it names cannot be worked with: then it may be cut off together with that leader.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Protocol

from raftd.errors import RaftdError
from raftd.scheduler.model import Member
from raftd.transport.base import RemoteNode
from raftd.transport.guides import Word

log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""A member that has no better answer for so long is given up for another: longer than an election takes."""

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 0.5
"""Between two rounds of asking everybody."""

Leader = tuple[str, str]
"""A leader's name and its address."""


class Guides(Protocol):
    """Members who are asked (``raftd.transport.guides.GrpcGuides``)."""

    def words(self, name: str, store_id: int, address: str) -> AsyncGenerator[Word, None]:
        """What a member says, now and whenever it changes. Raises ``RaftdError`` from the iteration."""


class Discovery:
    """The members, and which of them leads, as others say.

    Args:
        guides: the way to ask a member.
        join: addresses to begin with.
        known: members that were heard of in an earlier life.
        remember: keeps the members for the next life; blocks.
    """

    def __init__(
        self,
        guides: Guides,
        join: Sequence[str],
        known: Iterable[Member],
        remember: Callable[[Sequence[Member]], None],
    ) -> None:
        self._guides = guides
        self._join = tuple(join)
        self._members = tuple(known)
        self._remember = remember
        self._removed_stores: frozenset[int] = frozenset()
        self._leader: Leader | None = None
        self._term = 0
        self._certain = False
        self._uncertain_since_s = 0.0
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()

    # --- raftd.executor.protocols.LeaderWatch ---------------------------------------------------------------------

    def leader(self) -> Leader | None:
        """The newest leader that anybody has named. It is kept while there is an election: it may win."""
        return self._leader

    async def changed(self, seen: Leader | None, /) -> Leader | None:
        """Wait until ``leader()`` is other than ``seen``, and return it."""
        while self._leader == seen:
            await self._changed.wait()
        return self._leader

    def failed(self, leader: Leader) -> None:
        """It could not be worked with: unless something better is heard soon, another member is asked."""
        if leader == self._leader:
            self._doubt()

    def worked(self, leader: Leader) -> None:
        """It has just renewed the lease, which only a leader can."""
        if leader == self._leader and not self._certain:
            self._settle()

    # --- raftd.services.server.LeaderKnown ------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """Of the newest leader."""
        return self._term

    @property
    def leader_name(self) -> str:
        """The leader's name; empty while there is doubt."""
        return self._leader[0] if self._leader is not None and self._certain else ""

    @property
    def leader_known(self) -> bool:
        """Whether the newest leader is one without doubt."""
        return bool(self.leader_name)

    async def leader_changed(self) -> None:
        """Return when what is known of the leader has changed."""
        await self._changed.wait()

    # --- the members ----------------------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Every member."""
        return self._members

    def voters(self) -> Sequence[str]:
        """Names of the voters, in the order of the membership."""
        return [member.name for member in self._members if member.voter]

    def remote(self, name: str) -> RemoteNode | None:
        """The member of this name, or None."""
        member = next((member for member in self._members if member.name == name), None)
        return None if member is None else RemoteNode(member.name, member.store_id, member.address)

    def name_of(self, store_id: int) -> str:
        """The member of this store id; empty for none."""
        return next((member.name for member in self._members if member.store_id == store_id), "")

    def store_of(self, name: str) -> int:
        """The member of this name; 0 for none."""
        return next((member.store_id for member in self._members if member.name == name), 0)

    def is_removed(self, store_id: int) -> bool:
        """Whether it was removed from the cluster, for good."""
        return store_id in self._removed_stores

    # --- the search -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen to one member after the other; until it is cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            for one in self._to_ask():
                # Who was a member when the round began may have left since.
                if one in self._to_ask() and await self._listen(*one):
                    pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _to_ask(self) -> list[tuple[str, int, str]]:
        """Everybody in turn, the leader last: who listens to it loses both at once."""
        found = [(member.name, member.store_id, member.address) for member in self._members]
        known = {address for _, _, address in found}
        random.shuffle(found)
        found.sort(key=lambda one: self._leader is not None and one[0] == self._leader[0])
        return found + [("", 0, address) for address in self._join if address not in known]

    async def _listen(self, name: str, store_id: int, address: str) -> bool:
        """Listen to one member until it is lost, or there is reason to ask another. Whether it knew a leader."""
        self._uncertain_since_s = 0.0
        self._doubt()
        self._wake.clear()
        was_certain = False
        reader = asyncio.create_task(self._read(name, store_id, address), name=f"guide {name or address}")
        reader.add_done_callback(lambda _: self._wake.set())
        loop = asyncio.get_running_loop()
        try:
            while not reader.done():
                was_certain = was_certain or self._certain
                left_s = None if self._certain else self._uncertain_since_s + PATIENCE_S - loop.time()
                if left_s is not None and left_s <= 0:
                    break
                try:
                    async with asyncio.timeout(left_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                self._wake.clear()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._doubt()
        return was_certain

    async def _read(self, name: str, store_id: int, address: str) -> None:
        try:
            async with aclosing(self._guides.words(name, store_id, address)) as words:
                async for word in words:
                    await self._take(word)
        except RaftdError as error:
            log.debug("%s at %s says nothing of the leader: %s", name or "the node", address, error.message)
        except Exception:  # a bug in one conversation must not end the search; it leaves a trace and a pause
            log.exception("listening to %s at %s", name, address)

    async def _take(self, word: Word) -> None:
        self._removed_stores = word.removed_stores
        if word.members and word.members != self._members and word.term >= self._term:
            self._members = word.members
            await self._keep(word.members)
        if word.leader is None or word.term < self._term:
            # It may not have heard yet, or be cut off: time will tell.
            self._doubt()
            return
        if word.term > self._term or word.leader != self._leader:
            log.info("%s leads, in term %d, says %s", word.leader[0], word.term, word.node)
            self._leader, self._term = word.leader, word.term
        self._settle()

    async def _keep(self, members: Sequence[Member]) -> None:
        try:
            await asyncio.to_thread(self._remember, members)
        except RaftdError as error:
            # The next start may have to be told whom to ask; nothing else depends on it.
            log.error("the members cannot be kept: %s", error.message)

    def _settle(self) -> None:
        self._certain = True
        self._tell()

    def _doubt(self) -> None:
        """What is known of the leader may be old; how long it has been so counts from the first doubt."""
        if self._certain or self._uncertain_since_s == 0.0:
            self._uncertain_since_s = asyncio.get_running_loop().time()
        self._certain = False
        self._tell()

    def _tell(self) -> None:
        self._wake.set()
        self._changed.set()
        self._changed = asyncio.Event()
