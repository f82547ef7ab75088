"""A simulated disk that crashes, tears, refuses and lies, behind the ``FileSystem`` of ``raftd.storage``.

What may live here: the model of a disk and of what a crash may leave on it. It knows nothing of what is stored.

Two images. The *volatile* one is what a running process reads. The *durable* one is what a crash leaves for certain.
Writes are pending, in 512-byte sectors, until the file is synced; names are pending until their directory is synced.
A crash decides for each pending sector on its own whether it reached the medium, in any combination and so in any
order, and for each directory how many of its pending changes did, in order, as a journal has it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from raftd.storage.filesystem import LockHeld

SECTOR = 512

Choose = Callable[[int], bool]
"""Asked once per pending sector, with a running number: did it reach the medium?"""


class SimulatedCrash(BaseException):
    """The machine stopped here. Not an ``Exception``: nothing may catch it and go on."""


@dataclass(slots=True)
class Inode:
    """A file's bytes, as the process sees them and as they are for certain."""

    volatile: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: dict[int, bytes] = field(default_factory=dict)
    """Sector number -> the content it has if it reached the medium."""


@dataclass(slots=True)
class Directory:
    """Names -> inodes or directories; ``pending`` are changes that are not durable yet, oldest first."""

    volatile: dict[str, Inode | Directory] = field(default_factory=dict)
    durable: dict[str, Inode | Directory] = field(default_factory=dict)
    pending: list[tuple[tuple[str, Inode | Directory | None], ...]] = field(default_factory=list)
    """Each change sets names to what they name afterwards, None for nothing; a rename sets two at once."""


class SimulatedFile:
    """An open file of a ``SimulatedDisk``."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._disk._step("write", self._path)
        self._disk._take_space(max(0, offset + len(data) - len(self._inode.volatile)))
        self._disk._write(self._inode, bytes(data), offset)

    def sync(self) -> None:
        try:
            self._disk._step("sync", self._path)
        except OSError:
            # As Linux has it: the pages are clean now, yet did not reach the medium; the next sync would succeed.
            self._inode.pending.clear()
            raise
        inode = self._inode
        inode.durable[:] = inode.volatile
        inode.pending.clear()

    def close(self) -> None:
        pass


class SimulatedReadableFile:
    """A file of a ``SimulatedDisk`` that is being read; its inode outlives its name."""

    def __init__(self, inode: Inode) -> None:
        self._inode = inode

    def pread(self, length: int, offset: int) -> bytes:
        return bytes(self._inode.volatile[offset : offset + length])

    def close(self) -> None:
        pass


class SimulatedLock:
    """A lock of a ``SimulatedDisk``; a crash releases it."""

    def __init__(self, disk: SimulatedDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.locks.discard(self._path)


class SimulatedDisk:
    """One machine's disk.

    Attributes:
        step_count: changes asked for so far (writes, syncs, and changes of names), the unit of ``crash_at``.
        crash_at: before which step the machine stops, counted from 0; None for never.
        fail_at: which steps are refused, and with which errno.
        fail_on: asked for every step (what, path): an errno to refuse it with, 0 to let it pass.
        trace: every step, for messages.
        free_bytes: what files can still grow by; None for no limit.
    """

    def __init__(self) -> None:
        self.root = Directory()
        self.step_count = 0
        self.crash_at: int | None = None
        self.fail_at: dict[int, int] = {}
        self.fail_on: Callable[[str, str], int] | None = None
        self.trace: list[tuple[str, str]] = []
        self.free_bytes: int | None = None
        self.locks: set[str] = set()

    # What a process asks for.

    def create(self, path: str) -> SimulatedFile:
        directory, name = self._parent(path)
        if name in directory.volatile:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._step("create", path)
        inode = Inode()
        self._change(directory, (name, inode))
        return SimulatedFile(self, path, inode)

    def open(self, path: str) -> SimulatedFile:
        return SimulatedFile(self, path, self._inode(path))

    def open_read(self, path: str) -> SimulatedReadableFile:
        return SimulatedReadableFile(self._inode(path))

    def read(self, path: str) -> bytes:
        return bytes(self._inode(path).volatile)

    def exists(self, path: str) -> bool:
        try:
            directory, name = self._parent(path)
        except FileNotFoundError:
            return False
        return name in directory.volatile or name == ""

    def listdir(self, path: str) -> list[str]:
        return sorted(self._directory(path).volatile)

    def mkdir(self, path: str) -> None:
        directory, name = self._parent(path)
        if name in directory.volatile:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._step("mkdir", path)
        self._change(directory, (name, Directory()))

    def rename(self, source: str, target: str) -> None:
        directory, name = self._parent(source)
        other, new_name = self._parent(target)
        assert directory is other, "only renames within a directory are modelled"
        inode = self._inode(source)
        self._step("rename", target)
        self._change(directory, (name, None), (new_name, inode))

    def unlink(self, path: str) -> None:
        directory, name = self._parent(path)
        self._inode(path)
        self._step("unlink", path)
        self._change(directory, (name, None))

    def fsync_dir(self, path: str) -> None:
        directory = self._directory(path)
        self._step("fsync_dir", path)
        directory.durable = dict(directory.volatile)
        directory.pending.clear()

    def lock(self, path: str) -> SimulatedLock:
        if not self.exists(path):
            directory, name = self._parent(path)
            self._change(directory, (name, Inode()))
        if path in self.locks:
            raise LockHeld(0)
        self.locks.add(path)
        return SimulatedLock(self, path)

    # What happens to it.

    def power_off(self, choose: Choose = lambda _: False, names: Callable[[int], int] = lambda _: 0) -> None:
        """The machine stops and starts again.

        Args:
            choose: which pending sectors reached the medium.
            names: of how many pending changes of a directory, how many did (0 .. all).
        """
        self._settle(self.root, choose, names, [0])
        self._restart()

    def kill_process(self) -> None:
        """Only the process dies: everything it wrote stays readable, and pending."""
        self._restart()

    def pending_sectors(self, path: str = "") -> int:
        """How many sectors a crash now would have to decide about, in a directory or everywhere."""
        return sum(len(inode.pending) for inode in self._inodes(self._directory(path)))

    def flip_bit(self, path: str, bit: int) -> None:
        """One bit of a file changes on the medium."""
        inode = self._inode(path)
        for image in (inode.volatile, inode.durable):
            image[bit // 8] ^= 1 << (bit % 8)

    def overwrite(self, path: str, data: bytes, offset: int) -> None:
        """Bytes appear on the medium that nobody wrote there: a misdirected write, or a lost sector."""
        inode = self._inode(path)
        for image in (inode.volatile, inode.durable):
            image[offset : offset + len(data)] = data

    def put(self, path: str, data: bytes) -> None:
        """A file with this content is there, durably."""
        directory, name = self._parent(path)
        inode = Inode(bytearray(data), bytearray(data))
        directory.volatile[name] = inode
        directory.durable[name] = inode

    def remove(self, path: str) -> None:
        """A file is gone, durably."""
        directory, name = self._parent(path)
        del directory.volatile[name]
        directory.durable.pop(name, None)

    # How it works.

    def _step(self, what: str, path: str) -> None:
        number = self.step_count
        if self.crash_at is not None and number >= self.crash_at:
            raise SimulatedCrash(f"before step {number}: {what} {path}")
        self.step_count += 1
        self.trace.append((what, path))
        code = self.fail_at.get(number, 0) or (self.fail_on(what, path) if self.fail_on else 0)
        if code:
            raise OSError(code, os.strerror(code), path)

    def _take_space(self, length: int) -> None:
        if self.free_bytes is None:
            return
        if length > self.free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free_bytes -= length

    @staticmethod
    def _write(inode: Inode, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if len(inode.volatile) < end:
            inode.volatile.extend(bytes(end - len(inode.volatile)))
        inode.volatile[offset:end] = data
        for sector in range(offset // SECTOR, -(-end // SECTOR)):
            inode.pending[sector] = bytes(inode.volatile[sector * SECTOR : (sector + 1) * SECTOR])

    @staticmethod
    def _change(directory: Directory, *names: tuple[str, Inode | Directory | None]) -> None:
        directory.pending.append(names)
        _apply(directory.volatile, names)

    def _settle(
        self, directory: Directory, choose: Choose, names: Callable[[int], int], counter: list[int]
    ) -> None:
        for change in directory.pending[: names(len(directory.pending))]:
            _apply(directory.durable, change)
        directory.pending.clear()
        directory.volatile = dict(directory.durable)
        for _, node in sorted(directory.volatile.items()):
            if isinstance(node, Directory):
                self._settle(node, choose, names, counter)
                continue
            for sector, content in sorted(node.pending.items()):
                if choose(counter[0]):
                    start = sector * SECTOR
                    if len(node.durable) < start:
                        node.durable.extend(bytes(start - len(node.durable)))
                    node.durable[start : start + len(content)] = content
                counter[0] += 1
            node.pending.clear()
            node.volatile[:] = node.durable

    def _restart(self) -> None:
        self.locks.clear()
        self.crash_at = None
        self.fail_at = {}
        self.fail_on = None

    def _inodes(self, directory: Directory) -> list[Inode]:
        found: list[Inode] = []
        for node in directory.volatile.values():
            found.extend(self._inodes(node) if isinstance(node, Directory) else [node])
        return found

    def _parent(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self._directory(parent), name

    def _directory(self, path: str) -> Directory:
        node: Inode | Directory = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, Directory) or name not in node.volatile:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.volatile[name]
        if not isinstance(node, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _inode(self, path: str) -> Inode:
        directory, name = self._parent(path)
        node = directory.volatile.get(name)
        if not isinstance(node, Inode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node


def _apply(
    names: dict[str, Inode | Directory], change: tuple[tuple[str, Inode | Directory | None], ...]
) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
