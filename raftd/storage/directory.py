"""A data directory as a whole: made by ``init``, opened by a node, locked as long as it is open.

What may live here: the order of the steps that make and open one, and the lock. The parts are those of ``identity``
and ``wal``.

::

    DATA/lock               held with flock by the process that uses the directory; says its pid
    DATA/identity.json      who it is; its presence says that init finished
    DATA/incarnation.json   how often it was started
    DATA/log/               the write-ahead log
    DATA/snapshots/         the newest snapshot; what it covers the log need not hold
    DATA/initialising       there while init is at work, so that what a crashed init left can be told from a store
                            whose identity file somebody removed, and only the former is made anew
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack

from raftd.raft.types import Entry, HardState
from raftd.storage.errors import (
    AlreadyInitialised,
    DamagedLog,
    DataDirectoryLocked,
    NotInitialised,
    StorageFailed,
    StorageFull,
)
from raftd.storage.filesystem import FileSystem, Lock, LockHeld, RealFileSystem
from raftd.storage.identity import (
    CONDEMNED_FILE,
    IDENTITY_FILE,
    INCARNATION_FILE,
    Identity,
    check_condemned,
    check_identity,
    read_identity,
    read_incarnation,
    write_condemned,
    write_identity,
    write_incarnation,
)
from raftd.storage.recovery import Recovered
from raftd.storage.snapshots import SnapshotStore, open_snapshots
from raftd.storage.wal import DEFAULT_SEGMENT_BYTES, Wal, create_log, open_log

LOCK_FILE = "lock"
LOG_DIRECTORY = "log"
SNAPSHOT_DIRECTORY = "snapshots"
INITIALISING_FILE = "initialising"


def init_directory(
    path: str,
    identity: Identity,
    hard_state: HardState,
    entries: Sequence[Entry],
    *,
    fs: FileSystem | None = None,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> None:
    """Make a store: its identity, its incarnation counter and the beginning of its log, durable on return.

    Args:
        path: a directory that is not there, is empty, or holds what an interrupted init left.
        identity: with a store id that was never used before.
        hard_state: the first one.
        entries: the first ones (genesis), from index 1; none for a store that is to join a cluster.
        fs: the machine's own by default.
        segment_bytes: the size of a log segment.

    Raises ``AlreadyInitialised``, ``DataDirectoryLocked``, ``StorageFailed``. A crash at any point leaves a directory
    that ``DataDirectory.open`` refuses as not initialised and that ``init_directory`` accepts, or the finished store.
    """
    fs = fs or RealFileSystem()
    path = path.rstrip("/") or "/"
    try:
        make_directories(fs, path)
        check_empty(fs, path)
        lock = take_lock(fs, path)
        try:
            check_empty(fs, path)
            if not fs.exists(f"{path}/{INITIALISING_FILE}"):
                fs.create(f"{path}/{INITIALISING_FILE}").close()
            fs.fsync_dir(path)
            _clear_remains(fs, path)
            create_log(
                fs,
                f"{path}/{LOG_DIRECTORY}",
                cluster_id=identity.cluster_id,
                store_id=identity.store_id,
                hard_state=hard_state,
                entries=entries,
                segment_bytes=segment_bytes,
            )
            write_incarnation(fs, path, identity.store_id, 0)
            write_identity(fs, path, identity)
            fs.unlink(f"{path}/{INITIALISING_FILE}")
            fs.fsync_dir(path)
        finally:
            lock.release()
    except OSError as error:
        raise StorageFailed(f"initialising {path}", error) from error


class DataDirectory:
    """An open store. Made by ``open``; ``log`` is handed to the storage thread.

    Attributes:
        path: where it is.
        identity: who it is.
        incarnation: of this start; raised and synced before ``open`` returned.
        recovered: what the log said.
        log: open for appending.
        snapshots: what the log may begin behind.
    """

    def __init__(
        self,
        fs: FileSystem,
        path: str,
        lock: Lock,
        identity: Identity,
        incarnation: int,
        log: Wal,
        recovered: Recovered,
        snapshots: SnapshotStore,
    ) -> None:
        self._fs = fs
        self._lock = lock
        self.path = path
        self.identity = identity
        self.recovered = recovered
        self.log = log
        self.snapshots = snapshots
        self.incarnation = incarnation

    @classmethod
    def open(
        cls,
        path: str,
        *,
        name: str | None = None,
        cluster_id: int | None = None,
        fs: FileSystem | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> DataDirectory:
        """Lock the directory, read its log and raise its incarnation.

        Args:
            path: the data directory.
            name: the node it must belong to, if that is known.
            cluster_id: the cluster it must belong to, if that is known.
            fs: the machine's own by default.
            segment_bytes: the size of the segments made from now on.

        Raises ``NotInitialised``, ``DataDirectoryLocked``, ``WrongIdentity``, ``Condemned``, ``UnknownFormat``,
        ``DamagedLog``, ``StorageFailed``.
        """
        fs = fs or RealFileSystem()
        path = path.rstrip("/") or "/"
        try:
            check_initialised(fs, path)
            with ExitStack() as unless_opened:
                lock = take_lock(fs, path)
                unless_opened.callback(lock.release)
                opened = cls._open_locked(fs, path, lock, name, cluster_id, segment_bytes)
                unless_opened.pop_all()
                return opened
        except OSError as error:
            raise StorageFailed(f"opening {path}", error) from error

    @classmethod
    def _open_locked(
        cls,
        fs: FileSystem,
        path: str,
        lock: Lock,
        name: str | None,
        cluster_id: int | None,
        segment_bytes: int,
    ) -> DataDirectory:
        check_initialised(fs, path)
        identity = read_identity(fs, path)
        check_identity(identity, path, name=name, cluster_id=cluster_id)
        check_condemned(fs, path)
        if fs.exists(f"{path}/{INITIALISING_FILE}"):
            fs.unlink(f"{path}/{INITIALISING_FILE}")
        incarnation = read_incarnation(fs, path, identity.store_id)
        # First the snapshots: opening the log may remove what they cover.
        snapshots = open_snapshots(fs, f"{path}/{SNAPSHOT_DIRECTORY}", identity.cluster_id)
        log, recovered = open_log(
            fs,
            f"{path}/{LOG_DIRECTORY}",
            cluster_id=identity.cluster_id,
            store_id=identity.store_id,
            segment_bytes=segment_bytes,
        )
        with ExitStack() as unless_opened:
            unless_opened.callback(log.close)
            recovered = _reconcile(f"{path}/{LOG_DIRECTORY}", log, recovered, snapshots)
            opened = cls(fs, path, lock, identity, incarnation, log, recovered, snapshots)
            # Its directory sync also covers names that a process made and did not live to sync.
            opened.next_incarnation()
            unless_opened.pop_all()
        return opened

    def next_incarnation(self) -> int:
        """Raise the incarnation, durably, and return it. Blocks on the disk. Raises ``StorageFailed``."""
        try:
            write_incarnation(self._fs, self.path, self.identity.store_id, self.incarnation + 1)
        except OSError as error:
            raise StorageFailed(f"raising the incarnation in {self.path}", error) from error
        self.incarnation += 1
        return self.incarnation

    def condemn(self, reason: str) -> None:
        """Have every later ``open`` refuse it: the cluster will not have this store back. Raises ``StorageFailed``."""
        try:
            write_condemned(self._fs, self.path, reason)
        except OSError as error:
            raise StorageFailed(f"writing {CONDEMNED_FILE} in {self.path}", error) from error

    def close(self) -> None:
        """Give the lock up. The log is closed by who was given it, and before this."""
        self._lock.release()


def _reconcile(path: str, log: Wal, recovered: Recovered, snapshots: SnapshotStore) -> Recovered:
    """What log and snapshot say together.

    A snapshot that was taken here covers entries that were durable before it was begun. One that was received is
    named before the log is replaced by it: a crash in between leaves a log that does not reach it, or disagrees.
    """
    snapshot = snapshots.newest
    if snapshot is None or snapshot.index < recovered.base_index:
        if recovered.base_index:
            raise DamagedLog(
                path,
                0,
                f"the log begins behind entry {recovered.base_index}, and there is no snapshot that reaches it",
            )
        return recovered
    if recovered.term(snapshot.index) == snapshot.term:
        return recovered
    if not snapshots.newest_received:
        raise DamagedLog(
            path,
            0,
            f"a snapshot of entry {snapshot.index} was taken of a log that ends at {recovered.last_index}, or differs",
        )
    old = recovered.hard_state
    if snapshot.index <= old.commit:
        raise DamagedLog(
            path,
            0,
            f"entry {snapshot.index} is committed, and the snapshot of that entry is of another term, {snapshot.term}",
        )
    term = max(old.term, snapshot.term)
    hard_state = HardState(term, old.vote if term == old.term else 0, max(old.commit, snapshot.index))
    try:
        log.install(snapshot, hard_state, ())
    except StorageFull as full:
        # Nobody waits for room here: the process ends, and is started again.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from full
    return Recovered(hard_state, [], recovered.torn_tail, snapshot.index, snapshot.term)


def make_directories(fs: FileSystem, path: str) -> None:
    """Make the directory and its missing parents, each durable before the next."""
    parent = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    if not fs.exists(path):
        make_directories(fs, parent)
        fs.mkdir(path)
    # Also where it was there: an earlier init may have died between making it and this.
    fs.fsync_dir(parent)


def take_lock(fs: FileSystem, path: str) -> Lock:
    """The lock of a directory. Raises ``DataDirectoryLocked``; ``OSError``."""
    try:
        return fs.lock(f"{path}/{LOCK_FILE}")
    except LockHeld as held:
        raise DataDirectoryLocked(f"{path}/{LOCK_FILE}", held.pid) from None


def check_empty(fs: FileSystem, path: str) -> None:
    """Refuse a directory that a store cannot be made in. Raises ``AlreadyInitialised``; ``OSError``."""
    names = fs.listdir(path)
    if IDENTITY_FILE in names:
        raise AlreadyInitialised(path, f"it holds {read_identity(fs, path)}")
    strange = [name for name in names if name != LOCK_FILE]
    if strange and INITIALISING_FILE not in names:
        raise AlreadyInitialised(path, f"it is not empty, it holds {strange[0]!r}")


def check_initialised(fs: FileSystem, path: str) -> None:
    """Refuse a directory that holds no whole store. Raises ``NotInitialised``; ``OSError``."""
    if not fs.exists(path):
        raise NotInitialised(path, "it is not there")
    names = fs.listdir(path)
    if IDENTITY_FILE in names:
        return
    if INITIALISING_FILE in names:
        raise NotInitialised(path, "its `raftd init` did not finish")
    strange = [name for name in names if name != LOCK_FILE]
    raise NotInitialised(path, f"it has no {IDENTITY_FILE}, but {strange[0]!r}" if strange else "it is empty")


def _clear_remains(fs: FileSystem, path: str) -> None:
    """Remove what an interrupted init may have left, so that the log directory is there and empty."""
    for name in (f"{INCARNATION_FILE}.tmp", f"{IDENTITY_FILE}.tmp", INCARNATION_FILE):
        if fs.exists(f"{path}/{name}"):
            fs.unlink(f"{path}/{name}")
    log = f"{path}/{LOG_DIRECTORY}"
    if fs.exists(log):
        for name in fs.listdir(log):
            fs.unlink(f"{log}/{name}")
        fs.fsync_dir(log)
    else:
        fs.mkdir(log)
    fs.fsync_dir(path)
