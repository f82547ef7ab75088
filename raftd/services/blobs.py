"""The Blobs service: bytes by content, put on and got from any node.

What may live here: the streams of clients and of other nodes, and the order of a put: the bytes here, then on enough
nodes, then in the directory, then the answer. Nothing is answered before that is done, and what is left of a put that
broke off on the way is a copy that nobody counts on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol, cast

from raftd.blobs.fetch import Fetcher
from raftd.blobs.local import LocalBlobs
from raftd.blobs.peers import BlobDirectory
from raftd.blobs.ref import FRAME_BYTES, check_digest
from raftd.blobs.replicate import Replicator
from raftd.errors import BlobNotFound, InvalidRequest, PayloadTooLarge, RaftdError, from_code
from raftd.pb import blobs_pb2 as pb
from raftd.pb import scheduler_pb2
from raftd.pb.blobs_pb2_grpc import BlobsServicer
from raftd.scheduler.commands import Command, RecordBlob
from raftd.scheduler.model import BlobRecord, BlobRef
from raftd.scheduler.replies import Recorded, Refused, Reply
from raftd.services.forwarding import Forwarder, was_forwarded
from raftd.services.status import DEFAULT_DEADLINE_S, Context, OwnCall, remaining_s, served
from raftd.transport.base import LocalNode, caller_identity
from raftd.transport.caller import Purpose

SERVICE = "/raftd.v1.Blobs/"

PUT_DEADLINE_S = 60.0
"""For making the replicas, where the client names no deadline."""

DRAIN_FRAMES = 256
DRAIN_S = 2.0
"""So much more of a refused put is read and thrown away: a client that still writes is told by gRPC that something
broke, and not why it was refused."""


class Node(Protocol):
    """What blobs need of the node's loop."""

    async def propose(
        self, commands: Sequence[Command], *, timeout: float, size_bytes: int = ...
    ) -> tuple[Reply, ...]:
        """See ``Node.propose``."""

    async def read_barrier(self, *, timeout: float) -> int:
        """See ``Node.read_barrier``."""


class BlobsService(BlobsServicer):
    """Serves blobs on one node.

    Args:
        local: this node.
        blobs: what it holds.
        replicator: makes copies on other nodes.
        fetcher: brings copies here.
        directory: who holds what, as applied here.
        node: the loop.
        forwarder: takes to the leader what only it can do.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        blobs: LocalBlobs,
        replicator: Replicator,
        fetcher: Fetcher,
        directory: BlobDirectory,
        node: Node,
        forwarder: Forwarder,
    ) -> None:
        self._local = local
        self._blobs = blobs
        self._replicator = replicator
        self._fetcher = fetcher
        self._directory = directory
        self._node = node
        self._forwarder = forwarder

    # --- in -----------------------------------------------------------------------------------------------------

    @served
    async def Put(self, request_iterator: AsyncIterator[pb.PutRequest], context: Context) -> pb.PutResponse:
        """Store a blob on as many nodes as it asks for; see blobs.proto."""
        requests = aiter(request_iterator)
        try:
            header, ref = await self._receive(requests, context)
        except RaftdError:
            await _drain(requests)
            raise
        if header.replica_only:
            return pb.PutResponse(blob=_encode_ref(ref), holders=[self._local.name])
        voters = tuple(self._directory.voters())
        holders = await self._replicator.replicate(
            ref.digest,
            replicas=header.replicas or len(voters) // 2 + 1,
            candidates=voters,
            timeout_ms=int(1000 * remaining_s(context, PUT_DEADLINE_S)),
        )
        record = await self._record(pb.RecordBlobRequest(blob=_encode_ref(ref), holders=holders), context)
        return pb.PutResponse(blob=_encode_ref(ref), holders=record.holders)

    async def _receive(
        self, requests: AsyncIterator[pb.PutRequest], context: Context
    ) -> tuple[pb.PutHeader, BlobRef]:
        """The bytes, verified and durable here."""
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise InvalidRequest("a put begins with its header")
        header = first.header
        if header.replica_only and not caller_identity(context.invocation_metadata() or ()).name:
            raise InvalidRequest("replica_only is for nodes among each other", try_="ask for replicas = 1")
        if header.replica_only and not header.digest:
            raise InvalidRequest("a replica is put by its digest")
        if not header.digest and not header.size_bytes:
            # A stream that its client gives up can look like one that has ended: what came of it would be kept.
            raise InvalidRequest(
                "a put announces its digest or its size", try_="set size_bytes in the header"
            )
        ref = await self._blobs.put(
            _frames(first, requests),
            digest=header.digest or None,
            size_bytes=header.size_bytes or None,
            pinned=True,
        )
        return header, ref

    @served
    async def Record(self, request: pb.RecordBlobRequest, context: Context) -> pb.RecordBlobResponse:
        """Enter holders into the directory; see blobs.proto."""
        return await self._record(request, context)

    async def _record(self, request: pb.RecordBlobRequest, context: Context) -> pb.RecordBlobResponse:
        ref = BlobRef(check_digest(request.blob.digest), request.blob.size_bytes)
        command = RecordBlob(ref, tuple(request.holders))

        async def local() -> pb.RecordBlobResponse:
            (reply,) = await self._node.propose([command], timeout=remaining_s(context))
            if isinstance(reply, Refused):
                raise from_code(reply.code, reply.message, reply.try_)
            assert isinstance(reply, Recorded), "the reply to a RecordBlob"
            return pb.RecordBlobResponse(holders=reply.holders)

        # Holders are only ever added: entering them twice does no harm.
        return await self._forwarder.leader_or_forward(
            SERVICE + "Record", request, context, local, repeatable=True
        )

    async def enter(self, ref: BlobRef, holders: Sequence[str]) -> None:
        """Enter holders into the directory, for a task of this node that has put a blob.

        Raises:
            RaftdError: it could not be entered, or that is not known; it may be tried again.
        """
        request = pb.RecordBlobRequest(blob=_encode_ref(ref), holders=holders)
        await self._record(request, cast("Context", OwnCall(DEFAULT_DEADLINE_S)))

    # --- out ----------------------------------------------------------------------------------------------------

    @served
    async def Get(self, request: pb.GetBlobRequest, context: Context) -> AsyncIterator[pb.GetBlobResponse]:
        """The bytes, from here or from a holder; see blobs.proto."""
        digest = check_digest(request.digest)
        if not request.local_only and not await self._is_known(digest, context):
            async with aclosing(self._from_leader(request, context)) as responses:
                async for response in responses:
                    yield response
            return
        frames = await (self._blobs if request.local_only else self._fetcher).open(digest)
        stat = self._blobs.stat(digest)
        size_bytes = 0 if stat is None else stat.ref.size_bytes
        async with aclosing(frames):
            async for frame in frames:
                yield pb.GetBlobResponse(size_bytes=size_bytes, data=frame)
                size_bytes = 0
        if stat is not None and stat.ref.size_bytes == 0:
            yield pb.GetBlobResponse()

    async def _is_known(self, digest: str, context: Context) -> bool:
        """Whether this node has the bytes, or knows who has; a leader makes sure of that. False: ask the leader.

        Raises:
            BlobNotFound: nobody knows these bytes.
        """
        if self._blobs.stat(digest) is not None or self._directory.record(digest) is not None:
            return True
        if self._forwarder.leader() is not None and not was_forwarded(context):
            return False
        await self._node.read_barrier(timeout=remaining_s(context))
        if self._directory.record(digest) is None:
            raise BlobNotFound(f"there is no blob {digest[:12]}")
        return True

    async def _from_leader(
        self, request: pb.GetBlobRequest, context: Context
    ) -> AsyncGenerator[pb.GetBlobResponse, None]:
        """What the directory does not name here yet, the leader's may name."""
        raw = self._forwarder.stream_from_leader(
            SERVICE + "Get", request, Purpose.BLOBS, remaining_s(context, PUT_DEADLINE_S)
        )
        async with aclosing(raw) as responses:
            async for response in responses:
                yield pb.GetBlobResponse.FromString(response)

    @served
    async def Stat(self, request: pb.StatBlobRequest, context: Context) -> pb.StatBlobResponse:
        """Who holds a blob; see blobs.proto."""
        digest = check_digest(request.digest)
        held = self._blobs.stat(digest)
        record = self._directory.record(digest)
        if record is not None:
            return _stat(record, local=held is not None)

        async def local() -> pb.StatBlobResponse:
            await self._node.read_barrier(timeout=remaining_s(context))
            record = self._directory.record(digest)
            if record is None:
                raise BlobNotFound(f"there is no blob {digest[:12]}")
            return _stat(record, local=self._blobs.stat(digest) is not None)

        response = await self._forwarder.leader_or_forward(
            SERVICE + "Stat", request, context, local, repeatable=True
        )
        response.local = held is not None
        return response


async def _frames(first: pb.PutRequest, requests: AsyncIterator[pb.PutRequest]) -> AsyncIterator[bytes]:
    """The bytes of a put, frame by frame."""
    _check_frame(first)
    if first.data:
        yield first.data
    async for request in requests:
        if request.HasField("header"):
            raise InvalidRequest("a put has one header, in its first message")
        _check_frame(request)
        yield request.data


def _check_frame(request: pb.PutRequest) -> None:
    if len(request.data) > FRAME_BYTES:
        raise PayloadTooLarge(
            f"a frame of {len(request.data)} bytes is over the limit of {FRAME_BYTES}",
            try_="send smaller frames",
        )


async def _drain(requests: AsyncIterator[pb.PutRequest]) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            for _ in range(DRAIN_FRAMES):
                if await anext(requests, None) is None:
                    return
    except TimeoutError:
        return


def _encode_ref(ref: BlobRef) -> scheduler_pb2.BlobRef:
    return scheduler_pb2.BlobRef(digest=ref.digest, size_bytes=ref.size_bytes)


def _stat(record: BlobRecord, *, local: bool) -> pb.StatBlobResponse:
    return pb.StatBlobResponse(blob=_encode_ref(record.ref), holders=record.holders, local=local)
