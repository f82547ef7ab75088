"""The storage thread: order, grouping, and silence after a failure."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from raftd.raft.types import Configuration, Entry, HardState, Snapshot
from raftd.storage.errors import StorageFailed, StorageFull
from raftd.storage.memory import MemoryLog
from raftd.storage.thread import DurableLog, StorageThread
from tests.sim.disk import SimulatedDisk
from tests.storage.logs import FIRST, GENESIS, content, entry, make_log, reopen
from tests.support import wait_until


class GatedLog(MemoryLog):
    """A log whose writes wait for the test, as if the disk were slow."""

    def __init__(self) -> None:
        super().__init__(FIRST, [GENESIS])
        self.writing = threading.Semaphore(0)
        self.permits = threading.Semaphore(0)
        self.writes: list[tuple[HardState | None, list[int], bool]] = []

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        self.writing.release()
        assert self.permits.acquire(timeout=10)
        self.writes.append((hard_state, [one.index for one in entries], sync))
        super().append(hard_state, entries, sync=sync)


class Host:
    """What a node hears from the storage thread."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.failures: list[BaseException] = []
        self.full: list[bool] = []


@contextmanager
def running(log: DurableLog) -> Iterator[tuple[StorageThread, Host]]:
    host = Host()
    thread = StorageThread(
        log, host.done.append, host.failures.append, on_full=host.full.append, full_retry_s=0.01
    )
    thread.start()
    try:
        yield thread, host
    finally:
        if isinstance(log, GatedLog):
            log.permits.release(1000)
        thread.close()


def test_what_queues_during_a_write_goes_into_the_next_one() -> None:
    log = GatedLog()
    with running(log) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        assert log.writing.acquire(timeout=10)
        thread.submit(2, HardState(2, 0, 1), [entry(3)], True)
        thread.submit(3, None, (), False)
        thread.submit(4, HardState(2, 0, 2), [entry(3, 2), entry(4, 2)], True)
        assert thread.metrics().queue_depth == 4
        log.permits.release(2)
        wait_until(lambda: len(host.done) == 2, 10, "two groups")
        assert host.done == [1, 4]
        assert log.writes == [(None, [2], True), (HardState(2, 0, 2), [3, 3, 4], True)]
        figures = thread.metrics()
        assert (figures.queue_depth, figures.group_count, figures.submission_count) == (0, 2, 4)
        assert figures.fsync_max_ms >= figures.fsync_last_ms > 0


def test_a_group_is_synced_only_when_something_in_it_must_be() -> None:
    log = GatedLog()
    with running(log) as (thread, host):
        log.permits.release(2)
        thread.submit(1, HardState(1, 0, 1), (), False)
        wait_until(lambda: host.done == [1], 10, "the first")
        thread.submit(2, None, [entry(2)], False)
        wait_until(lambda: host.done == [1, 2], 10, "the second")
        assert [sync for _, _, sync in log.writes] == [False, True], "entries are always made durable"


def test_closing_writes_and_reports_what_was_submitted() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    with running(wal) as (thread, host):
        for number in range(1, 101):
            thread.submit(number, None, [entry(number + 1)], True)
        thread.submit(101, HardState(1, 0, 50), (), False)
    assert host.done[-1] == 101
    assert host.done == sorted(set(host.done))
    disk.power_off()
    found = content(reopen(disk)[1])
    assert len(found.entries) == 101
    assert found.hard_state.commit == 50
    with pytest.raises(RuntimeError):
        thread.submit(102, None, (), False)


@pytest.mark.parametrize("what", ["write", "sync"])
def test_a_failed_write_is_never_reported_as_done(what: str) -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    with running(wal) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        wait_until(lambda: host.done == [1], 10, "the first write")
        disk.fail_on = lambda step, _: errno.EIO if step == what else 0
        thread.submit(2, None, [entry(3)], True)
        wait_until(lambda: host.failures, 10, "the failure")
        disk.fail_on = None
        thread.submit(3, None, [entry(4)], True)
    assert host.done == [1]
    assert [type(failure) for failure in host.failures] == [StorageFailed]


def test_a_held_commit_is_flushed_when_the_log_is_idle() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    with running(wal) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        thread.submit(2, HardState(1, 0, 2), (), False)
        wait_until(lambda: host.done[-1:] == [2], 10, "both")
        wait_until(lambda: not wal.has_held, 10, "the flush")
        disk.power_off()
        assert reopen(disk)[1].hard_state.commit == 2


def test_a_broken_invariant_reaches_the_host_as_a_failure() -> None:
    with running(MemoryLog(FIRST, [GENESIS])) as (thread, host):
        thread.submit(1, None, [entry(5)], True)
        wait_until(lambda: host.failures, 10, "the failure")
    assert host.done == []
    assert isinstance(host.failures[0], ValueError)


class FullLog(MemoryLog):
    """A log that finds no room until the test makes some."""

    def __init__(self) -> None:
        super().__init__(FIRST, [GENESIS])
        self.full = True
        self.tries = 0
        self.closed = False

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        self.make_room()
        super().append(hard_state, entries, sync=sync)

    def make_room(self) -> None:
        self.tries += 1
        if self.full:
            raise StorageFull("/log")

    def close(self) -> None:
        self.closed = True


def test_what_finds_no_room_waits_in_its_order_until_there_is() -> None:
    log = FullLog()
    with running(log) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        thread.submit(2, None, [entry(3)], True)
        wait_until(lambda: log.tries > 3, 10, "it tries again")
        assert (host.done, host.full, host.failures) == ([], [True], [])
        log.full = False
        wait_until(lambda: host.done and host.done[-1] == 2, 10, "both are written")
        wait_until(lambda: host.full == [True, False], 10, "there is room again")
    assert content(log.recovered()).entries == (GENESIS, entry(2), entry(3))
    assert not host.failures


def test_a_full_disk_does_not_keep_the_thread_from_ending_and_nothing_is_reported_as_done() -> None:
    log = FullLog()
    with running(log) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        wait_until(lambda: host.full == [True], 10, "the disk is full")
        assert thread.close(timeout_s=10)
    assert (host.done, host.failures) == ([], [])
    assert log.closed


class FullFlush(FullLog):
    """A log that has room for all but the hard state that it holds back."""

    @property
    def has_held(self) -> bool:
        return self.full

    def flush(self) -> None:
        self.make_room()


def test_a_disk_that_has_no_room_for_a_held_commit_is_looked_at_again_although_nothing_is_queued() -> None:
    log = FullFlush()
    with running(log) as (_, host):
        wait_until(lambda: host.full == [True], 10, "the disk is full")
        log.full = False
        wait_until(lambda: host.full == [True, False], 10, "there is room again")


class InstallableFile:
    """The file of a snapshot, which notes when it is named."""

    def __init__(self, log: GatedLog) -> None:
        self._log = log

    def publish(self) -> Snapshot:
        self._log.writes.append((None, [-1], True))
        return Snapshot(9, 2, Configuration((1,)))


def test_a_snapshot_takes_the_place_of_the_log_in_its_turn_and_alone() -> None:
    log = GatedLog()
    with running(log) as (thread, host):
        thread.submit(1, None, [entry(2)], True)
        assert log.writing.acquire(timeout=10)
        thread.submit(2, None, [entry(3)], True)
        thread.submit(3, HardState(2, 0, 9), [entry(10, 2)], True, install=InstallableFile(log))
        thread.submit(4, None, [entry(11, 2)], True)
        thread.submit(5, None, [entry(12, 2)], True)
        thread.compact(10)
        log.permits.release(1000)
        wait_until(lambda: host.done and host.done[-1] == 5, 10, "all is written")
    assert [indices for _, indices, _ in log.writes] == [[2], [3], [-1], [10], [11, 12]]
    found = log.recovered()
    assert (found.base_index, found.base_term) == (10, 2)
    assert found.entries == [entry(11, 2), entry(12, 2)]


def test_a_disk_that_does_not_answer_does_not_hold_up_whoever_closes_for_ever() -> None:
    log = GatedLog()
    with running(log) as (thread, _):
        thread.submit(1, None, [entry(2)], True)
        assert log.writing.acquire(timeout=10)
        assert not thread.close(timeout_s=0.05)
        log.permits.release(1000)
        assert thread.close(timeout_s=10)
