"""What happens within one turn of the loop, and at its ends: stepping down, stalls, shutdown, callers that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from raftd.errors import (
    DeadlinePassed,
    OutcomeUnknown,
    PayloadTooLarge,
    RaftdError,
    ShuttingDown,
    TooManyUncommitted,
    Unavailable,
)
from raftd.raft.messages import AppendEntriesReply
from raftd.scheduler.commands import Cancel, NodeLost
from raftd.scheduler.effects import Effect
from raftd.scheduler.model import Health
from raftd.scheduler.replies import Accepted, Refused
from tests.node.cluster import Cluster, Member
from tests.node.executors import FakeExecutor
from tests.node.test_node import a_submit, register, run, submit
from tests.support import eventually


def later_term(member: Member) -> AppendEntriesReply:
    """What makes a leader step down as soon as its core steps it."""
    other = next(store_id for store_id in (1, 2, 3) if store_id != member.store_id)
    term = member.node.status().term + 1
    return AppendEntriesReply(sender=other, receiver=member.store_id, term=term, success=False)


def test_a_read_that_meets_the_loss_of_leadership_in_one_turn_is_refused_and_the_node_lives() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()

            async def ask() -> int:
                # No await between the two: the loop finds both in its next turn.
                leader.node.deliver([later_term(leader)])
                return await leader.node.read_barrier(timeout=5)

            with pytest.raises(Unavailable):
                await ask()
            assert not leader.fatal
            await (await cluster.leader()).node.read_barrier(timeout=5)

    run(scenario())


def test_a_read_by_a_lease_that_has_ended_meanwhile_is_confirmed_anew() -> None:
    """A process can be stopped between the look at the lease and the look at the state, and another lead by then."""

    async def scenario() -> None:
        async with Cluster(3, lease_ms=50) as cluster:
            leader = await cluster.leader()
            await eventually(leader.raw.holds_lease, 10, "a lease")
            held = []

            def look() -> int:
                held.append(leader.raw.holds_lease())
                if len(held) == 1:
                    leader.lease_now_ms += 60_000
                return len(held)

            assert await leader.node.read(look, timeout=10) == 2
            assert held[0]

    run(scenario())


def test_a_proposal_that_meets_the_loss_of_leadership_in_one_turn_was_not_appended() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            before = leader.node.status().last_index

            async def ask() -> object:
                leader.node.deliver([later_term(leader)])
                return await leader.node.propose([a_submit("a")], timeout=5)

            with pytest.raises(Unavailable) as caught:
                await ask()
            assert not isinstance(caught.value, OutcomeUnknown)
            assert leader.node.status().last_index == before

    run(scenario())


def test_a_stall_in_the_middle_of_a_turn_takes_no_executors_lease() -> None:
    """A process can be stopped between the look at the clock and the look at the leases."""

    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("n1", 1)
            executor.keeps_beating = True
            executor.attach(leader)
            await eventually(lambda: executor.renewals, 10, "a renewal")

            def stop_for_a_minute(_index: int, _effects: Sequence[Effect]) -> None:
                leader.clock.shift_ms += 60_000

            leader.applier.on_effects(stop_for_a_minute)
            assert isinstance(await submit(leader, "a"), Accepted)
            beaten = len(executor.renewals)
            await eventually(lambda: len(executor.renewals) > beaten, 10, "the lease goes on")
            assert leader.state.nodes["n1"].health is Health.UP
            await executor.detach()

    run(scenario())


def test_a_leader_that_was_stopped_for_longer_than_a_lease_follows_whoever_leads_now() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            old = await cluster.leader()
            executor = FakeExecutor("w1", 101)
            executor.keeps_beating = True
            executor.attach(old)
            await eventually(lambda: executor.renewals, 10, "a renewal")
            # Cut off and stopped look the same from outside; the clock's jump is what the stop adds.
            cluster.wire.isolate(old.store_id)
            new = await cluster.leader(but=old.store_id)
            proposed = old.node.status().last_index
            old.clock.shift_ms += 60_000
            cluster.wire.heal()
            await eventually(lambda: not old.node.leads, 10, "it steps down")
            await eventually(lambda: old.node.leader == new.store_id, 10, "it follows")
            assert old.node.status().last_index >= proposed
            await cluster.agree()
            assert new.state.nodes["w1"].health is Health.UP
            await executor.detach()

    run(scenario())


def test_shutdown_answers_everybody_who_waits_for_a_quorum() -> None:
    async def scenario() -> None:
        async with Cluster(3, tick_ms=200) as cluster:
            leader = await cluster.leader()
            cluster.wire.isolate(leader.store_id)
            waiting = [
                asyncio.create_task(leader.node.propose([a_submit("a")], timeout=50)),
                asyncio.create_task(leader.node.read_barrier(timeout=50)),
            ]
            await eventually(lambda: leader.node.status().pending_reads, 10, "both are under way")
            stopping = asyncio.create_task(leader.stop())
            write, read = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
            await stopping
            assert isinstance(write, OutcomeUnknown)
            assert isinstance(read, ShuttingDown)
            with pytest.raises(ShuttingDown):
                await leader.node.propose([a_submit("b")], timeout=1)

    run(scenario())


def test_a_caller_that_went_away_does_not_disturb_those_it_shares_an_entry_with() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            gone = asyncio.create_task(submit(leader, "gone"))
            stays = asyncio.create_task(submit(leader, "stays"))
            log_end = leader.node.status().last_index
            await eventually(lambda: leader.node.status().last_index > log_end, 10, "they are appended")
            gone.cancel()
            reply = await stays
            assert isinstance(reply, Accepted)
            assert reply.first_task_id in leader.state.tasks
            assert isinstance(await submit(leader, "next"), Accepted)

    run(scenario())


def test_what_was_never_appended_is_not_called_unknown() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            with pytest.raises(DeadlinePassed):
                await leader.node.propose([a_submit("late")], timeout=0)
            await leader.node.read_barrier(timeout=5)
            assert leader.state.requests.get("late") is None

    run(scenario())


def test_what_is_too_large_for_an_entry_is_refused_alone() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            # Both say that they are small, so that they would share an entry.
            large = leader.node.propose([Cancel(task_id=1, reason="x" * (5 << 20))], timeout=10, size_bytes=1)
            wrong, good = await asyncio.gather(large, submit(leader, "good"), return_exceptions=True)
            assert isinstance(wrong, PayloadTooLarge)
            assert isinstance(good, Accepted)

    run(scenario())


def test_reads_begun_by_one_leader_are_not_answered_by_its_next_term() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            cluster.wire.isolate(leader.store_id)
            reading = asyncio.create_task(leader.node.read_barrier(timeout=30))
            await eventually(lambda: not leader.node.leads, 20, "leadership is lost")
            (answer,) = await asyncio.gather(reading, return_exceptions=True)
            assert isinstance(answer, RaftdError)
            cluster.wire.heal()
            await cluster.agree()

    run(scenario())


def test_a_restarted_leader_reads_only_what_it_has_applied() -> None:
    """Alone it leads at once, with all of its log still to be applied: the barrier waits for that."""

    async def scenario() -> None:
        async with Cluster(1) as cluster:
            first = await cluster.leader()
            await first.node.propose([register()], timeout=10)
            replies = [await submit(first, f"r{number}") for number in range(50)]
            await first.stop()
            again = cluster.start(1)
            await eventually(lambda: again.node.leads, 20, "it leads again")
            await again.node.read_barrier(timeout=10)
            for reply in replies:
                assert isinstance(reply, Accepted)
                assert reply.first_task_id in again.state.tasks

    run(scenario())


def test_what_takes_long_to_apply_lets_others_run_in_between() -> None:
    """A small entry can hold an array of ten thousand tasks; twenty of them at once must not cost an election."""

    async def scenario() -> None:
        async with Cluster(1) as cluster:
            first = await cluster.leader()
            await first.node.propose([register()], timeout=10)
            for number in range(10):
                await submit(first, f"r{number}")
            await first.stop()
            again = cluster.start(1)
            ran = 0
            seen: list[int] = []

            def takes_long(_index: int, _effects: Sequence[Effect]) -> None:
                again.clock.shift_ms += 100
                seen.append(ran)

            async def others() -> None:
                nonlocal ran
                while True:
                    ran += 1
                    await asyncio.sleep(0)

            again.applier.on_effects(takes_long)
            running = asyncio.create_task(others())
            await eventually(lambda: again.node.leads, 20, "it leads again")
            running.cancel()
            assert len(seen) >= 11
            assert len(set(seen)) == len(seen)

    run(scenario())


def test_a_plan_that_the_log_refuses_is_not_tried_in_every_turn() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("n1", 1).attach(leader)
            await eventually(lambda: "n1" in leader.state.nodes, 10, "registration")
            assert isinstance(await submit(leader, "a"), Accepted)
            await eventually(lambda: executor.started, 10, "the assignment")
            leader.leadership.plan(leader.clock.monotonic_ms())
            leader.leadership.planned((), Unavailable("refused"))
            assert not leader.leadership.plan(leader.clock.monotonic_ms())
            await executor.detach()

    run(scenario())


# --- a flood -------------------------------------------------------------------------------------------------------


def test_the_end_of_an_attempt_does_not_wait_for_a_flood_of_submissions_that_came_before_it() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            term = leader.node.status().term
            flood = [
                asyncio.create_task(
                    leader.node.propose([a_submit(f"f{call}-{n}") for n in range(500)], timeout=120)
                )
                for call in range(60)
            ]
            await asyncio.sleep(0)  # all of them are queued
            await leader.node.propose([NodeLost("nobody", 1)], timeout=60)
            answered = sum(call.done() for call in flood)
            assert answered < len(flood) // 2, f"{answered} of {len(flood)} calls went before it"
            await asyncio.gather(*flood)
            assert leader.node.status().term == term, "no election"

    run(scenario())


def test_when_much_waits_for_the_quorum_submissions_are_refused_first_and_upkeep_goes_on() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            quota = leader.raw.state.quota
            used = quota.limit_bytes * 4 // 5
            quota.bytes += used
            with pytest.raises(TooManyUncommitted, match=str(quota.limit_bytes * 3 // 4)) as refused:
                await leader.node.propose([a_submit("one")], timeout=10)
            assert refused.value.retryable
            (reply,) = await leader.node.propose([NodeLost("nobody", 1)], timeout=10)
            assert isinstance(reply, Refused)
            quota.bytes -= used
            await leader.node.propose([a_submit("one")], timeout=10)

    run(scenario())
