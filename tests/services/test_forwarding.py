"""Calls that need the leader, asked of nodes that are not: one hop, and again only where nothing has happened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from raftd import errors
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.transport.caller import FORWARDED_KEY
from tests.services.hosts import Host, channel_to, failure_of, make_host, once, run, serving
from tests.support import eventually

Code = grpc.StatusCode


def three(path: Path) -> tuple[Host, Host, Host]:
    return make_host(path, 1), make_host(path, 2), make_host(path, 3)


def lead(leader: Host, *followers: Host) -> None:
    leader.node.follow(leader.local.store_id, leads=True)
    for follower in followers:
        follower.node.follow(leader.local.store_id)


def test_a_follower_has_the_leader_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n2.address) as channel:
            lead(n1, n2, n3)
            call = SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30)
            assert (await call).replies[0].request_id == "n1"
            assert dict(await call.trailing_metadata())["raftd-leader"] == f"n1={n1.address}"
            assert 20 < n1.scheduler.remaining_s < 30, "the caller's deadline goes with the call"

    run(scenario())


def test_it_is_one_hop(tmp_path: Path) -> None:
    """n2 believes n3 to lead, n3 believes n1 to."""

    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n3.address) as channel:
            lead(n1, n3)
            code, trailing = await failure_of(
                SchedulerStub(channel).Submit(pb.SubmitRequest(), metadata=((FORWARDED_KEY, "n2"),))
            )
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "not_leader")
            assert trailing["raftd-leader"] == f"n1={n1.address}"
            assert n1.scheduler.answered == 0

    run(scenario())


def test_a_call_waits_for_a_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            call = asyncio.ensure_future(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            lead(n1)
            n2.node.follow(2)  # elected, but not ready to serve
            n2.node.follow(0)
            lead(n1, n2)
            assert (await call).replies[0].request_id == "n1"

    run(scenario())


def test_a_call_is_answered_by_the_node_that_comes_to_lead_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            n2.node.follow(2)
            call = asyncio.ensure_future(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            n2.node.follow(2, leads=True)
            assert (await call).replies[0].request_id == "n2"

    run(scenario())


def test_without_a_leader_it_says_so_before_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, _, _ = three(tmp_path)
        async with serving(n1), channel_to(n1.address) as channel:
            code, trailing = await failure_of(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=0.5))
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "no_leader")

    run(scenario())


@pytest.mark.parametrize("error", [errors.NotLeader("no"), errors.NoLeader("no"), errors.ShuttingDown("no")])
def test_what_has_not_happened_is_tried_again(tmp_path: Path, error: errors.RaftdError) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            lead(n1, n2)
            n1.scheduler.fail = once(error)
            answer = await SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30)
            assert answer.replies[0].request_id == "n1"

    run(scenario())


def test_a_leader_that_cannot_be_reached_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n2.address) as channel:
            lead(n1, n2, n3)
            n2.faults.change([("n2", "n1")], [], heal=False)
            call = asyncio.ensure_future(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            await asyncio.sleep(0)
            lead(n3, n2)
            assert (await call).replies[0].request_id == "n3"
            assert n1.scheduler.answered == 0

    run(scenario())


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (errors.OutcomeUnknown("?"), Code.ABORTED, "outcome_unknown"),
        (errors.QueueFull("full"), Code.RESOURCE_EXHAUSTED, "queue_full"),
        (errors.DeadlinePassed("late"), Code.DEADLINE_EXCEEDED, "deadline_passed"),
    ],
)
def test_the_leaders_answer_is_not_second_guessed(
    tmp_path: Path, error: errors.RaftdError, code: Code, word: str
) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            lead(n1, n2)
            n1.scheduler.fail = once(error)
            found, trailing = await failure_of(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            assert (found, trailing["raftd-error"]) == (code, word)

    run(scenario())


def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n2.address) as channel:
            lead(n1, n2, n3)
            n1.faults.change([("n1", "n2")], [], heal=False)
            code, trailing = await failure_of(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            assert (code, trailing["raftd-error"]) == (Code.ABORTED, "outcome_unknown")
            assert n1.scheduler.answered == 1

    run(scenario())


def test_a_write_in_the_hands_of_a_leader_that_dies_has_an_unknown_outcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n2.address) as channel:
            lead(n1, n2, n3)
            n1.scheduler.hold.clear()
            call = asyncio.ensure_future(SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30))
            await eventually(lambda: n1.scheduler.remaining_s, 10, "the leader has the call")
            await n1.server.stop(0)
            lead(n3, n2)
            code, trailing = await failure_of(call)
            assert (code, trailing["raftd-error"]) == (Code.ABORTED, "outcome_unknown")
            assert n3.scheduler.answered == 0

    run(scenario())


def test_a_read_in_the_hands_of_a_leader_that_dies_is_asked_of_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, n3 = three(tmp_path)
        async with serving(n1, n2, n3), channel_to(n2.address) as channel:
            lead(n1, n2, n3)
            n1.scheduler.hold.clear()
            call = asyncio.ensure_future(SchedulerStub(channel).Status(pb.StatusRequest(), timeout=30))
            await eventually(lambda: n1.scheduler.remaining_s, 10, "the leader has the call")
            await n1.server.stop(0)
            lead(n3, n2)
            assert (await call).read.answered_by == "n3"

    run(scenario())


def test_a_leader_that_loses_leadership_before_it_appends_finds_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n1.address) as channel:
            n1.node.follow(1, leads=True)

            def step_down() -> Exception | None:
                lead(n2, n1)
                return errors.NotLeader("stepped down")

            n1.scheduler.fail = step_down
            answer = await SchedulerStub(channel).Submit(pb.SubmitRequest(), timeout=30)
            assert answer.replies[0].request_id == "n2"

    run(scenario())


# --- reads that any node answers ----------------------------------------------------------------------------------


def test_a_read_that_waits_for_a_leader_that_stands_still_goes_on_with_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        n2 = make_host(tmp_path, 2)
        async with serving(n2), channel_to(n2.address) as channel:
            n2.node.follow(1)
            n2.scheduler.hold.clear()
            call = asyncio.ensure_future(SchedulerStub(channel).Get(pb.GetRequest(), timeout=30))
            await eventually(lambda: n2.scheduler.remaining_s, 10, "it asks the leader")
            n2.scheduler.remaining_s = 0.0
            n2.node.follow(3)
            await eventually(lambda: n2.scheduler.remaining_s, 10, "it asks the next one")
            n2.scheduler.hold.set()
            assert (await call).read.answered_by == "n2"
            assert n2.scheduler.answered == 1, "the first try was given up"

    run(scenario())


@pytest.mark.parametrize(
    "error",
    [errors.NotLeader("no"), errors.NoLeader("no"), errors.PeerUnreachable("no"), errors.ShuttingDown("no")],
)
def test_a_read_that_nobody_confirms_is_tried_again_here(tmp_path: Path, error: errors.RaftdError) -> None:
    async def scenario() -> None:
        n1, n2, _ = three(tmp_path)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            lead(n1, n2)
            n2.scheduler.fail = once(error)
            assert (await SchedulerStub(channel).Get(pb.GetRequest(), timeout=30)).read.answered_by == "n2"
            assert n1.scheduler.answered == 0, "it is never forwarded"

    run(scenario())


def test_a_read_without_a_leader_says_so_and_is_not_answered_from_what_is_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        n2 = make_host(tmp_path, 2)
        async with serving(n2), channel_to(n2.address) as channel:
            n2.scheduler.fail = lambda: errors.NoLeader("nobody leads")
            code, trailing = await failure_of(SchedulerStub(channel).Get(pb.GetRequest(), timeout=0.5))
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "no_leader")

    run(scenario())
