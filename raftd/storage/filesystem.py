"""The few things storage asks of a file system, and how the real one does them.

What may live here: the ``FileSystem`` and ``File`` protocols and the implementation over ``os``. Everything in this
package reaches the disk only through them, so that a simulated disk can stand in and crash at every step.

An operation raises ``OSError``; the callers know what they were doing and turn it into a typed error.
Durability is as POSIX has it: bytes after ``File.sync``, names after ``fsync_dir`` of their directory.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Protocol


class File(Protocol):
    """A file opened for writing at offsets."""

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``, or raise."""

    def sync(self) -> None:
        """Return when bytes and size are on the medium. Never called again after it raised."""

    def close(self) -> None:
        """Close without any promise about durability."""


class ReadableFile(Protocol):
    """A file opened for reading in pieces; it stays readable when its name goes."""

    def pread(self, length: int, offset: int) -> bytes:
        """That many bytes from ``offset`` on, fewer only at the end."""

    def close(self) -> None:
        """Let it go."""


class Lock(Protocol):
    """A lock on a file, held until it is released or the process ends."""

    def release(self) -> None:
        """Give the lock up."""


class LockHeld(Exception):
    """Somebody else holds the lock; ``pid`` is theirs, 0 where unknown."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


class FileSystem(Protocol):
    """Paths are strings with ``/``; names in one directory are unique."""

    def create(self, path: str) -> File:
        """A new, empty file, open for writing. ``FileExistsError`` where the name is taken."""

    def open(self, path: str) -> File:
        """An existing file, open for writing."""

    def open_read(self, path: str) -> ReadableFile:
        """An existing file, open for reading."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def exists(self, path: str) -> bool:
        """Whether the name is there, whatever it names."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def mkdir(self, path: str) -> None:
        """A new directory whose parent exists. ``FileExistsError`` where the name is taken."""

    def rename(self, source: str, target: str) -> None:
        """Atomically give ``source`` the name ``target``, replacing what had it."""

    def unlink(self, path: str) -> None:
        """Remove a file."""

    def fsync_dir(self, path: str) -> None:
        """Return when the names in this directory are on the medium."""

    def lock(self, path: str) -> Lock:
        """Lock the file, made if need be, for this process. Raises ``LockHeld``."""


class RealFile:
    """A file descriptor that other programs do not inherit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        if written == len(data):
            return
        view = memoryview(data)
        while written < len(view):
            written += os.pwrite(self._fd, view[written:], offset + written)

    def sync(self) -> None:
        sync_fd(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class RealReadableFile:
    """A file descriptor that other programs do not inherit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, length: int, offset: int) -> bytes:
        parts: list[bytes] = []
        while length and (part := os.pread(self._fd, length, offset)):
            parts.append(part)
            length -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        os.close(self._fd)


def sync_fd(fd: int) -> None:
    """Bring a file's bytes to the medium.

    ``fdatasync``; on macOS F_FULLFSYNC, for fsync there stops at the drive's cache.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


class RealLock:
    """An ``flock``, which the kernel lets go of when its process dies, however it dies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        os.close(self._fd)


class RealFileSystem:
    """The machine's own file system."""

    def create(self, path: str) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def open(self, path: str) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def open_read(self, path: str) -> RealReadableFile:
        return RealReadableFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> RealLock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise LockHeld(int(holder) if holder.isdigit() else 0) from None
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return RealLock(fd)
