"""The loop over the real core: proposals, reads, loss of leadership, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from raftd.errors import InvalidRequest, RaftdError, Unavailable
from raftd.scheduler.commands import RegisterNode, Submit
from raftd.scheduler.model import NodeRole, TaskSpec
from raftd.scheduler.replies import Accepted, Reply
from raftd.scheduler.requests import request_digest
from tests.node.cluster import Cluster, Member
from tests.support import eventually


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run one test on a fresh event loop, in bounded time."""
    asyncio.run(asyncio.wait_for(test, 60))


def a_submit(request_id: str, **changes: Any) -> Submit:
    spec = TaskSpec(kind="noop", **changes)
    return Submit(request_id, request_digest(spec, None), 0, spec)


def register(name: str = "n1", store_id: int = 1, incarnation: int = 1) -> RegisterNode:
    return RegisterNode(name, store_id, incarnation, NodeRole.VOTER, 1, (), ("noop",), "127.0.0.1:1")


async def submit(member: Member, request_id: str) -> Reply:
    (reply,) = await member.node.propose([a_submit(request_id)], timeout=10)
    return reply


async def propose_somewhere(cluster: Cluster, request_id: str) -> Reply:
    """As the SDK does: the same request id, until a leader answers."""
    while True:
        leader = await cluster.leader()
        try:
            (_, reply) = await leader.node.propose([register(), a_submit(request_id)], timeout=2)
        except Unavailable:
            continue
        return reply


def test_one_node_accepts_a_task() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            reply = await submit(leader, "a")
            assert isinstance(reply, Accepted)
            assert reply.first_task_id in leader.state.tasks

    run(scenario())


def test_what_is_proposed_at_once_shares_entries_and_every_caller_gets_its_own_reply() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            before = leader.node.status().last_index
            replies = await asyncio.gather(*(submit(leader, f"r{i}") for i in range(500)))
            ids = [reply.first_task_id for reply in replies if isinstance(reply, Accepted)]
            assert len(set(ids)) == 500
            assert leader.node.status().last_index - before < 50
            await cluster.agree()

    run(scenario())


def test_a_follower_refuses_proposals_and_serves_reads_while_it_reaches_the_leader() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            follower = next(member for member in cluster.members if member is not leader)
            with pytest.raises(Unavailable):
                await submit(follower, "a")
            await leader.node.propose([register()], timeout=10)
            reply = await submit(leader, "b")
            assert isinstance(reply, Accepted)
            fresh = await follower.node.read(lambda: reply.first_task_id in follower.state.tasks, timeout=10)
            assert fresh, "what was acknowledged before the read is seen by it"
            with pytest.raises(Unavailable):
                await follower.node.read_index(timeout=1)
            cluster.wire.isolate(follower.store_id)
            with pytest.raises(Unavailable):
                await follower.node.read_barrier(timeout=1)

    run(scenario())


def test_acknowledged_tasks_survive_the_death_of_the_leader() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            replies = [await propose_somewhere(cluster, f"r{i}") for i in range(5)]
            leader = await cluster.leader()
            await leader.stop()
            replies += [await propose_somewhere(cluster, f"s{i}") for i in range(5)]
            cluster.start(leader.store_id)
            await cluster.agree()
            ids = [reply.first_task_id for reply in replies if isinstance(reply, Accepted)]
            assert len(set(ids)) == 10
            for member in cluster.members:
                assert all(task_id in member.state.tasks for task_id in ids)

    run(scenario())


def test_the_same_request_again_after_a_failover_is_one_task() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            first = await propose_somewhere(cluster, "same")
            leader = await cluster.leader()
            cluster.wire.isolate(leader.store_id)
            other = await cluster.leader(but=leader.store_id)
            (again,) = await other.node.propose([a_submit("same")], timeout=10)
            assert isinstance(first, Accepted)
            assert isinstance(again, Accepted)
            assert again.duplicate
            assert again.first_task_id == first.first_task_id

    run(scenario())


def test_an_isolated_leader_steps_down_and_confirms_nothing() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            await propose_somewhere(cluster, "before")
            old = await cluster.leader()
            cluster.wire.isolate(old.store_id)
            lost = asyncio.gather(
                submit(old, "lost"), old.node.read_barrier(timeout=10), return_exceptions=True
            )
            new = await cluster.leader(but=old.store_id)
            await new.node.propose([a_submit("kept")], timeout=10)
            write, read = await lost
            assert isinstance(write, RaftdError)
            assert isinstance(read, RaftdError)
            await eventually(lambda: not old.node.leads, 20, "the old leader steps down")
            cluster.wire.heal()
            await cluster.agree()
            assert old.state.requests.get("kept") is not None
            assert old.state.requests.get("lost") is None

    run(scenario())


def test_everything_restarts_from_its_log() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            replies = [await propose_somewhere(cluster, f"r{i}") for i in range(20)]
            for member in cluster.members:
                await member.stop()
            for store_id in cluster.voters:
                cluster.start(store_id)
            leader = await cluster.leader()
            for reply in replies:
                assert isinstance(reply, Accepted)
                assert reply.first_task_id in leader.state.tasks

    run(scenario())


def test_a_value_that_no_entry_can_hold_is_refused_and_harms_nobody() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            bad = leader.node.propose([a_submit("bad", priority=1 << 80)], timeout=10)
            wrong, good = await asyncio.gather(bad, submit(leader, "good"), return_exceptions=True)
            assert isinstance(wrong, InvalidRequest)
            assert isinstance(good, Accepted)

    run(scenario())


def test_no_quorum_refuses_in_time_and_goes_on_when_it_is_back() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            others = [member for member in cluster.members if member is not leader]
            await leader.node.propose([register()], timeout=10)
            for member in others:
                await member.stop()
            with pytest.raises(Unavailable):
                await leader.node.propose([a_submit("alone")], timeout=0.2)
            cluster.start(others[0].store_id)
            assert isinstance(await propose_somewhere(cluster, "together"), Accepted)

    run(scenario())
