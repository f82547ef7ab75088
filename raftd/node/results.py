"""Results of attempts and blobs of tasks: the blob store as the executor uses it, and the directory in the state.

What may live here: the glue between the replicated directory and the blobs on disks. A result counts as stored only
when a majority of the voters holds it, fsynced; the directory learns of it with the attempt's Vacate.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from raftd.blobs.ref import FRAME_BYTES
from raftd.node.members import Members
from raftd.scheduler import queries
from raftd.scheduler.model import BlobRecord, BlobRef, Health
from raftd.scheduler.state import State

REPLICATE_TIMEOUT_MS = 30_000


class Directory:
    """The replicated blob directory, read from the applied state (``raftd.blobs.peers.BlobDirectory``)."""

    def __init__(self, state: Callable[[], State], members: Members) -> None:
        self._state = state
        self._members = members

    def record(self, digest: str) -> BlobRecord | None:
        """Who holds these bytes, or None."""
        return queries.blob(self._state(), digest)

    def voters(self) -> Sequence[str]:
        """Names of the voters, in the order of the membership."""
        return [member.name for member in self._members.voters()]

    def is_up(self, node: str) -> bool:
        """Whether the cluster believes that the node is up; one that never registered may be."""
        known = self._state().nodes.get(node)
        return known is None or known.health is Health.UP


class LocalStore(Protocol):
    """This node's own blobs (``raftd.blobs.local.LocalBlobs``)."""

    async def put(self, frames: AsyncIterable[bytes], *, size_bytes: int) -> BlobRef:
        """Store so many bytes, fsynced."""

    async def put_bytes(self, data: bytes, *, pinned: bool = True) -> BlobRef:
        """Store bytes, fsynced."""


class Replicas(Protocol):
    """Copies on other nodes (``raftd.blobs.replicate.Replicator``)."""

    async def replicate(
        self, digest: str, *, candidates: Sequence[str], replicas: int, timeout_ms: int
    ) -> tuple[str, ...]:
        """Have so many nodes hold the bytes, fsynced; their names."""


class Fetches(Protocol):
    """Bytes from wherever they are (``raftd.blobs.fetch.Fetcher``)."""

    async def fetch(self, digest: str) -> Path:
        """A local file with the bytes."""


class Voters(Protocol):
    """Who shall hold what is stored (``Directory``)."""

    def voters(self) -> Sequence[str]:
        """Names of the voters, in the order of the membership."""


class Enters(Protocol):
    """The way into the directory (``raftd.services.blobs.BlobsService``)."""

    async def enter(self, ref: BlobRef, holders: Sequence[str]) -> None:
        """Has the directory know who holds a blob."""


class ResultBlobs:
    """Where large results go, and where tasks get blobs from and put some."""

    def __init__(
        self,
        local: LocalStore,
        replicas: Replicas,
        fetches: Fetches,
        directory: Voters,
        enters: Callable[[], Enters],
    ) -> None:
        self._enters = (
            enters  # asked for when it is needed: it is made after the executor, and needs all of this
        )
        self._local = local
        self._replicas = replicas
        self._fetches = fetches
        self._directory = directory

    async def put(self, data: bytes) -> tuple[BlobRef, tuple[str, ...]]:
        """Store a result on a majority of the voters.

        Raises:
            NotEnoughReplicas: too few voters could be reached; it may be tried again.
        """
        ref = await self._local.put_bytes(data, pinned=True)
        return ref, await self._replicate(ref)

    async def put_file(self, path: Path) -> BlobRef:
        """Store what a task puts on a majority of the voters, and have the cluster know of it.

        Raises:
            RaftdError: as for ``put``, or the directory could not be reached.
            OSError: the file cannot be read, or is no file.
        """
        # Anything else might never end.
        if not stat.S_ISREG(mode := (await asyncio.to_thread(path.stat)).st_mode):
            raise OSError(errno.EINVAL, f"it is no file (mode {mode:o})", str(path))
        file = await asyncio.to_thread(path.open, "rb")
        with file:
            size_bytes = os.fstat(file.fileno()).st_size
            ref = await self._local.put(_frames(file, size_bytes), size_bytes=size_bytes)
        await self._enters().enter(ref, await self._replicate(ref))
        return ref

    async def _replicate(self, ref: BlobRef) -> tuple[str, ...]:
        voters = list(self._directory.voters())
        return await self._replicas.replicate(
            ref.digest,
            candidates=voters,
            replicas=len(voters) // 2 + 1,
            timeout_ms=REPLICATE_TIMEOUT_MS,
        )

    async def fetch(self, digest: str) -> Path:
        """A local file with the bytes of a blob.

        Raises:
            BlobNotFound: nobody who can be reached has it.
        """
        return await self._fetches.fetch(digest)


async def _frames(file: BinaryIO, size_bytes: int) -> AsyncIterator[bytes]:
    """So many bytes of a file, and no more, should it grow."""
    while size_bytes > 0 and (frame := await asyncio.to_thread(file.read, min(FRAME_BYTES, size_bytes))):
        yield frame
        size_bytes -= len(frame)
