"""The blob store as the rest of the node uses it: put with replicas, get from anywhere.

What may live here: the composition of ``local``, ``replicate`` and ``fetch``, and the default number of replicas. It
proposes nothing: recording who holds what is a command, and its sender is told the holders here.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from pathlib import Path

from raftd.blobs.fetch import Fetcher
from raftd.blobs.local import Frames, LocalBlobs
from raftd.blobs.peers import BlobDirectory, PeerBlobs
from raftd.blobs.ref import BlobRef, check_digest
from raftd.blobs.replicate import Replicator

DEFAULT_TIMEOUT_MS = 30_000


class ClusterBlobs:
    """The cluster's blobs, seen from one node. It is the executor's ``ResultStore`` and ``BlobSource``.

    Args:
        local_name: this node.
        local: its blobs.
        peers: those of the others.
        directory: who holds what, and who votes.
        timeout_ms: how long replicas may take, where the caller does not say.
    """

    def __init__(
        self,
        local_name: str,
        local: LocalBlobs,
        peers: PeerBlobs,
        directory: BlobDirectory,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
    ) -> None:
        self.local = local
        self._directory = directory
        self._timeout_ms = timeout_ms
        self._replicator = Replicator(local_name, local, peers, directory.is_up)
        self._fetcher = Fetcher(local_name, local, peers, directory)

    async def put(self, data: bytes) -> tuple[BlobRef, tuple[str, ...]]:
        """Store the bytes on a majority of the voters; what they are, and who holds them, fsynced.

        Raises ``NotEnoughReplicas`` (retryable), ``PayloadTooLarge``, ``StorageError``.
        """
        ref = await self.local.put_bytes(data)
        return ref, await self.replicate(ref.digest)

    async def put_frames(
        self,
        frames: AsyncIterable[bytes],
        *,
        digest: str | None = None,
        size_bytes: int | None = None,
        replicas: int = 0,
        timeout_ms: int | None = None,
    ) -> tuple[BlobRef, tuple[str, ...]]:
        """A client's put: as ``put``, from a stream.

        Args:
            frames: the bytes, in pieces of any size.
            digest: what they must have, if it was announced.
            size_bytes: how many they must be, if it was announced.
            replicas: how many voters must hold them, 0 for a majority.
            timeout_ms: for the replicas, None for the default.

        Raises also ``BadDigest``, ``ContentMismatch``, ``InvalidArguments`` for more replicas than voters.
        """
        ref = await self.local.put(frames, digest=digest, size_bytes=size_bytes)
        return ref, await self.replicate(ref.digest, replicas=replicas, timeout_ms=timeout_ms)

    async def accept(
        self, frames: AsyncIterable[bytes], *, digest: str, size_bytes: int | None = None
    ) -> BlobRef:
        """A peer's push: a pinned replica here and nothing else; fsynced on return."""
        return await self.local.put(frames, digest=digest, size_bytes=size_bytes)

    async def replicate(
        self, digest: str, *, replicas: int = 0, timeout_ms: int | None = None
    ) -> tuple[str, ...]:
        """Have enough voters hold a blob of this node; who holds it. Raises as ``Replicator.replicate`` does."""
        voters = self._directory.voters()
        record = self._directory.record(digest)
        return await self._replicator.replicate(
            digest,
            replicas=replicas or majority(len(voters)),
            candidates=voters,
            timeout_ms=self._timeout_ms if timeout_ms is None else timeout_ms,
            known=record.holders if record else (),
        )

    async def fetch(self, digest: str) -> Path:
        """A local file with these bytes, pulled from a peer if need be. Raises as ``Fetcher.fetch`` does."""
        return await self._fetcher.fetch(digest)

    async def open(self, digest: str, *, local_only: bool = False) -> Frames:
        """The frames of a blob, verified, pulled from a peer first if need be and allowed; to be closed."""
        return await (self.local.open(digest) if local_only else self._fetcher.open(digest))

    def stat(self, digest: str) -> tuple[BlobRef | None, tuple[str, ...], bool]:
        """What a blob is (None where nothing is known of it), who holds it by the directory, and whether it is here.

        Raises ``BadDigest``.
        """
        here = self.local.stat(check_digest(digest))
        record = self._directory.record(digest)
        ref = record.ref if record else here.ref if here else None
        return ref, record.holders if record else (), here is not None


def majority(voter_count: int) -> int:
    """How many of the voters outlive the loss of any minority together."""
    return voter_count // 2 + 1
