"""Snapshots without a disk, and their way between members of a test's cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from raftd.errors import StorageError, Unavailable
from raftd.node.snapshots import Intake
from raftd.raft.messages import InstallSnapshot
from raftd.raft.types import Configuration, Snapshot


class BytesReader:
    """Reads a snapshot that is held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, max_bytes: int) -> bytes:
        piece = self._data[self._position : self._position + max_bytes]
        self._position += len(piece)
        return piece

    def close(self) -> None:
        pass


class MemoryFile:
    """A snapshot on its way."""

    def __init__(self, files: MemoryFiles, place: tuple[int, int, Configuration]) -> None:
        self._files = files
        self.place = place
        self.data = b""
        self.finished = self.aborted = False

    def write(self, data: bytes) -> None:
        if self._files.full:
            raise StorageError("no space left on the device")
        self.data += data

    def finish(self) -> None:
        self.finished = True

    def publish(self) -> Snapshot:
        return self._files.publish(self)

    def abort(self) -> None:
        self.aborted = True

    def open(self) -> BytesReader:
        assert self.finished
        return BytesReader(self.data)


@dataclass
class MemoryFiles:
    """What ``raftd.storage.snapshots.SnapshotStore`` is, without a disk; it outlives the lives of its node.

    Attributes:
        full: writes fail.
        made: every file that was begun.
    """

    newest: Snapshot | None = None
    full: bool = False
    made: list[MemoryFile] = field(default_factory=list)
    published: dict[Snapshot, bytes] = field(default_factory=dict)

    def begin(self, index: int, term: int, configuration: Configuration, *, received: bool) -> MemoryFile:
        file = MemoryFile(self, (index, term, configuration))
        self.made.append(file)
        return file

    def publish(self, file: MemoryFile, /) -> Snapshot:
        assert file.finished
        assert not file.aborted
        snapshot = Snapshot(*file.place, size_bytes=len(file.data))
        if self.newest is not None and snapshot.index < self.newest.index:
            raise ValueError("there is a newer one")
        self.published = {snapshot: file.data}
        self.newest = snapshot
        return snapshot

    def open(self, snapshot: Snapshot) -> BytesReader:
        if snapshot not in self.published:
            raise StorageError("that snapshot is gone")
        return BytesReader(self.published[snapshot])


class Streams:
    """Carries snapshots to the members that ``find`` finds (``raftd.node.snapshots.SnapshotTransport``).

    Attributes:
        break_after: chunks after which a stream breaks; None: never.
        sent: announcements of the streams that were begun.
    """

    def __init__(self, find: Callable[[int, int], Callable[[InstallSnapshot], Intake] | None]) -> None:
        self._find = find
        self.break_after: int | None = None
        self.sent: list[InstallSnapshot] = []

    async def send(self, announcement: InstallSnapshot, chunks: AsyncIterator[bytes]) -> None:
        self.sent.append(announcement)
        begin = self._find(announcement.sender, announcement.receiver)
        if begin is None:
            raise Unavailable("there is no way to that member")
        intake = begin(announcement)
        try:
            count = 0
            async for chunk in chunks:
                if self.break_after is not None and count >= self.break_after:
                    raise Unavailable("the stream broke")
                await intake.write(chunk)
                count += 1
            await intake.finish()
        finally:
            await intake.abort()
