"""What can go wrong with a data directory: one type per thing that a caller or an operator must tell apart.

What may live here: subclasses of ``raftd.errors.StorageError``, with the data that they carry. A directory of
another node or cluster is ``raftd.errors.WrongIdentity``, which is not only storage's.

::

    StorageError
    ├── NotInitialised          there is no store here; ``raftd init`` makes one
    ├── AlreadyInitialised      there is a store here, or something else that must not be overwritten
    ├── DataDirectoryLocked     another process uses it; carries that process's id
    ├── Condemned               the cluster has refused this store for good: it is a copy, or was copied
    ├── DamagedLog              what is on the disk is not what was written; carries file and offset
    ├── StorageFull             there is no room for a segment or a snapshot: nothing that counts was written, try again
    ├── SnapshotGone            that snapshot is not kept any more; there is a newer one
    └── StorageFailed           the disk refused a write or an fsync: the process must end, nothing is retried
"""

from __future__ import annotations

import errno

from raftd.errors import StorageError

REPLACE_STORE = (
    "do not start a node on this directory again: it may have forgotten a vote or an acknowledgement. Keep a copy of "
    "it, remove this store from the cluster, and bring the node back with a new, empty data directory"
)


class NotInitialised(StorageError):
    """The directory holds no store, or only the remains of an ``init`` that did not finish.

    Attributes:
        path: the data directory.
    """

    code = "not_initialised"

    def __init__(self, path: str, found: str) -> None:
        super().__init__(
            f"{path} is not an initialised data directory: {found}", try_="run `raftd init` for it first"
        )
        self.path = path


class AlreadyInitialised(StorageError):
    """``init`` refuses a directory that holds anything, for it never overwrites.

    Attributes:
        path: the data directory.
    """

    code = "already_initialised"

    def __init__(self, path: str, found: str) -> None:
        super().__init__(
            f"{path} cannot be initialised: {found}", try_="choose a directory that is empty or not there"
        )
        self.path = path


class DataDirectoryLocked(StorageError):
    """Another process has this data directory open.

    Attributes:
        path: the lock file.
        pid: the process that holds it, 0 where it could not be read.
    """

    code = "data_directory_locked"

    def __init__(self, path: str, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is locked: {holder} uses this data directory", try_=f"stop {holder} first")
        self.path = path
        self.pid = pid


class Condemned(StorageError):
    """The cluster has refused this store for good, and the process that was told so has written it down.

    Without that, the next start would have a higher incarnation, and nobody could tell it from an honest one.

    Attributes:
        path: the data directory.
    """

    code = "condemned"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} must not be used any more: {reason}", try_=REPLACE_STORE)
        self.path = path


class DamagedLog(StorageError):
    """What is on the disk is not what was written, and no crash explains it (raft.md, "Damage on disk").

    Attributes:
        file: the damaged file.
        offset: where in it, in bytes.
        found: what is there, in words.
    """

    code = "damaged_log"

    def __init__(self, file: str, offset: int, found: str) -> None:
        super().__init__(f"damage in {file} at offset {offset}: {found}", try_=REPLACE_STORE)
        self.file = file
        self.offset = offset
        self.found = found


class StorageFull(StorageError):
    """There is no room for the next segment, or a snapshot. Nothing that counts was written: it may be tried again."""

    code = "storage_full"

    def __init__(self, directory: str, what: str = "the next log segment") -> None:
        super().__init__(
            f"no room for {what} in {directory}",
            try_="free space: the node goes on by itself then",
        )


class SnapshotGone(StorageError):
    """That snapshot is not kept any more; there is a newer one."""

    code = "snapshot_gone"


class StorageFailed(StorageError):
    """The disk refused. Whoever gets this must end the process without acknowledging anything.

    After a failed fsync the kernel may have dropped the dirty pages and will report the next fsync as a success, so
    that trying again would acknowledge what was never written.

    Attributes:
        errno: the operating system's number, 0 where there is none.
    """

    code = "storage_failed"

    def __init__(self, doing: str, cause: OSError) -> None:
        full = is_full(cause)
        try_ = (
            "free space on this disk, then start the node again"
            if full
            else "check the disk, then start the node again"
        )
        super().__init__(f"{doing} failed: {cause.strerror or cause}", try_=try_)
        self.errno = cause.errno or 0


def is_full(error: OSError) -> bool:
    """Whether the disk, or a quota on it, has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
