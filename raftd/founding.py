"""The first directory of a node: a founder's, with entry 1, an empty one for a node that is to join, or a worker's.

What may live here: reading ``raftd init``'s words, and making the genesis entry from them. It is identical on every
founding node; whoever comes later gets it from the others.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from raftd.codec.genesis import encode_genesis
from raftd.config import NAME, check_name, fixed_address, hex_id
from raftd.errors import ConfigError
from raftd.raft.types import Entry, EntryType, HardState
from raftd.scheduler.model import Genesis, Member
from raftd.storage.directory import init_directory
from raftd.storage.identity import Identity
from raftd.storage.worker import init_worker

GENESIS_TERM = 1
FIRST_EPOCH = 1

_MEMBER = re.compile(rf"(?P<name>{NAME})=(?P<store>[0-9a-fA-F]{{1,16}})@(?P<address>\S+)")


def found(data_dir: Path, name: str, cluster_id: str, members: Sequence[str], segment_bytes: int) -> int:
    """Make the data directory of a founding node.

    Args:
        name: one of the members' names.
        cluster_id: hex digits.
        members: ``NAME=STORE_ID@HOST:PORT`` each.

    Returns:
        Its store id.

    Raises:
        ConfigError: the words make no cluster.
        StorageError: the directory is in use, or the disk failed.
    """
    genesis = Genesis(hex_id("cluster id", cluster_id), FIRST_EPOCH, tuple(_member(word) for word in members))
    _check(genesis)
    mine = next((member for member in genesis.members if member.name == name), None)
    if mine is None:
        known = ", ".join(member.name for member in genesis.members)
        raise ConfigError(f"--name {name} is none of the members ({known})")
    entry = Entry(GENESIS_TERM, 1, EntryType.CONFIGURATION, encode_genesis(genesis))
    init_directory(
        str(data_dir),
        Identity(genesis.cluster_id, mine.store_id, name),
        HardState(GENESIS_TERM, 0, 1),
        (entry,),
        segment_bytes=segment_bytes,
    )
    return mine.store_id


def join(data_dir: Path, name: str, cluster_id: str, store_id: str | None, segment_bytes: int) -> int:
    """Make the data directory of a node that is to be let into a cluster that runs: it knows nothing yet.

    Args:
        name: the one it will be let in by.
        cluster_id: hex digits, of the cluster that it is to join.
        store_id: hex digits; None for a new one, which is what everybody wants who has no need to know it beforehand.

    Returns:
        The store id. It must be new: a store that was removed, or that lost its disk, never comes back.

    Raises:
        ConfigError: the words make no node.
        StorageError: the directory is in use, or the disk failed.
    """
    check_name("--name", name)
    cluster = hex_id("cluster id", cluster_id)
    store = mint_store_id() if store_id is None else hex_id("store id", store_id)
    # No term, no vote, no entry: the first message of the leader brings everything, entry 1 or a snapshot included.
    init_directory(
        str(data_dir), Identity(cluster, store, name), HardState(0, 0, 0), (), segment_bytes=segment_bytes
    )
    return store


def employ(data_dir: Path, name: str, cluster_id: int, store_id: int | None) -> int:
    """Make the data directory of a worker.

    Args:
        name: a name that no node of the cluster has.
        cluster_id: of the cluster that it is to work for.
        store_id: None for a new one.

    Returns:
        The store id.

    Raises:
        ConfigError: the name is none.
        StorageError: the directory is in use, or the disk failed.
    """
    store = mint_store_id() if store_id is None else store_id
    init_worker(str(data_dir), Identity(cluster_id, store, check_name("--name", name), worker=True))
    return store


def mint_store_id() -> int:
    """An id that no store ever had, in all likelihood."""
    return secrets.randbelow((1 << 64) - 1) + 1


def _member(word: str) -> Member:
    match = _MEMBER.fullmatch(word)
    if match is None:
        raise ConfigError(f"--member {word!r} is not of the form NAME=STORE_ID@HOST:PORT")
    fixed_address(f"--member {match['name']}", match["address"])
    return Member(match["name"], hex_id("store id", match["store"]), match["address"], voter=True)


def _check(genesis: Genesis) -> None:
    for what, values in (
        ("name", [member.name for member in genesis.members]),
        ("store id", [f"{member.store_id:016x}" for member in genesis.members]),
        ("address", [member.address for member in genesis.members]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ConfigError(f"two members have the {what} {twice}")
