"""A process is a pid and a beginning: what has another beginning is never taken for it, and never signalled."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from raftctl.cluster import process
from raftctl.cluster.process import ProcessState
from tests.support import wait_until

SLEEPER = (sys.executable, "-S", "-c", "import signal; signal.pause()")
MARK = "RAFTCTL_TEST_MARK"


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    running = subprocess.Popen(SLEEPER, env={**os.environ, MARK: str(os.getpid())})
    yield running
    running.kill()
    running.wait()


@pytest.fixture
def identity(child: "subprocess.Popen[bytes]") -> process.ProcessIdentity:
    found = process.identify(child.pid)
    assert found is not None
    return found


def test_a_process_is_found_running_paused_and_gone(
    child: "subprocess.Popen[bytes]", identity: process.ProcessIdentity
) -> None:
    assert process.state_of(identity) is ProcessState.RUNNING
    assert process.send_signal(identity, signal.SIGSTOP)
    wait_until(lambda: process.state_of(identity) is ProcessState.PAUSED, 5, "the child to be paused")
    assert process.send_signal(identity, signal.SIGKILL)
    assert process.wait_gone([identity], 5) == ()
    assert process.state_of(identity) is ProcessState.GONE


def test_a_zombie_is_gone(child: "subprocess.Popen[bytes]", identity: process.ProcessIdentity) -> None:
    child.kill()
    wait_until(
        lambda: not process.is_alive(identity), 5, "the child, which nobody collects, to count as gone"
    )
    assert not process.send_signal(identity, signal.SIGTERM)


def test_another_process_with_the_same_pid_is_not_signalled(
    child: "subprocess.Popen[bytes]", identity: process.ProcessIdentity
) -> None:
    earlier = dataclasses.replace(identity, started=identity.started + "1")
    assert process.state_of(earlier) is ProcessState.GONE
    assert not process.send_signal(earlier, signal.SIGKILL)
    assert process.stop_all([earlier], grace_s=5) == ()
    assert process.is_alive(identity)


def test_the_beginning_does_not_change_and_tells_processes_apart(identity: process.ProcessIdentity) -> None:
    assert process.identify(identity.pid) == identity
    own = process.identify(os.getpid())
    assert own is not None
    assert own.started != identity.started


def test_ps_tells_the_same_story(
    child: "subprocess.Popen[bytes]", identity: process.ProcessIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What macOS uses, tried wherever there is a ps."""
    monkeypatch.setattr(process, "LINUX", False)
    found = process.identify(child.pid)
    assert found is not None
    assert process.state_of(found) is ProcessState.RUNNING
    assert (
        process.state_of(dataclasses.replace(found, started="Thu Jan 1 00:00:00 1970")) is ProcessState.GONE
    )
    child.kill()
    child.wait()
    assert process.identify(child.pid) is None


def test_waiting_gives_up_when_its_time_is_over(identity: process.ProcessIdentity) -> None:
    before = time.monotonic()
    assert process.wait_gone([identity], 0.1) == (identity,)
    assert time.monotonic() - before >= 0.1


def test_stopping_wakes_a_paused_process_and_lets_it_end_by_itself(
    child: "subprocess.Popen[bytes]", identity: process.ProcessIdentity
) -> None:
    process.send_signal(identity, signal.SIGSTOP)
    wait_until(lambda: process.state_of(identity) is ProcessState.PAUSED, 5, "the child to be paused")
    assert process.stop_all([identity], grace_s=10) == ()
    assert not process.is_alive(identity)


def test_what_does_not_end_is_killed() -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        identity = process.identify(deaf.pid)
        assert identity is not None
        assert process.stop_all([identity], grace_s=0.2) == (identity,)
        assert not process.is_alive(identity)


@pytest.mark.usefixtures("child")
def test_processes_are_found_by_their_environment(identity: process.ProcessIdentity) -> None:
    expected = (identity,) if process.LINUX else ()
    own = [str(os.getpid())]
    wait_until(
        lambda: process.marked_with(MARK, own) == expected, 5, "the child's new environment to be seen"
    )
    assert process.marked_with(MARK, ["nobody"]) == ()
