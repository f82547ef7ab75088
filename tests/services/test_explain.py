"""What is told of requirements: Explain, by a leader, a follower and one that answers what it has; and Status."""

from __future__ import annotations

from pathlib import Path

import grpc

from raftd.pb import scheduler_pb2 as pb
from tests.node.test_node import run
from tests.services.hosts import failure_of
from tests.services.members import served_cluster
from tests.services.test_scheduler import STALE, a_task, ready, submit
from tests.support import eventually


def test_any_node_explains_a_task_with_what_only_the_leader_sees(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            follower = await served.follower()
            (reply,) = await submit(leader, a_task("first", require={"gpu": "a100"}))
            asked = pb.ExplainRequest(task_id=reply.accepted.task_id)
            for one in (leader, follower):
                told = await one.stub.Explain(asked, timeout=30)
                assert told.task.task_id == reply.accepted.task_id
                assert told.summary == "t1 waits for a node that could run it: of 1 none can"
                (verdict,) = told.nodes
                assert (verdict.node, verdict.fits, verdict.available) == (leader.member.name, False, False)
                assert list(verdict.reasons) == ["label gpu=a100 is missing"]
                assert told.read.answered_by == leader.member.name
                assert not told.read.stale

            await executor.detach()

            session = leader.member.sessions.session
            await eventually(lambda: session(leader.member.name) is None, 20, "the end of the stream")
            told = await follower.stub.Explain(asked, timeout=30)
            assert "it has no working stream to the leader" in told.nodes[0].reasons
            asked.options.CopyFrom(STALE)
            await eventually(lambda: follower.member.state.tasks.get(1), 10, "the task")
            told = await follower.stub.Explain(asked, timeout=30)
            assert list(told.nodes[0].reasons) == ["label gpu=a100 is missing"], "it cannot know"
            assert told.read.stale
            unknown = await failure_of(leader.stub.Explain(pb.ExplainRequest(task_id="t99"), timeout=30))
            assert unknown[0] is grpc.StatusCode.NOT_FOUND

    run(scenario())


def test_a_task_of_several_slots_is_in_the_table_once_for_each_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, _ = await ready(served, slots=3)
            await submit(leader, a_task("first", slots=2))
            await eventually(lambda: leader.member.state.nodes["n1"].occupants, 10, "the placement")
            status = await leader.stub.Status(pb.StatusRequest(), timeout=30)
            assert [(row.slot, row.task_id) for row in status.executing] == [(0, "t1"), (1, "t1")]

    run(scenario())
