"""Blobs on this node's disk. Blocking; ``local`` is its face for the event loop.

What may live here: files, their durability, verification and eviction. Who else holds a blob is not known here.

::

    BLOBS/pinned/DIGEST      replicas that the directory counts on; never evicted
    BLOBS/cache/DIGEST       copies pulled for local use; evicted, least recently used first, over the limit
    BLOBS/temp/N             on their way in; removed at the start
    BLOBS/quarantine/DIGEST  copies that were found damaged; looked at by people, removed at the start

A blob's place says whether it is pinned, so pins survive a restart without a record of their own. A file has its digest
as its name only when its bytes were verified and synced, and it is reported only after its directory was synced. It is
verified again each time before it is served.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from raftd.blobs.ref import DEFAULT_MAX_BLOB_BYTES, BlobRef, check_digest, check_size, frames_of
from raftd.blobs.transfer import Download, Upload, storage_error, sync_directory, sync_fd
from raftd.errors import BlobNotFound, RaftdError

DEFAULT_CACHE_BYTES = 1024**3
EVICTION_GRACE_MS = 60_000
"""A cached copy used less than this ago is spared, for a task may be about to open the path that it was given."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob on this node."""

    ref: BlobRef
    pinned: bool


@dataclass(slots=True)
class _Held:
    size_bytes: int
    pinned: bool
    used_ms: int


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class DiskBlobs:
    """The blobs of one data directory; from any thread.

    Args:
        path: the ``blobs`` directory, made if it is not there. Only one process may use it.
        cache_limit_bytes: what unpinned copies may take together.
        max_blob_bytes: the largest blob this node takes.
        sync: brings a file descriptor's bytes to the medium.
        clock_ms: monotonic milliseconds, for the eviction.
    """

    def __init__(
        self,
        path: Path,
        *,
        cache_limit_bytes: int = DEFAULT_CACHE_BYTES,
        max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES,
        sync: Callable[[int], None] = sync_fd,
        clock_ms: Callable[[], int] = _monotonic_ms,
    ) -> None:
        self.max_blob_bytes = max_blob_bytes
        self._sync = sync
        self._cache_limit_bytes = cache_limit_bytes
        self._clock_ms = clock_ms
        self._pinned = path / "pinned"
        self._cache = path / "cache"
        self._temp = path / "temp"
        self._quarantine = path / "quarantine"
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        """Least recently used first."""
        self._upload_count = 0
        self.quarantined_count = 0
        try:
            self._prepare(path)
        except OSError as error:
            raise storage_error(f"opening the blob store in {path}", error) from error

    # In.

    def begin(self, *, digest: str | None = None, size_bytes: int | None = None) -> Upload:
        """Start a blob whose frames follow.

        Args:
            digest: what it must have, where that is known.
            size_bytes: how long it must be, where that is known.

        Raises ``BadDigest``, ``PayloadTooLarge``, ``StorageError``.
        """
        if digest is not None:
            check_digest(digest)
        if size_bytes is not None:
            check_size(size_bytes, self.max_blob_bytes)
        with self._lock:
            self._upload_count += 1
            path = self._temp / str(self._upload_count)
        try:
            return Upload(
                path,
                self._publish,
                self._sync,
                digest=digest,
                size_bytes=size_bytes,
                limit_bytes=self.max_blob_bytes,
            )
        except OSError as error:
            raise storage_error("storing a blob", error) from error

    def put(self, data: bytes, *, pinned: bool = True) -> BlobRef:
        """Store bytes that are at hand; durable on return. Raises as ``Upload`` does."""
        upload = self.begin(size_bytes=len(data))
        try:
            for frame in frames_of(data):
                upload.write(frame)
            return upload.commit(pinned=pinned)
        finally:
            upload.abort()

    # Out.

    def open(self, digest: str) -> Download:
        """A blob's frames, all of it verified before this returns.

        Raises ``BlobNotFound`` where it is not here or was damaged, ``BadDigest``, ``StorageError``.
        """
        check_digest(digest)
        with self._lock:
            held = self._held.get(digest)
            if held is None:
                raise _not_here(digest)
            place = self._place(digest, held.pinned)
            try:
                file = FileIO(place, "rb")
            except FileNotFoundError:
                self._set_aside(digest, None)
                raise _not_here(digest) from None
            except OSError as error:
                raise storage_error(f"reading blob {digest[:12]}", error) from error
        download = Download(file, digest, self._set_aside)
        self._touch(digest, place)
        return download

    def read(self, digest: str) -> Iterator[bytes]:
        """The frames as ``open`` gives them, one after the other."""
        with self.open(digest) as download:
            while frame := download.read():
                yield frame

    def path(self, digest: str) -> Path:
        """A file with these bytes, verified just now; a cached one is spared from eviction for a minute.

        Raises as ``read`` does.
        """
        self.open(digest).close()
        with self._lock:
            held = self._held.get(digest)
            if held is None:
                raise _not_here(digest)
            return self._place(digest, held.pinned)

    def stat(self, digest: str) -> BlobStat | None:
        """What is known of a blob without reading it; None where it is not here. Raises ``BadDigest``."""
        check_digest(digest)
        with self._lock:
            held = self._held.get(digest)
            return BlobStat(BlobRef(digest, held.size_bytes), held.pinned) if held else None

    def list(self) -> list[BlobStat]:
        """Every blob here, by digest."""
        with self._lock:
            held = sorted(self._held.items())
        return [BlobStat(BlobRef(digest, one.size_bytes), one.pinned) for digest, one in held]

    def cached_bytes(self) -> int:
        """What unpinned copies take."""
        with self._lock:
            return sum(held.size_bytes for held in self._held.values() if not held.pinned)

    # Changes of what is here.

    def pin(self, digest: str) -> BlobRef:
        """Verify a blob and make it a replica; durable on return. Raises as ``read`` does."""
        self.open(digest).close()
        return self._move(digest, pinned=True)

    def unpin(self, digest: str) -> None:
        """Make a replica a cached copy, which eviction may take. Raises ``BlobNotFound``, ``StorageError``."""
        self._move(digest, pinned=False)
        with self._lock:
            self._evict()

    def delete(self, digest: str) -> bool:
        """Remove a blob, pinned or not; whether it was here. Durable on return."""
        check_digest(digest)
        with self._lock:
            held = self._held.pop(digest, None)
            if held is None:
                return False
            place = self._place(digest, held.pinned)
            try:
                place.unlink(missing_ok=True)
                sync_directory(place.parent)
            except OSError as error:
                raise storage_error(f"removing blob {digest[:12]}", error) from error
            return True

    def _prepare(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self._pinned, self._cache, self._temp, self._quarantine):
            directory.mkdir(exist_ok=True, mode=0o700)
        for leftover in (*self._temp.iterdir(), *self._quarantine.iterdir()):
            leftover.unlink()
        sync_directory(path.parent)
        sync_directory(path)
        # Names that a process made and did not live to sync are about to be relied on.
        sync_directory(self._pinned)
        now_ms = self._clock_ms()
        found: list[tuple[int, str, _Held]] = []
        for directory, pinned in ((self._cache, False), (self._pinned, True)):
            for file in directory.iterdir():
                try:
                    digest = check_digest(file.name)
                except RaftdError:
                    continue
                status = file.stat()
                found.append(
                    (status.st_mtime_ns, digest, _Held(status.st_size, pinned, now_ms - EVICTION_GRACE_MS))
                )
        for _, digest, held in sorted(found, key=lambda one: (one[2].pinned, one[0], one[1])):
            if held.pinned and digest in self._held:
                (self._cache / digest).unlink()
            self._held[digest] = held
        self._evict()

    def _touch(self, digest: str, place: Path) -> None:
        with self._lock:
            held = self._held.pop(digest, None)
            if held is None:
                return
            held.used_ms = self._clock_ms()
            self._held[digest] = held
            if not held.pinned:
                # The order of use survives a restart in the files' times.
                with suppress(OSError):
                    os.utime(place)

    def _publish(self, temp: Path, ref: BlobRef, pinned: bool) -> None:
        with self._lock:
            known = self._held.get(ref.digest)
            pinned = pinned or (known is not None and known.pinned)
            place = self._place(ref.digest, pinned)
            # Also over a copy that is there: this one was verified just now, that one may have rotted.
            os.replace(temp, place)
            sync_directory(place.parent)
            self._held.pop(ref.digest, None)
            self._held[ref.digest] = _Held(ref.size_bytes, pinned, self._clock_ms())
            if known is not None and known.pinned != pinned:
                self._place(ref.digest, known.pinned).unlink(missing_ok=True)
            self._evict()

    def _move(self, digest: str, *, pinned: bool) -> BlobRef:
        check_digest(digest)
        with self._lock:
            held = self._held.get(digest)
            if held is None:
                raise _not_here(digest)
            if held.pinned != pinned:
                source, target = self._place(digest, held.pinned), self._place(digest, pinned)
                try:
                    os.replace(source, target)
                    sync_directory(target.parent)
                    sync_directory(source.parent)
                except OSError as error:
                    raise storage_error(f"moving blob {digest[:12]}", error) from error
                held.pinned = pinned
            return BlobRef(digest, held.size_bytes)

    def _evict(self) -> None:
        spare_from_ms = self._clock_ms() - EVICTION_GRACE_MS
        excess = self.cached_bytes() - self._cache_limit_bytes
        for digest, held in list(self._held.items()):
            if excess <= 0:
                return
            if not held.pinned and held.used_ms <= spare_from_ms:
                self._place(digest, pinned=False).unlink(missing_ok=True)
                del self._held[digest]
                excess -= held.size_bytes

    def _set_aside(self, digest: str, inode: int | None) -> None:
        """Forget a copy that is damaged (the file ``inode``) or gone (None), and keep the damaged file for people."""
        with self._lock:
            held = self._held.get(digest)
            if held is None:
                return
            place = self._place(digest, held.pinned)
            try:
                # A good copy may have taken its place since.
                if place.exists() and place.stat().st_ino != inode:
                    return
                del self._held[digest]
                self.quarantined_count += 1
                with suppress(FileNotFoundError):
                    os.replace(place, self._quarantine / digest)
                sync_directory(place.parent)
            except OSError as error:
                raise storage_error(f"setting blob {digest[:12]} aside", error) from error

    def _place(self, digest: str, pinned: bool) -> Path:
        return (self._pinned if pinned else self._cache) / digest


def _not_here(digest: str) -> BlobNotFound:
    return BlobNotFound(f"blob {digest[:12]} is not on this node")
