"""This node's blobs for the event loop: the same as ``disk``, with every wait in a thread.

What may live here: the hand-over between coroutines and threads, nothing that decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Self

from raftd.blobs.disk import BlobStat, DiskBlobs
from raftd.blobs.ref import BlobRef
from raftd.blobs.transfer import Download, Upload


class Frames:
    """A blob's frames, to be iterated over once; close it, for example with ``contextlib.aclosing``."""

    def __init__(self, download: Download) -> None:
        self._download = download

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        frame = await asyncio.to_thread(self._download.read)
        if not frame:
            await self.aclose()
            raise StopAsyncIteration
        return frame

    async def aclose(self) -> None:
        """Nothing more is wanted. It waits for a read that a cancelled caller left at work."""
        await asyncio.shield(asyncio.to_thread(self._download.close))


class LocalBlobs:
    """The blobs of this node. Errors are those of ``DiskBlobs``.

    Args:
        disk: where they are.
    """

    def __init__(self, disk: DiskBlobs) -> None:
        self.disk = disk

    async def put(
        self,
        frames: AsyncIterable[bytes],
        *,
        digest: str | None = None,
        size_bytes: int | None = None,
        pinned: bool = True,
    ) -> BlobRef:
        """Take frames in; verified, synced and published on return. A caller that goes away leaves nothing behind.

        Args:
            frames: the bytes, in pieces of any size.
            digest: what they must have, where that is known.
            size_bytes: how many they must be, where that is known.
            pinned: whether they are a replica that counts, or a copy that may be evicted.
        """
        upload = await self._begin(digest, size_bytes)
        try:
            async for frame in frames:
                await asyncio.to_thread(upload.write, frame)
            return await asyncio.to_thread(upload.commit, pinned=pinned)
        finally:
            # A thread that a cancelled caller left at work finishes first: the upload has a lock.
            await asyncio.shield(asyncio.to_thread(upload.abort))

    async def _begin(self, digest: str | None, size_bytes: int | None) -> Upload:
        """An upload; one that its caller was cancelled for is thrown away, for its thread goes on and makes it."""
        beginning = asyncio.ensure_future(
            asyncio.to_thread(self.disk.begin, digest=digest, size_bytes=size_bytes)
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_throw_away)
            raise

    async def put_bytes(self, data: bytes, *, pinned: bool = True) -> BlobRef:
        """Store bytes that are at hand."""
        return await asyncio.to_thread(self.disk.put, data, pinned=pinned)

    async def open(self, digest: str) -> Frames:
        """The frames of a blob, all of it verified. ``BlobNotFound`` also for a damaged copy."""
        return Frames(await asyncio.to_thread(self.disk.open, digest))

    async def path(self, digest: str) -> Path:
        """A file with these bytes, verified just now."""
        return await asyncio.to_thread(self.disk.path, digest)

    async def pin(self, digest: str) -> BlobRef:
        """Verify a blob and make it a replica that counts."""
        return await asyncio.to_thread(self.disk.pin, digest)

    async def unpin(self, digest: str) -> None:
        """Make a replica a copy that may be evicted."""
        await asyncio.to_thread(self.disk.unpin, digest)

    async def delete(self, digest: str) -> bool:
        """Remove a blob; whether it was here."""
        return await asyncio.to_thread(self.disk.delete, digest)

    def stat(self, digest: str) -> BlobStat | None:
        """What is known of a blob, at once; None where it is not here."""
        return self.disk.stat(digest)

    def list(self) -> list[BlobStat]:
        """Every blob here."""
        return self.disk.list()


def _throw_away(beginning: asyncio.Future[Upload]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().abort()
