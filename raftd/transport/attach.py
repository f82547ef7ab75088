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
        self._call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse] = SchedulerStub(
            channel
        ).Attach(metadata=caller.metadata(remote))
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
        except (grpc.aio.UsageError, asyncio.InvalidStateError):
            raise self._closed() from None
        except asyncio.CancelledError:
            if self._call_was_cancelled():
                raise self._closed() from None
            raise

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
                if self._call_was_cancelled():
                    return None
                raise
            if not isinstance(response, pb.AttachResponse):
                return None
            if self._guard.lets_in():
                return decode_down(response)

    async def close(self) -> None:
        """End the stream; may be called twice."""
        self._guard.close()
        self._cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    def _call_was_cancelled(self) -> bool:
        """gRPC raises CancelledError in whoever uses a *call* that was cancelled; only a cancelled task may see it."""
        task = asyncio.current_task()
        return self._cancelled and not (task is not None and task.cancelling())

    def _closed(self) -> PeerUnreachable:
        return PeerUnreachable(f"the stream to {self._remote.name} is closed")


class GrpcAttachTransport:
    """Dials leaders for the executor."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def connect(self, leader_name: str, address: str) -> GrpcAttachStream:
        """Open a stream to the leader; returns at once, failures come with the first message."""
        return GrpcAttachStream(self._caller, RemoteNode(leader_name, 0, address))
