"""The executor's end of the Attach stream: dialling the leader and turning its stream into messages.

What may live here: gRPC and the injected cuts. What the messages mean is ``raftd.executor.attach``'s.
"""

from __future__ import annotations

import asyncio

import grpc

from raftd.codec.attach import decode_down, encode_up
from raftd.errors import PeerUnreachable
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.scheduler.attach import AttachDown, AttachUp
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, Purpose, call_failed
from raftd.transport.guard import StreamGuard


class GrpcAttachStream:
    """One open stream to a leader."""

    def __init__(self, caller: Caller, remote: RemoteNode) -> None:
        self._remote = remote
        self._cancelled = False
        channel = caller.channel(Purpose.ATTACH, remote.address)
        self._call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse] = SchedulerStub(channel).Attach(
            metadata=caller.metadata(remote)
        )
        self._guard = StreamGuard(caller.faults, remote.name, self._cancel)

    async def send(self, message: AttachUp) -> None:
        """Send one message.

        Raises:
            RaftdError: the stream is over; the type says why.
        """
        if not self._guard.lets_out():
            return
        try:
            await self._call.write(encode_up(message))
        except grpc.aio.AioRpcError as error:
            raise call_failed(error).error() from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise PeerUnreachable(f"the stream to {self._remote.name} is closed: {error}") from None

    async def receive(self) -> AttachDown | None:
        """The next message; None when the stream has ended.

        Raises:
            RaftdError: the stream failed; the type says why (``IncarnationLost``, ``NotLeader``, ...).
        """
        while True:
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise call_failed(error).error() from None
            except asyncio.CancelledError:
                # gRPC raises this in the reader when the *call* was cancelled; only a cancelled task may see it.
                task = asyncio.current_task()
                if self._cancelled and not (task is not None and task.cancelling()):
                    return None
                raise
            if not isinstance(response, pb.AttachResponse):
                await self._raise_status()
                return None
            if self._guard.lets_in():
                return decode_down(response)

    async def close(self) -> None:
        """End the stream."""
        self._guard.close()
        self._cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    async def _raise_status(self) -> None:
        """After the end of the stream: its status, if that is a failure."""
        code = await self._call.code()
        if code is not grpc.StatusCode.OK and not self._cancelled:
            error = grpc.aio.AioRpcError(
                code, await self._call.initial_metadata(), await self._call.trailing_metadata(), await self._call.details()
            )
            raise call_failed(error).error()


class GrpcAttachTransport:
    """Dials leaders for the executor."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def connect(self, leader_name: str, address: str) -> GrpcAttachStream:
        """Open a stream to the leader; returns at once, failures come with the first message."""
        return GrpcAttachStream(self._caller, RemoteNode(leader_name, 0, address))
