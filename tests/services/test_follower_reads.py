"""Reads that a follower answers itself, from its own state, once the leader has told it how fresh that must be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from raftd.pb import scheduler_pb2 as pb
from tests.node.test_node import run
from tests.services.hosts import failure_of
from tests.services.members import served_cluster
from tests.services.test_scheduler import STALE, a_task, an_array, ready, submit
from tests.support import eventually

Code = grpc.StatusCode


def test_a_follower_answers_reads_itself_with_everything_that_was_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            follower = await served.follower()
            me = follower.member.name
            for number in range(40):
                (reply,) = await submit(leader, a_task(f"r{number}"))
                # At once: the follower has most likely not applied it yet.
                got = await follower.stub.Get(pb.GetRequest(task_id=reply.accepted.task_id), timeout=30)
                assert (got.read.answered_by, got.read.stale) == (me, False)
            (reply,) = await submit(leader, an_array("a", 3))
            job = await follower.stub.GetJob(pb.GetJobRequest(job_id=reply.accepted.job_id), timeout=30)
            page = await follower.stub.List(pb.ListRequest(job_id=reply.accepted.job_id), timeout=30)
            assert (job.read.answered_by, page.read.answered_by, len(page.tasks)) == (me, me, 3)
            logs = follower.stub.Logs(pb.LogsRequest(task_id="t999"), timeout=30)
            assert (await failure_of(logs.read()))[1]["raftd-error"] == "task_not_found"

    run(scenario())


def test_a_follower_that_is_behind_waits_until_it_is_not(tmp_path: Path) -> None:
    """It never says that a task is not there which was acknowledged before it was asked."""

    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            follower = await served.follower()
            wire = served.cluster.wire
            wire.cut.add((leader.member.store_id, follower.member.store_id))
            (reply,) = await submit(leader, a_task("a"))
            read = asyncio.ensure_future(
                follower.stub.Get(pb.GetRequest(task_id=reply.accepted.task_id), timeout=30)
            )
            logs = follower.stub.Logs(pb.LogsRequest(task_id=reply.accepted.task_id), timeout=30)
            logs_read = asyncio.ensure_future(failure_of(logs.read()))
            stale = follower.stub.Get(
                pb.GetRequest(task_id=reply.accepted.task_id, options=STALE), timeout=30
            )
            assert (await failure_of(stale))[1]["raftd-error"] == "task_not_found"
            wire.heal()
            got = await read
            assert got.read.answered_by == follower.member.name
            assert (await logs_read)[1]["raftd-error"] in ("logs_gone", "no_leader", "not_leader"), (
                "the task is there; it has no attempt yet"
            )

    run(scenario())


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_follower_that_cannot_ask_the_leader_answers_nothing_but_stale_reads(
    tmp_path: Path, both_ways: bool
) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            (reply,) = await submit(leader, a_task("a"))
            asked = reply.accepted.task_id
            follower = await served.follower()
            await follower.stub.Get(pb.GetRequest(task_id=asked), timeout=30)
            me, other = follower.member.name, leader.member.name
            cuts = [(me, other), (other, me)] if both_ways else [(other, me)]
            follower.faults.change(cuts, [], heal=False)
            code, trailing = await failure_of(follower.stub.Get(pb.GetRequest(task_id=asked), timeout=1))
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "peer_unreachable")
            stale = await follower.stub.Get(pb.GetRequest(task_id=asked, options=STALE), timeout=30)
            assert stale.read.stale
            follower.faults.change([], [], heal=True)
            await follower.stub.Get(pb.GetRequest(task_id=asked), timeout=30)

    run(scenario())


def test_reads_go_on_across_a_change_of_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            old, executor = await ready(served)
            await executor.detach()
            (reply,) = await submit(old, a_task("a"))
            follower = await served.follower()
            served.cluster.wire.isolate(old.member.store_id)
            new = await served.cluster.leader(but=old.member.store_id)
            third = next(one for one in served.served.values() if one is not old and one.member is not new)
            got = await third.stub.Get(pb.GetRequest(task_id=reply.accepted.task_id), timeout=30)
            assert got.read.answered_by == third.member.name
            await eventually(lambda: not old.member.node.leads, 10, "it steps down")
            code, _ = await failure_of(
                old.stub.Get(pb.GetRequest(task_id=reply.accepted.task_id), timeout=0.5)
            )
            assert code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
            assert follower.member in served.cluster.members

    run(scenario())
