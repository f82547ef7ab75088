"""Who is not meant, or does not belong, is refused by every rpc of every service, and what that means for clients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from raftd.errors import StoreRemoved, Unavailable, WrongIdentity
from raftd.pb import admin_pb2, blobs_pb2, consensus_pb2, scheduler_pb2
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.services.consensus import ConsensusService
from raftd.transport.base import Metadata
from raftd.transport.reads import PeerReads
from tests.services.hosts import FakeStores, channel_to, failure_of, make_host, run, serving
from tests.services.test_server import peer_metadata
from tests.transport.streams import Receiver

Code = grpc.StatusCode
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for module in (admin_pb2, blobs_pb2, consensus_pb2, scheduler_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Metadata) -> object:
    """One call with an empty request; its first answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        make: Any = channel.stream_stream if method.server_streaming else channel.stream_unary
        request: Any = iter([b""])
    else:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        request = b""
    started = make(path)(request, metadata=metadata, timeout=20)
    return await (started.read() if method.server_streaming else started)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_refuses_who_does_not_belong(
    tmp_path: Path, method: MethodDescriptor, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [
        (peer_metadata(cluster=0xBAD), Code.PERMISSION_DENIED, WrongIdentity.code),
        (peer_metadata(receiver=9), Code.PERMISSION_DENIED, WrongIdentity.code),
        (peer_metadata(store_id=0), Code.PERMISSION_DENIED, WrongIdentity.code),
        (peer_metadata("n8", 2), Code.PERMISSION_DENIED, WrongIdentity.code),
        (peer_metadata("n7", 7), Code.FAILED_PRECONDITION, StoreRemoved.code),
    ]

    async def scenario() -> None:
        host = make_host(tmp_path)
        host.stores.removed.add(7)
        async with serving(host), channel_to(host.address) as channel:
            for metadata, code, word in wrong:
                for _ in range(2):
                    found, trailing = await failure_of(call(channel, method, metadata))
                    assert (found, trailing["raftd-error"]) == (code, word)

    run(scenario())
    loud = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(loud) == len(wrong), "each is told once"


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ((), "wrong_identity"),
        (peer_metadata("n1", 1, cluster=0xBAD, receiver=2), "wrong_identity"),
        (peer_metadata("n1", 1, receiver=0), "wrong_identity"),
        (peer_metadata("n1", 1, receiver=2), ""),
    ],
    ids=["nobody", "cluster", "nobody-meant", "right"],
)
def test_a_read_index_is_only_for_nodes_that_mean_this_one(
    tmp_path: Path, metadata: Metadata, word: str
) -> None:
    """Also without the interceptor in front: the service itself asks."""

    async def scenario() -> None:
        receiver = Receiver(tmp_path)
        service = ConsensusService(
            local=receiver.local,
            stores=FakeStores(),
            faults=receiver.faults,
            deliver=receiver.deliver,
            learn=receiver.learned.append,
            snapshots=receiver,
            reads=receiver,
        )
        host = make_host(tmp_path, 2, consensus=service)
        async with serving(host), channel_to(host.address) as channel:
            asked = ConsensusStub(channel).GetReadIndex(
                consensus_pb2.ReadIndexRequest(), metadata=metadata, timeout=20
            )
            if word:
                assert (await failure_of(asked))[1]["raftd-error"] == word
            else:
                assert (await asked).index == 77

    run(scenario())


def test_a_client_of_a_removed_node_is_sent_to_another_and_not_told_that_it_was_removed_itself(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        n1, n2 = make_host(tmp_path, 1), make_host(tmp_path, 2)
        n1.node.follow(1, leads=True)
        n2.node.follow(1)
        n1.stores.removed.add(2)
        async with serving(n1, n2), channel_to(n2.address) as channel:
            stub = SchedulerStub(channel)
            for asked in (
                stub.Submit(scheduler_pb2.SubmitRequest(), timeout=20),
                stub.Status(scheduler_pb2.StatusRequest(), timeout=20),
            ):
                code, trailing = await failure_of(asked)
                assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "unavailable")
            assert n1.scheduler.answered == 0
            with pytest.raises(Unavailable, match="n1 takes no calls from n2") as caught:
                await PeerReads(n2.caller, n2.others.get).read_index(1, 20.0)
            assert type(caught.value) is Unavailable

    run(scenario())
