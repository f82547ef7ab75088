"""What a node starts from: its newest snapshot, or nothing but its log.

What may live here: reading a data directory's content into a state, and the configuration as of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftd.codec.genesis import decode_genesis
from raftd.codec.snapshot import decode_snapshot
from raftd.errors import StorageError, UnknownFormat
from raftd.node.members import Members, MemberView
from raftd.raft.types import Configuration, EntryType, Snapshot
from raftd.scheduler.state import State
from raftd.storage.directory import DataDirectory

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Start:
    """Where a node's life begins.

    Attributes:
        state: of the snapshot, or the one before entry 1.
        applied: index and term of the last entry in it.
        configuration: the one in force after it; a founder's is in entry 1, and of one that joins it is empty.
        snapshot: the one that the state is from.
        members: whom this node can speak to from the start.
    """

    state: State
    applied: tuple[int, int]
    configuration: Configuration
    snapshot: Snapshot | None
    members: tuple[MemberView, ...]


def start_of(directory: DataDirectory) -> Start:
    """Read what a data directory holds. Also one of a store that was removed starts: see ``roster``.

    Raises:
        StorageError: the snapshot cannot be read, or is not of this state.
        UnknownFormat: it is of a newer version, or no log of ours.
    """
    snapshot = directory.snapshots.newest
    if snapshot is None:
        return _from_log(directory)
    reader = directory.snapshots.open(snapshot)
    try:
        state = decode_snapshot(iter(lambda: reader.read(READ_BYTES), b""))
    finally:
        reader.close()
    if state.applied_index != snapshot.index:
        raise StorageError(
            f"the snapshot of entry {snapshot.index} in {directory.path} holds the state of {state.applied_index}",
            try_="keep a copy of the directory, remove this store from the cluster, and let the node join anew",
        )
    return Start(
        state,
        (snapshot.index, snapshot.term),
        snapshot.configuration,
        snapshot,
        Members(lambda: state).all(),
    )


def _from_log(directory: DataDirectory) -> Start:
    entries = directory.recovered.entries
    if not entries:
        # Made to join: it hears from a member whom it belongs to.
        return Start(State(), (0, 0), Configuration(()), None, ())
    if entries[0].index != 1 or entries[0].type is not EntryType.CONFIGURATION:
        raise UnknownFormat(f"the log in {directory.path} does not begin with a genesis entry")
    genesis = decode_genesis(entries[0].data)
    return Start(
        State(),
        (0, 0),
        Configuration(tuple(member.store_id for member in genesis.members if member.voter)),
        None,
        tuple(
            MemberView(member.name, member.store_id, member.address, member.voter)
            for member in genesis.members
        ),
    )
