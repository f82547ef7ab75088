"""The host: binding, health, reflection, and who may call."""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from raftd.errors import ConfigError
from raftd.pb import blobs_pb2, scheduler_pb2
from raftd.pb.admin_pb2 import NodeInfoRequest
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.pb.blobs_pb2_grpc import BlobsStub
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.transport.base import LocalNode, RemoteNode, call_metadata
from tests.services.hosts import CLUSTER, TOKEN, channel_to, failure_of, make_host, run, serving
from tests.support import eventually

SERVICES = ("raftd.v1.Scheduler", "raftd.v1.Admin", "raftd.v1.Blobs", "raftd.v1.Consensus")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def peer_metadata(
    name: str = "n2", store_id: int = 2, *, cluster: int = CLUSTER, receiver: int = 1, token: str = ""
) -> tuple[tuple[str, str], ...]:
    return call_metadata(LocalNode(cluster, store_id, name, token), RemoteNode("n1", receiver, ""))


def health_stub(channel: grpc.aio.Channel) -> Any:
    """Untyped: the package's stubs know no asynchronous client."""
    return health_pb2_grpc.HealthStub(channel)


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(ConfigError, match=f"port in use.*{port}") as caught:
                make_host(tmp_path, listen=f"127.0.0.1:{port}")
        assert caught.value.try_

    run(scenario())


def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = make_host(tmp_path)
        async with serving(first):
            with pytest.raises(ConfigError, match="port in use"):
                make_host(tmp_path, 2, listen=first.address)

    run(scenario())


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:1"):
            make_host(tmp_path, listen="192.0.2.1:1")

    run(scenario())


def test_health_follows_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host), channel_to(host.address) as channel:
            stub = health_stub(channel)

            async def is_now(service: str, status: int) -> bool:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                return bool(answer.status == status)

            async def becomes(service: str, status: int) -> None:
                def it_is() -> bool | Awaitable[bool]:
                    return is_now(service, status)

                await eventually(it_is, 10, f"{service!r} is {status}")

            for leader in (0, 7, 0, 1):
                host.node.follow(leader)
                expected = SERVING if leader else NOT_SERVING
                for service in ("", "raftd.v1.Scheduler"):
                    await becomes(service, expected)
                for service in SERVICES[1:]:
                    assert await is_now(service, SERVING)

    run(scenario())


def test_reflection_lists_every_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path, token=TOKEN)
        async with serving(host), channel_to(host.address) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
            call = stub.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            listed = {service.name for service in answer.list_services_response.service}
            assert {*SERVICES, "grpc.health.v1.Health"} <= listed
            await call.write(
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="raftd.v1.Scheduler")
            )
            assert (await call.read()).file_descriptor_response.file_descriptor_proto
            await call.done_writing()

    run(scenario())


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}"])
def test_the_token_is_asked_for(tmp_path: Path, given: str | None) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path, token=TOKEN)
        async with serving(host), channel_to(host.address) as channel:
            metadata = () if given is None else (("authorization", given),)
            code, trailing = await failure_of(
                AdminStub(channel).NodeInfo(NodeInfoRequest(), metadata=metadata)
            )
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert trailing["raftd-error"] == "unauthenticated"
            watch = SchedulerStub(channel).Watch(scheduler_pb2.WatchRequest(), metadata=metadata)
            assert (await failure_of(watch.read()))[0] is grpc.StatusCode.UNAUTHENTICATED

    run(scenario())


def test_the_right_token_is_let_in_and_health_needs_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path, token=TOKEN)
        async with serving(host), channel_to(host.address) as channel:
            metadata = (("authorization", f"Bearer {TOKEN}"),)
            await AdminStub(channel).NodeInfo(NodeInfoRequest(), metadata=metadata)
            await health_stub(channel).Check(health_pb2.HealthCheckRequest(service="raftd.v1.Admin"))

    run(scenario())


@pytest.mark.parametrize(
    "metadata", [peer_metadata(cluster=0xBAD), peer_metadata(receiver=9)], ids=["cluster", "store"]
)
def test_a_node_that_does_not_mean_this_one_is_refused(
    tmp_path: Path, metadata: tuple[tuple[str, str], ...]
) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host), channel_to(host.address) as channel:
            code, trailing = await failure_of(
                AdminStub(channel).NodeInfo(NodeInfoRequest(), metadata=metadata)
            )
            assert (code, trailing["raftd-error"]) == (grpc.StatusCode.PERMISSION_DENIED, "wrong_identity")

    run(scenario())


def test_cuts_keep_peers_out_and_clients_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host), channel_to(host.address) as channel:
            admin = AdminStub(channel)
            await admin.NodeInfo(NodeInfoRequest(), metadata=peer_metadata())
            for cut in (("n2", "n1"), ("n1", "n2")):
                host.faults.change([cut], [], heal=True)
                code, trailing = await failure_of(admin.NodeInfo(NodeInfoRequest(), metadata=peer_metadata()))
                assert (code, trailing["raftd-error"]) == (grpc.StatusCode.UNAVAILABLE, "peer_unreachable")
                await admin.NodeInfo(NodeInfoRequest())
                await admin.NodeInfo(NodeInfoRequest(), metadata=peer_metadata("n3", 3))
            host.faults.change([], [], heal=True)
            await admin.NodeInfo(NodeInfoRequest(), metadata=peer_metadata())

    run(scenario())


def test_a_cut_request_is_not_carried_out_and_a_cut_answer_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        host.node.follow(1, leads=True)
        async with serving(host), channel_to(host.address) as channel:
            submit = SchedulerStub(channel).Submit
            host.faults.change([("n2", "n1")], [], heal=True)
            await failure_of(submit(scheduler_pb2.SubmitRequest(), metadata=peer_metadata()))
            assert host.scheduler.answered == 0
            host.faults.change([("n1", "n2")], [], heal=True)
            await failure_of(submit(scheduler_pb2.SubmitRequest(), metadata=peer_metadata()))
            assert host.scheduler.answered == 1

    run(scenario())


def test_a_cut_ends_streams_of_peers_in_both_directions(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path)
        async with serving(host), channel_to(host.address) as channel:
            host.scheduler.hold.clear()
            watch = SchedulerStub(channel).Watch(scheduler_pb2.WatchRequest(), metadata=peer_metadata())
            assert isinstance(await watch.read(), scheduler_pb2.WatchResponse)
            put = BlobsStub(channel).Put(metadata=peer_metadata())
            await put.write(blobs_pb2.PutRequest())
            await eventually(lambda: host.blobs.frame_count, 10, "the first frame")
            host.faults.change([("n1", "n2"), ("n2", "n1")], [], heal=True)
            host.scheduler.hold.set()
            assert (await failure_of(watch.read()))[1]["raftd-error"] == "peer_unreachable"
            await put.write(blobs_pb2.PutRequest())
            assert (await failure_of(put))[1]["raftd-error"] == "peer_unreachable"
            assert host.blobs.frame_count == 1

    run(scenario())
