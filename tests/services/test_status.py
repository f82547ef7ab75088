"""Every failure as a status: the table, the wrapper, what travels beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the stubs leave it out

from raftd import errors
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.services.status import DEFAULT_DEADLINE_S, MAX_TEXT, status_code
from raftd.storage.errors import StorageFull
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, CallFailed, Purpose, call_failed
from tests.services.hosts import CLUSTER, Host, channel_to, failure_of, make_host, run, serving

Code = grpc.StatusCode


def every_error(kind: type[errors.RaftdError] = errors.RaftdError) -> Iterator[type[errors.RaftdError]]:
    if kind.__module__ == errors.__name__:
        yield kind
        for branch in kind.__subclasses__():
            yield from every_error(branch)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UnknownKind, Code.INVALID_ARGUMENT),
        (errors.PayloadTooLarge, Code.INVALID_ARGUMENT),
        (errors.TaskNotFound, Code.NOT_FOUND),
        (errors.NoLeader, Code.UNAVAILABLE),
        (errors.NotLeader, Code.UNAVAILABLE),
        (errors.NoQuorum, Code.UNAVAILABLE),
        (errors.OutcomeUnknown, Code.ABORTED),
        (errors.DeadlinePassed, Code.DEADLINE_EXCEEDED),
        (errors.QueueFull, Code.RESOURCE_EXHAUSTED),
        (errors.TooManyUncommitted, Code.RESOURCE_EXHAUSTED),
        (errors.RequestIdConflict, Code.ALREADY_EXISTS),
        (errors.RequestExpired, Code.FAILED_PRECONDITION),
        (errors.StaleToken, Code.FAILED_PRECONDITION),
        (errors.Unauthenticated, Code.UNAUTHENTICATED),
        (errors.WrongIdentity, Code.PERMISSION_DENIED),
        (errors.FaultInjectionOff, Code.PERMISSION_DENIED),
        (errors.StorageError, Code.INTERNAL),
        (errors.UnknownFormat, Code.UNIMPLEMENTED),
        (errors.RaftdError, Code.UNKNOWN),
    ],
)
def test_each_class_has_its_status(kind: type[errors.RaftdError], code: Code) -> None:
    assert status_code(kind("x")) is code


def test_only_what_may_be_repeated_blindly_is_unavailable() -> None:
    """Generic clients repeat UNAVAILABLE by themselves."""
    unavailable = {kind for kind in every_error() if status_code(kind("x")) is Code.UNAVAILABLE}
    assert errors.OutcomeUnknown not in unavailable
    assert all(kind.retryable for kind in unavailable)


async def ask(host: Host, error: Exception) -> tuple[grpc.aio.AioRpcError, dict[str, str]]:
    host.node.follow(1, leads=True)
    host.scheduler.fail = lambda: error
    async with channel_to(host.address) as channel:
        try:
            await SchedulerStub(channel).Submit(pb.SubmitRequest())
        except grpc.aio.AioRpcError as failed:
            return failed, dict(call_failed(failed).trailing)
    raise AssertionError("the call was answered")


def test_every_error_arrives_as_what_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host):
            for kind in every_error():
                if kind in (errors.NoLeader, errors.NotLeader):
                    continue  # the forwarder's own: tests/services/test_forwarding.py
                failed, _ = await ask(host, kind("it did not work", try_="try this"))
                error = call_failed(failed).error()
                assert (type(error), error.message, error.try_) == (kind, "it did not work", "try this")

    run(scenario())


def test_texts_that_no_header_can_carry_still_arrive_as_a_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host):
            failed, trailing = await ask(
                host, errors.InvalidRequest("naïve\n" * 5_000, try_="füge\n\tzu " * 5_000)
            )
            assert failed.code() is Code.INVALID_ARGUMENT
            assert (failed.details() or "").startswith("naïve\nnaïve")
            assert trailing["raftd-try"].startswith("f?ge??zu")
            assert len(trailing["raftd-try"]) == MAX_TEXT

    run(scenario())


def test_no_room_for_a_snapshot_is_a_full_disk_for_who_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host):
            failed, trailing = await ask(host, StorageFull("/data/snapshots", "the snapshot of entry 7"))
            assert failed.code() is Code.RESOURCE_EXHAUSTED
            assert failed.details() == "no room for the snapshot of entry 7 in /data/snapshots"
            assert trailing["raftd-error"] == "disk_full"
            assert trailing["raftd-try"].startswith("free space")

    run(scenario())


def test_a_bug_is_logged_here_and_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host):
            failed, trailing = await ask(host, ZeroDivisionError("a secret"))
            assert failed.code() is Code.INTERNAL
            assert "secret" not in (failed.details() or "")
            assert not trailing
        assert "a secret" in caplog.text
        assert "Traceback" in caplog.text

    run(scenario())


def test_that_the_server_has_stopped_is_no_bug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It ends the streams of the other nodes, whatever they are waiting for."""

    stopped: Exception = cygrpc._ServerStoppedError("Server already stopped.")

    async def scenario() -> None:
        host, met = make_host(tmp_path), asyncio.Event()

        def meet() -> Exception:
            met.set()
            return stopped

        host.node.follow(1, leads=True)
        host.scheduler.fail = meet
        async with channel_to(host.address) as channel:
            async with serving(host):
                call = asyncio.ensure_future(SchedulerStub(channel).Submit(pb.SubmitRequest()))
                await met.wait()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    run(scenario())


def test_another_nodes_failure_passes_as_it_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host):
            their_own = (("raftd-error", "queue_full"), ("raftd-try", "later"), ("raftd-leader", "n3=h:1"))
            failed, trailing = await ask(host, CallFailed(Code.RESOURCE_EXHAUSTED, "full", their_own))
            assert (failed.code(), failed.details()) == (Code.RESOURCE_EXHAUSTED, "full")
            assert tuple(trailing.items()) == their_own

    run(scenario())


def test_a_stream_that_fails_half_way_ends_with_its_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        host.scheduler.fail = lambda: errors.LogsGone("they went with their node")
        async with serving(host), channel_to(host.address) as channel:
            watch = SchedulerStub(channel).Watch(pb.WatchRequest())
            first = await watch.read()
            assert isinstance(first, pb.WatchResponse)
            code, trailing = await failure_of(watch.read())
            assert (code, trailing["raftd-error"]) == (Code.NOT_FOUND, "logs_gone")

    run(scenario())


def test_work_ends_before_the_caller_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        host.node.follow(1, leads=True)
        async with serving(host), channel_to(host.address) as channel:
            stub = SchedulerStub(channel)
            await stub.Submit(pb.SubmitRequest(), timeout=40)
            assert 30 < host.scheduler.remaining_s < 40
            await stub.Submit(pb.SubmitRequest())
            assert host.scheduler.remaining_s == DEFAULT_DEADLINE_S

    run(scenario())


def test_a_call_to_nobody_says_that_nothing_was_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        gone = make_host(tmp_path, 2)
        async with serving(gone):
            remote = gone.remote
        with pytest.raises(errors.PeerUnreachable, match="n2"):
            await host.caller.unary(remote, "/raftd.v1.Admin/NodeInfo", b"", 10)
        with pytest.raises(errors.PeerUnreachable, match="n2"):
            async for _ in host.caller.stream(remote, "/raftd.v1.Scheduler/Watch", b"", Purpose.LOGS, 10):
                pass
        await host.caller.close()

    run(scenario())


def test_a_caller_heeds_cuts_in_both_directions(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, other = make_host(tmp_path), make_host(tmp_path, 2)
        async with serving(host, other):
            method = "/raftd.v1.Admin/NodeInfo"
            await host.caller.unary(other.remote, method, b"", 10)
            for cut in (("n1", "n2"), ("n2", "n1")):
                host.faults.change([cut], [], heal=True)
                with pytest.raises(errors.PeerUnreachable, match="cut"):
                    await host.caller.unary(other.remote, method, b"", 10)
            host.faults.change([], [], heal=True)
            await host.caller.unary(other.remote, method, b"", 10)

    run(scenario())


def test_a_stream_of_another_node_ends_with_the_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        host, other = make_host(tmp_path), make_host(tmp_path, 2)
        async with serving(host, other):
            other.scheduler.hold.clear()
            responses = host.caller.stream(other.remote, "/raftd.v1.Scheduler/Watch", b"", Purpose.LOGS, 10)
            await anext(responses)
            host.faults.change([("n2", "n1")], [], heal=True)
            other.scheduler.hold.set()
            with pytest.raises(CallFailed) as caught:
                await anext(responses)
            assert isinstance(caught.value.error(), errors.PeerUnreachable)

    run(scenario())


def test_a_failure_names_the_leader_it_knows() -> None:
    failed = CallFailed(Code.UNAVAILABLE, "no", (("raftd-error", "not_leader"), ("raftd-leader", "n3=h:1")))
    error = failed.error()
    assert isinstance(error, errors.NotLeader)
    assert (error.leader, error.address) == ("n3", "h:1")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.UNAVAILABLE, errors.PeerUnreachable),
        (Code.DEADLINE_EXCEEDED, errors.DeadlinePassed),
        (Code.RESOURCE_EXHAUSTED, errors.PayloadTooLarge),
    ],
)
def test_what_grpc_says_by_itself_has_a_type_too(code: Code, kind: type[errors.RaftdError]) -> None:
    assert type(CallFailed(code, "").error()) is kind


def test_calls_between_nodes_carry_who_speaks_to_whom(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        assert isinstance(host.caller, Caller)
        pairs = dict(host.caller.metadata(RemoteNode("n2", 2, "h:1"), ("more", "x")))
        assert pairs == {
            "raftd-cluster": f"{CLUSTER:016x}",
            "raftd-from": "n1",
            "raftd-from-store": f"{1:016x}",
            "raftd-to-store": f"{2:016x}",
            "more": "x",
        }

    run(scenario())
