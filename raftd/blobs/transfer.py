"""One blob on its way in or out of a directory: frames, running digest, verification.

What may live here: the two ends of a transfer and the calls that make files durable. Which blobs there are, and where,
is ``disk``'s.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Self

from raftd.blobs.ref import FRAME_BYTES, BlobCorrupt, BlobRef, ContentMismatch, check_size
from raftd.errors import StorageError


def sync_fd(fd: int) -> None:
    """Bring a file's bytes to the medium; on macOS fsync stops at the drive's cache, F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def storage_error(doing: str, error: OSError) -> StorageError:
    """The typed error for what the disk refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(
        f"{doing} failed: {error.strerror or error}", try_="free space on this node's disk" if full else ""
    )


class Upload:
    """A blob on its way in. End it with ``commit`` or ``abort``; a call waits for another thread's to end.

    Args:
        path: the temporary file, made here.
        publish: gives the synced file its place, durably: path, what it is, whether it is pinned.
        sync: brings a file descriptor's bytes to the medium.
        digest: what the bytes must have, if that is known.
        size_bytes: how many there must be, if that is known.
        limit_bytes: how many there may be.
    """

    def __init__(
        self,
        path: Path,
        publish: Callable[[Path, BlobRef, bool], None],
        sync: Callable[[int], None],
        *,
        digest: str | None,
        size_bytes: int | None,
        limit_bytes: int,
    ) -> None:
        self._path = path
        self._publish = publish
        self._sync = sync
        self._limit_bytes = limit_bytes
        self._expected_digest = digest
        self._expected_bytes = size_bytes
        self._hash = hashlib.sha256()
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self.received_bytes = 0

    def write(self, frame: bytes) -> None:
        """Add a frame. Raises ``PayloadTooLarge``, ``ContentMismatch`` beyond the announced size, ``StorageError``."""
        with self._lock:
            if self._fd is None:
                raise ValueError("the upload has ended")
            self.received_bytes += len(frame)
            check_size(self.received_bytes, self._limit_bytes)
            if self._expected_bytes is not None and self.received_bytes > self._expected_bytes:
                raise ContentMismatch(f"more bytes came than the {self._expected_bytes} that were announced")
            self._hash.update(frame)
            view = memoryview(frame)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise storage_error("writing a blob", error) from error

    def commit(self, *, pinned: bool) -> BlobRef:
        """Verify, sync and publish; durable on return. Raises ``ContentMismatch``, ``StorageError``."""
        with self._lock:
            if self._fd is None:
                raise ValueError("the upload has ended")
            ref = BlobRef(self._hash.hexdigest(), self.received_bytes)
            if self._expected_bytes not in (None, ref.size_bytes):
                raise ContentMismatch(f"{ref.size_bytes} bytes came, {self._expected_bytes} were announced")
            if self._expected_digest not in (None, ref.digest):
                raise ContentMismatch(
                    f"the bytes have the digest {ref.digest[:12]}, not {(self._expected_digest or '')[:12]}"
                )
            try:
                self._sync(self._fd)
                os.close(self._fd)
                self._fd = None
                self._publish(self._path, ref, pinned)
            except OSError as error:
                raise storage_error(f"storing blob {ref.digest[:12]}", error) from error
            return ref

    def abort(self) -> None:
        """Forget it; nothing to do after a commit."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
            with suppress(FileNotFoundError):
                self._path.unlink()


class Download:
    """A blob on its way out. All of it is verified before the first frame, and once more on the way.

    It stays readable when the blob is evicted or removed meanwhile. A call waits for another thread's to end.

    Args:
        file: the open file, unbuffered; closed by ``close``, and where this raises.
        digest: what its bytes must have. Raises ``BlobCorrupt`` where they do not or cannot be read.
        damaged: called with digest and inode before that is raised.
    """

    def __init__(self, file: RawIOBase, digest: str, damaged: Callable[[str, int], None]) -> None:
        self._file = file
        self._digest = digest
        self._damaged = damaged
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._next = b""
        try:
            self._verify()
        except BaseException:
            self._file.close()
            raise

    def _verify(self) -> None:
        try:
            found = hashlib.file_digest(self._file, "sha256").hexdigest()
            self._file.seek(0)
            self._next = self._file.read(FRAME_BYTES) or b""
        except OSError as error:
            # A sector that cannot be read is as lost as one that reads wrong.
            raise self._corrupt() from error
        if found != self._digest:
            raise self._corrupt()

    def _corrupt(self) -> BlobCorrupt:
        self._damaged(self._digest, os.fstat(self._file.fileno()).st_ino)
        return BlobCorrupt(self._digest)

    def read(self) -> bytes:
        """The next frame; empty at the end. Raises ``BlobCorrupt``."""
        with self._lock:
            frame = self._next
            if not frame:
                return b""
            self._hash.update(frame)
            try:
                self._next = self._file.read(FRAME_BYTES) or b""
            except OSError as error:
                raise self._corrupt() from error
            # The last frame is kept back until the whole has been seen again.
            if not self._next and self._hash.hexdigest() != self._digest:
                raise self._corrupt()
            return frame

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._lock:
            self._next = b""
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
