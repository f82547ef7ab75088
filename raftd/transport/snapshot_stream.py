"""Sending a snapshot to another node, on a connection of its own, in pieces that are checked one by one.

What may live here: one stream from its first chunk to its answer. When a snapshot is sent, and what comes of a failure,
is the core's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias
from zlib import crc32

import grpc

from raftd.codec.peer import encode_message
from raftd.errors import PeerUnreachable
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.raft.messages import InstallSnapshot
from raftd.raft.types import NodeId
from raftd.transport.base import RemoteNode
from raftd.transport.caller import CONNECT_TIMEOUT_S, Caller, call_failed
from raftd.transport.peer import peer_header

CHUNK_BYTES = 256 * 1024
"""Of one message at most: neither end holds more of a snapshot than this and what gRPC has on the way."""

STALL_S = 10.0
"""A receiver that takes nothing for so long is given up; it can be tried again."""

FINISH_S = 120.0
"""For the receiver to sync and to read what it has, before it answers."""

SnapshotCall: TypeAlias = "grpc.aio.StreamUnaryCall[pb.SnapshotChunk, pb.SnapshotReceived]"


class SnapshotSender:
    """Sends snapshots (``raftd.node.snapshots.SnapshotTransport``).

    Args:
        caller: the way to other nodes.
        incarnation: of this node.
        remote: the node of a store id; None where it is not known.
        stall_s: how long a receiver may take nothing.
        finish_s: how long it may take when it has everything.
    """

    def __init__(
        self,
        caller: Caller,
        incarnation: int,
        remote: Callable[[NodeId], RemoteNode | None],
        stall_s: float = STALL_S,
        finish_s: float = FINISH_S,
    ) -> None:
        self._caller = caller
        self._incarnation = incarnation
        self._remote = remote
        self._stall_s = stall_s
        self._finish_s = finish_s

    async def send(self, announcement: InstallSnapshot, chunks: AsyncIterator[bytes]) -> None:
        """Send one snapshot; return when the receiver has handed it to its core.

        Args:
            announcement: at its head.
            chunks: its bytes.

        Raises:
            PeerUnreachable: the receiver is not reached, takes nothing any more, or is cut off.
            RaftdError: it refused.
        """
        remote = self._remote(announcement.receiver)
        if remote is None:
            raise PeerUnreachable(f"nobody knows where store {announcement.receiver:016x} is")
        async with self._caller.connection(remote, CONNECT_TIMEOUT_S) as channel:
            await self._send(channel, remote, announcement, chunks)

    async def _send(
        self,
        channel: grpc.aio.Channel,
        remote: RemoteNode,
        announcement: InstallSnapshot,
        chunks: AsyncIterator[bytes],
    ) -> None:
        call: SnapshotCall = ConsensusStub(channel).InstallSnapshot(metadata=self._caller.metadata(remote))
        try:
            await self._write_all(call, remote, announcement, chunks)
            async with asyncio.timeout(self._finish_s):
                await call
            self._caller.check(remote)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            # A write that meets the end of the stream fails in a way of its own: the stream's status says why.
            raise await self._reason(call) from None
        except TimeoutError:
            raise PeerUnreachable(f"{remote.name} does not take a snapshot any more") from None
        finally:
            call.cancel()

    async def _write_all(
        self,
        call: SnapshotCall,
        remote: RemoteNode,
        announcement: InstallSnapshot,
        chunks: AsyncIterator[bytes],
    ) -> None:
        header = peer_header(self._caller.local, self._incarnation, remote)
        await self._write(call, pb.SnapshotChunk(header=header, announcement=encode_message(announcement)))
        offset = 0
        async for data in chunks:
            self._caller.check(remote)
            for start in range(0, len(data), CHUNK_BYTES):
                piece = data[start : start + CHUNK_BYTES]
                await self._write(call, pb.SnapshotChunk(offset=offset, data=piece, crc32=crc32(piece)))
                offset += len(piece)
        await call.done_writing()

    async def _write(self, call: SnapshotCall, chunk: pb.SnapshotChunk) -> None:
        async with asyncio.timeout(self._stall_s):
            await call.write(chunk)

    async def _reason(self, call: SnapshotCall) -> Exception:
        try:
            async with asyncio.timeout(self._stall_s):
                await call
        except grpc.aio.AioRpcError as error:
            return call_failed(error).error()
        except TimeoutError:
            return PeerUnreachable("the stream broke before the snapshot ended")
        return PeerUnreachable("the stream ended before the snapshot did")
