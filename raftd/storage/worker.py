"""A worker's data directory: an identity, an incarnation and a lock, but no log.

What may live here: making and opening one, and the file of the nodes that the worker has heard of. A worker votes for
nothing and acknowledges nothing, so that, other than a member, it may make its own directory when it is first started.

::

    DATA/lock, identity.json, incarnation.json   as in a member's directory (``storage.directory``)
    DATA/nodes.json                              whom to ask for the leader, when those named at the start are gone
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack

from raftd.errors import StorageError
from raftd.scheduler.model import Member
from raftd.storage.directory import (
    INITIALISING_FILE,
    check_empty,
    check_initialised,
    make_directories,
    take_lock,
)
from raftd.storage.errors import StorageFailed
from raftd.storage.filesystem import FileSystem, Lock, RealFileSystem
from raftd.storage.identity import (
    CONDEMNED_FILE,
    IDENTITY_FILE,
    Identity,
    check_condemned,
    check_identity,
    read_identity,
    read_incarnation,
    replace_file,
    write_condemned,
    write_identity,
    write_incarnation,
)

NODES_FILE = "nodes.json"
FORMAT_VERSION = 1


def is_made(path: str) -> bool:
    """Whether there is a store already, a worker's or a member's. Raises ``StorageFailed``."""
    try:
        return RealFileSystem().exists(f"{path}/{IDENTITY_FILE}")
    except OSError as error:
        raise StorageFailed(f"opening {path}", error) from error


def init_worker(path: str, identity: Identity) -> None:
    """Make a worker's store, durable on return.

    Args:
        path: a directory that is not there, is empty, or holds what an interrupted try left.
        identity: with a store id that was never used before.

    Raises ``AlreadyInitialised``, ``DataDirectoryLocked``, ``StorageFailed``.
    """
    fs = RealFileSystem()
    try:
        make_directories(fs, path)
        check_empty(fs, path)
        lock = take_lock(fs, path)
        try:
            check_empty(fs, path)
            if not fs.exists(f"{path}/{INITIALISING_FILE}"):
                fs.create(f"{path}/{INITIALISING_FILE}").close()
            fs.fsync_dir(path)
            write_incarnation(fs, path, identity.store_id, 0)
            write_identity(fs, path, identity)
            fs.unlink(f"{path}/{INITIALISING_FILE}")
            fs.fsync_dir(path)
        finally:
            lock.release()
    except OSError as error:
        raise StorageFailed(f"initialising {path}", error) from error


class WorkerDirectory:
    """An open worker's store. Made by ``open``.

    Attributes:
        path: where it is.
        identity: who it is.
        incarnation: of this start; raised and synced before ``open`` returned.
    """

    def __init__(self, fs: FileSystem, path: str, lock: Lock, identity: Identity, incarnation: int) -> None:
        self._fs = fs
        self._lock = lock
        self.path = path
        self.identity = identity
        self.incarnation = incarnation

    @classmethod
    def open(cls, path: str, *, name: str | None = None, cluster_id: int | None = None) -> WorkerDirectory:
        """Lock the directory and raise its incarnation.

        Args:
            path: the data directory.
            name: the worker it must belong to, if that is known.
            cluster_id: the cluster it must belong to, if that is known.

        Raises ``NotInitialised``, ``DataDirectoryLocked``, ``WrongIdentity``, ``Condemned``, ``UnknownFormat``,
        ``DamagedLog``, ``StorageFailed``.
        """
        fs = RealFileSystem()
        try:
            check_initialised(fs, path)
            with ExitStack() as undo:
                lock = take_lock(fs, path)
                undo.callback(lock.release)
                identity = read_identity(fs, path)
                check_identity(identity, path, name=name, cluster_id=cluster_id, worker=True)
                check_condemned(fs, path)
                opened = cls(fs, path, lock, identity, read_incarnation(fs, path, identity.store_id))
                opened.next_incarnation()
                undo.pop_all()
        except OSError as error:
            raise StorageFailed(f"opening {path}", error) from error
        return opened

    def next_incarnation(self) -> int:
        """Raise the incarnation, durably, and return it. Blocks on the disk. Raises ``StorageFailed``."""
        try:
            write_incarnation(self._fs, self.path, self.identity.store_id, self.incarnation + 1)
        except OSError as error:
            raise StorageFailed(f"raising the incarnation in {self.path}", error) from error
        self.incarnation += 1
        return self.incarnation

    def nodes(self) -> tuple[Member, ...]:
        """The members that the worker has heard of; none before it has been attached once.

        Raises ``StorageError``.
        """
        path = f"{self.path}/{NODES_FILE}"
        try:
            document = json.loads(self._fs.read(path))
            if document["format"] != FORMAT_VERSION:
                raise ValueError(f"format {document['format']} is not known")
            return tuple(
                Member(str(row["name"]), int(row["store_id"], 16), str(row["address"]), bool(row["voter"]))
                for row in document["nodes"]
            )
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StorageFailed(f"reading {path}", error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path} cannot be read: {error}", try_="remove that file, and name nodes with --join"
            ) from error

    def remember(self, nodes: Sequence[Member]) -> None:
        """Keep these, in place of those before. Blocks on the disk. Raises ``StorageFailed``."""
        rows = [
            {
                "name": node.name,
                "store_id": f"{node.store_id:016x}",
                "address": node.address,
                "voter": node.voter,
            }
            for node in nodes
        ]
        data = json.dumps({"format": FORMAT_VERSION, "nodes": rows}).encode() + b"\n"
        try:
            replace_file(self._fs, self.path, NODES_FILE, data)
        except OSError as error:
            raise StorageFailed(f"writing {self.path}/{NODES_FILE}", error) from error

    def condemn(self, reason: str) -> None:
        """Have every later ``open`` refuse it: the cluster will not have this store back. Raises ``StorageFailed``."""
        try:
            write_condemned(self._fs, self.path, reason)
        except OSError as error:
            raise StorageFailed(f"writing {CONDEMNED_FILE} in {self.path}", error) from error

    def close(self) -> None:
        """Give the lock up."""
        self._lock.release()
