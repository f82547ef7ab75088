"""What a node starts from: its snapshot, its founding entry, or nothing."""

from __future__ import annotations

import pytest

from raftd.codec.genesis import encode_genesis
from raftd.codec.snapshot import encode_snapshot
from raftd.errors import StorageError, UnknownFormat
from raftd.node.boot import Start, start_of
from raftd.raft.types import Configuration, Entry, EntryType, HardState, Snapshot
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.model import Genesis, Member
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.identity import Identity
from tests.sim.disk import SimulatedDisk

CLUSTER = 0xC1
STORE = 1
GENESIS = Genesis(CLUSTER, 1, tuple(Member(f"n{i}", i, f"h:{i}") for i in (1, 2, 3)))
FOUNDING = Entry(1, 1, EntryType.CONFIGURATION, encode_genesis(GENESIS))
LATER = Configuration((1, 2, 4), (5,))


def opened(*entries: Entry) -> DataDirectory:
    disk = SimulatedDisk()
    term = entries[-1].term if entries else 0
    init_directory("/data", Identity(CLUSTER, STORE, "n1"), HardState(term, 0, 0), entries, fs=disk)
    return DataDirectory.open("/data", fs=disk)


def with_snapshot(*, index: int = 4, removed: frozenset[int] = frozenset()) -> Start:
    """Of a directory whose newest snapshot says that it is of ``index``, and holds the state of entry 4."""
    machine = StateMachine()
    machine.apply_genesis(1, GENESIS)
    for number in (2, 3, 4):
        machine.apply_noop(number)
    machine.state.removed_stores = removed
    entries = [FOUNDING, *(Entry(2, number, EntryType.NORMAL, b"") for number in range(2, 7))]
    directory = opened(*entries)
    writer = directory.snapshots.begin(index, 2, LATER, received=False)
    for piece in encode_snapshot(machine.state.freeze()):
        writer.write(piece)
    writer.finish()
    writer.publish()
    return start_of(directory)


def test_a_founder_starts_from_its_founding_entry() -> None:
    start = start_of(opened(FOUNDING))
    assert (start.applied, start.snapshot) == ((0, 0), None)
    assert start.configuration == Configuration((1, 2, 3))
    assert [member.name for member in start.members] == ["n1", "n2", "n3"]


def test_who_joins_starts_from_nothing() -> None:
    start = start_of(opened())
    assert (start.applied, start.configuration, start.members) == ((0, 0), Configuration(()), ())


def test_the_configuration_of_the_snapshot_wins_over_the_founders() -> None:
    start = with_snapshot()
    assert start.configuration == LATER
    assert start.applied == (4, 2)
    assert start.state.applied_index == 4
    assert isinstance(start.snapshot, Snapshot)
    assert [member.store_id for member in start.members] == [1, 2, 3]


def test_a_snapshot_that_holds_another_state_is_refused() -> None:
    with pytest.raises(StorageError, match="holds the state of 4"):
        with_snapshot(index=5)


def test_a_store_that_was_removed_starts_for_it_may_be_the_only_one_that_knows() -> None:
    assert with_snapshot(removed=frozenset({STORE})).state.removed_stores == {STORE}


def test_a_log_that_does_not_begin_with_its_founding_is_none_of_ours() -> None:
    with pytest.raises(UnknownFormat):
        start_of(opened(Entry(1, 1, EntryType.NORMAL, b"")))
