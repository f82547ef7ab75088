"""The outgoing half of one peer: a bounded queue and one stream, dialled and redialled.

What may live here: one peer's sender. Everything that queued while the last write was under way leaves in one batch
(cut at 1 MiB), so the number of writes follows the number of wake-ups, not of messages. Raft repeats what matters,
so a full queue drops the oldest and says that the peer is unreachable; memory stays bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import grpc

from raftd.codec.peer import encode_batch, message_bytes
from raftd.errors import RaftdError
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.raft.messages import Message
from raftd.raft.types import NodeId
from raftd.transport.base import ACCEPTED_KEY, LocalNode, RemoteNode, call_metadata, open_channel
from raftd.transport.caller import CallFailed, own_metadata
from raftd.transport.faults import FaultTable

log = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
QUEUE_BYTES = 32 * 1024 * 1024
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 0.5

_TRANSIENT = frozenset({grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Ends of a stream after which the next one may be better; all others refuse this node for what it is or sent."""

_CONNECTION_LOST = "connection lost"
"""Stands for all of gRPC's wordings of it, so that they are not logged in turn."""

StreamCall: TypeAlias = "grpc.aio.StreamUnaryCall[pb.PeerBatch, pb.StreamClosed]"


def peer_header(local: LocalNode, incarnation: int, remote: RemoteNode) -> pb.PeerHeader:
    """Who speaks to whom."""
    return pb.PeerHeader(
        cluster_id=local.cluster_id,
        sender_store_id=local.store_id,
        sender_name=local.name,
        sender_incarnation=incarnation,
        receiver_store_id=remote.store_id,
        receiver_name=remote.name,
        sender_address=local.address,
        sender_start=local.start,
    )


class PeerSender:
    """Sends to one peer until it is closed.

    Args:
        local: this node.
        incarnation: of this node, for the header.
        remote: the peer; a new address means a new sender.
        faults: what must not leave.
        on_unreachable: called when messages to the peer may have been lost.
        on_refused: called with the peer's store and the reason when it takes no stream, or no more of it, from this
            node.
    """

    def __init__(
        self,
        local: LocalNode,
        incarnation: int,
        remote: RemoteNode,
        faults: FaultTable,
        on_unreachable: Callable[[int], None],
        on_refused: Callable[[NodeId, RaftdError], None],
    ) -> None:
        self._local = local
        self._remote = remote
        self._faults = faults
        self._on_unreachable = on_unreachable
        self._on_refused = on_refused
        self._header = peer_header(local, incarnation, remote)
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._knocks = False
        self._connected = False
        self._last_end: tuple[grpc.StatusCode, str] | None = None
        self._task = asyncio.create_task(self._run(), name=f"peer {remote.name}")

    @property
    def connected(self) -> bool:
        """Whether a stream is open that has not failed."""
        return self._connected

    @property
    def remote(self) -> RemoteNode:
        """The peer, and where this sender dials it."""
        return self._remote

    def send(self, message: Message) -> None:
        """Queue one message; never blocks."""
        if self._faults.drops_to(self._remote.name):
            return
        self._queue.append(message)
        self._queued_bytes += message_bytes(message)
        if self._queued_bytes > QUEUE_BYTES:
            while self._queued_bytes > QUEUE_BYTES // 2:
                self._queued_bytes -= message_bytes(self._queue.popleft())
            self._on_unreachable(self._remote.store_id)
        self._wake.set()

    def knock(self) -> None:
        """Say nothing, but say it: open the stream, or send a batch without messages. A peer that refuses this node
        looks at every batch, and says so."""
        if not self._faults.drops_to(self._remote.name):
            self._knocks = True
            self._wake.set()

    async def close(self) -> None:
        """End the stream; what is queued is not sent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = BACKOFF_FIRST_S
        while True:
            await self._wake.wait()
            channel = open_channel(self._remote.address)
            try:
                accepted = await self._stream(channel)
            finally:
                self._connected = False
                await channel.close()
            backoff = BACKOFF_FIRST_S if accepted else min(2 * backoff, BACKOFF_MAX_S)
            self._clear()
            self._on_unreachable(self._remote.store_id)
            await asyncio.sleep(backoff)

    async def _stream(self, channel: grpc.aio.Channel) -> bool:
        """Send until the stream ends; False if it was never accepted, or was refused for what this node is.

        Nothing is written before the peer has accepted: it would be lost in a stream that only lets us connect.
        """
        call: StreamCall = ConsensusStub(channel).Stream(metadata=call_metadata(self._local, self._remote))
        accepted = False
        try:
            if any(key == ACCEPTED_KEY for key, _ in await call.initial_metadata()):
                accepted = True
                self._note_accepted()
                await self._write_until_ended(call)
            code, details = await call.code(), await call.details()
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.INTERNAL:
                # What gRPC says when a write meets the end of the stream, whatever that end was: the next try tells.
                return accepted and not self._refused()
        except asyncio.InvalidStateError:
            # It ended between our look at it and the write.
            code, details = await call.code(), await call.details()
        finally:
            call.cancel()
        self._note_ended(code, details)
        if said := own_metadata(await call.trailing_metadata() or ()):
            self._on_refused(self._remote.store_id, CallFailed(code, details or "", said).error())
        return accepted and code in _TRANSIENT

    async def _write_until_ended(self, call: StreamCall) -> None:
        ended = asyncio.ensure_future(call.code())
        ended.add_done_callback(lambda _: self._wake.set())
        try:
            while not ended.done():
                await self._wake.wait()
                self._wake.clear()
                if self._knocks and not self._queue and not ended.done():
                    await call.write(encode_batch(self._header, ()))
                self._knocks = False
                while self._queue and not ended.done():
                    if batch := self._take():
                        await call.write(encode_batch(self._header, batch))
        finally:
            ended.cancel()

    def _take(self) -> list[Message]:
        """The next batch: at least one message, at most about 1 MiB; nothing of it where a cut has come meanwhile."""
        batch = [self._queue.popleft()]
        size = message_bytes(batch[0])
        while self._queue and size + (more := message_bytes(self._queue[0])) <= BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += more
        self._queued_bytes -= size
        return [] if self._faults.drops_to(self._remote.name) else batch

    def _clear(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._knocks = False
        self._wake.clear()

    def _note_accepted(self) -> None:
        self._connected = True
        # After a refusal nothing has been gained yet: the same refusal would follow, and be logged, again and again.
        if self._last_end is not None and not self._refused():
            log.info("connected to %s at %s", self._remote.name, self._remote.address)
            self._last_end = None

    def _refused(self) -> bool:
        """Whether the last end that had a reason was a refusal."""
        return self._last_end is not None and self._last_end[0] not in _TRANSIENT

    def _note_ended(self, code: grpc.StatusCode, details: str) -> None:
        """Say once, not at every attempt, why there is no stream."""
        reason = _CONNECTION_LOST if code is grpc.StatusCode.UNAVAILABLE else details
        if self._last_end != (code, reason):
            self._last_end = (code, reason)
            log.warning(
                "no stream to %s at %s: %s: %s", self._remote.name, self._remote.address, code.name, details
            )
