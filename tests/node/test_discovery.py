"""How a node that holds no log finds the leader: whom it asks, whom it believes, and when it asks another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import pytest

from raftd.errors import PeerUnreachable, StorageError
from raftd.node import discovery
from raftd.node.discovery import Discovery
from raftd.scheduler.model import Member
from raftd.transport.guides import Word
from tests.support import eventually

A, B, C = (Member(name, store, f"h:{store}") for store, name in enumerate(("a", "b", "c"), 1))


class FakeGuides:
    """Members that say what the test says, as long as somebody listens; who is not in `up` does not answer."""

    def __init__(self, *up: Member) -> None:
        self.up = {member.address: member for member in up}
        self.words_of: dict[str, asyncio.Queue[Word | None]] = {}
        self.listened_to: list[str] = []

    async def words(self, name: str, store_id: int, address: str) -> AsyncGenerator[Word, None]:
        self.listened_to.append(address)
        if address not in self.up:
            raise PeerUnreachable(f"nobody answers at {address}")
        queue = self.words_of[address] = asyncio.Queue()
        try:
            while (word := await queue.get()) is not None:
                yield word
        finally:
            if self.words_of.get(address) is queue:
                del self.words_of[address]

    @property
    def now(self) -> list[str]:
        """The names of those who are listened to."""
        return [self.up[address].name for address in self.words_of if address in self.up]

    def say(self, member: Member, leader: Member | None, term: int = 0, *members: Member) -> None:
        named = None if leader is None else (leader.name, leader.address)
        self.words_of[member.address].put_nowait(
            Word(member.name, named, term, members or (A, B, C), frozenset({9}))
        )

    def die(self, member: Member) -> None:
        del self.up[member.address]
        if member.address in self.words_of:
            self.words_of[member.address].put_nowait(None)


class World:
    """One search among fake members."""

    def __init__(self, guides: FakeGuides, *join: str, known: Sequence[Member] = ()) -> None:
        self.guides = guides
        self.kept: list[tuple[Member, ...]] = []
        self.found = Discovery(guides, join, known, lambda members: self.kept.append(tuple(members)))

    async def listening(self, *to: Member, other_than: str = "") -> Member:
        """The one member that is listened to, once it is one of these."""
        names = [member.name for member in to]

        def heard() -> bool:
            now = self.guides.now
            return len(now) == 1 and now[0] in names and now[0] != other_than

        await eventually(heard, 20, f"one of {names} is listened to")
        return next(member for member in to if member.name == self.guides.now[0])

    async def leads(self, member: Member) -> None:
        await eventually(lambda: self.found.leader() == (member.name, member.address), 20, f"{member} leads")


def search(scenario: Callable[[World], Awaitable[None]], world: Callable[[], World]) -> None:
    """Runs a scenario beside the search."""

    async def both() -> None:
        made = world()
        searching = asyncio.create_task(made.found.run())
        try:
            async with asyncio.timeout(60):
                await scenario(made)
        finally:
            searching.cancel()
            await asyncio.gather(searching, return_exceptions=True)

    asyncio.run(both())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that soon loses its patience."""
    monkeypatch.setattr(discovery, "PATIENCE_S", 0.05)


def test_it_asks_whom_it_was_given_and_remembers_whom_it_hears_of() -> None:
    async def scenario(world: World) -> None:
        await world.listening(B)
        world.guides.say(B, A, 3)
        await world.leads(A)
        assert world.found.leader_known
        assert (world.found.leader_name, world.found.term) == ("a", 3)
        assert list(world.found.voters()) == ["a", "b", "c"]
        assert world.found.name_of(3) == "c"
        assert world.found.store_of("c") == 3
        assert world.found.is_removed(9)
        assert not world.found.is_removed(1)
        assert world.kept == [(A, B, C)]
        # What was heard before is not written again.
        world.guides.say(B, C, 4)
        await world.leads(C)
        assert len(world.kept) == 1

    search(scenario, lambda: World(FakeGuides(B), "h:9", "h:2"))


def test_those_of_an_earlier_life_are_asked_when_those_that_it_was_given_are_gone() -> None:
    async def scenario(world: World) -> None:
        await world.listening(C)
        world.guides.say(C, B, 7)
        await world.leads(B)

    search(scenario, lambda: World(FakeGuides(C), "h:1", known=(A, C)))


def test_a_new_leader_is_heard_of_without_asking_again() -> None:
    async def scenario(world: World) -> None:
        guide = await world.listening(A, B, C)
        world.guides.say(guide, A, 3)
        await world.leads(A)
        seen = world.found.leader()
        waiting = asyncio.create_task(world.found.changed(seen))
        world.guides.say(guide, None, 0)
        await eventually(lambda: not world.found.leader_known, 20, "an election")
        assert world.found.leader() == seen, (
            "who led may lead again: nothing is dropped for a term without a leader"
        )
        world.guides.say(guide, B, 4)
        assert await asyncio.wait_for(waiting, 20) == ("b", B.address)
        assert len(world.guides.listened_to) == 1

    search(scenario, lambda: World(FakeGuides(A, B, C), known=(A, B, C)))


def test_the_leader_of_an_older_term_is_not_believed(hasty: None) -> None:
    async def scenario(world: World) -> None:
        first = await world.listening(A, B, C)
        world.guides.say(first, B, 5)
        await world.leads(B)
        world.guides.die(first)
        second = await world.listening(A, B, C, other_than=first.name)
        world.guides.say(second, C, 4)
        # It may be cut off: another is asked, and the newest leader stays the one that is tried.
        third = await world.listening(A, B, C, other_than=second.name)
        assert world.found.leader() == ("b", B.address)
        world.guides.say(third, C, 6)
        await world.leads(C)

    search(scenario, lambda: World(FakeGuides(A, B, C), known=(A, B, C)))


def test_another_is_asked_when_the_leader_that_one_names_cannot_be_worked_with(hasty: None) -> None:
    async def scenario(world: World) -> None:
        first = await world.listening(A, B)
        world.guides.say(first, C, 5)
        await world.leads(C)
        world.found.failed(("c", C.address))
        second = await world.listening(A, B, other_than=first.name)
        world.guides.say(second, C, 5)
        await eventually(lambda: world.found.leader_known, 20, "the same is said again")
        # One that renews the lease is beyond doubt; a failure of another than the newest leader says nothing.
        world.found.failed(("c", C.address))
        world.found.worked(("c", C.address))
        world.found.failed(("a", A.address))
        assert world.found.leader_known

    search(scenario, lambda: World(FakeGuides(A, B), known=(A, B, C)))


def test_one_that_knows_no_leader_is_given_up_for_another(hasty: None) -> None:
    async def scenario(world: World) -> None:
        first = await world.listening(A, B)
        world.guides.say(first, None, 0)
        second = await world.listening(A, B, other_than=first.name)
        world.guides.say(second, C, 2)
        await world.leads(C)

    search(scenario, lambda: World(FakeGuides(A, B), known=(A, B, C)))


def test_members_that_come_are_asked_and_those_that_went_are_not() -> None:
    async def scenario(world: World) -> None:
        await world.listening(A)
        world.guides.say(A, A, 3, A, C)
        await world.leads(A)
        assert list(world.found.voters()) == ["a", "c"]
        world.guides.up[C.address] = C
        world.guides.listened_to.clear()
        world.guides.die(A)
        await world.listening(C)
        assert B.address not in world.guides.listened_to

    search(scenario, lambda: World(FakeGuides(A), known=(A, B)))


def test_members_that_cannot_be_kept_are_known_all_the_same() -> None:
    class Full(World):
        def __init__(self) -> None:
            super().__init__(FakeGuides(A))
            self.found = Discovery(self.guides, [A.address], (), self._refuse)

        def _refuse(self, _: Sequence[Member]) -> None:
            raise StorageError("no room")

    async def scenario(world: World) -> None:
        await world.listening(A)
        world.guides.say(A, A, 1)
        await world.leads(A)
        assert world.found.remote("b") is not None

    search(scenario, Full)
