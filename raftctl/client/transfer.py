"""Bytes that come in pieces: blobs in and out, and the output of tasks.

What may live here: the streams that are not watches. What was received is proved (digest, size) before anyone
sees it; a stream that breaks is asked for again from another node, and what came twice is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

from grpc import aio

from raftctl.client import errors, wire
from raftctl.client.channel import LONGEST_PAUSE_S, Patience, Router, more_telling
from raftctl.client.models import BlobRef, BlobStat, LogChunk, OutputStream
from raftd.pb import blobs_pb2 as pb
from raftd.pb import scheduler_pb2

FRAME_BYTES = 256 * 1024


class Seen:
    """How much of a task's output has been passed on: a stream that breaks begins anew, and must repeat nothing."""

    def __init__(self) -> None:
        self._seen = dict.fromkeys(OutputStream, 0)
        self._skip = dict(self._seen)

    def again(self) -> None:
        """The output comes from its beginning."""
        self._skip = dict(self._seen)

    def fresh(self, chunk: LogChunk) -> LogChunk | None:
        """The part of a chunk that was not passed on yet; None where that is all of it."""
        drop = min(self._skip[chunk.stream], len(chunk.data))
        self._skip[chunk.stream] -= drop
        if drop == len(chunk.data) and drop:
            return None
        self._seen[chunk.stream] += len(chunk.data) - drop
        return replace(chunk, data=chunk.data[drop:])


class Transfers:
    """Blobs and logs of one cluster."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def get(self, digest: str, timeout_s: float) -> bytes:
        """The bytes of a blob, from whichever node can give them.

        Raises:
            BlobNotFound: no node has them.
            BlobDamaged: every node that claims to have them sends others.
            Unavailable: nobody answered in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        patience = Patience()
        missing: errors.ClientError | None = None
        telling: errors.ClientError | None = None
        while (remaining_s := deadline - loop.time()) > 0:
            for address in self._router.order():
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._router.reach(address, min(remaining_s, patience.probe_s), again=True)
                        return await self._get_from(address, digest)
                except TimeoutError:
                    telling = more_telling(telling, errors.NodeUnreachable(f"{address} sent no blob in time"))
                    break
                except errors.BlobNotFound as error:
                    missing = error
                except errors.ClientError as error:
                    if not error.retryable and not isinstance(error, errors.BlobDamaged):
                        raise
                    telling = more_telling(telling, error)
            if telling is None and missing is not None:
                raise missing  # every node answered, and none has it
            await patience.pause(deadline - loop.time())
        raise telling or missing or errors.NodeUnreachable("no node answered in time")

    async def _get_from(self, address: str, digest: str) -> bytes:
        call = self._router.stubs(address).blobs.Get(
            pb.GetBlobRequest(digest=digest), metadata=self._router.metadata
        )
        received = bytearray()
        try:
            async for frame in call:
                received += frame.data
        except aio.AioRpcError as error:
            raise self._router.note_failure(address, error) from error
        finally:
            call.cancel()
        if hashlib.sha256(received).hexdigest() != digest:
            raise errors.BlobDamaged(
                f"{self._router.name_of(address)} sent {len(received)} bytes that are not blob {digest[:12]}"
            )
        return bytes(received)

    async def put(self, data: bytes, replicas: int, timeout_s: float) -> BlobRef:
        """Stores bytes on `replicas` nodes (0: a majority of the voters); returns when they are durable there.

        Raises:
            PayloadTooLarge: over the cluster's limit for one blob.
            Unavailable: not enough nodes could take it in time.
        """
        digest = hashlib.sha256(data).hexdigest()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        patience = Patience()
        telling: errors.ClientError | None = None
        while (remaining_s := deadline - loop.time()) > 0:
            for address in self._router.order():
                try:
                    await self._router.reach(address, min(remaining_s, patience.probe_s), again=True)
                    return await self._put_to(address, data, digest, replicas, deadline - loop.time())
                except errors.ClientError as error:
                    if not error.retryable:
                        raise
                    telling = more_telling(telling, error)
            await patience.pause(deadline - loop.time())
        raise telling or errors.NodeUnreachable("no node took the blob in time")

    async def _put_to(
        self, address: str, data: bytes, digest: str, replicas: int, timeout_s: float
    ) -> BlobRef:
        call = self._router.stubs(address).blobs.Put(
            _frames(data, digest, replicas), timeout=timeout_s, metadata=self._router.metadata
        )
        try:
            answer = await call
        except aio.AioRpcError as error:
            raise self._router.note_failure(address, error) from error
        return BlobRef(answer.blob.digest, answer.blob.size_bytes)

    async def stat(self, digest: str, timeout_s: float) -> BlobStat:
        """Where a blob is."""
        answer = await self._router.call(lambda s: s.blobs.Stat, pb.StatBlobRequest(digest=digest), timeout_s)
        return BlobStat(
            BlobRef(answer.blob.digest, answer.blob.size_bytes), tuple(answer.holders), answer.local
        )

    async def logs(self, task_id: str, attempt: int, *, follow: bool) -> AsyncGenerator[LogChunk, None]:
        """A task's output, in the order that its node tells it; with `follow` until the attempt ends.

        Raises:
            TaskNotFound, LogsGone: there is nothing to show.
            Unavailable: nobody answers.
        """
        seen = Seen()
        failures = 0
        patience = Patience()
        while True:
            address = self._router.order()[0]
            seen.again()
            try:
                await self._router.reach(address, patience.probe_s)
                async with contextlib.aclosing(self._logs_from(address, task_id, attempt, follow)) as chunks:
                    async for chunk in chunks:
                        if attempt == 0:
                            attempt = chunk.attempt  # a reconnect goes on with this one, not with a later one
                        if (fresh := seen.fresh(chunk)) is not None:
                            yield fresh
                return
            except errors.ClientError as error:
                failures += 1
                if not error.retryable or failures > 3 * len(self._router.addresses):
                    raise
            await patience.pause(LONGEST_PAUSE_S)

    async def _logs_from(
        self, address: str, task_id: str, attempt: int, follow: bool
    ) -> AsyncGenerator[LogChunk, None]:
        request = scheduler_pb2.LogsRequest(task_id=task_id, attempt=attempt, follow=follow)
        call = self._router.stubs(address).scheduler.Logs(request, metadata=self._router.metadata)
        try:
            async for message in call:
                yield wire.log_chunk(message)
        except aio.AioRpcError as error:
            raise self._router.note_failure(address, error) from error
        finally:
            call.cancel()


def _frames(data: bytes, digest: str, replicas: int) -> Iterator[pb.PutRequest]:
    yield pb.PutRequest(header=pb.PutHeader(digest=digest, size_bytes=len(data), replicas=replicas))
    for start in range(0, len(data), FRAME_BYTES):
        yield pb.PutRequest(data=data[start : start + FRAME_BYTES])
