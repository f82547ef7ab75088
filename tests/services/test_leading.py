"""Calls and streams that only a leader can serve, asked of the wrong node or in the wrong words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from raftd.errors import NoLeader
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.attach import Assignment, AttachDown
from raftd.scheduler.model import FencingToken
from tests.node.cluster import CLUSTER_ID
from tests.node.test_node import run
from tests.services.hosts import failure_of
from tests.services.members import served_cluster
from tests.services.test_scheduler import STALE, a_task, ready, submit
from tests.support import eventually

Code = grpc.StatusCode


def hello(**changes: object) -> pb.AttachRequest:
    words: dict[str, object] = {
        "cluster_id": CLUSTER_ID, "store_id": 9, "name": "w9", "incarnation": 1, "role": "worker", "slots": 1,
    }  # fmt: skip
    return pb.AttachRequest(hello=pb.Hello(**{**words, **changes}))  # type: ignore[arg-type]  # by name


def ended(**changes: object) -> pb.AttachRequest:
    words: dict[str, object] = {"task_id": "t1", "attempt": 1, "outcome": 1}
    return pb.AttachRequest(ended=[pb.AttemptEnded(**{**words, **changes})])  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("messages", "code", "word"),
    [
        ([], Code.INVALID_ARGUMENT, "invalid_request"),
        ([pb.AttachRequest()], Code.INVALID_ARGUMENT, "invalid_request"),
        ([pb.AttachRequest(heartbeat=pb.Heartbeat(sequence=1))], Code.INVALID_ARGUMENT, "invalid_request"),
        ([hello(role="king")], Code.INVALID_ARGUMENT, "invalid_request"),
        ([hello(cluster_id=1)], Code.PERMISSION_DENIED, "wrong_identity"),
        ([hello(), ended(outcome=99)], Code.UNIMPLEMENTED, "unknown_format"),
        ([hello(), ended(outcome=0)], Code.UNIMPLEMENTED, "unknown_format"),
        ([hello(), ended(task_id="x")], Code.INVALID_ARGUMENT, "invalid_request"),
    ],
    ids=["nothing", "empty", "no-hello", "role", "cluster", "newer-outcome", "no-outcome", "task"],
)
def test_an_executor_that_says_nonsense_is_told_so(
    tmp_path: Path, messages: list[pb.AttachRequest], code: grpc.StatusCode, word: str
) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader = await served.leader()
            call = leader.stub.Attach(iter(messages))
            found, trailing = await asyncio.wait_for(failure_of(until_the_end(call)), 30)
            assert (found, trailing["raftd-error"]) == (code, word)
            assert leader.member.sessions.session("w9") is None

    run(scenario())


async def until_the_end(call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]) -> None:
    while await call.read():
        pass


def test_an_executor_that_reads_nothing_is_told_the_end_as_soon_as_it_reads(tmp_path: Path) -> None:
    """Its stream is full: a write of the leader's is under way for as long as it likes."""

    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader = await served.leader()
            call = leader.stub.Attach()
            await call.write(hello())
            sessions = leader.member.sessions
            await eventually(lambda: sessions.session("w9"), 10, "the session")
            session = sessions.session("w9")
            assert session is not None
            assignment = Assignment(1, 1, FencingToken(1, 1), 0, "noop", (), b"p" * (900 * 1024))
            for _ in range(40):
                session.push(AttachDown(start=(assignment,)))
            session.end(NoLeader("this node leads no more"))
            await eventually(lambda: sessions.session("w9") is None, 10, "the end of the session")
            code, trailing = await asyncio.wait_for(failure_of(until_the_end(call)), 30)
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "no_leader")

    run(scenario())


def test_a_follower_sends_executors_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            call = (await served.follower()).stub.Attach(iter([hello()]))
            code, trailing = await asyncio.wait_for(failure_of(until_the_end(call)), 30)
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "no_leader")

    run(scenario())


def test_a_leader_that_was_left_behind_answers_nobody_falsely_and_then_passes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            old, executor = await ready(served)
            await submit(old, a_task("before"))
            served.cluster.wire.isolate(old.member.store_id)
            write = asyncio.ensure_future(
                failure_of(old.stub.Submit(pb.SubmitRequest(submissions=[a_task("lost")]), timeout=20))
            )
            read = asyncio.ensure_future(failure_of(old.stub.Status(pb.StatusRequest(), timeout=3)))
            new = served.served[(await served.cluster.leader(but=old.member.store_id)).store_id]
            (reply,) = await submit(new, a_task("after"))
            assert reply.accepted.task_id == "t2"
            assert (await write)[1]["raftd-error"] == "outcome_unknown"
            assert (await read)[0] in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
            stale = await old.stub.Status(pb.StatusRequest(options=STALE), timeout=20)
            assert (stale.read.stale, stale.quorum.ok, stale.pending + stale.running) == (True, False, 1)
            served.cluster.wire.heal()
            fresh = await old.stub.Status(pb.StatusRequest(), timeout=30)
            assert fresh.read.answered_by == new.member.name
            assert fresh.pending + fresh.running == 2, "what the majority accepted, and nothing else"
            await executor.detach()

    run(scenario())
