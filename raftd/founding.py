"""Founding a cluster: entry 1, identical on every founding node, and the data directory around it.

What may live here: reading ``raftd init``'s words and making the genesis entry from them. Only founders are made here;
whoever comes later joins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from raftd.codec.genesis import encode_genesis
from raftd.config import fixed_address, hex_id, parsed
from raftd.errors import ConfigError
from raftd.raft.types import Entry, EntryType, HardState
from raftd.scheduler.model import Genesis, Member
from raftd.storage.directory import init_directory
from raftd.storage.identity import Identity

GENESIS_TERM = 1
FIRST_EPOCH = 1

_MEMBER = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})=(?P<store>[0-9a-fA-F]{1,16})@(?P<address>\S+)"
)


def found(data_dir: Path, name: str, cluster_id: str, members: Sequence[str], segment_bytes: int) -> None:
    """Make the data directory of a founding node.

    Args:
        name: one of the members' names.
        cluster_id: hex digits.
        members: ``NAME=STORE_ID@HOST:PORT`` each.

    Raises:
        ConfigError: the words make no cluster.
        StorageError: the directory is in use, or the disk failed.
    """
    segment_bytes = parsed("segment_bytes", "--segment-bytes", segment_bytes)
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
