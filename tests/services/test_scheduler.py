"""What clients may ask of the Scheduler service, whatever they send: typed answers of bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import grpc
import pytest

from raftd.pb import scheduler_pb2 as pb
from raftd.services import scheduler as service
from raftd.services import submissions
from raftd.services.cluster_view import MAX_TASK_CHARS
from raftd.services.watching import WATCH_BYTES
from tests.node.executors import FakeExecutor
from tests.node.test_node import run
from tests.services.hosts import failure_of
from tests.services.members import ServedCluster, ServedMember, served_cluster
from tests.support import eventually

Code = grpc.StatusCode
STALE = pb.ReadOptions(stale=True)


async def ready(served: ServedCluster, *, slots: int = 1) -> tuple[ServedMember, FakeExecutor]:
    """The leader, once it knows the kinds of an executor."""
    leader = await served.leader()
    executor = FakeExecutor(leader.member.name, leader.member.store_id, slots=slots).attach(leader.member)
    await eventually(lambda: executor.renewals, 10, "a renewal")
    return leader, executor


async def submit(to: ServedMember, *submissions: pb.Submission) -> list[pb.SubmitReply]:
    return list((await to.stub.Submit(pb.SubmitRequest(submissions=submissions), timeout=30)).replies)


def a_task(request_id: str = "", *args: str, **changes: object) -> pb.Submission:
    return pb.Submission(kind="noop", request_id=request_id, args=args, **changes)  # type: ignore[arg-type]  # by name


def an_array(request_id: str, count: int, *args: str) -> pb.Submission:
    return a_task(request_id, *args, array=pb.Array(first_index=0, last_index=count - 1))


# --- writes -------------------------------------------------------------------------------------------------------


def test_every_submission_of_a_batch_is_answered_in_its_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            _, executor = await ready(served)
            follower = await served.follower()
            replies = await submit(
                follower,
                a_task("a"),
                pb.Submission(),
                a_task("b", "bad"),
                pb.Submission(kind="unheard-of", request_id="c"),
                a_task("a"),
                an_array("d", 3, "{}"),
                a_task("e", priority=-(1 << 31)),
                a_task("f", run_timeout_ms=(1 << 64) - 1),
                a_task("g", retries=(1 << 32) - 1),
                a_task("h", array=pb.Array(first_index=5, last_index=4)),
                a_task("i", array=pb.Array(first_index=0, last_index=(1 << 64) - 1)),
                a_task("j" * 129),
                a_task(name="n" * 70_000),
                a_task(payload=b"p" * 300_000),
            )
            answers = [reply.refusal.code or "accepted" for reply in replies]
            assert answers == [
                "accepted", "invalid_request", "invalid_arguments", "unknown_kind", "accepted", "accepted",
                "invalid_request", "invalid_request", "invalid_request", "invalid_request", "invalid_request",
                "invalid_request", "payload_too_large", "payload_too_large",
            ]  # fmt: skip
            assert replies[4].accepted.duplicate
            assert len(replies[5].accepted.task_ids) == 3
            await executor.detach()

    run(scenario())


@pytest.mark.parametrize(
    "request_",
    [
        pb.SubmitRequest(),
        pb.SubmitRequest(submissions=[a_task()] * (submissions.MAX_SUBMISSIONS + 1)),
        # Known request ids are answered with all their tasks: ten thousand times ten thousand would fill the memory.
        pb.SubmitRequest(submissions=[an_array("same", 10_000)] * 10),
    ],
    ids=["nothing", "submissions", "tasks"],
)
def test_a_batch_is_bounded(tmp_path: Path, request_: pb.SubmitRequest) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader = await served.leader()
            code, trailing = await failure_of(leader.stub.Submit(request_, timeout=30))
            assert (code, trailing["raftd-error"]) == (Code.INVALID_ARGUMENT, "invalid_request")

    run(scenario())


def test_the_largest_batch_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            replies = await submit(leader, *(an_array(f"r{n}", 10_000, "{}") for n in range(2)))
            assert [len(reply.accepted.task_ids) for reply in replies] == [10_000, 10_000]
            await executor.detach()

    run(scenario())


@pytest.mark.parametrize(
    "ids", [[], ["x1"], ["t"], ["j"], ["t-1"], ["t1", ""], ["t" + "9" * 30], ["t1"] * 10_001]
)
def test_ids_that_are_none_cancel_nothing(tmp_path: Path, ids: list[str]) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            await submit(leader, a_task("a"))
            code, trailing = await failure_of(leader.stub.Cancel(pb.CancelRequest(ids=ids), timeout=30))
            assert (code, trailing["raftd-error"]) == (Code.INVALID_ARGUMENT, "invalid_request")
            assert leader.member.state.tasks[1].reason == ""
            await executor.detach()

    run(scenario())


def test_cancel_answers_each_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            await submit(leader, a_task("a"), an_array("b", 3))
            follower = await served.follower()
            answer = await follower.stub.Cancel(pb.CancelRequest(ids=["t1", "j1", "t999", "t1"]), timeout=30)
            assert [reply.refusal.code for reply in answer.replies] == ["", "", "task_not_found", ""]
            assert answer.replies[1].cancelled_count == 3

    run(scenario())


# --- reads --------------------------------------------------------------------------------------------------------


def test_pages_stay_in_order_while_the_record_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            await submit(leader, an_array("a", 10))
            follower = await served.follower()
            seen: list[str] = []
            token = ""
            while True:
                page = await follower.stub.List(pb.ListRequest(page_size=3, page_token=token), timeout=30)
                seen += [task.task_id for task in page.tasks]
                token = page.next_page_token
                if not token:
                    break
                if len(seen) == 3:
                    await submit(leader, an_array("b", 5))
                    await leader.stub.Cancel(pb.CancelRequest(ids=["t2", "t5"]), timeout=30)
            assert seen == [f"t{number}" for number in range(1, 16)], "none twice, none left out"

    run(scenario())


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListRequest(page_token="?"),
        pb.ListRequest(page_token="t" + "9" * 19),
        pb.ListRequest(job_id="t1"),
        pb.ListRequest(states=[99]),  # type: ignore[list-item]  # of a newer version
        pb.ListRequest(states=[0]),  # type: ignore[list-item]  # by its number
    ],
    ids=["token", "huge token", "job", "newer state", "no state"],
)
def test_a_page_that_cannot_be(tmp_path: Path, request_: pb.ListRequest) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader = await served.leader()
            code, trailing = await failure_of(leader.stub.List(request_, timeout=30))
            assert (code, trailing["raftd-error"]) == (Code.INVALID_ARGUMENT, "invalid_request")

    run(scenario())


def test_a_page_of_any_size_is_at_most_the_largest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            await executor.detach()
            await submit(leader, an_array("a", service.MAX_PAGE + 5))
            page = await leader.stub.List(pb.ListRequest(page_size=(1 << 32) - 1), timeout=30)
            assert len(page.tasks) == service.MAX_PAGE
            assert page.next_page_token == f"t{service.MAX_PAGE}"
            page = await leader.stub.List(pb.ListRequest(page_token="t" + "9" * 18), timeout=30)
            assert (list(page.tasks), page.next_page_token) == ([], "")

    run(scenario())


def test_status_fits_into_a_message_however_large_the_tasks_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served, slots=2)
            large = "x" * 60_000
            for number in range(102):
                await submit(leader, a_task(f"r{number}", large))
            await eventually(lambda: len(executor.started) == 2, 10, "the assignments")
            answer = await leader.stub.Status(pb.StatusRequest(recent_count=(1 << 32) - 1), timeout=30)
            assert answer.pending == 100
            assert 1 < len(answer.next_pending) < 100
            assert {len(row.task) for row in answer.executing} == {MAX_TASK_CHARS}
            await executor.detach()

    run(scenario())


def test_status_tells_the_never_heard_from_the_just_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            me = leader.member.name
            follower = await served.follower()
            answer = await follower.stub.Status(pb.StatusRequest(), timeout=30)
            seen = {row.name: row.HasField("last_seen_ms") for row in answer.nodes}
            assert seen == {name: name == me for name in ("n1", "n2", "n3")}
            await executor.detach()
            await eventually(lambda: leader.member.sessions.session(me) is None, 10, "the stream's end")
            leader.member.clock.shift_ms += 2_000
            answer = await leader.stub.Status(pb.StatusRequest(options=STALE), timeout=30)
            (row,) = answer.free_nodes
            assert row.last_seen_ms >= 2_000
            stale = await follower.stub.Status(pb.StatusRequest(options=STALE), timeout=30)
            assert stale.read.stale
            assert not stale.free_nodes[0].HasField("last_seen_ms"), "only a leader hears executors"

    run(scenario())


def test_a_dead_voter_is_told_before_its_lease_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader = await served.leader()
            dead = (await served.follower()).member

            async def up() -> dict[str, bool]:
                # Stale, for a fresh one begins with a round of heartbeats, whose answers would hide a forgotten peer.
                answer = await leader.stub.Status(pb.StatusRequest(options=STALE), timeout=30)
                assert answer.quorum.up == sum(row.reachable for row in answer.nodes)
                assert answer.quorum.ok
                return {row.name: row.reachable for row in answer.nodes}

            async def all_up() -> bool:
                return all((await up()).values())

            def heard() -> bool | Awaitable[bool]:
                return all_up()

            await eventually(heard, 10, "all are heard")
            for _ in range(300):
                # Also right after the core has counted its quorum, and forgotten whom it had heard.
                assert await all_up()
            await dead.stop()

            async def is_missed() -> bool:
                return not (await up())[dead.name]

            def missed() -> bool | Awaitable[bool]:
                return is_missed()

            await eventually(missed, 10, "the dead one is missed")

    run(scenario())


# --- watch --------------------------------------------------------------------------------------------------------


async def changes_of(
    call: grpc.aio.UnaryStreamCall[pb.WatchRequest, pb.WatchResponse], count: int
) -> list[pb.WatchResponse]:
    """Responses until there were so many changes of tasks."""
    responses: list[pb.WatchResponse] = []
    while sum(1 for response in responses for change in response.changes if change.HasField("task")) < count:
        response = await asyncio.wait_for(call.read(), 30)
        assert isinstance(response, pb.WatchResponse)
        responses.append(response)
    return responses


def test_a_watch_goes_on_where_it_broke_off_on_any_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 3) as served:
            leader, executor = await ready(served)
            await executor.detach()
            call = leader.stub.Watch(pb.WatchRequest())
            await call.read()
            await submit(leader, a_task("a"))
            last = (await changes_of(call, 1))[-1]
            call.cancel()
            await submit(leader, a_task("b"), a_task("c"))
            again = (await served.follower()).stub.Watch(pb.WatchRequest(from_index=last.next_index))
            responses = await changes_of(again, 2)
            seen = [c.task.task_id for r in responses for c in r.changes if c.HasField("task")]
            assert seen == ["t2", "t3"]
            assert not any(response.gap for response in responses)
            again.cancel()

    run(scenario())


def test_one_entry_of_many_large_changes_still_reaches_its_watchers(tmp_path: Path) -> None:
    """An array of 400 tasks with 60 KB of arguments: 24 MB of changes in one entry."""

    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            await executor.detach()
            call = leader.stub.Watch(pb.WatchRequest())
            await call.read()
            await submit(leader, an_array("a", 400, "x" * 60_000))
            responses = await changes_of(call, 400)
            index = responses[0].changes[0].index
            assert [response.next_index for response in responses[:-1]] == [index] * (len(responses) - 1)
            assert max(response.ByteSize() for response in responses) < 2 * WATCH_BYTES
            end = responses[-1]
            while end.next_index == index:
                answer = await asyncio.wait_for(call.read(), 30)
                assert isinstance(answer, pb.WatchResponse)
                end = answer
            assert end.next_index == index + 1
            call.cancel()

    run(scenario())


def test_a_watch_from_too_far_back_says_that_something_is_missing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            await executor.detach()
            leader.member.history._kept = 3
            for number in range(6):
                await submit(leader, a_task(f"r{number}"))
            call = leader.stub.Watch(pb.WatchRequest(from_index=1))
            responses = await changes_of(call, 3)
            gaps = [
                response.gap
                for response in responses
                if not response.changes or response.changes[0].change != "leader"
            ]
            assert gaps[0]
            assert not any(gaps[1:])
            call.cancel()

    run(scenario())


@pytest.mark.parametrize("request_", [pb.WatchRequest(task_id="?"), pb.WatchRequest(job_id="t1")])
def test_a_watch_of_nothing_that_can_be(tmp_path: Path, request_: pb.WatchRequest) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader = await served.leader()
            code, trailing = await failure_of(leader.stub.Watch(request_).read())
            assert (code, trailing["raftd-error"]) == (Code.INVALID_ARGUMENT, "invalid_request")

    run(scenario())


def test_watchers_that_do_not_read_cost_no_memory_and_delay_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served_cluster(tmp_path, 1) as served:
            leader, executor = await ready(served)
            await executor.detach()
            deaf = [leader.stub.Watch(pb.WatchRequest(from_index=1)) for _ in range(20)]
            reads = leader.stub.Watch(pb.WatchRequest())
            await reads.read()
            for number in range(40):
                await submit(leader, an_array(f"r{number}", 5, "x" * 50_000))
            await changes_of(reads, 200)
            for call in (*deaf, reads):
                call.cancel()

    run(scenario())
