"""The executor's end of the Attach stream.

What may live here: dialling the leader and turning its stream into messages. A stream over which an injected cut has
swallowed a message is never used again, for the other end believes that the message arrived: it is held silent while
the cut lasts and ends with it, and the two ends reconcile on the next one.
"""

from __future__ import annotations

import grpc

from raftd.codec.attach import decode_down, encode_up
from raftd.errors import PeerUnreachable
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.scheduler.attach import AttachDown, AttachUp
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, Purpose, call_failed


class GrpcAttachStream:
    """One open stream to a leader; see ``raftd.executor.attach`` for how it is used."""

    def __init__(self, caller: Caller, remote: RemoteNode) -> None:
        self._faults = caller.faults
        self._remote = remote
        self._swallowed = False
        channel = caller.channel(Purpose.ATTACH, remote.address)
        self._call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse] = SchedulerStub(channel).Attach(
            metadata=caller.metadata(remote)
        )
        self._unsubscribe = self._faults.on_change(self._on_faults)

    async def send(self, message: AttachUp) -> None:
        """Send one message.

        Raises:
            RaftdError: the stream is over; the type says why.
        """
        if self._swallowed or self._faults.drops_to(self._remote.name):
            self._swallowed = True
            return
        try:
            await self._call.write(encode_up(message))
        except grpc.aio.AioRpcError as error:
            raise call_failed(error).error() from None
        except grpc.aio.UsageError as error:
            raise PeerUnreachable(f"the stream to {self._remote.name} is closed: {error}") from None

    async def receive(self) -> AttachDown | None:
        """The next message; None when the leader has ended the stream.

        Raises:
            RaftdError: the stream failed; the type says why (``IncarnationLost``, ``NotLeader``, ...).
        """
        while True:
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise call_failed(error).error() from None
            if response is grpc.aio.EOF:
                return None
            if self._swallowed or self._faults.drops_from(self._remote.name):
                self._swallowed = True
                continue
            return decode_down(response)

    async def close(self) -> None:
        """End the stream."""
        self._unsubscribe()
        self._call.cancel()

    def _on_faults(self) -> None:
        name = self._remote.name
        if self._swallowed and not (self._faults.drops_to(name) or self._faults.drops_from(name)):
            self._call.cancel()


class GrpcAttachTransport:
    """Dials leaders for the executor."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def connect(self, leader_name: str, address: str) -> GrpcAttachStream:
        """Open a stream to the leader; returns at once, failures come with the first message."""
        return GrpcAttachStream(self._caller, RemoteNode(leader_name, 0, address))
