"""What the applied membership means for a node itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from raftd.errors import NoLeader, OldCopy, StoreRemoved, StoreTwice, WrongIdentity
from raftd.node.members import Members, MemberView
from raftd.node.roster import Roster
from raftd.scheduler.effects import MembersChanged
from raftd.scheduler.model import Eligibility, Health, MemberRecord, Node, NodeRole, Standing
from raftd.scheduler.state import State
from tests.node.test_node import run
from tests.support import eventually


class Watched:
    """The roster of n1, store 1, whose directory has given out incarnation 3."""

    def __init__(self, patience_s: float = 60.0, state: State | None = None) -> None:
        self.state = state or State()
        self.told: list[list[str]] = []
        self.fatal: list[BaseException] = []
        self.roster = Roster(
            "n1",
            1,
            lambda: 3,
            lambda: self.state,
            Members(lambda: self.state),
            self._set_peers,
            self.fatal.append,
            refused_grace_s=0.05,
            patience_s=patience_s,
        )

    async def _set_peers(self, members: Sequence[MemberView]) -> None:
        self.told.append([member.name for member in members])

    def has_told(self, count: int) -> bool:
        return len(self.told) == count

    def apply(self, *names: str, removed: frozenset[int] = frozenset()) -> None:
        """A change of the members is applied."""
        stores = [int(name[1:]) for name in names]
        self.state.members = tuple(
            MemberRecord(name, store, f"h:{store}", Standing.VOTER)
            for name, store in zip(names, stores, strict=True)
        )
        self.state.removed_stores |= removed
        self.roster.on_effects(1, (MembersChanged(1, self.state.members),))

    def refuse(self, *stores: int) -> None:
        """These say that store 1 was removed."""
        for store in stores:
            self.roster.refused(store, StoreRemoved("n1, store 0000000000000001, was removed"))

    def register(self, store_id: int, incarnation: int) -> None:
        """A node of the name n1 is in the record."""
        health, eligibility = Health.UP, Eligibility.READY
        self.state.put_node(
            Node("n1", store_id, incarnation, NodeRole.VOTER, (), (), "h:1", health, eligibility, (), 1)
        )
        self.roster.on_restored()


def test_a_node_that_starts_says_so_where_it_had_been_removed_before() -> None:
    async def scenario() -> None:
        for known, refused in ((0, False), (1, True)):
            watched = Watched()
            watched.apply("n2", removed=frozenset({1}))
            watched.refuse(2)
            if refused:
                with pytest.raises(StoreRemoved, match="n1, store 0000000000000001"):
                    await watched.roster.removed(known)
            else:
                await watched.roster.removed(known)

    run(scenario())


def test_who_was_removed_while_it_was_down_learns_it_from_a_refusal_and_from_no_other() -> None:
    async def scenario() -> None:
        watched = Watched()
        watched.roster.refused(2, WrongIdentity("n1 is of cluster 00000000000000c1, n2 of another"))
        removed = asyncio.ensure_future(watched.roster.removed(99))
        await asyncio.sleep(0)
        assert not removed.done()
        watched.refuse(2)
        with pytest.raises(StoreRemoved, match="n1, store 0000000000000001"):
            await asyncio.wait_for(removed, 10)

    run(scenario())


def test_who_is_refused_while_it_is_being_removed_ends_well() -> None:
    async def scenario() -> None:
        watched = Watched()
        removed = asyncio.ensure_future(watched.roster.removed())
        watched.refuse(2)
        await asyncio.sleep(0)
        assert not removed.done()
        watched.apply("n2", removed=frozenset({1}))
        await asyncio.wait_for(removed, 10)

    run(scenario())


def test_who_is_told_of_another_process_of_its_store_does_not_go_on() -> None:
    watched = Watched()
    told = [StoreTwice("two"), OldCopy("a later one")]
    for error in (NoLeader("nobody"), *told):
        watched.roster.refused(2, error)
    assert watched.fatal == told
    assert not watched.roster.is_removed


def test_peers_are_the_members_as_they_come_and_go() -> None:
    async def scenario() -> None:
        watched = Watched()
        running = asyncio.create_task(watched.roster.run())
        told = [["n1", "n2"], ["n1", "n2", "n3"], ["n1", "n3"]]
        for count, names in enumerate(told, 1):
            watched.apply(*names)
            await eventually(partial(watched.has_told, count), 10, "they are told")
        assert watched.told == told
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(scenario())


def test_who_is_removed_learns_it() -> None:
    async def scenario() -> None:
        watched = Watched()
        known = []
        for names, removed in ((("n1", "n2"), 9), (("n2",), 1)):
            watched.apply(*names, removed=frozenset({removed}))
            known.append(watched.roster.is_removed)
        assert known == [False, True]
        watched.refuse(2)
        await asyncio.wait_for(watched.roster.removed(), 10)

    run(scenario())


def test_a_node_whose_snapshot_says_that_it_was_removed_says_so_when_the_others_do() -> None:
    async def scenario() -> None:
        before = Watched()
        before.apply("n2", removed=frozenset({1}))
        watched = Watched(state=before.state)
        removed = asyncio.ensure_future(watched.roster.removed())
        await asyncio.sleep(0)
        assert not removed.done()
        watched.refuse(2)
        with pytest.raises(StoreRemoved, match="n1, store 0000000000000001"):
            await asyncio.wait_for(removed, 10)

    run(scenario())


def test_who_is_removed_stays_until_most_of_those_that_remain_know_it() -> None:
    """Until then it may be the only one that can tell them."""

    async def scenario() -> None:
        watched = Watched()
        watched.apply("n2", "n3", "n4", removed=frozenset({1}))
        removed = asyncio.ensure_future(watched.roster.removed())
        for store in (2, 2, 9):
            watched.refuse(store)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not removed.done(), "one of three, however often, and a stranger"
        watched.refuse(3)
        await asyncio.wait_for(removed, 10)

    run(scenario())


def test_who_learns_of_its_removal_from_a_refusal_stays_until_most_refuse_it() -> None:
    """Whoever told it may be the only one that knows."""

    async def scenario() -> None:
        watched = Watched()
        watched.apply("n1", "n2", "n3", "n4")
        removed = asyncio.ensure_future(watched.roster.removed())
        watched.refuse(2)
        await asyncio.wait_for(watched.roster.told_to_go(), 10)
        await asyncio.sleep(0)
        assert not removed.done()
        watched.refuse(4)
        with pytest.raises(StoreRemoved, match="n1, store 0000000000000001"):
            await asyncio.wait_for(removed, 10)

    run(scenario())


def test_who_was_removed_long_ago_goes_when_one_knows_it(caplog: pytest.LogCaptureFixture) -> None:
    """The others of those that were to remain may be no members any more."""

    async def scenario() -> None:
        watched = Watched(patience_s=0.05)
        watched.apply("n2", "n3", removed=frozenset({1}))
        removed = asyncio.ensure_future(watched.roster.removed())
        await eventually(lambda: "stays until one of n2, n3" in caplog.text, 10, "it says what it waits for")
        assert not removed.done()
        watched.refuse(3)
        await asyncio.wait_for(removed, 10)

    run(scenario())


def test_an_old_copy_of_a_directory_gives_itself_away_by_its_incarnation() -> None:
    watched = Watched()
    watched.register(1, 3)
    watched.register(7, 4)  # another store of that name says nothing of this one
    assert not watched.fatal
    watched.register(1, 4)
    (error,) = watched.fatal
    assert "old copy" in str(error)
