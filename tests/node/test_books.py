"""The small books of the loop: clock, proposals, reads, members, leaders, history."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from raftd.errors import DeadlinePassed, NotLeader, OutcomeUnknown, ShuttingDown, TooManyUncommitted
from raftd.node.clock import ClusterClock
from raftd.node.history import History
from raftd.node.leaders import Leaders
from raftd.node.members import Members
from raftd.node.proposals import (
    MAX_BATCH_BYTES,
    MAX_BATCH_COMMANDS,
    MAX_CLIENT_COMMANDS,
    MAX_QUEUED_BYTES,
    Proposal,
    Proposals,
)
from raftd.node.reads import Reads
from raftd.node.tenure import Tenure
from raftd.raft.ready import ReadState
from raftd.raft.types import Role, SoftState
from raftd.scheduler.commands import Cancel, Vacate
from raftd.scheduler.effects import NodeChange, NodeChanged, SlotFreed
from raftd.scheduler.model import (
    AttemptOutcome,
    Eligibility,
    FencingToken,
    Health,
    MemberRecord,
    Node,
    NodeRole,
    Standing,
)
from raftd.scheduler.replies import Cancelled, Reply
from raftd.scheduler.state import State
from tests.node.cluster import Cluster, ShiftedClock
from tests.node.test_node import run
from tests.support import eventually

# --- clock --------------------------------------------------------------------------------------------------------


def test_cluster_time_never_goes_back_though_the_wall_clock_does() -> None:
    clock = ShiftedClock()
    cluster = ClusterClock(clock)
    first = cluster.stamp_ms()
    clock.wall_shift_ms = -3_600_000
    second = cluster.stamp_ms()
    clock.shift_ms += 500
    assert first <= second
    assert cluster.stamp_ms() >= second + 500, "and it goes on"


def test_cluster_time_is_no_earlier_than_what_another_leader_stamped() -> None:
    clock = ShiftedClock()
    cluster = ClusterClock(clock)
    ahead = clock.wall_ms() + 3_600_000
    cluster.observe(ahead)
    assert cluster.stamp_ms() >= ahead
    cluster.observe(ahead - 10)
    assert cluster.stamp_ms() >= ahead


def test_a_look_at_a_wall_clock_that_jumped_leaves_nothing_behind() -> None:
    clock = ShiftedClock()
    cluster = ClusterClock(clock)
    clock.wall_shift_ms = 3_600_000
    assert cluster.now_ms() >= clock.wall_ms() - 1_000
    clock.wall_shift_ms = 0
    assert cluster.stamp_ms() < clock.wall_ms() + 60_000


# --- proposals ----------------------------------------------------------------------------------------------------


def a_proposal(*, commands: int = 1, size_bytes: int = 10, expires_at: float = 100) -> Proposal:
    done: asyncio.Future[tuple[Reply, ...]] = asyncio.get_running_loop().create_future()
    return Proposal(tuple(Cancel(task_id=1) for _ in range(commands)), size_bytes, expires_at, done)


def an_end(*, commands: int = 1) -> Proposal:
    proposal = a_proposal()
    vacate = Vacate(1, 1, FencingToken(1, 1), AttemptOutcome.SUCCEEDED)
    return replace(proposal, commands=(vacate,) * commands)


def test_batches_are_cut_by_bytes_and_by_commands_and_hold_at_least_one() -> None:
    async def scenario() -> None:
        book = Proposals()
        for size in (MAX_BATCH_BYTES * 2, MAX_BATCH_BYTES - 10, 10, 1):
            book.add(a_proposal(size_bytes=size))
        assert [len(book.take(0)) for _ in range(4)] == [1, 2, 1, 0]
        for commands in (MAX_CLIENT_COMMANDS - 1, 1, 1, MAX_CLIENT_COMMANDS + 1, 1):
            book.add(a_proposal(commands=commands))
        assert [len(book.take(0)) for _ in range(5)] == [2, 1, 1, 1, 0]
        for commands in (MAX_BATCH_COMMANDS - 1, 1, 1):
            book.add(an_end(commands=commands))
        assert [len(book.take(0)) for _ in range(3)] == [2, 1, 0]

    run(scenario())


def test_upkeep_goes_before_whatever_clients_have_queued() -> None:
    async def scenario() -> None:
        book = Proposals()
        flood = [a_proposal(commands=MAX_CLIENT_COMMANDS) for _ in range(100)]
        for proposal in flood:
            book.add(proposal)
        ends = [an_end(), an_end()]
        for proposal in ends:
            book.add(proposal)
        assert book.take(0) == ends
        book.add(a_proposal())
        assert book.take(0) == flood[:1]

    run(scenario())


def test_what_clients_queue_has_a_limit_that_the_refusal_names_and_upkeep_has_none() -> None:
    async def scenario() -> None:
        book = Proposals()
        part = MAX_QUEUED_BYTES // 4
        queued = [a_proposal(size_bytes=part) for _ in range(4)]
        for proposal in queued:
            book.add(proposal)
        with pytest.raises(TooManyUncommitted, match=str(MAX_QUEUED_BYTES)) as refused:
            book.add(a_proposal(size_bytes=part))
        assert refused.value.retryable
        end = an_end()
        book.add(end)
        assert book.take(0) == [end]
        assert book.take(0) == queued[:1]
        book.add(a_proposal(size_bytes=part))
        book.refuse_clients(TooManyUncommitted("full"))
        assert isinstance(queued[1].done.exception(), TooManyUncommitted)
        for proposal in [a_proposal(size_bytes=part) for _ in range(4)]:
            book.add(proposal)

    run(scenario())


def test_expired_and_abandoned_proposals_are_passed_over() -> None:
    async def scenario() -> None:
        book = Proposals()
        late, gone, kept = a_proposal(expires_at=1), a_proposal(), a_proposal()
        for proposal in (late, gone, kept):
            book.add(proposal)
        gone.done.cancel()
        assert book.take(now=2) == [kept]
        assert isinstance(late.done.exception(), DeadlinePassed)
        assert not len(book)

    run(scenario())


def test_each_caller_gets_its_own_replies_of_a_shared_entry() -> None:
    async def scenario() -> None:
        book = Proposals()
        first, gone, last = a_proposal(commands=2), a_proposal(), a_proposal()
        book.appended(7, 3, [first, gone, last])
        gone.done.cancel()
        replies = tuple(Cancelled(number, None) for number in range(4))
        book.applied(7, 3, replies)
        assert first.done.result() == replies[:2]
        assert last.done.result() == replies[3:]
        book.applied(7, 3, replies)  # an index is settled once

    run(scenario())


def test_an_entry_that_another_leaders_replaced_did_not_happen() -> None:
    async def scenario() -> None:
        book = Proposals()
        proposal = a_proposal()
        book.appended(7, 3, [proposal])
        book.applied(6, 3, ())
        assert not proposal.done.done()
        book.applied(7, 4, ())
        assert isinstance(proposal.done.exception(), NotLeader)

    run(scenario())


def test_lost_leadership_fails_both_kinds_of_waiting_each_in_its_way() -> None:
    async def scenario() -> None:
        book = Proposals()
        queued, appended = a_proposal(), a_proposal()
        book.add(queued)
        book.appended(7, 3, [appended])
        book.fail_appended(OutcomeUnknown("lost"))
        book.fail_queued(NotLeader("lost"))
        assert appended.appended
        assert not queued.appended
        assert isinstance(appended.done.exception(), OutcomeUnknown)
        assert isinstance(queued.done.exception(), NotLeader)
        book.applied(7, 3, (Cancelled(1, None),))

    run(scenario())


# --- reads --------------------------------------------------------------------------------------------------------


def a_waiter() -> asyncio.Future[bool]:
    return asyncio.get_running_loop().create_future()


def test_reads_that_queue_together_share_a_round_and_wait_for_their_index() -> None:
    async def scenario() -> None:
        book = Reads()
        first, second, later = a_waiter(), a_waiter(), a_waiter()
        book.add(first)
        book.add(second)
        one = book.start_round()
        assert not book.queued
        book.add(later)
        two = book.start_round()
        assert one != two
        book.confirmed([ReadState(two, 9, by_lease=True), ReadState(one, 5)])
        book.applied(4)
        assert not first.done()
        book.applied(5)
        assert (first.result(), second.result()) == (False, False)
        assert not later.done()
        book.applied(12)
        assert later.result(), "whoever reads is told that it rests on a lease"

    run(scenario())


def test_a_read_that_another_node_confirmed_waits_for_its_index_only() -> None:
    async def scenario() -> None:
        book = Reads()
        waiter = a_waiter()
        book.add_confirmed(7, waiter)
        assert not book.queued
        book.applied(6)
        assert not waiter.done()
        book.applied(7)
        assert waiter.done()

    run(scenario())


def test_dropped_and_unknown_rounds() -> None:
    async def scenario() -> None:
        book = Reads()
        dropped, gone = a_waiter(), a_waiter()
        book.add(dropped)
        book.add(gone)
        gone.cancel()
        context = book.start_round()
        book.dropped([context, 99], NotLeader("lost"))
        assert isinstance(dropped.exception(), NotLeader)
        book.confirmed([ReadState(context, 1)])
        book.applied(1)

    run(scenario())


def test_at_the_end_no_read_is_forgotten() -> None:
    async def scenario() -> None:
        book = Reads()
        waiters = [a_waiter() for _ in range(3)]
        book.add(waiters[0])
        book.confirmed([ReadState(book.start_round(), 100)])
        book.add(waiters[1])
        book.start_round()
        book.add(waiters[2])
        book.fail_all(ShuttingDown("over"))
        assert all(isinstance(waiter.exception(), ShuttingDown) for waiter in waiters)

    run(scenario())


# --- members and leaders ------------------------------------------------------------------------------------------


def a_node(name: str, store_id: int, address: str) -> Node:
    return Node(
        name, store_id, 1, NodeRole.VOTER, (), ("noop",), address, Health.UP, Eligibility.READY, (None,), 5
    )


class CountedReigns:
    """What a node does while it leads: nothing, but it counts."""

    def __init__(self) -> None:
        self.terms: list[int] = []
        self.ended = 0

    def begin(self, term: int) -> None:
        self.terms.append(term)

    def end(self) -> None:
        self.ended += 1

    def plan(self, now_ms: int) -> tuple[()]:
        return ()

    def ride(self, batch: object) -> tuple[()]:
        return ()

    def planned(self, commands: object, error: object) -> None: ...

    def stalled(self, stall_ms: int) -> None: ...


def test_a_leader_serves_from_when_the_entry_of_its_own_term_is_applied_until_it_leads_no_more() -> None:
    reigns = CountedReigns()
    tenure = Tenure(1)
    tenure.leading = reigns
    assert not tenure.become(SoftState(Role.LEADER, 1))
    serves = []
    for applied_term in (3, 4, 4):
        tenure.settle(4, applied_term)
        serves.append(tenure.serves)
    assert tenure.become(SoftState(Role.FOLLOWER, 2))
    tenure.settle(5, applied_term=5)
    serves.append(tenure.serves)
    assert serves == [False, True, True, False]
    assert (reigns.terms, reigns.ended) == ([4], 1)


def test_members_are_found_where_they_last_registered() -> None:
    state = State()
    members = Members(lambda: state)
    assert members.all() == ()
    assert members.by_store_id(1) is None
    state.members = (
        MemberRecord("n1", 1, "h:1", Standing.VOTER),
        MemberRecord("n2", 2, "h:2", Standing.LEARNER, promote=True, replaces=1),
    )
    assert [(m.name, m.address, m.voter) for m in members.all()] == [
        ("n1", "h:1", True),
        ("n2", "h:2", False),
    ]
    state.put_node(a_node("n1", 1, "h:9"))
    state.put_node(a_node("n2", 77, "h:evil"))
    assert [m.address for m in members.all()] == ["h:9", "h:2"], "a name alone moves nobody"
    state.put_node(a_node("n1", 1, ""))
    found = members.by_name("n1")
    assert found is not None
    assert found.address == "h:1"
    assert (members.name(2), members.name(3)) == ("n2", "")
    assert [m.name for m in members.voters()] == ["n1"]


def test_whoever_dials_the_leader_hears_of_the_next_one() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            follower = next(member for member in cluster.members if member is not leader)
            leaders = Leaders(follower.node, Members(lambda: follower.state))
            expected = (leader.name, f"127.0.0.1:{7000 + leader.store_id}")
            await eventually(lambda: leaders.leader() == expected, 10, "the leader is known")
            assert await leaders.changed(None) == expected
            waiting = asyncio.create_task(leaders.changed(expected))
            cluster.wire.isolate(leader.store_id)
            assert await asyncio.wait_for(waiting, 20) != expected
            new = await cluster.leader(but=leader.store_id)
            await eventually(lambda: leaders.leader() not in (None, expected), 10, "the new leader is known")
            found = leaders.leader()
            assert found is not None
            assert found[0] == new.name

    run(scenario())


# --- history ------------------------------------------------------------------------------------------------------


def a_change(index: int, name: str = "n1") -> NodeChanged:
    return NodeChanged(index, 1, NodeChange.UP, a_node(name, 1, "h:1"))


def indices(history: History, from_index: int, limit: int = 100) -> list[int]:
    return [change.index for change in history.page(from_index, limit).changes]


def test_a_page_begins_at_its_index_and_holds_whole_entries() -> None:
    history = History()
    for index in (3, 5, 9):
        history.on_effects(index, [a_change(index), a_change(index, "n2")])
    history.on_effects(11, [SlotFreed(11, "n1", 1, 0, 1, FencingToken(1, 1))])
    assert history.next_index == 10, "an entry that changed nothing that is watched does not count"
    assert indices(history, 1) == [3, 3, 5, 5, 9, 9]
    assert indices(history, 4) == [5, 5, 9, 9]
    page = history.page(1, 1)
    assert ([change.index for change in page.changes], page.next_index, page.gap) == ([3, 3], 4, False)
    assert indices(history, page.next_index, 3) == [5, 5, 9, 9]
    assert history.page(10, 5) == replace(page, changes=(), next_index=10)
    assert history.page(1 << 63, 5).next_index == 1 << 63


def test_what_is_not_kept_any_more_is_called_a_gap() -> None:
    history = History(changes_kept=3)
    for index in range(1, 7):
        history.on_effects(index, [a_change(index)])
    page = history.page(2, 100)
    assert ([change.index for change in page.changes], page.gap) == ([4, 5, 6], True)
    assert not history.page(4, 100).gap
    history.on_effects(7, [a_change(7) for _ in range(10)])
    assert indices(history, 1) == [7] * 10, "the last entry is kept whole, whatever its size"


def test_waiting_ends_with_the_change_that_was_waited_for() -> None:
    async def scenario() -> None:
        history = History()
        history.on_effects(2, [a_change(2)])
        await history.wait(2)
        waiting = asyncio.create_task(history.wait(4))
        await asyncio.sleep(0)
        history.on_effects(3, [a_change(3)])
        await asyncio.sleep(0)
        assert not waiting.done()
        history.on_effects(6, [a_change(6)])
        await asyncio.wait_for(waiting, 5)

    run(scenario())
