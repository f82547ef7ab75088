"""The executor's end of the Attach stream against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftd.codec.attach import decode_up, encode_down
from raftd.errors import IncarnationLost, PeerUnreachable, RaftdError
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.attach import AttachDown, AttachUp, Heartbeat, Renewal
from raftd.services.status import served
from raftd.transport.attach import GrpcAttachStream, GrpcAttachTransport
from tests.services.hosts import FakeScheduler, Host, make_host, run, serving
from tests.support import eventually, free_port

Context = grpc.aio.ServicerContext[Any, Any]


def beat(sequence: int) -> AttachUp:
    return AttachUp(heartbeat=Heartbeat(sequence))


class Leader(FakeScheduler):
    """Renews every heartbeat until it raises ``error``."""

    error: RaftdError | None = None
    ended_count = 0
    leaving = False

    @served
    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        """See scheduler.proto."""
        try:
            async for request in request_iterator:
                if self.error is not None:
                    raise self.error
                self.leaving = decode_up(request).leaving
                heartbeat = decode_up(request).heartbeat
                if heartbeat is not None:
                    yield encode_down(AttachDown(renewal=Renewal(heartbeat.sequence)))
        finally:
            self.ended_count += 1


def hosts(path: Path) -> tuple[Host, Host, Leader]:
    """An executor's node, the leader's, and the leader's service."""
    executor, leader = make_host(path), make_host(path, 2, scheduler=Leader)
    assert isinstance(leader.scheduler, Leader)
    return executor, leader, leader.scheduler


async def attach(executor: Host, leader: Host) -> GrpcAttachStream:
    return await GrpcAttachTransport(executor.caller).connect("n2", leader.address)


async def renewed(stream: GrpcAttachStream, sequence: int) -> None:
    await stream.send(beat(sequence))
    down = await stream.receive()
    assert down is not None
    assert down.renewal == Renewal(sequence)


def test_both_directions_work_until_it_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, leader, service = hosts(tmp_path)
        async with serving(executor, leader):
            stream = await attach(executor, leader)
            for sequence in range(3):
                await renewed(stream, sequence)
            assert not service.leaving
            await stream.send(AttachUp(leaving=True))
            await eventually(lambda: service.leaving, 10, "the leader hears that it leaves")
            receiving = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            await stream.close()
            await stream.close()
            assert await receiving is None
            with pytest.raises(PeerUnreachable):
                await stream.send(beat(4))
            await eventually(lambda: service.ended_count, 10, "the leader sees the end")

    run(scenario())


def test_a_cancelled_reader_is_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, leader, _ = hosts(tmp_path)
        async with serving(executor, leader):
            stream = await attach(executor, leader)
            await renewed(stream, 1)
            receiving = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await stream.close()

    run(scenario())


def test_the_leaders_refusal_keeps_its_type(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, leader, service = hosts(tmp_path)
        service.error = IncarnationLost("incarnation 4 of n1 has been given up")
        async with serving(executor, leader):
            stream = await attach(executor, leader)
            await stream.send(beat(1))
            with pytest.raises(IncarnationLost, match="incarnation 4"):
                await stream.receive()
            await stream.close()

    run(scenario())


def test_nobody_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, _, _ = hosts(tmp_path)
        async with serving(executor):
            stream = await GrpcAttachTransport(executor.caller).connect("n2", f"127.0.0.1:{free_port()}")
            with pytest.raises(PeerUnreachable):
                await stream.receive()
            await stream.close()

    run(scenario())


def test_a_cut_silences_the_stream_and_its_end_comes_with_the_heal(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, leader, service = hosts(tmp_path)
        async with serving(executor, leader):
            stream = await attach(executor, leader)
            await renewed(stream, 1)
            executor.faults.change([("n1", "n2")], [], heal=False)
            await stream.send(beat(2))
            receiving = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            assert not receiving.done()
            executor.faults.change([], [], heal=True)
            assert await receiving is None
            await eventually(lambda: service.ended_count, 10, "the leader sees the end")
            stream = await attach(executor, leader)
            await renewed(stream, 3)
            await stream.close()

    run(scenario())


def test_a_cut_node_cannot_attach(tmp_path: Path) -> None:
    async def scenario() -> None:
        executor, leader, _ = hosts(tmp_path)
        leader.faults.change([("n1", "n2")], [], heal=False)
        async with serving(executor, leader):
            stream = await attach(executor, leader)
            with pytest.raises(PeerUnreachable, match="cut"):
                await stream.receive()
            await stream.close()

    run(scenario())
