"""Snapshots and the log together: compaction, replacement, and a crash between any two steps of either."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from raftd.raft.types import Configuration, Entry, HardState, Snapshot
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.errors import DamagedLog, SnapshotGone, StorageFailed, StorageFull
from raftd.storage.identity import Identity
from raftd.storage.log_store import LogStore
from raftd.storage.snapshots import SnapshotWriter
from tests.sim.disk import Choose, SimulatedCrash, SimulatedDisk
from tests.storage.logs import CLUSTER, FIRST, GENESIS, STORE, entry
from tests.storage.test_wal_crash import choices

SEGMENT_BYTES = 4096
VOTERS = Configuration((1, 2, 3), (4,), (1, 2))
BODY = bytes(range(256)) * 40


@dataclass(frozen=True)
class Model:
    """What must come back: the hard state, and every entry above the newest snapshot (those below may be gone)."""

    hard_state: HardState = FIRST
    entries: tuple[tuple[int, Entry], ...] = ((1, GENESIS),)
    last: tuple[int, int] = (1, 1)
    snapshot: int = 0

    def after(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Model:
        kept = [(index, item) for index, item in self.entries if not entries or index < entries[0].index]
        kept += [(item.index, item) for item in entries]
        last = (entries[-1].index, entries[-1].term) if entries else self.last
        return replace(self, hard_state=hard_state or self.hard_state, entries=tuple(kept), last=last)

    def replaced(self, snapshot: Snapshot, hard_state: HardState, entries: Sequence[Entry]) -> Model:
        base = Model(hard_state, (), (snapshot.index, snapshot.term), snapshot.index)
        return base.after(None, entries)

    def matches(self, directory: DataDirectory) -> bool:
        found = directory.recovered
        newest = directory.snapshots.newest
        covered = 0 if newest is None else newest.index
        mine = [item for index, item in self.entries if index > found.base_index]
        return (
            found.hard_state == self.hard_state
            and (found.last_index, found.term(found.last_index)) == self.last
            and found.base_index <= covered
            and covered >= self.snapshot
            and found.entries == mine
        )


class Store:
    """A data directory under a workload: every step is acknowledged when it returns."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.acknowledged = Model()
        self.next: Model | None = None
        """What the step that is under way leads to."""
        self.halfway: Model | None = None
        """What a start makes of a snapshot that is named, but has not taken the log's place yet."""
        self.directory = opened(disk)

    def append(self, hard_state: HardState | None, *entries: Entry) -> None:
        self.next = self.acknowledged.after(hard_state, entries)
        self.directory.log.append(hard_state, entries, sync=True)
        self._done()
        self.directory.log.prepare_next()

    def take(self, index: int, term: int, keep: int = 1) -> None:
        writer = written(self.directory, index, term)
        self.next = replace(self.acknowledged, snapshot=index)
        self.directory.snapshots.publish(writer)
        self._done()
        self.directory.log.compact(index - keep)

    def receive(self, index: int, term: int, hard_state: HardState, *entries: Entry) -> None:
        writer = written(self.directory, index, term, received=True)
        self.next = self.acknowledged.replaced(writer.snapshot, hard_state, entries)
        old = self.acknowledged.hard_state
        at_least = HardState(max(old.term, term), old.vote if old.term >= term else 0, max(old.commit, index))
        self.halfway = self.acknowledged.replaced(writer.snapshot, at_least, ())
        snapshot = writer.publish()
        self.directory.log.install(snapshot, hard_state, entries)
        self._done()

    def came_back(self, directory: DataDirectory) -> Model | None:
        """Which of the states that it may be in after a crash a start has found; None for one that it may not be in."""
        allowed = (self.acknowledged, self.next, self.halfway)
        return next((model for model in allowed if model is not None and model.matches(directory)), None)

    def _done(self) -> None:
        assert self.next is not None
        self.acknowledged, self.next, self.halfway = self.next, None, None


def written(directory: DataDirectory, index: int, term: int, *, received: bool = False) -> SnapshotWriter:
    writer = directory.snapshots.begin(index, term, VOTERS, received=received)
    for start in range(0, len(BODY), 3000):
        writer.write(BODY[start : start + 3000])
    writer.finish()
    return writer


def opened(disk: SimulatedDisk) -> DataDirectory:
    return DataDirectory.open("/data", fs=disk, segment_bytes=SEGMENT_BYTES)


def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    init_directory(
        "/data", Identity(CLUSTER, STORE, "n1"), FIRST, [GENESIS], fs=disk, segment_bytes=SEGMENT_BYTES
    )
    return disk


def workload(store: Store) -> None:
    """Vote, append, truncate below what becomes the base, roll, compact, be replaced, go on, compact again."""
    store.append(HardState(2, 7, 1))
    store.append(None, *(entry(index, 2, b"a" * 900) for index in range(2, 6)))
    store.append(HardState(2, 7, 3), entry(6, 2, b"b" * 900), entry(7, 2, b"c" * 1500))
    store.append(HardState(3, 0, 3), entry(5, 3, b"d" * 900), entry(6, 3), entry(7, 3, b"e" * 1800))
    store.append(HardState(3, 0, 7), entry(8, 3, b"f" * 1500))
    store.take(7, 3)
    store.append(None, entry(9, 3, b"g" * 3000))
    store.take(8, 3)
    store.append(None, *(entry(index, 3, b"h" * 1200) for index in range(10, 14)))
    store.receive(20, 4, HardState(4, 9, 20), entry(21, 4, b"i" * 600))
    store.append(HardState(4, 9, 21), entry(22, 4, b"j" * 2500))
    store.append(None, entry(23, 4, b"k" * 2500))
    store.take(21, 4)
    store.append(HardState(5, 0, 23))


def crashed(step: int | None) -> tuple[SimulatedDisk, Store | None, int]:
    disk = new_disk()
    first = disk.step_count
    disk.crash_at = step
    store: Store | None = None
    try:
        store = Store(disk)
        workload(store)
    except SimulatedCrash:
        assert step is not None
    return disk, store, first


def test_a_crash_between_any_two_steps_boots_with_everything_that_was_acknowledged() -> None:
    finished, _, first = crashed(None)
    purged = 0
    for step in range(first, finished.step_count + 1):
        pending = crashed(step)[0].pending_sectors()
        tries: list[tuple[Choose, Callable[[int], int]]] = [
            (choose, names)
            for choose in list(choices(pending, step))[:10]
            for names in (lambda _: 0, lambda count: count // 2, lambda count: count)
        ]
        for choose, names in tries:
            disk, store, _ = crashed(step)
            if store is None:
                continue
            trace = disk.trace[-3:]
            disk.power_off(choose, names)
            directory = opened(disk)
            assert store.came_back(directory), (step, trace, directory.recovered)
            purged += directory.recovered.base_index > 0
            goes_on(disk, directory)
    assert purged > 100, "many of these crashes are meant to come after a compaction"


def goes_on(disk: SimulatedDisk, directory: DataDirectory) -> None:
    """It appends and comes back once more."""
    found = directory.recovered
    more = entry(found.last_index + 1, 9, b"more")
    hard_state = HardState(9, 1, found.hard_state.commit)
    directory.log.append(hard_state, (more,), sync=True)
    disk.power_off()
    again = opened(disk).recovered
    assert again.hard_state == hard_state
    assert again.entries == [*found.entries, more]
    assert (again.base_index, again.base_term) == (found.base_index, found.base_term)


def test_the_body_and_the_configuration_come_back() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(2, 0, 1), entry(2, 2), entry(3, 2))
    store.take(3, 2)
    disk.power_off()
    snapshots = opened(disk).snapshots
    assert snapshots.newest == Snapshot(3, 2, VOTERS, len(BODY))
    reader = snapshots.open(snapshots.newest)
    assert b"".join(iter(lambda: reader.read(700), b"")) == BODY
    assert reader.snapshot.configuration == VOTERS
    assert not reader.received


def test_a_reader_outlives_the_snapshot_that_it_reads() -> None:
    store = Store(new_disk())
    store.append(HardState(2, 0, 1), entry(2, 2), entry(3, 2))
    store.take(2, 2)
    old = store.directory.snapshots.newest
    assert old is not None
    reader = store.directory.snapshots.open(old)
    store.take(3, 2)
    assert b"".join(iter(lambda: reader.read(4000), b"")) == BODY
    with pytest.raises(SnapshotGone):
        store.directory.snapshots.open(old)


def test_an_older_snapshot_never_takes_the_place_of_a_newer_one() -> None:
    store = Store(new_disk())
    store.append(HardState(2, 0, 1), entry(2, 2), entry(3, 2))
    late = written(store.directory, 2, 2)
    store.take(3, 2)
    with pytest.raises(ValueError, match="there is one of 3"):
        store.directory.snapshots.publish(late)
    late.abort()
    late.abort()
    assert not [name for name in store.disk.listdir("/data/snapshots") if name.endswith(".tmp")]


def test_what_was_not_finished_is_removed_at_the_next_start() -> None:
    disk = new_disk()
    store = Store(disk)
    store.directory.snapshots.begin(1, 1, VOTERS, received=True).write(b"half")
    disk.kill_process()
    assert opened(disk).snapshots.newest is None
    assert disk.listdir("/data/snapshots") == []


def finished() -> SimulatedDisk:
    disk = new_disk()
    workload(Store(disk))
    disk.fsync_dir("/data/snapshots")
    disk.power_off()
    return disk


def snapshot_path(disk: SimulatedDisk) -> str:
    (name,) = disk.listdir("/data/snapshots")
    return f"/data/snapshots/{name}"


def test_every_flipped_bit_of_a_snapshot_is_damage() -> None:
    disk = finished()
    path = snapshot_path(disk)
    for bit in range(0, len(disk.read(path)) * 8, 101):
        disk.flip_bit(path, bit)
        with pytest.raises(DamagedLog) as raised:
            opened(disk)
        assert raised.value.file == path
        disk.kill_process()
        disk.flip_bit(path, bit)
    assert opened(disk).recovered.last_index == 23


def cuts(length: int) -> Iterator[int]:
    yield from range(90)
    yield from range(90, length, 977)
    yield length - 1


def test_a_snapshot_that_is_cut_short_or_goes_on_is_damage() -> None:
    disk = finished()
    path = snapshot_path(disk)
    whole = disk.read(path)
    for wrong in (*(whole[:length] for length in cuts(len(whole))), whole + b"\0"):
        disk.put(path, wrong)
        with pytest.raises(DamagedLog):
            opened(disk)
        disk.kill_process()


def test_a_log_that_begins_behind_what_no_snapshot_reaches_is_damage() -> None:
    disk = finished()
    disk.remove(snapshot_path(disk))
    with pytest.raises(DamagedLog, match="no snapshot that reaches it"):
        opened(disk)


def test_a_snapshot_that_was_taken_here_proves_that_the_log_held_more() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(2, 0, 1), entry(2, 2))
    writer = written(store.directory, 9, 2)
    store.directory.snapshots.publish(writer)
    disk.power_off()
    with pytest.raises(DamagedLog, match="was taken of a log that ends at 2"):
        opened(disk)


def test_a_snapshot_that_was_received_takes_the_place_of_a_log_that_disagrees() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(3, 5, 1), entry(2, 2), entry(3, 2), entry(4, 2))
    store.directory.snapshots.publish(written(store.directory, 3, 3, received=True))
    disk.power_off()
    directory = opened(disk)
    assert (directory.recovered.base_index, directory.recovered.base_term) == (3, 3)
    assert directory.recovered.entries == []
    assert directory.recovered.hard_state == HardState(3, 5, 3)
    assert opened_again(disk).recovered == replace(directory.recovered, torn_tail=None)


def opened_again(disk: SimulatedDisk) -> DataDirectory:
    disk.power_off()
    return opened(disk)


def test_a_store_that_is_to_join_begins_empty() -> None:
    disk = SimulatedDisk()
    init_directory("/data", Identity(CLUSTER, 6, "n6"), HardState(0, 0, 0), (), fs=disk)
    directory = opened(disk)
    assert directory.recovered.entries == []
    assert directory.recovered.last_index == 0
    directory.log.append(HardState(2, 0, 0), (GENESIS, entry(2, 2)), sync=True)
    assert opened_again(disk).recovered.last_index == 2


def test_the_segment_that_is_being_written_is_never_purged() -> None:
    store = Store(new_disk())
    store.append(HardState(2, 0, 1), *(entry(index, 2) for index in range(2, 9)))
    store.take(8, 2)
    assert len([name for name in store.disk.listdir("/data/log") if name.endswith(".wal")]) == 1
    assert opened_again(store.disk).recovered.base_index == 0


def test_a_full_disk_leaves_no_trace_of_what_could_not_be_prepared_and_the_same_call_works_later() -> None:
    store = Store(new_disk())
    store.append(HardState(2, 0, 1), entry(2, 2, b"x" * 1200))
    store.disk.free_bytes = 100
    large = entry(3, 2, b"y" * 3000)
    for _ in range(2):
        with pytest.raises(StorageFull):
            store.directory.log.append(None, (large,), sync=True)
        with pytest.raises(StorageFull):
            store.directory.log.make_room()
        assert "next.tmp" not in store.disk.listdir("/data/log")
    store.next = store.acknowledged.after(HardState(3, 0, 1), ())
    store.directory.log.append(HardState(3, 0, 1), (), sync=True)
    store._done()
    store.disk.free_bytes = None
    store.directory.log.make_room()
    store.append(None, large)
    assert store.acknowledged.matches(opened_again(store.disk))


def test_a_snapshot_that_finds_no_room_fails_alone() -> None:
    store = Store(new_disk())
    store.disk.free_bytes = 500
    writer = store.directory.snapshots.begin(1, 1, VOTERS, received=False)
    with pytest.raises(StorageFull, match="no room for the snapshot of entry 1 in /data/snapshots"):
        writer.write(BODY)
    writer.abort()
    store.disk.fail_on = lambda what, _: errno.EIO if what == "write" else 0
    with pytest.raises(StorageFailed, match="Input/output"):
        store.directory.snapshots.begin(1, 1, VOTERS, received=False)
    store.disk.fail_on = None
    assert store.disk.listdir("/data/snapshots") == []
    store.directory.log.append(HardState(2, 0, 1), (), sync=True)


def test_the_log_in_memory_is_compacted_and_replaced() -> None:
    log = LogStore([entry(index, index) for index in range(1, 8)])
    log.compact(5)
    assert (log.first_index, log.last_index, log.term(5), log.term(6)) == (6, 7, 5, 6)
    with pytest.raises(IndexError):
        log.compact(5)
    log.restore(20, 9)
    assert (log.first_index, log.last_index, log.term(20)) == (21, 20, 9)
    log.append([entry(21, 9)])
    assert log.entry(21) == entry(21, 9)
