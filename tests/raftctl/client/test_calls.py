"""Calls of functions: what they become, how their futures hear of it, and what of it survives."""

from __future__ import annotations

import concurrent.futures
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from raftctl.client import calls as calls_module
from raftctl.client import errors, pickling
from raftctl.client.async_client import AsyncClient
from raftctl.client.futures import Future
from raftctl.client.models import Submission
from raftctl.client.sync_client import Client
from raftd.pb import scheduler_pb2 as pb
from tests.raftctl.conftest import with_client
from tests.raftctl.fake_server import Failure, FakeCluster
from tests.raftctl.fake_slots import FakeSlots
from tests.support import eventually, wait_until

DEADLINE_S = 20


def add(a: int, b: int) -> int:
    return a + b


def fail(message: str) -> None:
    raise ValueError(message)


class Unwelcome:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return fail, ("not here",)


class Unpicklable:
    """Cannot be pickled at all."""

    def __reduce__(self) -> Any:
        raise TypeError("stays at home")


@pytest.fixture
def slots(cluster: FakeCluster) -> Iterator[FakeSlots]:
    with FakeSlots(cluster) as made:
        yield made


@pytest.fixture
def client(cluster: FakeCluster, slots: FakeSlots) -> Iterator[Client]:
    with Client(cluster.endpoints) as made:
        yield made


def test_a_call_returns_what_the_function_returns(client: Client) -> None:
    assert client.call(add, 2, b=3).result(DEADLINE_S) == 5


def test_a_lambda_travels_with_what_it_closes_over(client: Client) -> None:
    factor = 7
    assert client.gather(client.map(lambda x: x * factor, range(4)), timeout_s=DEADLINE_S) == [0, 7, 14, 21]


def test_a_call_is_a_task_with_the_options_of_a_submission(cluster: FakeCluster, client: Client) -> None:
    careful = client.with_options(priority=5, retries=2).with_options(name="careful")
    future = careful.call(add, 1, 1)
    assert future.result(DEADLINE_S) == 2
    assert future.task_id is not None
    task = cluster.tasks[future.task_id]
    assert (task.kind, task.name, task.priority, task.retries) == ("python", "careful", 5, 2)
    assert list(task.args) == [pickling.VERSION]


@pytest.mark.parametrize("option", ["kind", "payload", "request_id", "prioritty"])
def test_what_is_no_option_of_a_call_is_refused(client: Client, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        client.with_options(**{option: "x"})


def test_what_cannot_be_called_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        client.call(3)  # type: ignore[arg-type]  # that is the point


def test_an_exception_comes_back_with_its_remote_traceback(client: Client) -> None:
    future = client.call(fail, "no good")
    with pytest.raises(ValueError, match="no good") as caught:
        future.result(DEADLINE_S)
    assert isinstance(caught.value.__cause__, pickling.RemoteTraceback)
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise ValueError(message)" in shown
    assert "The above exception was the direct cause" in shown


def test_large_calls_and_large_results_travel_as_blobs(cluster: FakeCluster, client: Client) -> None:
    large = b"x" * (pickling.INLINE_BYTES + 1)
    future = client.call(lambda data: data + b"!", large)
    assert future.result(DEADLINE_S) == large + b"!"
    assert future.task_id is not None
    assert cluster.payloads[future.task_id] == b""
    digest = cluster.tasks[future.task_id].args[1]
    assert len(cluster.blobs[digest]) > pickling.INLINE_BYTES


def test_what_cannot_be_pickled_is_the_futures_error(client: Client) -> None:
    with pytest.raises(TypeError, match="stays at home"):
        client.call(add, Unpicklable(), 1).result(DEADLINE_S)  # type: ignore[arg-type]  # that is the point


def test_a_result_that_cannot_be_unpickled_is_a_typed_error(client: Client) -> None:
    future = client.call(Unwelcome)
    with pytest.raises(errors.ResultUnreadable, match="not here"):
        future.result(DEADLINE_S)


def test_a_refusal_is_the_futures_error(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client, pytest.raises(errors.UnknownKind):
        client.call(add, 1, 2).result(DEADLINE_S)


def test_a_task_that_ends_without_a_result_says_why(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    future = client.call(add, 1, 2)
    wait_until(lambda: future.task_id, DEADLINE_S, "it is accepted")
    cluster.end(str(future.task_id), pb.TASK_STATE_FAILED, None, reason="timed out")
    with pytest.raises(errors.TaskFailed, match="t1 failed: timed out"):
        future.result(DEADLINE_S)


def test_many_calls_share_few_submissions_and_one_watch(cluster: FakeCluster, client: Client) -> None:
    futures = client.map(add, range(1000), range(1000))
    assert client.gather(futures, timeout_s=DEADLINE_S) == [2 * n for n in range(1000)]
    assert len(cluster.batches) < 100
    assert cluster.all_watched() == 1
    assert sum(node.calls["Get"] for node in cluster.nodes.values()) == 0, "nothing is polled"


def test_no_more_calls_are_in_the_cluster_than_may_be(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    with Client(cluster.endpoints, max_in_flight=3) as client:
        futures = client.map(add, range(8), range(8))
        wait_until(lambda: len(cluster.tasks) == 3, DEADLINE_S, "three are sent")
        slots.hold(held=False)
        assert client.gather(futures, timeout_s=DEADLINE_S) == [2 * n for n in range(8)]


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_as_completed_gives_each_future_as_it_ends(client: Client) -> None:
    futures = client.map(add, range(20), range(20))
    assert sorted(future.result() for future in client.as_completed(futures)) == [2 * n for n in range(20)]


def test_the_standard_librarys_waiting_takes_these_futures(client: Client) -> None:
    futures = client.map(add, range(5), range(5))
    done, not_done = concurrent.futures.wait(futures, DEADLINE_S)
    assert done == set(futures)
    assert not not_done
    assert set(concurrent.futures.as_completed(futures, DEADLINE_S)) == set(futures)


def test_waiting_in_vain_has_an_end(slots: FakeSlots, client: Client) -> None:
    slots.hold()
    futures = client.map(add, range(3), range(3))
    with pytest.raises(errors.WaitTimedOut, match="3 of 3 calls"):
        client.gather(futures, timeout_s=0.05)
    with pytest.raises(errors.WaitTimedOut):
        list(client.as_completed(futures, timeout_s=0.05))
    slots.hold(held=False)
    assert client.gather(futures, timeout_s=DEADLINE_S) == [0, 2, 4]


def test_gather_raises_at_once_or_collects_what_was_raised(client: Client) -> None:
    futures: list[Future[Any]] = [client.call(add, 1, 1), client.call(fail, "a"), client.call(add, 2, 2)]
    collected = client.gather(futures, return_exceptions=True, timeout_s=DEADLINE_S)
    assert [collected[0], str(collected[1]), collected[2]] == [2, "a", 4]
    with pytest.raises(ValueError, match="a"):
        client.gather(futures)


def test_a_future_can_be_awaited(cluster: FakeCluster, slots: FakeSlots) -> None:
    async def use(client: AsyncClient) -> None:
        assert await client.call(add, 1, 2) == 3
        futures = client.map(add, range(5), range(5))
        assert await client.gather(futures) == [0, 2, 4, 6, 8]
        async with aclosing(client.as_completed(client.map(add, range(5), range(5)))) as ended:
            assert sorted([future.result() async for future in ended]) == [0, 2, 4, 6, 8]
        with pytest.raises(ValueError, match="no"):
            await client.call(fail, "no")

    with_client(cluster, use)


def test_waiting_on_the_loop_that_brings_the_answer_is_refused(
    cluster: FakeCluster, slots: FakeSlots
) -> None:
    async def use(client: AsyncClient) -> None:
        future = client.call(add, 1, 2)
        with pytest.raises(RuntimeError, match="await the future"):
            future.result()
        assert await future == 3
        assert future.result() == 3

    with_client(cluster, use)


def test_a_callback_may_ask_the_client(client: Client) -> None:
    found: list[int] = []
    called = threading.Event()

    def ask(future: concurrent.futures.Future[int]) -> None:
        found.append(client.status().succeeded)
        called.set()

    client.call(add, 1, 2).add_done_callback(ask)
    assert called.wait(DEADLINE_S)
    assert found == [1]


def test_a_callback_that_would_end_the_program_ends_nothing(client: Client) -> None:
    def leave(future: concurrent.futures.Future[int]) -> None:
        raise SystemExit

    client.call(add, 1, 2).add_done_callback(leave)
    assert client.call(add, 3, 4).result(DEADLINE_S) == 7
    assert client.call(add, 5, 6).result(DEADLINE_S) == 11


def test_nothing_keeps_a_result_but_its_future(client: Client) -> None:
    future = client.call(frozenset, "abc")
    kept = weakref.ref(future.result(DEADLINE_S))
    assert kept() is not None, "the future keeps it"
    del future
    wait_until(lambda: kept() is None, DEADLINE_S, "the result is let go")


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_a_pending_call_is_cancelled_at_once_and_on_the_cluster(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    future = client.call(add, 1, 2)
    wait_until(lambda: future.task_id, DEADLINE_S, "it is accepted")
    assert future.cancel()
    assert future.cancelled()
    done, _ = concurrent.futures.wait([future], DEADLINE_S)
    assert done == {future}
    wait_until(
        lambda: cluster.tasks["t1"].state == pb.TASK_STATE_CANCELLED, DEADLINE_S, "its task is cancelled"
    )


def refuse(cluster: FakeCluster, method: str, failure: Failure | None) -> None:
    """All nodes fail this method like that; None: no more."""
    with cluster.changed:
        for node in cluster.nodes.values():
            node.always.pop(method, None)
            if failure is not None:
                node.always[method] = failure


def asked(cluster: FakeCluster, method: str) -> int:
    return sum(node.calls[method] for node in cluster.nodes.values())


def test_a_call_that_is_being_sent_is_cancelled_when_it_is_accepted(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    refuse(cluster, "Submit", Failure("no_leader"))
    future = client.call(add, 1, 2)
    wait_until(lambda: asked(cluster, "Submit"), DEADLINE_S, "it is being sent")
    assert future.cancel()
    refuse(cluster, "Submit", None)
    wait_until(
        lambda: [task.state for task in cluster.tasks.values()] == [pb.TASK_STATE_CANCELLED],
        DEADLINE_S,
        "its task is cancelled",
    )


def test_closing_waits_for_what_was_cancelled_while_it_was_being_sent(
    cluster: FakeCluster, slots: FakeSlots
) -> None:
    slots.hold()
    lost = Failure("outcome_unknown", status=grpc.StatusCode.ABORTED, after_applying=True)
    refuse(cluster, "Submit", lost)
    with Client(cluster.endpoints) as client:
        future = client.call(add, 1, 2)
        wait_until(lambda: cluster.tasks, DEADLINE_S, "it is accepted, which nobody knows yet")
        assert future.cancel()
        refuse(cluster, "Submit", None)
    assert cluster.tasks["t1"].state == pb.TASK_STATE_CANCELLED


def test_a_call_that_is_cancelled_before_its_turn_is_never_sent(
    cluster: FakeCluster, slots: FakeSlots
) -> None:
    slots.hold()
    with Client(cluster.endpoints, max_in_flight=1) as client:
        first, second, third = client.map(add, range(3), range(3))
        wait_until(lambda: first.task_id, DEADLINE_S, "the first is accepted")
        assert second.cancel()
        slots.hold(held=False)
        assert third.result(DEADLINE_S) == 4
    assert len(cluster.tasks) == 2


def running(cluster: FakeCluster, task_id: str) -> None:
    """The cluster says that a task runs, and nobody runs it."""
    with cluster.changed:
        task = cluster.tasks[task_id]
        task.state = pb.TASK_STATE_RUNNING
        cluster._change("running", task)


def test_a_call_that_runs_is_cancelled_only_by_the_client(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    future = client.call(add, 1, 2)
    wait_until(lambda: future.task_id, DEADLINE_S, "it is accepted")
    running(cluster, "t1")
    wait_until(future.running, DEADLINE_S, "it runs")
    assert not future.cancel()
    assert [one.id for one in client.cancel(future)] == ["t1"]
    with pytest.raises(concurrent.futures.CancelledError) as caught:
        future.result(DEADLINE_S)
    assert isinstance(caught.value, errors.TaskCancelled)


def test_a_pending_call_that_somebody_cancels_is_cancelled(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    future = client.call(add, 1, 2)
    wait_until(lambda: future.task_id, DEADLINE_S, "it is accepted")
    client.cancel("t1")
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(DEADLINE_S)
    assert future.cancelled()


def test_cancelling_takes_ids_and_futures_side_by_side(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    for node in cluster.nodes.values():
        node.always["Status"] = Failure("no_leader")  # nothing can be followed, so nothing is sent
    unsent = client.call(add, 1, 2)
    one, two = client.cancel(unsent, "t9")
    assert (one.id, str(one.state), one.cancelled_count) == ("", "cancelled", 1)
    assert isinstance(two.error, errors.TaskNotFound)
    assert unsent.cancelled()


# --- what survives ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
def test_calls_outlive_the_node_that_is_watched(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    futures = client.map(add, range(10), range(10))
    wait_until(lambda: len(cluster.tasks) == 10 and cluster.all_watched() == 1, DEADLINE_S, "all are sent")
    cluster.lead("n2")
    cluster.stop("n1")
    slots.hold(held=False)
    assert client.gather(futures, timeout_s=DEADLINE_S) == [2 * n for n in range(10)]


@pytest.mark.usefixtures("_impatient")
def test_what_a_watch_has_missed_is_read(cluster: FakeCluster, slots: FakeSlots, client: Client) -> None:
    slots.hold()
    futures = client.map(add, range(5), range(5))
    wait_until(lambda: len(cluster.tasks) == 5 and cluster.all_watched() == 1, DEADLINE_S, "all are sent")
    for node in cluster.nodes.values():
        node.silent_watch = True
    slots.hold(held=False)
    wait_until(
        lambda: all(task.state == pb.TASK_STATE_SUCCEEDED for task in cluster.tasks.values()),
        DEADLINE_S,
        "all have ended, unseen",
    )
    cluster.forgotten_before = cluster.index + 1
    cluster.lead("n2")
    cluster.stop("n1")
    assert client.gather(futures, timeout_s=DEADLINE_S) == [2 * n for n in range(5)]


@pytest.mark.usefixtures("_impatient")
def test_what_a_watch_has_missed_of_a_call_that_was_being_sent_is_read(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    slots.hold()
    first = client.call(add, 1, 1)
    wait_until(lambda: first.task_id and cluster.all_watched() == 1, DEADLINE_S, "the first is sent")
    lost = Failure("outcome_unknown", status=grpc.StatusCode.ABORTED, after_applying=True)
    refuse(cluster, "Submit", lost)
    for node in cluster.nodes.values():
        node.silent_watch = True
    second = client.call(add, 2, 2)
    slots.hold(held=False)
    wait_until(
        lambda: [task.state for task in cluster.tasks.values()] == [pb.TASK_STATE_SUCCEEDED] * 2,
        DEADLINE_S,
        "both have ended, unseen",
    )
    cluster.forgotten_before = cluster.index + 1
    cluster.lead("n2")
    cluster.stop("n1")
    assert first.result(DEADLINE_S) == 2, "the gap was seen"
    refuse(cluster, "Submit", None)
    assert second.result(DEADLINE_S) == 4


def test_an_unknown_outcome_makes_no_second_task(cluster: FakeCluster, client: Client) -> None:
    lost = Failure("outcome_unknown", status=grpc.StatusCode.ABORTED, after_applying=True)
    cluster.nodes["n1"].failures["Submit"] = [lost]
    assert client.call(add, 1, 2).result(DEADLINE_S) == 3
    assert len(cluster.tasks) == 1


def test_a_full_queue_is_waited_for(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "FIRST_PAUSE_S", 0.01)
    full = Failure("queue_full", status=grpc.StatusCode.RESOURCE_EXHAUSTED)
    cluster.nodes["n1"].failures["Submit"] = [full, full]
    assert client.call(add, 1, 2).result(DEADLINE_S) == 3


@pytest.mark.usefixtures("_impatient")
def test_calls_outlive_an_outage_that_is_not_too_long(cluster: FakeCluster, slots: FakeSlots) -> None:
    with Client(cluster.endpoints, timeout_s=0.1) as client:
        refuse(cluster, "Submit", Failure("no_leader"))
        future = client.call(add, 1, 2)
        wait_until(
            lambda: asked(cluster, "Submit") > 20,
            DEADLINE_S,
            "it was tried for longer than one call may last",
        )
        refuse(cluster, "Submit", None)
        assert future.result(DEADLINE_S) == 3


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("sent", [True, False])
def test_futures_are_given_up_when_nobody_answers_for_long(
    cluster: FakeCluster, slots: FakeSlots, *, sent: bool
) -> None:
    with Client(cluster.endpoints, timeout_s=0.2, patience_s=0.5) as client:
        slots.hold()
        future = client.call(add, 1, 2)
        wait_until(lambda: future.task_id and cluster.all_watched(), DEADLINE_S, "it is accepted")
        for name in cluster.nodes:
            cluster.stop(name)
        if not sent:
            future = client.call(add, 1, 2)
        with pytest.raises(errors.ClusterLost):
            future.result(DEADLINE_S)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            client.call(add, 1, 2).result(DEADLINE_S)


@pytest.mark.usefixtures("_impatient")
def test_a_cluster_that_dies_node_by_node_is_given_up_too(cluster: FakeCluster, slots: FakeSlots) -> None:
    """Somebody answers after the watch has lost its node, and is gone before the watch comes to it."""
    with Client(cluster.endpoints, timeout_s=0.2, patience_s=0.5) as client:
        slots.hold()
        future = client.call(add, 1, 2)
        wait_until(lambda: future.task_id and cluster.all_watched(), DEADLINE_S, "it is accepted")
        refuse(cluster, "Watch", Failure("unavailable"))
        before = asked(cluster, "Status")
        cluster.stop("n1")
        wait_until(lambda: asked(cluster, "Status") > before, DEADLINE_S, "somebody has answered")
        for name in ("n2", "n3"):
            cluster.stop(name)
        with pytest.raises(errors.ClusterLost):
            future.result(DEADLINE_S)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("method", ["Status", "Submit"])
def test_what_was_given_up_is_not_sent_later(cluster: FakeCluster, slots: FakeSlots, method: str) -> None:
    with Client(cluster.endpoints, timeout_s=0.2, patience_s=0.5) as client:
        refuse(cluster, method, Failure("no_leader"))
        with pytest.raises(errors.ClusterLost):
            client.gather(client.map(add, range(3), range(3)), timeout_s=DEADLINE_S)
        refuse(cluster, method, None)
        assert client.call(add, 1, 2).result(DEADLINE_S) == 3
        wait_until(lambda: not client.calls.under_way, DEADLINE_S, "nothing is under way any more")
        assert len(cluster.tasks) == 1


def test_a_watch_that_is_refused_for_good_fails_what_waits_for_it(
    cluster: FakeCluster, slots: FakeSlots, client: Client
) -> None:
    refuse(cluster, "Watch", Failure("unauthenticated", status=grpc.StatusCode.UNAUTHENTICATED))
    with pytest.raises(errors.Unauthenticated):
        client.call(add, 1, 2).result(DEADLINE_S)


def test_closing_fails_what_has_not_ended(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    with Client(cluster.endpoints) as client:
        future = client.call(add, 1, 2)
        wait_until(lambda: future.task_id, DEADLINE_S, "it is accepted")
    with pytest.raises(errors.ClientClosed, match="before t1 ended"):
        future.result(DEADLINE_S)
    assert cluster.tasks["t1"].state == pb.TASK_STATE_PENDING


def test_closing_fails_what_is_being_fetched(cluster: FakeCluster, slots: FakeSlots) -> None:
    for node in cluster.nodes.values():
        node.hangs.add("BlobGet")
    with Client(cluster.endpoints) as client:
        future = client.call(bytes, 100_000)
        wait_until(lambda: asked(cluster, "BlobGet"), DEADLINE_S, "its result is being fetched")
    with pytest.raises(errors.ClientClosed):
        future.result(DEADLINE_S)


def test_a_watch_that_nobody_needs_is_let_go(
    cluster: FakeCluster, slots: FakeSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "LINGER_S", 0.0)

    async def use(client: AsyncClient) -> None:
        assert await client.call(add, 1, 2) == 3
        await client.submit(Submission("noop"))  # something happens in the cluster
        await eventually(lambda: cluster.all_watched() == 0, DEADLINE_S, "it is let go")
        assert await client.call(add, 1, 2) == 3

    with_client(cluster, use)


def test_a_client_that_calls_nothing_has_no_thread_for_futures(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        await client.status()
        assert "raftctl-futures" not in [thread.name for thread in threading.enumerate()]

    with_client(cluster, use)
