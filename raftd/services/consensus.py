"""Raft's incoming streams: whose they are, and on to the loop.

What may live here: the check of every header (``identity`` has the rule) and of every chunk of a snapshot, and what
gives the copy of a data directory away.

A store that is no member here is heard all the same: this node's configuration may be behind (the paper, §6), and one
that joins has none. The core takes requests from anyone and replies only from members.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol
from zlib import crc32

from raftd.codec.peer import decode_batch, decode_message
from raftd.errors import DeadlinePassed, InvalidRequest, OldCopy, PeerUnreachable, StoreTwice
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusServicer
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.types import NodeId
from raftd.services.identity import Identity, Stores
from raftd.services.status import Context, remaining_s, served
from raftd.transport.base import (
    ACCEPTED_KEY,
    CallerIdentity,
    LocalNode,
    RemoteNode,
    caller_identity,
    hex_id,
)
from raftd.transport.faults import FaultTable
from raftd.transport.snapshot_stream import CHUNK_BYTES

IDLE_S = 30.0
"""A sender of a snapshot that sends nothing for so long is given up: what has arrived would fill the disk for ever."""

LIVES_KEPT = 256
"""Stores whose latest life is remembered: far more than a cluster has, and a bound to what strangers can fill."""


class Intake(Protocol):
    """One snapshot on its way in."""

    async def write(self, data: bytes) -> None:
        """The next bytes."""

    async def finish(self) -> None:
        """All of it is here: hand it to the core."""

    async def abort(self) -> None:
        """It will not be completed; after ``finish``, nothing happens."""


class SnapshotIntake(Protocol):
    """Takes snapshots in (``raftd.node.snapshots.Snapshots``)."""

    def begin(self, announcement: InstallSnapshot) -> Intake:
        """A snapshot begins to arrive."""


class ReadIndices(Protocol):
    """Confirms that this node leads (``raftd.node.node.Node``)."""

    async def read_index(self, *, timeout: float) -> int:
        """An index from which on a state is fresh."""


class ConsensusService(ConsensusServicer):
    """Receives what peers send.

    Args:
        local: this node.
        stores: the members and the stores that were removed.
        faults: what must not come in.
        deliver: takes the messages, in order (``Node.deliver``).
        learn: takes where a sender can be answered (``Network.learn``).
        snapshots: takes snapshots in.
        reads: confirms reads for followers.
        idle_s: how long the sender of a snapshot may send nothing.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        stores: Stores,
        faults: FaultTable,
        deliver: Callable[[Sequence[Message]], None],
        learn: Callable[[RemoteNode], None],
        snapshots: SnapshotIntake,
        reads: ReadIndices,
        idle_s: float = IDLE_S,
    ) -> None:
        self._local = local
        self._identity = Identity(local, stores)
        self._faults = faults
        self._deliver = deliver
        self._learn = learn
        self._snapshots = snapshots
        self._reads = reads
        self._idle_s = idle_s
        self._lives: OrderedDict[NodeId, pb.PeerHeader] = OrderedDict()
        """What each sender said of itself in its latest life."""

    @served
    async def Stream(
        self, request_iterator: AsyncIterator[pb.PeerBatch], context: Context
    ) -> pb.StreamClosed:
        """Take batches until the sender ends the stream; see consensus.proto."""
        # Tells the sender that it has reached a node that takes its stream, before there is anything to answer.
        await context.send_initial_metadata(((ACCEPTED_KEY, hex_id(self._local.store_id)),))
        async for batch in request_iterator:
            self._check(batch.header)
            if not self._faults.drops_from(batch.header.sender_name):
                self._deliver(decode_batch(batch))
        return pb.StreamClosed()

    @served
    async def InstallSnapshot(
        self, request_iterator: AsyncIterator[pb.SnapshotChunk], context: Context
    ) -> pb.SnapshotReceived:
        """Take one snapshot in; see consensus.proto. Whatever breaks it off leaves nothing behind."""
        chunks = aiter(request_iterator)
        first = await self._next(chunks)
        if first is None:
            raise InvalidRequest("a snapshot without a chunk")
        self._check(first.header)
        announcement = _announcement(first)
        size_bytes = announcement.snapshot.size_bytes
        intake = self._snapshots.begin(announcement)
        try:
            offset = 0
            while (chunk := await self._next(chunks)) is not None:
                _check_chunk(chunk, offset, size_bytes)
                await intake.write(chunk.data)
                offset += len(chunk.data)
            if self._faults.drops_from(first.header.sender_name):
                # The interceptor looks at what arrives; this is the end of the stream, which is lost like the rest.
                raise PeerUnreachable(f"{first.header.sender_name} was cut off before its snapshot ended")
            if offset != size_bytes:
                raise InvalidRequest(f"the stream ends after {offset} of {size_bytes} bytes of a snapshot")
            await intake.finish()
        finally:
            await intake.abort()
        return pb.SnapshotReceived()

    async def _next(self, chunks: AsyncIterator[pb.SnapshotChunk]) -> pb.SnapshotChunk | None:
        try:
            async with asyncio.timeout(self._idle_s):
                return await anext(chunks, None)
        except TimeoutError:
            raise DeadlinePassed(
                f"the sender of a snapshot has sent nothing for {self._idle_s:.0f} s", try_="send it again"
            ) from None

    @served
    async def GetReadIndex(self, request: pb.ReadIndexRequest, context: Context) -> pb.ReadIndexResponse:
        """Confirm that this node leads, for a follower's read; see consensus.proto."""
        self._identity.check(caller_identity(context.invocation_metadata() or ()))
        return pb.ReadIndexResponse(index=await self._reads.read_index(timeout=remaining_s(context)))

    def _check(self, header: pb.PeerHeader) -> None:
        sender = CallerIdentity(
            header.sender_name, header.sender_store_id, header.cluster_id, header.receiver_store_id
        )
        self._identity.check(sender)
        if sender.store_id == self._local.store_id:
            self._identity.refuse(
                f"{sender.name} claims to be this very store, {hex_id(sender.store_id)}: a copy of its data directory"
            )
        self._check_life(header)
        if not self._identity.is_member(sender):
            self._learn(RemoteNode(sender.name, sender.store_id, header.sender_address))

    def _check_life(self, header: pb.PeerHeader) -> None:
        """A copy of a data directory gives itself away: it has an incarnation that is over, or one that is taken.

        Each start raises the incarnation, so the copy and what it was copied from may come to the same one. They
        differ in what each process draws at its start.
        """
        store_id, incarnation = header.sender_store_id, header.sender_incarnation
        latest = self._lives.get(store_id)
        who = f"{header.sender_name}, store {hex_id(store_id)}, comes as incarnation {incarnation}"
        if latest is not None and incarnation < latest.sender_incarnation:
            self._identity.refuse_copy(
                OldCopy,
                f"{who} from {header.sender_address}, and incarnation {latest.sender_incarnation} from "
                f"{latest.sender_address} was heard: its data directory is an old copy, or was copied",
            )
        if (
            latest is not None
            and incarnation == latest.sender_incarnation
            and not _same_process(header, latest)
        ):
            self._identity.refuse_copy(
                StoreTwice,
                f"{who} from {header.sender_address}, and so does another process, from {latest.sender_address}: "
                "the data directory of one is a copy of the other's",
            )
        self._lives[store_id] = header
        self._lives.move_to_end(store_id)
        if len(self._lives) > LIVES_KEPT:
            self._lives.popitem(last=False)


def _same_process(one: pb.PeerHeader, other: pb.PeerHeader) -> bool:
    if one.sender_start and other.sender_start:
        return one.sender_start == other.sender_start
    return one.sender_address == other.sender_address  # one of a version that says no more


def _announcement(chunk: pb.SnapshotChunk) -> InstallSnapshot:
    header = chunk.header
    message = decode_message(chunk.announcement, header.sender_store_id, header.receiver_store_id)
    if not isinstance(message, InstallSnapshot):
        raise InvalidRequest("a snapshot begins with what announces it")
    return message


def _check_chunk(chunk: pb.SnapshotChunk, offset: int, size_bytes: int) -> None:
    if chunk.offset != offset:
        raise InvalidRequest(f"a chunk for offset {chunk.offset} of a snapshot, where {offset} must follow")
    if crc32(chunk.data) != chunk.crc32:
        raise InvalidRequest(f"a chunk at offset {offset} of a snapshot has a bad checksum")
    if not 0 < len(chunk.data) <= CHUNK_BYTES:
        raise InvalidRequest(
            f"a chunk of {len(chunk.data)} bytes at offset {offset} of a snapshot; at most {CHUNK_BYTES} travel in one"
        )
    if offset + len(chunk.data) > size_bytes:
        raise InvalidRequest(f"a snapshot is longer than the {size_bytes} bytes that were announced")
