"""Who a data directory belongs to, and how often it was started. Two small files, read by people too.

What may live here: the identity, the incarnation counter, their files and checks. Making and opening a directory as a
whole is ``directory``'s.

``identity.json`` never changes. ``incarnation.json`` is replaced as a whole at every start and on demand: written under
another name, synced, renamed, and the directory synced, so that a number is never given out twice. Both are one line of
JSON with a checksum over their other fields, which a stray editor does not reproduce.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from raftd.errors import UnknownFormat, WrongIdentity
from raftd.storage.errors import Condemned, DamagedLog
from raftd.storage.filesystem import FileSystem

IDENTITY_FILE = "identity.json"
INCARNATION_FILE = "incarnation.json"
CONDEMNED_FILE = "condemned.json"
FORMAT_VERSION = 1
MAX_ID = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What a data directory is, from its birth on.

    Attributes:
        cluster_id: the cluster, 64 bits, not 0.
        store_id: this store, 64 bits, not 0, minted with the directory.
        name: the node's name, for people.
        worker: whether it is a worker's, which holds no log.
    """

    cluster_id: int
    store_id: int
    name: str
    worker: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.cluster_id <= MAX_ID and 0 < self.store_id <= MAX_ID):
            raise ValueError("cluster_id and store_id must be 64-bit numbers other than 0")
        if not self.name:
            raise ValueError("a node needs a name")

    def __str__(self) -> str:
        what = "worker" if self.worker else "node"
        return f"{what} {self.name}, store {self.store_id:016x} of cluster {self.cluster_id:016x}"


def write_identity(fs: FileSystem, directory: str, identity: Identity) -> None:
    """Write the identity file durably. Raises ``OSError``."""
    fields = {
        "cluster_id": f"{identity.cluster_id:016x}",
        "store_id": f"{identity.store_id:016x}",
        "name": identity.name,
        **({"worker": True} if identity.worker else {}),
    }
    replace_file(fs, directory, IDENTITY_FILE, _seal(fields))


def read_identity(fs: FileSystem, directory: str) -> Identity:
    """The identity. Raises ``DamagedLog``, ``UnknownFormat``; ``OSError``."""
    path = f"{directory}/{IDENTITY_FILE}"
    fields = _unseal(path, fs.read(path))
    try:
        return Identity(
            int(fields["cluster_id"], 16),
            int(fields["store_id"], 16),
            str(fields["name"]),
            bool(fields.get("worker", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedLog(path, 0, f"fields that make no identity: {error}") from error


def write_incarnation(fs: FileSystem, directory: str, store_id: int, incarnation: int) -> None:
    """Write the counter durably. Raises ``OSError``."""
    fields = {"store_id": f"{store_id:016x}", "incarnation": incarnation}
    replace_file(fs, directory, INCARNATION_FILE, _seal(fields))


def read_incarnation(fs: FileSystem, directory: str, store_id: int) -> int:
    """The counter as last written. Raises ``DamagedLog``, also where the file is missing; ``OSError``."""
    path = f"{directory}/{INCARNATION_FILE}"
    try:
        fields = _unseal(path, fs.read(path))
    except FileNotFoundError as error:
        raise DamagedLog(path, 0, "the file is missing") from error
    incarnation = fields.get("incarnation")
    if fields.get("store_id") != f"{store_id:016x}" or not isinstance(incarnation, int) or incarnation < 0:
        raise DamagedLog(path, 0, "it is not the counter of this store")
    return incarnation


def write_condemned(fs: FileSystem, directory: str, reason: str) -> None:
    """Write down durably that this store must not be used any more. Raises ``OSError``."""
    replace_file(fs, directory, CONDEMNED_FILE, _seal({"reason": reason}))


def check_condemned(fs: FileSystem, directory: str) -> None:
    """Refuse a directory that must not be used any more. Raises ``Condemned``, ``DamagedLog``; ``OSError``."""
    path = f"{directory}/{CONDEMNED_FILE}"
    if fs.exists(path):
        raise Condemned(directory, str(_unseal(path, fs.read(path)).get("reason", "")))


def check_identity(
    found: Identity, path: str, *, name: str | None, cluster_id: int | None, worker: bool = False
) -> None:
    """Refuse a directory that is not the one that was meant. Raises ``WrongIdentity``.

    Args:
        found: what the directory says.
        path: the directory.
        name: the node that was meant, None where any will do.
        cluster_id: the cluster that was meant, None where any will do.
        worker: whether a worker's was meant.
    """
    if found.worker != worker:
        raise WrongIdentity(
            f"{path} belongs to {found}, which {'holds no log' if found.worker else 'is no worker'}",
            try_=f"start it {'with' if found.worker else 'without'} --role worker",
        )
    if name is not None and name != found.name:
        raise WrongIdentity(
            f"{path} belongs to {found}, not to node {name}",
            try_=f"start it as {found.name}, or give {name} its own",
        )
    if cluster_id is not None and cluster_id != found.cluster_id:
        raise WrongIdentity(
            f"{path} belongs to {found}, not to cluster {cluster_id:016x}",
            try_="use a data directory of that cluster",
        )


def replace_file(fs: FileSystem, directory: str, name: str, data: bytes) -> None:
    """Give a small file new content, all or nothing, durable on return. Raises ``OSError``."""
    temp = f"{directory}/{name}.tmp"
    if fs.exists(temp):
        fs.unlink(temp)
    file = fs.create(temp)
    try:
        file.pwrite(data, 0)
        file.sync()
    finally:
        file.close()
    fs.rename(temp, f"{directory}/{name}")
    fs.fsync_dir(directory)


def _seal(fields: dict[str, Any]) -> bytes:
    versioned = {"format": FORMAT_VERSION, **fields}
    return json.dumps({**versioned, "checksum": _checksum(versioned)}).encode() + b"\n"


def _unseal(path: str, data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise TypeError("not an object")
        checksum = fields.pop("checksum")
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedLog(path, 0, f"it does not parse: {error}") from error
    if checksum != _checksum(fields):
        raise DamagedLog(path, 0, "a bad checksum")
    if fields.get("format") != FORMAT_VERSION:
        raise UnknownFormat(f"{path} has format {fields.get('format')}; this build knows {FORMAT_VERSION}")
    return fields


def _checksum(fields: dict[str, Any]) -> str:
    return f"{crc32(json.dumps(fields, sort_keys=True).encode()):08x}"
