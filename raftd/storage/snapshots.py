"""Snapshots on the disk: one file each, complete or not there, read and written in pieces of bounded size.

What may live here: the file's format, its life from a temporary name to its own, and which one is kept. What is in it
is ``raftd.codec.snapshot``'s.

::

    header   magic 8 | format u32 | cluster u64 | index u64 | term u64 | received u8 | voters, learners, outgoing u32
             | store ids u64 each | crc u32
    block    length u32 (not 0) | crc u32 | bytes
    end      0 u32 | crc u32 | size of all blocks u64

Each crc covers its part and the crc before it, so that blocks stand only in their order and in their file. The end
proves that the file is whole. A file gets its name only when it is complete and synced, and its directory is synced
after that; so what has a name and is not whole is damage, and what has a temporary name is worth nothing.
"""

from __future__ import annotations

import struct
import threading
from contextlib import ExitStack
from zlib import crc32

from raftd.raft.types import Configuration, Snapshot
from raftd.storage.errors import DamagedLog, SnapshotGone, StorageFailed, StorageFull, is_full
from raftd.storage.filesystem import File, FileSystem, ReadableFile

MAGIC = b"RAFTSNAP"
FORMAT_VERSION = 1
SUFFIX = ".snapshot"
TEMP_SUFFIX = ".tmp"
MAX_BLOCK_BYTES = 1 << 20

_HEADER = struct.Struct("<8sIQQQBIII")
_BLOCK = struct.Struct("<II")
_END = struct.Struct("<IIQ")
_CRC = struct.Struct("<I")
_MAX_STORES = 1 << 16


class SnapshotWriter:
    """One snapshot on its way to the disk. One thread at a time uses it; every call may block.

    Attributes:
        size_bytes: of what was written.
        received: it came from another node.
        finished: it is whole and synced, and still there.
    """

    def __init__(self, store: SnapshotStore, path: str, place: Snapshot, received: bool) -> None:
        self._store = store
        self._fs = store.fs
        self.path = path
        self._place = place
        self.received = received
        self.size_bytes = 0
        self.finished = False
        self._published: Snapshot | None = None
        self._file: File | None = None
        try:
            self._file = self._fs.create(path)
            header = _encode_header(store.cluster_id, place, received)
            self._chain = crc32(header)
            self._offset = len(header) + _CRC.size
            self._file.pwrite(header + _CRC.pack(self._chain), 0)
        except OSError as error:
            self.abort()
            raise self.failed("making", error) from error

    @property
    def snapshot(self) -> Snapshot:
        """What has been written."""
        place = self._place
        return Snapshot(place.index, place.term, place.configuration, self.size_bytes)

    def write(self, data: bytes) -> None:
        """The next bytes. Raises ``StorageFull`` and ``StorageFailed``; the file is to be aborted then."""
        for start in range(0, len(data), MAX_BLOCK_BYTES):
            piece = data[start : start + MAX_BLOCK_BYTES]
            self._chain = crc32(piece, self._chain)
            self._put(_BLOCK.pack(len(piece), self._chain) + piece)
            self.size_bytes += len(piece)

    def finish(self) -> None:
        """It is whole: sync it. Raises ``StorageFull`` and ``StorageFailed``; the file is to be aborted then."""
        size = self.size_bytes
        self._put(_END.pack(0, crc32(size.to_bytes(8, "little"), self._chain), size))
        file = self._open_file()
        try:
            file.sync()
            file.close()
        except OSError as error:
            raise self.failed("syncing", error) from error
        self._file = None
        self.finished = True

    def open(self) -> SnapshotReader:
        """Read it, under whatever name, once it is finished. Raises ``StorageFailed`` and ``DamagedLog``."""
        path = self.path if self._published is None else self._store.path_of(self._published)
        return _open(self._fs, path, self._store.cluster_id)

    def publish(self) -> Snapshot:
        """Give it its name (``SnapshotStore.publish``)."""
        if self._published is None:
            self._published = self._store.publish(self)
        return self._published

    def published(self, snapshot: Snapshot) -> None:
        """The store has given it its name."""
        self._published = snapshot

    def abort(self) -> None:
        """Remove it, unless it has its name; the second time, nothing happens. Raises ``StorageFailed``."""
        file, self._file = self._file, None
        self.finished = False
        try:
            if file is not None:
                file.close()
            if self._published is None and self._fs.exists(self.path):
                self._fs.unlink(self.path)
        except OSError as error:
            raise StorageFailed(f"removing the snapshot {self.path}", error) from error

    def _put(self, data: bytes) -> None:
        try:
            self._open_file().pwrite(data, self._offset)
        except OSError as error:
            raise self.failed("writing", error) from error
        self._offset += len(data)

    def failed(self, doing: str, error: OSError) -> StorageFailed | StorageFull:
        """What a refusal of the disk means, where nothing counts yet."""
        if is_full(error):
            return StorageFull(self.path.rpartition("/")[0], f"the snapshot of entry {self._place.index}")
        return StorageFailed(f"{doing} the snapshot {self.path}", error)

    def _open_file(self) -> File:
        if self._file is None:
            raise RuntimeError(f"the snapshot {self.path} is finished or aborted")
        return self._file


class SnapshotReader:
    """An open snapshot, read once from its beginning to its end; it outlives its name.

    Attributes:
        snapshot: which one it is; its size is known at the end only.
        received: it came from another node.
    """

    def __init__(self, path: str, file: ReadableFile, cluster_id: int) -> None:
        self._path = path
        self._file = file
        self._held = b""
        self._size_bytes = 0
        self._ended = False
        fixed = self._get(_HEADER.size, 0, "a header")
        magic, version, cluster, index, term, received, *counts = _HEADER.unpack(fixed)
        if magic != MAGIC or version != FORMAT_VERSION:
            raise DamagedLog(path, 0, f"a snapshot of format {version}, which this build does not know")
        if sum(counts) > _MAX_STORES:
            raise DamagedLog(path, 0, "a header that names more stores than there can be")
        stores = self._get(8 * sum(counts), _HEADER.size, "a header")
        self._offset = _HEADER.size + len(stores)
        (crc,) = _CRC.unpack(self._get(_CRC.size, self._offset, "a header"))
        self._offset += _CRC.size
        self._chain = crc32(fixed + stores)
        if crc != self._chain:
            raise DamagedLog(path, 0, "a snapshot header with a bad checksum")
        if cluster != cluster_id:
            raise DamagedLog(path, 0, f"a snapshot of cluster {cluster:016x}, not {cluster_id:016x}")
        ids = struct.unpack(f"<{sum(counts)}Q", stores)
        voters, learners = ids[: counts[0]], ids[counts[0] : counts[0] + counts[1]]
        try:
            configuration = Configuration(voters, learners, ids[counts[0] + counts[1] :])
        except ValueError as error:
            raise DamagedLog(path, 0, f"a configuration that makes no sense: {error}") from error
        self.snapshot = Snapshot(index, term, configuration)
        self.received = bool(received)

    def read(self, max_bytes: int) -> bytes:
        """The next bytes, at most so many; empty at the end.

        Raises:
            DamagedLog: they are not what was written, or the file is not whole.
            StorageFailed: the disk refuses.
        """
        if not self._held and not self._ended:
            self._held = self._next_block()
        piece, self._held = self._held[:max_bytes], self._held[max_bytes:]
        return piece

    def verify(self) -> Snapshot:
        """Read all of it; the snapshot with its size. Raises as ``read``."""
        while self.read(MAX_BLOCK_BYTES):
            pass
        place = self.snapshot
        return Snapshot(place.index, place.term, place.configuration, self._size_bytes)

    def close(self) -> None:
        """Let it go."""
        self._file.close()

    def _next_block(self) -> bytes:
        start = self._offset
        length, crc = _BLOCK.unpack(self._get(_BLOCK.size, start, "a block"))
        if not length:
            self._end(start, crc)
            return b""
        if length > MAX_BLOCK_BYTES:
            raise DamagedLog(self._path, start, f"a block that claims {length} bytes")
        block = self._get(length, start + _BLOCK.size, "a block")
        self._chain = crc32(block, self._chain)
        if crc != self._chain:
            raise DamagedLog(self._path, start, "a block with a bad checksum")
        self._offset = start + _BLOCK.size + length
        self._size_bytes += length
        return block

    def _end(self, start: int, crc: int) -> None:
        _, _, size = _END.unpack(self._get(_END.size, start, "an end"))
        if crc != crc32(size.to_bytes(8, "little"), self._chain) or size != self._size_bytes:
            raise DamagedLog(self._path, start, "an end with a bad checksum")
        if self._file.pread(1, start + _END.size):
            raise DamagedLog(self._path, start + _END.size, "data behind the end of a snapshot")
        self._ended = True

    def _get(self, length: int, offset: int, what: str) -> bytes:
        try:
            data = self._file.pread(length, offset)
        except OSError as error:
            raise StorageFailed(f"reading the snapshot {self._path}", error) from error
        if len(data) < length:
            raise DamagedLog(self._path, offset, f"the file ends within {what}")
        return data


class SnapshotStore:
    """The snapshots of one data directory. Made by ``open_snapshots``; any thread may use it.

    Attributes:
        fs: the file system.
        cluster_id: of the store.
    """

    def __init__(self, fs: FileSystem, directory: str, cluster_id: int) -> None:
        self.fs = fs
        self.cluster_id = cluster_id
        self._directory = directory
        self._lock = threading.Lock()
        self._newest: Snapshot | None = None
        self._newest_received = False
        self._count = 0

    @property
    def newest(self) -> Snapshot | None:
        """The one that is kept: complete, durable and named."""
        return self._newest

    @property
    def newest_received(self) -> bool:
        """Whether that one came from another node, and may be ahead of the log."""
        return self._newest_received

    def path_of(self, snapshot: Snapshot) -> str:
        """The name of a snapshot's file."""
        return f"{self._directory}/{snapshot.index:016x}-{snapshot.term:016x}{SUFFIX}"

    def begin(self, index: int, term: int, configuration: Configuration, *, received: bool) -> SnapshotWriter:
        """A new file under a temporary name.

        Args:
            index: the last entry in it.
            term: of that entry.
            configuration: the one in force after it.
            received: it comes from another node.

        Raises ``StorageFull`` and ``StorageFailed``. Neither is fatal here: the log does not need it.
        """
        with self._lock:
            self._count += 1
            path = f"{self._directory}/{self._count:08x}{TEMP_SUFFIX}"
        return SnapshotWriter(self, path, Snapshot(index, term, configuration), received)

    def publish(self, writer: SnapshotWriter) -> Snapshot:
        """Give a finished file its name, durably, and remove the ones before it.

        Raises:
            ValueError: there is a newer one.
            StorageFull: there is no room for its name: nothing has changed, try again.
            StorageFailed: the disk refused.
        """
        with self._lock:
            if not writer.finished:
                raise RuntimeError(f"the snapshot {writer.path} is not finished, or was aborted")
            snapshot, newest = writer.snapshot, self._newest
            if newest is not None and snapshot.index < newest.index:
                raise ValueError(f"a snapshot of entry {snapshot.index}, and there is one of {newest.index}")
            try:
                self.fs.rename(writer.path, self.path_of(snapshot))
            except OSError as error:
                raise writer.failed("naming", error) from error
            try:
                writer.published(snapshot)
                self.fs.fsync_dir(self._directory)
                self._newest, self._newest_received = snapshot, writer.received
                if newest is not None and self.path_of(newest) != self.path_of(snapshot):
                    self.fs.unlink(self.path_of(newest))
            except OSError as error:
                raise StorageFailed(f"publishing a snapshot in {self._directory}", error) from error
            return snapshot

    def open(self, snapshot: Snapshot) -> SnapshotReader:
        """Read that very snapshot.

        Raises:
            SnapshotGone: there is a newer one by now.
            StorageFailed, DamagedLog: it cannot be read.
        """
        with self._lock:
            if snapshot != self._newest:
                raise SnapshotGone(f"the snapshot of entry {snapshot.index} is not kept any more")
            return _open(self.fs, self.path_of(snapshot), self.cluster_id)

    def load(self) -> None:
        """Look at what the disk has: verify the newest, and remove what was not finished and what is outlived.

        Raises ``DamagedLog``; ``OSError`` where the disk refuses.
        """
        names = self.fs.listdir(self._directory)
        published = sorted(name for name in names if name.endswith(SUFFIX))
        if published:
            self._verify(published[-1])
        for name in names:
            if name.endswith(TEMP_SUFFIX) or name in published[:-1]:
                self.fs.unlink(f"{self._directory}/{name}")
        # A name may have been made by a process that did not live to sync it, and the log relies on it from now on.
        self.fs.fsync_dir(self._directory)

    def _verify(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        reader = _open(self.fs, path, self.cluster_id)
        try:
            snapshot = reader.verify()
        finally:
            reader.close()
        if self.path_of(snapshot) != path:
            raise DamagedLog(path, 0, f"the snapshot of entry {snapshot.index} under another name")
        self._newest, self._newest_received = snapshot, reader.received


def open_snapshots(fs: FileSystem, directory: str, cluster_id: int) -> SnapshotStore:
    """The snapshots in a directory, which is made if it is not there.

    Raises ``DamagedLog``; ``OSError`` where the disk refuses.
    """
    if not fs.exists(directory):
        fs.mkdir(directory)
        fs.fsync_dir(directory.rpartition("/")[0] or "/")
    store = SnapshotStore(fs, directory, cluster_id)
    store.load()
    return store


def _open(fs: FileSystem, path: str, cluster_id: int) -> SnapshotReader:
    try:
        file = fs.open_read(path)
    except OSError as error:
        raise StorageFailed(f"opening the snapshot {path}", error) from error
    with ExitStack() as unless_read:
        unless_read.callback(file.close)
        reader = SnapshotReader(path, file, cluster_id)
        unless_read.pop_all()
    return reader


def _encode_header(cluster_id: int, place: Snapshot, received: bool) -> bytes:
    configuration = place.configuration
    groups = (configuration.voters, configuration.learners, configuration.outgoing)
    fixed = _HEADER.pack(
        MAGIC, FORMAT_VERSION, cluster_id, place.index, place.term, received, *map(len, groups)
    )
    stores = [store for group in groups for store in group]
    return fixed + struct.pack(f"<{len(stores)}Q", *stores)
