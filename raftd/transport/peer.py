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

import grpc

from raftd.codec.peer import encode_batch, message_bytes
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.raft.messages import Message
from raftd.transport.base import LocalNode, RemoteNode, call_metadata, open_channel
from raftd.transport.faults import FaultTable

log = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
QUEUE_BYTES = 32 * 1024 * 1024
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 0.5


class PeerSender:
    """Sends to one peer until it is closed.

    Args:
        local: this node.
        incarnation: of this node, for the header.
        remote: the peer; a new address means a new sender.
        faults: what must not leave.
        on_unreachable: called when messages to the peer may have been lost.
    """

    def __init__(
        self,
        local: LocalNode,
        incarnation: int,
        remote: RemoteNode,
        faults: FaultTable,
        on_unreachable: Callable[[int], None],
    ) -> None:
        self._local = local
        self._remote = remote
        self._faults = faults
        self._on_unreachable = on_unreachable
        self._header = pb.PeerHeader(
            cluster_id=local.cluster_id,
            sender_store_id=local.store_id,
            sender_name=local.name,
            sender_incarnation=incarnation,
            receiver_store_id=remote.store_id,
            receiver_name=remote.name,
        )
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._connected = False
        self._refusal = ""
        self._task = asyncio.create_task(self._run(), name=f"peer {remote.name}")

    @property
    def connected(self) -> bool:
        """Whether a stream is open that has not failed."""
        return self._connected

    @property
    def address(self) -> str:
        """Where this sender dials."""
        return self._remote.address

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
                sent = await self._stream(channel)
                backoff = BACKOFF_FIRST_S if sent else min(2 * backoff, BACKOFF_MAX_S)
            finally:
                self._connected = False
                await channel.close()
            self._clear()
            self._on_unreachable(self._remote.store_id)
            await asyncio.sleep(backoff)

    async def _stream(self, channel: grpc.aio.Channel) -> bool:
        """Send until the stream fails; True if anything went out on it."""
        call = ConsensusStub(channel).Stream(metadata=call_metadata(self._local, self._remote))
        sent = False
        try:
            await call.wait_for_connection()
            self._connected = True
            if self._refusal:
                log.info("connected to %s at %s", self._remote.name, self._remote.address)
                self._refusal = ""
            ended = asyncio.ensure_future(call.code())
            ended.add_done_callback(lambda _: self._wake.set())
            try:
                while not ended.done():
                    await self._wake.wait()
                    while self._queue and not ended.done():
                        await call.write(encode_batch(self._header, self._take()))
                        sent = True
                    if not self._queue and not ended.done():
                        self._wake.clear()
                self._note(f"{(await call.code()).name}: {await call.details()}")
            finally:
                ended.cancel()
        except grpc.aio.AioRpcError as error:
            self._note(f"{error.code().name}: {error.details()}")
        except asyncio.InvalidStateError:
            self._note(f"{(await call.code()).name}: {await call.details()}")
        finally:
            call.cancel()
        return sent

    def _take(self) -> list[Message]:
        """The next batch: at least one message, at most about 1 MiB."""
        batch = [self._queue.popleft()]
        size = message_bytes(batch[0])
        while self._queue and size + (more := message_bytes(self._queue[0])) <= BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += more
        self._queued_bytes -= size
        return [message for message in batch if not self._faults.drops_to(self._remote.name)]

    def _clear(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._wake.clear()

    def _note(self, refusal: str) -> None:
        """Say once, not at every attempt, why the peer cannot be reached."""
        if refusal != self._refusal:
            self._refusal = refusal
            log.warning("no stream to %s at %s: %s", self._remote.name, self._remote.address, refusal)
