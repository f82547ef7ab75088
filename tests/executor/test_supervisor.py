"""The supervisor's duty, with raftd's side stopped and killed: nothing runs past the lease, or without raftd."""

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftd.executor.process_tree import children, descendants, process_table, send
from raftd.scheduler.model import AttemptOutcome
from tests.executor.conftest import Family
from tests.executor.fakes import Rig, assignment, token
from tests.support import eventually, wait_until

TREE = str(Path(__file__).parent / "tree.py")
DRIVER = "tests.executor.driver"
WAIT_S = 30.0


class Driver:
    """raftd's side of an executor in a process of its own."""

    def __init__(self, directory: Path, lease_ms: int, *argv: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", DRIVER, str(directory), str(lease_ms), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.supervisor = 0
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._said.put(json.loads(line))

    def hears(self, what: str) -> dict[str, Any]:
        """Waits until it says this, and passes over everything before."""
        while (said := self._said.get(timeout=WAIT_S))["what"] != what:
            continue
        return said

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def below(self) -> set[int]:
        """Everything that lives under it: supervisor, slots and tasks."""
        return descendants((self.process.pid,), process_table())

    def end(self) -> None:
        """Ends it in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(WAIT_S) == 0

    def reap(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.reap()


def started(drivers: list[Driver], directory: Path, lease_ms: int, *argv: str) -> Driver:
    driver = Driver(directory, lease_ms, *argv)
    drivers.append(driver)
    driver.supervisor = driver.hears("ready")["supervisor"]
    return driver


def is_locked(directory: Path) -> bool:
    with (directory / "supervisor.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def gone(pids: set[int]) -> bool:
    return not pids & process_table().keys()


def test_a_killed_raftd_leaves_nothing_running(tmp_path: Path, family: Family, drivers: list[Driver]) -> None:
    driver = started(drivers, tmp_path, 60_000, sys.executable, TREE, str(family.file), "stay")
    assert len(family.read()) == 5
    everything = driver.below()
    assert set(family.pids) < everything
    driver.signal(signal.SIGKILL)
    wait_until(lambda: gone(everything), WAIT_S, "supervisor, slots and tasks to end")
    assert not is_locked(tmp_path)


def test_a_stopped_raftd_leaves_nothing_running_past_its_lease_and_comes_back_as_a_new_incarnation(
    tmp_path: Path, family: Family, drivers: list[Driver]
) -> None:
    driver = started(drivers, tmp_path, 1_000, sys.executable, TREE, str(family.file), "stay")
    family.read()
    driver.signal(signal.SIGSTOP)
    wait_until(lambda: not family.alive(), WAIT_S, "the supervisor to kill what runs, without raftd")
    assert driver.supervisor in process_table()
    driver.signal(signal.SIGCONT)
    while driver.hears("hello")["incarnation"] != 2:
        continue
    driver.end()


def test_a_killed_supervisor_takes_slots_and_programs_with_it_and_is_replaced(
    tmp_path: Path, family: Family, drivers: list[Driver]
) -> None:
    driver = started(drivers, tmp_path, 60_000, sys.executable, TREE, str(family.file), "stay")
    family.read()
    before = driver.below()
    os.kill(driver.supervisor, signal.SIGKILL)
    wait_until(lambda: gone(before), WAIT_S, "everything under the supervisor to end")
    wait_until(lambda: len(driver.below()) == 2, WAIT_S, "another supervisor with its slot")
    driver.end()


def test_daemons_die_even_when_raftd_and_supervisor_are_killed_together(
    tmp_path: Path, family: Family, drivers: list[Driver]
) -> None:
    """The slot notices that its supervisor has gone, and kills what it has adopted before it ends."""
    driver = started(drivers, tmp_path, 60_000, sys.executable, TREE, str(family.file), "stay")
    family.read()
    everything = driver.below()
    driver.signal(signal.SIGSTOP)  # so that it cannot start another supervisor
    os.kill(driver.supervisor, signal.SIGKILL)
    driver.signal(signal.SIGKILL)
    wait_until(lambda: gone(everything), WAIT_S, "everything to end")
    assert not is_locked(tmp_path)


def test_the_lock_is_held_while_a_slot_lives(tmp_path: Path, drivers: list[Driver]) -> None:
    driver = started(drivers, tmp_path, 60_000)
    (slot,) = children(driver.supervisor, process_table())
    os.kill(slot, signal.SIGSTOP)
    os.kill(driver.supervisor, signal.SIGSTOP)
    assert is_locked(tmp_path)
    send((driver.supervisor, slot), signal.SIGCONT)
    driver.end()
    assert not is_locked(tmp_path)


def test_the_next_life_clears_what_the_last_one_left(
    tmp_path: Path, family: Family, drivers: list[Driver]
) -> None:
    """Supervisor and slot are both killed: what a task had started is found by its environment."""
    code = f"import os; open({str(family.file)!r}, 'w').write(str(os.getpid())); os.execvp('sleep', ['sleep', '1000'])"
    driver = started(drivers, tmp_path, 60_000, sys.executable, "-S", "-c", code)
    family.read()
    slots = children(driver.supervisor, process_table())
    driver.signal(signal.SIGSTOP)
    for pid in (*slots, driver.supervisor):
        os.kill(pid, signal.SIGSTOP)
    for pid in (*slots, driver.supervisor):
        os.kill(pid, signal.SIGKILL)
    driver.reap()
    wait_until(lambda: gone(slots), WAIT_S, "the slots to end")
    assert family.alive(), "the task should have outlived them: there is nothing to show otherwise"
    again = started(drivers, tmp_path, 60_000)
    assert not family.alive()
    again.end()


def test_a_stopped_supervisor_of_a_dead_raftd_does_not_keep_the_next_from_starting(
    tmp_path: Path, drivers: list[Driver]
) -> None:
    driver = started(drivers, tmp_path, 60_000)
    os.kill(driver.supervisor, signal.SIGSTOP)
    driver.signal(signal.SIGKILL)
    again = started(drivers, tmp_path, 60_000)
    assert gone({driver.supervisor})
    again.end()


async def test_a_lapsed_lease_kills_idle_slots_too(tmp_path: Path) -> None:
    async with Rig(tmp_path, lease_ms=1_000) as rig:
        await rig.run(assignment(1))
        before = children(rig.executor.supervisor_pid, process_table())
        rig.leader.renewing = False
        await eventually(lambda: rig.executor.incarnation == 2, WAIT_S, "a new incarnation")
        rig.leader.renewing = True
        await rig.executor.wait_slots_ready()
        assert (await rig.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED
        assert not before & children(rig.executor.supervisor_pid, process_table())


async def test_what_a_lapse_killed_is_not_told_but_lost_with_its_incarnation(tmp_path: Path) -> None:
    async with Rig(tmp_path, lease_ms=1_000) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"))
        await eventually(rig.executor.running, WAIT_S, "the attempt")
        rig.leader.desired.clear()
        rig.leader.renewing = False
        await eventually(
            lambda: rig.leader.hellos[-1].incarnation == 2, WAIT_S, "a Hello of the new incarnation"
        )
        assert rig.leader.hellos[-1].running == ()
        assert rig.executor.running() == ()
        assert rig.leader.ended == []


async def test_the_death_of_the_supervisor_is_a_crash_of_what_ran(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"))
        await eventually(
            lambda: any(attempt.started_at_ms for attempt in rig.executor.running()),
            WAIT_S,
            "the attempt to start",
        )
        os.kill(rig.executor.supervisor_pid, signal.SIGKILL)
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.CRASHED
        assert (await rig.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_stopping_gives_back_what_runs(tmp_path: Path, family: Family) -> None:
    rig = Rig(tmp_path, stop_grace_ms=100)
    async with rig:
        rig.leader.start(
            assignment(1, "shell", sys.executable, TREE, str(family.file), "stay"),
            assignment(2, "sleep", "1"),
        )
        await eventually(family.file.exists, WAIT_S, "the family")
        family.read()
    assert {end.token: end.outcome for end in rig.leader.ended} == {
        token(1): AttemptOutcome.CANCELLED,
        token(2): AttemptOutcome.CANCELLED,
    }
    assert "shutting down" in rig.leader.ended[0].reason
    assert all(message.leaving for message in rig.leader.heard if message.ended), "before it gets it back"
    assert not family.alive()


async def test_slots_run_at_the_priority_that_was_asked_for(tmp_path: Path) -> None:
    async with Rig(tmp_path, nice=7) as rig:
        end = await rig.run(assignment(1, "shell", "cat", "/proc/self/stat", "/proc/self/autogroup"))
        assert isinstance(end.result, bytes)
        stat, _, autogroup = end.result.decode().partition("\n")
        assert int(stat.rpartition(")")[2].split()[16]) == os.getpriority(os.PRIO_PROCESS, 0) + 7
        assert "nice 7" in autogroup or not autogroup
