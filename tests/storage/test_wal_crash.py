"""The machine stops at every step and leaves anything it may leave: nothing acknowledged is ever missing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from raftd.raft.types import HardState
from tests.sim.disk import Choose, SimulatedCrash, SimulatedDisk
from tests.storage.logs import (
    GENESIS_CONTENT,
    WORKLOAD,
    Content,
    content,
    entry,
    make_log,
    reopen,
    run_workload,
)

MAX_EXHAUSTIVE = 8
RANDOM_TRIES = 40


def crashed_disk(step: int | None) -> tuple[SimulatedDisk, list[Content], int]:
    """Run the workload until the crash before a step; what was acknowledged, and the workload's first step."""
    disk = SimulatedDisk()
    make_log(disk)
    acknowledged = [GENESIS_CONTENT]
    first = disk.step_count
    disk.crash_at = step
    try:
        wal, recovered = reopen(disk)
        assert content(recovered) == GENESIS_CONTENT
        run_workload(wal, acknowledged)
    except SimulatedCrash:
        assert step is not None
    return disk, acknowledged, first


def outcomes(acknowledged: list[Content]) -> list[Content]:
    """What may be found: what was acknowledged, or that and the append that was on its way."""
    allowed = [acknowledged[-1]]
    if len(acknowledged) <= len(WORKLOAD):
        allowed.append(acknowledged[-1].after(*WORKLOAD[len(acknowledged) - 1]))
    return allowed


def choices(pending: int, seed: int) -> Iterator[Choose]:
    """All subsets of the pending sectors where they are few, else none, all, each one lost or kept, and random."""
    if pending <= MAX_EXHAUSTIVE:
        for mask in range(1 << pending):
            yield {sector for sector in range(pending) if mask >> sector & 1}.__contains__
        return
    yield lambda _: False
    yield lambda _: True
    for sector in range(min(pending, 16)):
        yield {sector}.__contains__
        yield (set(range(pending)) - {sector}).__contains__
    for number in range(RANDOM_TRIES):
        source = random.Random(f"{seed}.{number}")
        yield {sector for sector in range(pending) if source.random() < 0.5}.__contains__


def all_steps() -> range:
    disk, _, first = crashed_disk(None)
    return range(first, disk.step_count + 1)


@pytest.mark.parametrize("names", ["none", "all"])
def test_nothing_acknowledged_is_missing_after_a_crash_at_any_step(names: str) -> None:
    torn = 0
    for step in all_steps():
        pending = crashed_disk(step)[0].pending_sectors()
        for choose in choices(pending, step):
            disk, acknowledged, _ = crashed_disk(step)
            disk.power_off(choose, lambda count: count if names == "all" else 0)
            _, recovered = reopen(disk)
            assert content(recovered) in outcomes(acknowledged), disk.trace[-3:]
            torn += recovered.torn_tail is not None
    assert torn > 20, "the crashes of this test are meant to tear records"


def test_a_recovered_log_goes_on_and_crashes_again() -> None:
    for step in all_steps():
        pending = crashed_disk(step)[0].pending_sectors()
        for choose in list(choices(pending, step))[:12]:
            disk, _, _ = crashed_disk(step)
            disk.power_off(choose, lambda count: count)
            wal, recovered = reopen(disk)
            before = content(recovered)
            index = len(before.entries) + 1
            more = (entry(index, 9, b"m" * 900), entry(index + 1, 9))
            hard_state = HardState(9, 1, before.hard_state.commit)
            wal.append(hard_state, more, sync=True)
            disk.power_off()
            assert content(reopen(disk)[1]) == before.after(hard_state, more)


def test_what_was_recovered_once_is_recovered_for_ever() -> None:
    """A killed process leaves records in the page cache only. Whoever reads them back must make them durable first."""
    for step in all_steps():
        disk, acknowledged, _ = crashed_disk(step)
        disk.kill_process()
        _, recovered = reopen(disk)
        found = content(recovered)
        assert found in outcomes(acknowledged)
        disk.power_off()
        assert content(reopen(disk)[1]) == found, disk.trace[-3:]


def test_a_crash_during_recovery_loses_nothing() -> None:
    for step in all_steps():
        disk, acknowledged, _ = crashed_disk(step)
        disk.power_off(lambda n: n % 2 == 0, lambda count: count)
        recovered = None
        for steps in range(20):
            disk.crash_at = disk.step_count + steps
            try:
                _, recovered = reopen(disk)
                break
            except SimulatedCrash:
                disk.power_off(lambda n: n % 2 == 1, lambda count: count)
        assert recovered is not None
        assert content(recovered) in outcomes(acknowledged)


def test_a_torn_tail_is_cut_and_said() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    disk.crash_at = disk.step_count + 1
    with pytest.raises(SimulatedCrash):
        wal.append(None, [entry(2, 1, b"d" * 1200)], sync=True)
    disk.power_off(lambda n: n == 1)
    _, recovered = reopen(disk)
    assert content(recovered) == GENESIS_CONTENT
    assert recovered.torn_tail is not None
    assert (recovered.torn_tail.offset, recovered.torn_tail.end) == (1024, 2048)
    disk.power_off()
    assert reopen(disk)[1].torn_tail is None, "it was zeroed, durably"


def test_a_crash_while_the_log_is_made_leaves_a_temporary_file_or_the_whole_log() -> None:
    made = False
    for step in range(2, 40):
        disk = SimulatedDisk()
        disk.crash_at = step
        with suppress(SimulatedCrash):
            make_log(disk)
            made = True
        disk.power_off(lambda n: n % 2 == 0, lambda count: count)
        names = disk.listdir("/log") if disk.exists("/log") else []
        if [name for name in names if name.endswith(".wal")]:
            assert content(reopen(disk)[1]) == GENESIS_CONTENT
        else:
            assert not made
    assert made


def test_a_commit_alone_is_held_and_rides_with_the_next_record() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    wal.append(None, [entry(2)], sync=True)
    steps = disk.step_count
    wal.append(HardState(1, 0, 2), (), sync=False)
    assert disk.step_count == steps
    wal.append(None, [entry(3)], sync=True)
    assert disk.step_count == steps + 2
    disk.power_off()
    assert reopen(disk)[1].hard_state == HardState(1, 0, 2)


def test_closing_flushes_a_held_commit() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    wal.append(None, [entry(2)], sync=True)
    wal.append(HardState(1, 0, 2), (), sync=False)
    wal.close()
    disk.power_off()
    assert reopen(disk)[1].hard_state == HardState(1, 0, 2)


def test_preparing_ahead_leaves_only_names_to_the_roll() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    index = 2
    creates = 0
    while wal.segment_sequence == 1:
        while wal.prepare_next():
            pass
        creates = sum(what == "create" for what, _ in disk.trace)
        wal.append(None, [entry(index)], sync=True)
        index += 1
    assert sum(what == "create" for what, _ in disk.trace) == creates, "the roll found its segment ready"


def test_entries_that_leave_a_gap_are_a_broken_invariant() -> None:
    disk = SimulatedDisk()
    make_log(disk)
    wal, _ = reopen(disk)
    with pytest.raises(ValueError, match="cannot follow"):
        wal.append(None, [entry(3)], sync=True)
