"""What keeps a compacted log readable: when segments may go, what may follow a base, and what no start may accept."""

from __future__ import annotations

import copy
import errno
import itertools
import os
from pathlib import Path

import pytest

from raftd.raft.types import Configuration, Entry, HardState, Snapshot
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.errors import DamagedLog, StorageFailed, StorageFull
from raftd.storage.identity import Identity
from raftd.storage.record import Record, RecordKind
from raftd.storage.recovery import Replay
from raftd.storage.snapshots import SnapshotStore, open_snapshots
from raftd.storage.wal import Wal, open_log
from tests.sim.disk import SimulatedCrash, SimulatedDisk
from tests.storage.logs import CLUSTER, FIRST, GENESIS, SEGMENT_BYTES, STORE, entry, make_log, reopen
from tests.storage.test_compaction import BODY, VOTERS, Store, new_disk, opened, opened_again, written

SNAPSHOT = Snapshot(20, 4, Configuration((1,)))


def full_segment(disk: SimulatedDisk) -> Wal:
    """A log whose second segment is nearly full and whose first one may go."""
    make_log(disk)
    wal, _ = reopen(disk)
    wal.append(HardState(2, 7, 1), [entry(2, 2, b"a" * 2400)], sync=True)
    wal.append(HardState(2, 7, 2), [entry(3, 2, b"b" * 2400)], sync=True)
    assert wal.segment_sequence == 2
    return wal


def test_a_segment_without_a_record_keeps_the_one_before_it_that_has_the_hard_state() -> None:
    """Two rolls whose first record never came: the last two segments are empty, and the one before has the vote."""
    disk = SimulatedDisk()
    wal = full_segment(disk)
    for size in (2400, 9000):
        # It does not fit: the next segment is made, and the machine stops before its record.
        disk.crash_at = disk.step_count + next_record(disk, wal, size)
        with pytest.raises(SimulatedCrash):
            wal.append(None, [entry(4, 2, b"c" * size)], sync=True)
        disk.power_off(names=lambda count: count)
        wal, _ = reopen(disk)
    assert wal.segment_sequence == 4
    wal.compact(3)
    disk.power_off()
    wal, recovered = reopen(disk)
    assert recovered.hard_state == HardState(2, 7, 2)
    # As soon as there is a record the older ones may go.
    wal.append(None, [entry(4, 2)], sync=True)
    wal.compact(3)
    disk.power_off()
    assert reopen(disk)[1].hard_state == HardState(2, 7, 2)
    assert len([name for name in disk.listdir("/log") if name.endswith(".wal")]) == 1


def test_what_a_snapshot_replaces_goes_only_when_the_record_that_replaces_it_is_durable() -> None:
    """The last segment has no record, so the vote is only in the one before it: a crash must not lose both."""
    done = False
    for number in itertools.count():
        disk = SimulatedDisk()
        wal = full_segment(disk)
        disk.crash_at = disk.step_count + next_record(disk, wal, 2400)
        with pytest.raises(SimulatedCrash):
            wal.append(None, [entry(4, 2, b"c" * 2400)], sync=True)
        disk.power_off(names=lambda count: count)
        wal, _ = reopen(disk)
        disk.crash_at = disk.step_count + number
        try:
            wal.install(SNAPSHOT, HardState(4, 0, 20), ())
            done = True
        except SimulatedCrash:
            pass  # that is what is tried
        disk.crash_at = None
        disk.power_off(names=lambda count: count)
        assert reopen(disk)[1].hard_state in (HardState(2, 7, 2), HardState(4, 0, 20))
        if done:
            return


def next_record(disk: SimulatedDisk, wal: Wal, size: int) -> int:
    """How many steps an append takes before it writes its record: tried on a copy of the disk."""
    trial_disk = copy.deepcopy(disk)
    trial_disk.power_off(names=lambda count: count)
    trial, _ = reopen(trial_disk)
    before = trial_disk.step_count
    trial.append(None, [entry(4, 2, b"c" * size)], sync=True)
    return trial_disk.step_count - before - 2


@pytest.mark.parametrize("index", [19, 20])
def test_no_entry_may_replace_what_a_snapshot_holds(index: int) -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    wal.install(SNAPSHOT, HardState(4, 0, 20), [entry(21, 4)])
    with pytest.raises(ValueError, match="behind entry 20"):
        wal.append(None, [entry(index, 4)], sync=True)
    with pytest.raises(ValueError, match="behind entry 30"):
        wal.install(Snapshot(30, 4, Configuration((1,))), None, [entry(index, 4)])
    wal.append(HardState(5, 0, 20), [entry(21, 5)], sync=True)
    disk.power_off()
    wal, recovered = reopen(disk)
    assert recovered.entries == [entry(21, 5)]
    with pytest.raises(ValueError, match="behind entry 20"):
        wal.append(None, [entry(index, 4)], sync=True)


def test_no_snapshot_may_leave_a_log_that_ends_before_what_is_committed() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    wal.append(HardState(1, 0, 2), [entry(2), entry(3)], sync=True)
    with pytest.raises(ValueError, match="commit is 2"):
        wal.install(Snapshot(1, 1, Configuration((1,))), None, ())
    disk.power_off()
    assert reopen(disk)[1].hard_state == HardState(1, 0, 2)


@pytest.mark.parametrize("received", [False, True])
def test_a_snapshot_that_contradicts_what_is_committed_is_damage_whoever_made_it(received: bool) -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(3, 5, 4), entry(2, 2), entry(3, 2), entry(4, 2))
    store.directory.snapshots.publish(written(store.directory, 3, 3, received=received))
    disk.power_off()
    for _ in range(2):
        with pytest.raises(DamagedLog):
            opened(disk)
        disk.power_off()
    _, untouched = open_log(
        disk, "/data/log", cluster_id=CLUSTER, store_id=STORE, segment_bytes=SEGMENT_BYTES
    )
    assert untouched.entries == [GENESIS, entry(2, 2), entry(3, 2), entry(4, 2)]


def test_a_damaged_snapshot_halts_before_the_one_that_it_replaced_is_removed() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(2, 0, 1), entry(2, 2), entry(3, 2))
    store.take(2, 2)
    (older,) = disk.listdir("/data/snapshots")
    whole = disk.read(f"/data/snapshots/{older}")
    store.take(3, 2)
    (newer,) = disk.listdir("/data/snapshots")
    disk.power_off()
    disk.put(f"/data/snapshots/{older}", whole)
    disk.flip_bit(f"/data/snapshots/{newer}", 8000)
    with pytest.raises(DamagedLog, match=newer):
        opened(disk)
    assert disk.listdir("/data/snapshots") == sorted([older, newer])
    disk.power_off()
    disk.flip_bit(f"/data/snapshots/{newer}", 8000)
    assert opened(disk).snapshots.newest == Snapshot(3, 2, VOTERS, 10240)
    assert disk.listdir("/data/snapshots") == [newer]


def test_only_a_finished_file_gets_a_name() -> None:
    store = Store(new_disk())
    writer = store.directory.snapshots.begin(1, 1, VOTERS, received=False)
    writer.write(b"half")
    with pytest.raises(RuntimeError, match="not finished"):
        store.directory.snapshots.publish(writer)
    writer.finish()
    writer.abort()
    with pytest.raises(RuntimeError, match="not finished"):
        store.directory.snapshots.publish(writer)
    assert store.directory.snapshots.newest is None
    assert opened_again(store.disk).snapshots.newest is None


def test_no_room_for_the_name_of_a_received_snapshot_is_no_failure_until_it_has_it() -> None:
    disk = new_disk()
    store = Store(disk)
    writer = written(store.directory, 20, 4, received=True)
    disk.fail_at = {disk.step_count: errno.ENOSPC}
    with pytest.raises(StorageFull, match="no room for the snapshot of entry 20"):
        writer.publish()
    assert store.directory.snapshots.newest is None
    assert writer.publish().index == 20
    assert opened_again(disk).snapshots.newest == writer.snapshot

    later = written(store.directory, 30, 4, received=True)
    disk.fail_at = {disk.step_count + 1: errno.ENOSPC}
    with pytest.raises(StorageFailed):
        later.publish()


@pytest.mark.parametrize("what", ["create", "write", "sync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_any_step_that_makes_a_segment_is_no_failure(what: str, code: int) -> None:
    disk = SimulatedDisk()
    wal = full_segment(disk)
    more = entry(4, 2, b"c" * 2400)
    steps = [step for step, _ in steps_of(more)]
    made = [number for number, step in enumerate(steps[: steps.index("rename") + 1]) if step == what]
    assert made
    for number in made:
        disk = SimulatedDisk()
        wal = full_segment(disk)
        disk.fail_at = {disk.step_count + number: code}
        with pytest.raises(StorageFull):
            wal.append(None, [more], sync=True)
        assert "next.tmp" not in disk.listdir("/log")
        wal.append(None, [more], sync=True)
        disk.power_off()
        assert reopen(disk)[1].entries[-1] == more


def test_no_room_when_the_segment_has_its_name_already_is_a_failure() -> None:
    more = entry(4, 2, b"c" * 2400)
    disk = SimulatedDisk()
    wal = full_segment(disk)
    number = [step for step, _ in steps_of(more)].index("fsync_dir")
    disk.fail_at = {disk.step_count + number: errno.ENOSPC}
    with pytest.raises(StorageFailed):
        wal.append(None, [more], sync=True)


def steps_of(more: Entry) -> list[tuple[str, str]]:
    """What an append that rolls asks of the disk."""
    disk = SimulatedDisk()
    wal = full_segment(disk)
    before = len(disk.trace)
    wal.append(None, [more], sync=True)
    return disk.trace[before:]


def test_snapshots_on_the_disk_are_told_apart() -> None:
    disk = new_disk()
    store = Store(disk)
    store.take(1, 1)
    (name,) = disk.listdir("/data/snapshots")
    path = f"/data/snapshots/{name}"
    with pytest.raises(DamagedLog, match="of cluster"):
        open_snapshots(disk, "/data/snapshots", CLUSTER + 1)
    whole = disk.read(path)
    other = SnapshotStore(disk, "/data/snapshots", CLUSTER).path_of(Snapshot(7, 1, VOTERS))
    disk.kill_process()
    disk.put(other, whole)
    with pytest.raises(DamagedLog, match="under another name") as raised:
        opened(disk)
    assert raised.value.file == other


def test_a_start_that_finds_no_room_to_take_a_snapshot_in_says_so_and_a_later_one_does_it() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(3, 5, 1), entry(2, 2))
    store.directory.snapshots.publish(written(store.directory, 9, 3, received=True))
    disk.power_off()
    disk.free_bytes = 1000
    with pytest.raises(StorageFailed, match="No space left") as raised:
        opened(disk)
    assert "start the node again" in raised.value.try_
    disk.free_bytes = None
    assert opened(disk).recovered.base_index == 9


def test_a_start_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    path = str(tmp_path / "n1")
    init_directory(path, Identity(CLUSTER, STORE, "n1"), FIRST, [GENESIS], segment_bytes=SEGMENT_BYTES)
    directory = DataDirectory.open(path, segment_bytes=SEGMENT_BYTES)
    directory.snapshots.publish(written(directory, 9, 2))
    directory.log.close()
    directory.close()
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(DamagedLog):
        DataDirectory.open(path, segment_bytes=SEGMENT_BYTES)
    assert len(os.listdir("/dev/fd")) == before


def test_a_compacted_store_on_a_real_file_system(tmp_path: Path) -> None:
    path = str(tmp_path / "n1")
    init_directory(path, Identity(CLUSTER, STORE, "n1"), FIRST, [GENESIS], segment_bytes=SEGMENT_BYTES)
    directory = DataDirectory.open(path, segment_bytes=SEGMENT_BYTES)
    for index in range(2, 30):
        directory.log.append(HardState(2, 7, index), [entry(index, 2, b"d" * 700)], sync=True)
    before = len(os.listdir(f"{path}/log"))
    snapshot = directory.snapshots.publish(written(directory, 25, 2))
    directory.log.compact(20)
    assert len(os.listdir(f"{path}/log")) < before - 3
    reader = directory.snapshots.open(snapshot)
    assert directory.snapshots.publish(written(directory, 26, 2)).index == 26
    assert b"".join(iter(lambda: reader.read(1000), b"")) == BODY
    reader.close()
    directory.log.close()
    directory.close()
    directory = DataDirectory.open(path, segment_bytes=SEGMENT_BYTES)
    assert 10 < directory.recovered.base_index <= 20
    assert directory.recovered.last_index == 29
    assert directory.recovered.hard_state == HardState(2, 7, 29)
    writer = written(directory, 40, 3, received=True)
    directory.log.install(writer.publish(), HardState(3, 0, 40), [entry(41, 3)])
    assert len([name for name in os.listdir(f"{path}/log") if name.endswith(".wal")]) == 1
    directory.log.close()
    directory.close()
    directory = DataDirectory.open(path, segment_bytes=SEGMENT_BYTES)
    assert directory.recovered.entries == [entry(41, 3)]
    assert directory.snapshots.newest == Snapshot(40, 3, VOTERS, len(BODY))
    assert os.listdir(f"{path}/snapshots") == [f"{40:016x}-{3:016x}.snapshot"]
    directory.log.close()
    directory.close()


def log_files(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.listdir("/data/log") if name.endswith(".wal")]


def test_a_start_removes_what_a_snapshot_has_replaced() -> None:
    disk = new_disk()
    store = Store(disk)
    for index in range(2, 8):
        store.append(HardState(2, 0, 1), entry(index, 2, b"d" * 1500))
    assert len(log_files(disk)) > 2
    disk.fail_on = lambda what, _: errno.EIO if what == "unlink" else 0
    snapshot = written(store.directory, 20, 3, received=True).publish()
    with pytest.raises(StorageFailed):
        store.directory.log.install(snapshot, HardState(3, 0, 20), ())
    assert len(log_files(disk)) > 2
    disk.power_off()
    directory = opened(disk)
    assert len(log_files(disk)) == 1
    assert (directory.recovered.base_index, directory.recovered.last_index) == (20, 20)


def test_a_disk_that_refuses_while_the_next_segment_is_made_is_a_failure() -> None:
    disk = SimulatedDisk()
    wal = full_segment(disk)
    disk.fail_on = lambda what, _: errno.EIO if what == "create" else 0
    with pytest.raises(StorageFailed):
        wal.append(None, [entry(4, 2, b"c" * 2400)], sync=True)


def test_the_term_of_the_base_outlives_the_segment_that_says_it() -> None:
    disk = new_disk()
    store = Store(disk)
    store.receive(20, 4, HardState(4, 0, 20))
    store.append(None, entry(21, 4, b"d" * 3600))
    assert len(log_files(disk)) == 2
    store.directory.log.compact(20)
    assert len(log_files(disk)) == 1
    found = opened_again(disk).recovered
    assert (found.base_index, found.base_term, found.last_index) == (20, 4, 21)


def test_a_name_that_was_only_in_the_page_cache_is_durable_before_the_log_relies_on_it() -> None:
    disk = new_disk()
    store = Store(disk)
    writer = written(store.directory, 20, 4, received=True)
    disk.crash_at = disk.step_count + 1
    with pytest.raises(SimulatedCrash, match="fsync_dir"):
        writer.publish()
    disk.kill_process()
    assert opened(disk).recovered.base_index == 20
    assert opened_again(disk).recovered.base_index == 20


def test_a_snapshot_that_ends_before_the_log_begins_is_damage() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(2, 0, 1), entry(2, 2), entry(3, 2))
    store.take(2, 2)
    (older,) = disk.listdir("/data/snapshots")
    whole = disk.read(f"/data/snapshots/{older}")
    store.receive(20, 4, HardState(4, 0, 20))
    (newer,) = disk.listdir("/data/snapshots")
    disk.power_off()
    disk.put(f"/data/snapshots/{older}", whole)
    disk.remove(f"/data/snapshots/{newer}")
    with pytest.raises(DamagedLog, match="behind entry 20"):
        opened(disk)


def test_a_vote_is_of_its_term_also_where_a_start_takes_a_snapshot_of_a_later_one_in() -> None:
    disk = new_disk()
    store = Store(disk)
    store.append(HardState(3, 5, 1), entry(2, 2))
    store.directory.snapshots.publish(written(store.directory, 9, 4, received=True))
    assert opened_again(disk).recovered.hard_state == HardState(4, 0, 9)


def record(hard_state: HardState | None, *entries: Entry) -> Record:
    return Record(RecordKind.ITEMS, hard_state, list(entries), None, 0, 0)


def test_what_replaced_purged_entries_must_reach_the_base_again() -> None:
    replay = Replay(base=(9, 2))
    replay.apply(record(HardState(3, 0, 6), entry(7, 3), entry(8, 3)))
    assert replay.next_index() == 9
    with pytest.raises(ValueError, match="the log ends at 8, and what was compacted at 9"):
        replay.finish()
    replay.apply(record(None, entry(9, 3), entry(10, 3)))
    replay.finish()
    assert (replay.base, replay.entries) == ((9, 3), [entry(10, 3)])
    replay.apply(record(None, entry(8, 3)))
    assert replay.entries == []
