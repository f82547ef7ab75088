"""Blobs between nodes: pushing this node's copy to another, pulling another's.

What may live here: the two streams, on connections of their own, and the injected cuts on them. Which node to ask, and
when to try another, is decided in ``raftd.blobs``; these streams carry one copy once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias

import grpc

from raftd.errors import PeerUnreachable, RaftdError
from raftd.pb import blobs_pb2 as pb
from raftd.pb import scheduler_pb2
from raftd.pb.blobs_pb2_grpc import BlobsStub
from raftd.scheduler.model import BlobRecord, BlobRef
from raftd.transport.base import RemoteNode
from raftd.transport.caller import CONNECT_TIMEOUT_S, Caller, CallFailed, Purpose, call_failed

STAT = "/raftd.v1.Blobs/Stat"
RECORD = "/raftd.v1.Blobs/Record"

PutCall: TypeAlias = "grpc.aio.StreamUnaryCall[pb.PutRequest, pb.PutResponse]"


class Frames(Protocol):
    """The bytes of a blob, in frames (``raftd.blobs.local.Frames``)."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Once."""

    async def aclose(self) -> None:
        """Nothing more is wanted."""


class BlobStat(Protocol):
    """What is known of a blob here."""

    @property
    def ref(self) -> BlobRef:
        """Digest and size."""


class LocalBlobs(Protocol):
    """This node's own blobs (``raftd.blobs.local.LocalBlobs``)."""

    async def open(self, digest: str) -> Frames:
        """Its frames; ``BlobNotFound`` where it is not here or damaged."""

    def stat(self, digest: str) -> BlobStat | None:
        """What is known of it; None where it is not here."""


class GrpcPeerBlobs:
    """The blob stores of other nodes (``raftd.blobs.peers.PeerBlobs``).

    Args:
        caller: the way to other nodes.
        local: what is pushed from.
        remote: a node by its name; None where there is none of that name.
    """

    def __init__(self, caller: Caller, local: LocalBlobs, remote: Callable[[str], RemoteNode | None]) -> None:
        self._caller = caller
        self._local = local
        self._remote = remote

    async def push(self, node: str, digest: str) -> None:
        """Copy this node's blob there; returns when that node says that it is verified, pinned and fsynced.

        Raises:
            BlobNotFound: it is not here.
            PeerUnreachable: the node is not there, or was lost meanwhile.
            RaftdError: what the node says.
        """
        remote = self._known(node)
        channel = await self._caller.connect(remote, Purpose.BLOBS, CONNECT_TIMEOUT_S)
        # Frames before size: a copy that opens is whole, and its size is what the store says.
        async with aclosing(await self._local.open(digest)) as frames:
            stat = self._local.stat(digest)
            size_bytes = 0 if stat is None else stat.ref.size_bytes
            header = pb.PutHeader(digest=digest, size_bytes=size_bytes, replica_only=True)
            call: PutCall = BlobsStub(channel).Put(metadata=self._caller.metadata(remote))
            try:
                await self._write(call, remote, header, frames)
                await call
            except grpc.aio.AioRpcError as error:
                raise _failure(node, error) from None
            except grpc.aio.UsageError:
                raise PeerUnreachable(f"{node} was lost before it had blob {digest[:12]}") from None
            finally:
                call.cancel()
        self._caller.check(remote)

    async def _write(self, call: PutCall, remote: RemoteNode, header: pb.PutHeader, frames: Frames) -> None:
        """Write everything; stops early when the other node has answered, whatever it said."""
        try:
            await call.write(pb.PutRequest(header=header))
            async for frame in frames:
                self._caller.check(remote)
                await call.write(pb.PutRequest(data=frame))
            await call.done_writing()
        except asyncio.InvalidStateError:
            return

    async def pull(self, node: str, digest: str) -> AsyncGenerator[bytes, None]:
        """The frames of that node's own copy.

        Raises:
            BlobNotFound: it has none.
            PeerUnreachable: it is not there, or was lost meanwhile.
            RaftdError: what the node says.
        """
        remote = self._known(node)
        channel = await self._caller.connect(remote, Purpose.BLOBS, CONNECT_TIMEOUT_S)
        request = pb.GetBlobRequest(digest=digest, local_only=True)
        call = BlobsStub(channel).Get(request, metadata=self._caller.metadata(remote))
        try:
            async for response in call:
                self._caller.check(remote)
                if response.data:
                    yield response.data
        except grpc.aio.AioRpcError as error:
            raise _failure(node, error) from None
        finally:
            call.cancel()

    async def record(self, node: str, digest: str, timeout_s: float) -> BlobRecord:
        """What that node's directory says of a blob; a leader makes sure of that.

        Raises:
            BlobNotFound: the leader knows of no such blob.
            RaftdError: the node is not there, or neither leads nor knows the blob.
        """
        request = pb.StatBlobRequest(digest=digest).SerializeToString()
        try:
            answer = await self._caller.unary(self._known(node), STAT, request, timeout_s)
        except CallFailed as failed:
            raise failed.error() from None
        found = pb.StatBlobResponse.FromString(answer)
        return BlobRecord(BlobRef(found.blob.digest, found.blob.size_bytes), tuple(found.holders))

    async def enter(self, node: str, ref: BlobRef, holders: Sequence[str], timeout_s: float) -> None:
        """Have that member, or the leader through it, enter holders of a blob into the directory.

        Raises:
            RaftdError: it is not there, or could not; entering them twice does no harm.
        """
        blob = scheduler_pb2.BlobRef(digest=ref.digest, size_bytes=ref.size_bytes)
        request = pb.RecordBlobRequest(blob=blob, holders=holders).SerializeToString()
        try:
            await self._caller.unary(self._known(node), RECORD, request, timeout_s)
        except CallFailed as failed:
            raise failed.error() from None

    def _known(self, node: str) -> RemoteNode:
        remote = self._remote(node)
        if remote is None:
            raise PeerUnreachable(f"there is no other node {node}")
        return remote


def _failure(node: str, error: grpc.aio.AioRpcError) -> RaftdError:
    """What went wrong at that node; gRPC's own words for a lost connection name an address at most."""
    meant = call_failed(error).error()
    if isinstance(meant, PeerUnreachable) and node not in meant.message:
        return PeerUnreachable(f"{node} was lost: {meant.message}")
    return meant
