"""Getting a blob to this node: from its own disk, else from a node that the directory names.

What may live here: whom to ask, in what order, and the sharing of one pull among all who wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from raftd.blobs.local import Frames, LocalBlobs
from raftd.blobs.peers import BlobDirectory, PeerBlobs
from raftd.blobs.ref import BlobRef, ContentMismatch, check_digest
from raftd.errors import BlobNotFound, PeerUnreachable, RaftdError

STALL_MS = 5_000
"""A holder that sends no frame for this long is given up for the next one."""


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[BlobRef]
    waiter_count: int = 0


class Fetcher:
    """Brings blobs to this node, once however many ask.

    Args:
        local_name: this node.
        local: its blobs.
        peers: those of the others.
        directory: who holds what.
        stall_ms: how long a holder may be silent.
    """

    def __init__(
        self,
        local_name: str,
        local: LocalBlobs,
        peers: PeerBlobs,
        directory: BlobDirectory,
        *,
        stall_ms: int = STALL_MS,
    ) -> None:
        self._local_name = local_name
        self._local = local
        self._peers = peers
        self._directory = directory
        self._stall_s = stall_ms / 1000
        self._flights: dict[str, _Flight] = {}

    async def fetch(self, digest: str) -> Path:
        """A local file with these bytes, verified just now.

        Raises ``BadDigest``, ``BlobNotFound`` where no node has it, ``PeerUnreachable`` where a node that may have it
        cannot be asked, ``StorageError``.
        """
        await self.ensure(digest)
        try:
            return await self._local.path(digest)
        except BlobNotFound:
            # It was here by its name only; now that the damaged copy is set aside, a peer is asked.
            await self.ensure(digest)
            return await self._local.path(digest)

    async def open(self, digest: str) -> Frames:
        """The frames of a blob, all of it here and verified. Raises as ``fetch`` does."""
        await self.ensure(digest)
        try:
            return await self._local.open(digest)
        except BlobNotFound:
            await self.ensure(digest)
            return await self._local.open(digest)

    async def ensure(self, digest: str) -> BlobRef:
        """Have a copy here; what it is. It is not read when it is here already. Raises as ``fetch`` does."""
        check_digest(digest)
        stat = self._local.stat(digest)
        if stat is not None:
            return stat.ref
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._flights[digest] = _Flight(asyncio.create_task(self._pull(digest)))
            flight.task.add_done_callback(lambda _: self._forget(digest, flight))
        flight.waiter_count += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiter_count -= 1
            if not flight.waiter_count and not flight.task.done():
                # Nobody waits any more; who asks from now on starts anew.
                self._forget(digest, flight)
                flight.task.cancel()

    def _forget(self, digest: str, flight: _Flight) -> None:
        if self._flights.get(digest) is flight:
            del self._flights[digest]

    async def _pull(self, digest: str) -> BlobRef:
        record = self._directory.record(digest)
        if record is None:
            raise BlobNotFound(f"blob {digest[:12]} is not on this node, and the directory does not know it")
        # The directory counts on this node's replica: it was lost or damaged, so what comes now takes its place.
        pinned = self._local_name in record.holders
        holders = [name for name in record.holders if name != self._local_name]
        failures: dict[str, RaftdError] = {}
        for name in sorted(holders, key=lambda name: not self._directory.is_up(name)):
            try:
                return await self._pull_from(name, digest, record.ref.size_bytes, pinned)
            except (BlobNotFound, PeerUnreachable, ContentMismatch) as error:
                failures[name] = error
            except RaftdError as error:
                if not error.retryable:
                    raise
                failures[name] = error
        why = "; ".join(f"{name}: {error}" for name, error in failures.items()) or "no other node holds it"
        kind = PeerUnreachable if any(error.retryable for error in failures.values()) else BlobNotFound
        raise kind(f"blob {digest[:12]} cannot be had ({why})")

    async def _pull_from(self, name: str, digest: str, size_bytes: int, pinned: bool) -> BlobRef:
        frames = self._unstalled(name, digest)
        async with aclosing(frames):
            return await self._local.put(frames, digest=digest, size_bytes=size_bytes, pinned=pinned)

    async def _unstalled(self, name: str, digest: str) -> AsyncGenerator[bytes, None]:
        """The peer's frames. ``PeerUnreachable`` where the next one does not come in time, or the line breaks."""
        async with aclosing(self._peers.pull(name, digest)) as frames:
            while True:
                try:
                    async with asyncio.timeout(self._stall_s):
                        frame = await anext(frames)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise PeerUnreachable(f"{name} sent nothing for {self._stall_s:g} s") from None
                except OSError as error:
                    raise PeerUnreachable(f"{name}: {error}") from error
                yield frame
