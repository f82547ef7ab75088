"""What no crash explains is damage, named with file and offset, and never changes what the log says."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from raftd.raft.types import Entry, HardState
from raftd.storage.errors import DamagedLog, StorageFailed, StorageFull
from raftd.storage.record import SECTOR_BYTES
from tests.sim.disk import SimulatedDisk
from tests.storage.logs import (
    GENESIS_CONTENT,
    STORE,
    WORKLOAD,
    Content,
    content,
    entry,
    make_log,
    reopen,
    run_workload,
)


def finished_log(store_id: int = STORE) -> tuple[SimulatedDisk, Content]:
    """A log after the whole workload: four segments or more, the last one with records."""
    disk = SimulatedDisk()
    make_log(disk, store_id=store_id)
    wal, _ = reopen(disk, store_id=store_id)
    acknowledged = [GENESIS_CONTENT]
    run_workload(wal, acknowledged)
    wal.close()
    disk.power_off()
    return disk, acknowledged[-1]


def segments(disk: SimulatedDisk) -> list[str]:
    return [f"/log/{name}" for name in disk.listdir("/log") if name.endswith(".wal")]


def damage(disk: SimulatedDisk) -> DamagedLog:
    with pytest.raises(DamagedLog) as raised:
        reopen(disk)
    return raised.value


def test_the_workload_makes_several_segments() -> None:
    disk, expected = finished_log()
    assert len(segments(disk)) >= 4
    assert content(reopen(disk)[1]) == expected


def test_a_flipped_bit_anywhere_is_damage_or_changes_nothing() -> None:
    disk, expected = finished_log()
    tried = noticed = 0
    for path in segments(disk):
        for bit in range(0, len(disk.read(path)) * 8, 7):
            disk.flip_bit(path, bit)
            tried += 1
            try:
                found = content(reopen(disk)[1])
            except DamagedLog:
                noticed += 1
            else:
                assert found == expected, (path, bit)
            disk.flip_bit(path, bit)
    assert noticed == tried, "even the zeros behind the log are checked"


def test_a_zeroed_sector_is_damage_except_in_the_last_record_where_it_is_torn() -> None:
    disk, expected = finished_log()
    last = segments(disk)[-1]
    last_record_at = tail_of(disk, last)
    torn = 0
    for path in segments(disk):
        raw = disk.read(path)
        for start in range(0, len(raw), SECTOR_BYTES):
            sector = raw[start : start + SECTOR_BYTES]
            if not any(sector):
                continue
            disk.overwrite(path, bytes(SECTOR_BYTES), start)
            if path == last and start >= last_record_at:
                recovered = reopen(disk)[1]
                assert recovered.torn_tail is not None or start == last_record_at
                assert content(recovered) == without_last_step()
                torn += 1
                disk.overwrite(path, raw, 0)
            else:
                damage(disk)
                disk.overwrite(path, sector, start)
    assert torn >= 1
    assert content(reopen(disk)[1]) == expected


def without_last_step() -> Content:
    result = GENESIS_CONTENT
    for hard_state, entries in WORKLOAD[:-1]:
        result = result.after(hard_state, entries)
    return result


def tail_of(disk: SimulatedDisk, path: str) -> int:
    """Where the last record begins: the workload's last step fits one sector."""
    return (len(disk.read(path).rstrip(b"\0")) - 1) // SECTOR_BYTES * SECTOR_BYTES


def test_a_torn_record_in_a_segment_that_is_not_the_last_is_damage() -> None:
    disk, _ = finished_log()
    second = segments(disk)[1]
    length = len(disk.read(second))
    disk.overwrite(second, bytes(length - 2 * SECTOR_BYTES), 2 * SECTOR_BYTES)
    found = damage(disk)
    assert (found.file, found.offset) == (second, SECTOR_BYTES)
    assert "unfinished" in found.found


def test_a_missing_segment_is_damage_wherever_it_was() -> None:
    for number in range(1, len(segments(finished_log()[0]))):
        disk, _ = finished_log()
        disk.remove(segments(disk)[number])
        damage(disk)


def test_a_missing_first_segment_may_have_been_purged_so_the_log_says_where_it_begins() -> None:
    disk, expected = finished_log()
    disk.remove(segments(disk)[0])
    _, recovered = reopen(disk)
    assert recovered.base_index > 0, (
        "a data directory without a snapshot of that refuses it (test_compaction)"
    )
    assert tuple(recovered.entries) == expected.entries[recovered.base_index :]
    assert recovered.base_term == expected.entries[recovered.base_index - 1].term
    assert recovered.hard_state == expected.hard_state


def test_no_segment_at_all_is_damage() -> None:
    disk, _ = finished_log()
    for path in segments(disk):
        disk.remove(path)
    assert "no segment" in damage(disk).found


def test_swapped_segments_are_damage() -> None:
    disk, _ = finished_log()
    one, two = segments(disk)[:2]
    one_raw, two_raw = disk.read(one), disk.read(two)
    disk.put(one, two_raw)
    disk.put(two, one_raw)
    assert "another segment's name" in damage(disk).found


def test_a_segment_that_is_there_twice_is_damage() -> None:
    disk, _ = finished_log()
    one = segments(disk)[1]
    disk.put(one.replace("-0", "-1", 1), disk.read(one))
    assert "there twice" in damage(disk).found


def test_a_copy_of_a_segment_at_the_end_is_damage() -> None:
    disk, _ = finished_log()
    paths = segments(disk)
    disk.put(f"/log/{len(paths) + 1:016x}-{12:016x}.wal", disk.read(paths[-1]))
    assert "another segment's name" in damage(disk).found


def test_another_stores_segment_is_damage_and_names_both() -> None:
    disk, _ = finished_log()
    other, _ = finished_log(store_id=0x99)
    path = segments(disk)[1]
    disk.put(path, other.read(path))
    found = damage(disk)
    assert f"{0x99:016x}" in found.found
    assert f"{STORE:016x}" in found.found


def test_a_segment_of_the_same_place_in_another_history_is_damage() -> None:
    """Same store, same number, same first index: only the chain tells that it does not follow."""
    disk, _ = finished_log()
    other = SimulatedDisk()
    make_log(other)
    wal, _ = reopen(other)
    changed = ((HardState(2, 8, 1), ()), *WORKLOAD[1:])
    run_workload(wal, [GENESIS_CONTENT], changed)
    assert segments(other) == segments(disk)
    path = segments(disk)[1]
    disk.put(path, other.read(path))
    assert "does not follow" in damage(disk).found


def test_a_shortened_segment_is_damage() -> None:
    disk, _ = finished_log()
    for path in segments(disk):
        raw = disk.read(path)
        disk.put(path, raw[:-SECTOR_BYTES])
        damage(disk)
        disk.put(path, raw)


@pytest.mark.parametrize("target", ["elsewhere in the log", "in the zeros behind it"])
def test_a_misdirected_write_is_damage(target: str) -> None:
    disk, _ = finished_log()
    last = segments(disk)[-1]
    raw = disk.read(last)
    end = tail_of(disk, last) + SECTOR_BYTES
    record = raw[end - SECTOR_BYTES : end]
    disk.overwrite(last, bytes(SECTOR_BYTES), end - SECTOR_BYTES)
    disk.overwrite(last, record, SECTOR_BYTES if target == "elsewhere in the log" else end + SECTOR_BYTES)
    assert damage(disk).file == last


def test_files_that_are_no_segments_are_left_alone() -> None:
    disk, expected = finished_log()
    disk.put("/log/notes.txt", b"hello")
    assert content(reopen(disk)[1]) == expected
    assert disk.read("/log/notes.txt") == b"hello"


def test_damage_says_where_and_what_to_do() -> None:
    disk, _ = finished_log()
    path = segments(disk)[0]
    disk.flip_bit(path, SECTOR_BYTES * 8 + 100)
    found = damage(disk)
    assert (found.file, found.offset) == (path, SECTOR_BYTES)
    assert path in found.message
    assert str(SECTOR_BYTES) in found.message
    assert "do not start a node on this directory" in found.try_


def forged(*steps: tuple[HardState | None, tuple[Entry, ...]]) -> SimulatedDisk:
    """A log whose records are whole but whose history breaks a rule of Raft."""
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    for hard_state, entries in steps:
        wal.append(hard_state, entries, sync=True)
    return disk


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([(HardState(2, 7, 1), ()), (HardState(2, 8, 1), ())], "second vote"),
        ([(HardState(3, 7, 1), ()), (HardState(2, 7, 1), ())], "goes back"),
        ([(HardState(2, 7, 5), ())], "commit is 5"),
        ([(None, (entry(2, 4),))], "later term"),
        ([(HardState(2, 0, 2), (entry(2, 1),)), (None, (entry(2, 2),))], "replaces a committed one"),
    ],
)
def test_a_history_that_raft_forbids_is_damage(
    steps: list[tuple[HardState | None, tuple[Entry, ...]]], found: str
) -> None:
    assert found in damage(forged(*steps)).found


def test_an_entry_of_a_lower_term_may_replace_an_uncommitted_one() -> None:
    """Figure 7 of the paper: what a follower holds of a later term can be replaced by what the winner holds."""
    disk = forged((HardState(3, 0, 1), (entry(2, 3),)), (HardState(4, 0, 1), (entry(2, 2), entry(3, 4))))
    assert [one.term for one in reopen(disk)[1].entries] == [1, 2, 4]


REFUSALS: list[tuple[str, int]] = [("write", errno.EIO), ("sync", errno.EIO), ("write", errno.ENOSPC)]


@pytest.mark.parametrize(("what", "code"), REFUSALS)
def test_after_a_refusal_nothing_is_written_or_synced_again(what: str, code: int) -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    disk.fail_on = lambda step, _: code if step == what else 0
    with pytest.raises(StorageFailed) as raised:
        wal.append(None, [entry(2)], sync=True)
    assert raised.value.errno == code
    steps = disk.step_count
    for again in (lambda: wal.append(None, [entry(3)], sync=True), wal.prepare_next):
        with pytest.raises(StorageFailed):
            again()
    wal.close()
    assert disk.step_count == steps


def test_a_record_whose_fsync_failed_is_made_durable_before_it_is_believed() -> None:
    """After a failed fsync the pages are clean: they read back, and a crash still loses them."""
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    disk.fail_on = lambda step, _: errno.EIO if step == "sync" else 0
    with pytest.raises(StorageFailed):
        wal.append(None, [entry(2)], sync=True)
    disk.kill_process()
    _, recovered = reopen(disk)
    assert recovered.entries[-1] == entry(2)
    disk.power_off()
    assert reopen(disk)[1].entries[-1] == entry(2)


def test_a_full_disk_at_preallocation_is_reported() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    disk.free_bytes = 1000
    acknowledged = [GENESIS_CONTENT]
    with pytest.raises(StorageFull) as raised:
        run_workload(wal, acknowledged)
    assert "space" in raised.value.try_
    assert content(reopen(disk)[1]) == acknowledged[-1], "nothing that counts was written"


def refuse(what: str) -> Callable[[str, str], int]:
    return lambda step, _: errno.EIO if step == what else 0


@pytest.mark.parametrize("what", ["write", "sync", "fsync_dir"])
def test_a_disk_that_refuses_at_opening_is_a_failure_and_not_damage(what: str) -> None:
    disk, _ = finished_log()
    disk.fail_on = refuse(what)
    with pytest.raises(StorageFailed):
        reopen(disk)
