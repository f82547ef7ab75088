"""Results of attempts and blobs of tasks: the blob store as the executor uses it, and the directory in the state.

What may live here: the glue between the replicated directory and the blobs on disks. A result counts as stored only
when a majority of the voters holds it, fsynced; the directory learns of it with the attempt's Vacate.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from raftd.blobs.ref import FRAME_BYTES
from raftd.errors import BlobNotFound, PeerUnreachable, RaftdError
from raftd.node.members import Members
from raftd.scheduler import queries
from raftd.scheduler.model import BlobRecord, BlobRef, Health
from raftd.scheduler.state import State

REPLICATE_TIMEOUT_MS = 30_000
ASK_TIMEOUT_S = 5.0


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


class Asked(Protocol):
    """Members who are asked for their directory (``raftd.transport.blobs.GrpcPeerBlobs``)."""

    async def record(self, node: str, digest: str, timeout_s: float) -> BlobRecord:
        """What that member's directory says of a blob."""

    async def enter(self, node: str, ref: BlobRef, holders: Sequence[str], timeout_s: float) -> None:
        """Have that member see to it that the directory knows who holds a blob."""


class Known(Protocol):
    """What a worker knows of the members (``raftd.node.discovery.Discovery``)."""

    @property
    def leader_name(self) -> str:
        """The leader's name; empty while there is doubt."""

    def voters(self) -> Sequence[str]:
        """Names of the voters."""


class AskedDirectory:
    """The replicated blob directory for a node that holds no log: what is needed of it is asked for, and not kept.

    Args:
        known: the members.
        asked: the way to ask one.
    """

    def __init__(self, known: Known, asked: Asked) -> None:
        self._known = known
        self._asked = asked
        self._records: dict[str, BlobRecord] = {}

    async def learn(self, digest: str) -> None:
        """Have ``record`` know this blob, until ``forget``.

        Raises:
            BlobNotFound: the leader knows of no such blob.
            RaftdError: no member could say.
        """

        async def learn(name: str) -> None:
            self._records[digest] = await self._asked.record(name, digest, ASK_TIMEOUT_S)

        await self._first_voter(learn)

    async def enter(self, ref: BlobRef, holders: Sequence[str]) -> None:
        """Have the cluster know who holds a blob that a task has put.

        Raises:
            RaftdError: no member could see to it, or that is not known; it may be tried again.
        """
        await self._first_voter(lambda name: self._asked.enter(name, ref, holders, ASK_TIMEOUT_S))

    async def _first_voter(self, ask: Callable[[str], Awaitable[None]]) -> None:
        """Ask the leader, then the other voters, until one has answered."""
        leader = self._known.leader_name
        voters = [leader] if leader else []
        voters += [name for name in self._known.voters() if name != leader]
        failure: RaftdError = PeerUnreachable("no voter is known")
        for name in voters:
            try:
                await ask(name)
                return
            except BlobNotFound:
                raise  # only the leader says so
            except RaftdError as error:
                failure = error
        raise failure

    def forget(self, digest: str) -> None:
        """Who holds it may change from now on."""
        self._records.pop(digest, None)

    def record(self, digest: str) -> BlobRecord | None:
        """Who holds these bytes, as it was learned; None where it was not."""
        return self._records.get(digest)

    def voters(self) -> Sequence[str]:
        """Names of the voters."""
        return self._known.voters()

    def is_up(self, node: str) -> bool:
        """Which nodes are up is not known here: they are tried."""
        return True


class LocalStore(Protocol):
    """This node's own blobs (``raftd.blobs.local.LocalBlobs``)."""

    async def put(self, frames: AsyncIterable[bytes], *, size_bytes: int, pinned: bool = True) -> BlobRef:
        """Store so many bytes, fsynced."""

    async def put_bytes(self, data: bytes, *, pinned: bool = True) -> BlobRef:
        """Store bytes, fsynced."""

    async def unpin(self, digest: str) -> None:
        """Make a replica a copy that may be evicted."""


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
    """Who votes."""

    def voters(self) -> Sequence[str]:
        """Names of the voters."""


class Enters(Protocol):
    """The way into the directory (``raftd.services.blobs.BlobsService``, ``AskedDirectory``)."""

    async def enter(self, ref: BlobRef, holders: Sequence[str]) -> None:
        """Have the directory know who holds a blob."""


class ResultBlobs:
    """Where large results go, and where tasks get blobs from and put some.

    Args:
        local: this node's blobs.
        replicas: makes copies on other nodes.
        fetches: brings copies here.
        directory: who votes.
        enters: the way into the directory.
        counts: whether this node may be one of those that are counted on; if not, what it keeps may be evicted.
    """

    def __init__(
        self,
        local: LocalStore,
        replicas: Replicas,
        fetches: Fetches,
        directory: Voters,
        enters: Enters,
        *,
        counts: bool = True,
    ) -> None:
        self._counts = counts
        self._enters = enters
        self._local = local
        self._replicas = replicas
        self._fetches = fetches
        self._directory = directory

    async def put(self, data: bytes) -> tuple[BlobRef, tuple[str, ...]]:
        """Store a result on a majority of the voters.

        Raises:
            NotEnoughReplicas: too few voters could be reached; it may be tried again.
        """
        ref = await self._local.put_bytes(data, pinned=self._counts)
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
            frames = _frames(file, size_bytes)
            ref = await self._local.put(frames, size_bytes=size_bytes, pinned=self._counts)
        await self._enters.enter(ref, await self._replicate(ref))
        return ref

    async def _replicate(self, ref: BlobRef) -> tuple[str, ...]:
        voters = list(self._directory.voters())
        try:
            return await self._replicas.replicate(
                ref.digest,
                candidates=voters,
                replicas=len(voters) // 2 + 1,
                timeout_ms=REPLICATE_TIMEOUT_MS,
            )
        finally:
            if not self._counts:
                await self._local.unpin(ref.digest)

    async def fetch(self, digest: str) -> Path:
        """A local file with the bytes of a blob.

        Raises:
            BlobNotFound: nobody who can be reached has it.
        """
        return await self._fetches.fetch(digest)


class WorkerBlobs(ResultBlobs):
    """The same on a worker, whose own copies nobody counts on: it may be gone for good the next moment."""

    def __init__(
        self, local: LocalStore, replicas: Replicas, fetches: Fetches, directory: AskedDirectory
    ) -> None:
        super().__init__(local, replicas, fetches, directory, directory, counts=False)
        self._asked = directory

    async def fetch(self, digest: str) -> Path:
        """A local file with the bytes of a blob.

        Raises:
            BlobNotFound: nobody has it.
            RaftdError: no member could be asked, or nobody who has it.
        """
        try:
            return await super().fetch(digest)
        except BlobNotFound:
            await self._asked.learn(digest)
        try:
            return await super().fetch(digest)
        finally:
            self._asked.forget(digest)


async def _frames(file: BinaryIO, size_bytes: int) -> AsyncIterator[bytes]:
    """So many bytes of a file, and no more, should it grow."""
    while size_bytes > 0 and (frame := await asyncio.to_thread(file.read, min(FRAME_BYTES, size_bytes))):
        yield frame
        size_bytes -= len(frame)
