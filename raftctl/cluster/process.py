"""Processes of this machine, told apart by pid *and* start time: what is alive, paused or gone, and how to signal it.

A pid alone names nobody: the kernel gives it to the next process. So a process is remembered together with the moment
it began, and nothing here signals a process whose beginning is another one. Nothing here knows about nodes.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

LINUX = sys.platform.startswith("linux")
POLL_S = 0.02

# Fields of /proc/<pid>/stat after the command's name, which may itself hold blanks and parentheses: proc(5), less 3.
_STATE_FIELD = 0
_START_TIME_FIELD = 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, once and for all: its pid and when it began, as this machine tells it (`start_mark`)."""

    pid: int
    started: str


class ProcessState(StrEnum):
    """What the machine says about a process; a zombie, which runs nothing any more, is gone."""

    RUNNING = "running"
    PAUSED = "paused"
    GONE = "gone"


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now, or None if there is none."""
    looked = _look(pid)
    return None if looked is None else ProcessIdentity(pid, looked[1])


def state_of(identity: ProcessIdentity) -> ProcessState:
    """The state of that very process; GONE when its pid belongs to another one by now."""
    looked = _look(identity.pid)
    if looked is None or looked[1] != identity.started:
        return ProcessState.GONE
    letter = looked[0]
    if letter in "ZX":
        return ProcessState.GONE
    return ProcessState.PAUSED if letter == "T" else ProcessState.RUNNING


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs or is paused."""
    return state_of(identity) is not ProcessState.GONE


def send_signal(identity: ProcessIdentity, signal_number: int) -> bool:
    """Signals that very process; False, and nothing signalled, when it is gone.

    On Linux a pidfd is opened before the look at the start time, so that the pid cannot change hands in between.
    Raises PermissionError for a process of another user.
    """
    with contextlib.ExitStack() as stack:
        pidfd = _open_pidfd(identity.pid, stack)
        if not is_alive(identity):
            return False
        try:
            if pidfd is None:
                os.kill(identity.pid, signal_number)
            else:
                signal.pidfd_send_signal(pidfd, signal_number)
        except ProcessLookupError:
            return False
    return True


def wait_gone(identities: Iterable[ProcessIdentity], timeout_s: float) -> tuple[ProcessIdentity, ...]:
    """Waits until all of them are gone; returns those that are not when the time is up."""
    awaited = tuple(identities)
    left = [identity for identity in awaited if is_alive(identity)]
    deadline = time.monotonic() + timeout_s
    while left:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            break
        _pause_until_exit(left[0], min(remaining_s, 1.0))
        left = [identity for identity in left if is_alive(identity)]
    for identity in awaited:
        if identity not in left:
            _reap(identity)
    return tuple(left)


def wait_state(identity: ProcessIdentity, wanted: ProcessState, timeout_s: float) -> bool:
    """Waits until a process is in this state, or gone; False if it is neither when the time is up."""
    deadline = time.monotonic() + timeout_s
    while state_of(identity) not in (wanted, ProcessState.GONE):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S / 4)
    return True


def stop_all(
    identities: Iterable[ProcessIdentity], grace_s: float, signal_number: int = signal.SIGTERM
) -> tuple[ProcessIdentity, ...]:
    """TERM to all at once, time to end, then KILL to those that have not; returns the ones that had to be killed.

    A paused process is woken, for it would not see the signal.
    """
    targets = tuple(identities)
    for identity in targets:
        send_signal(identity, signal_number)
        send_signal(identity, signal.SIGCONT)
    stubborn = wait_gone(targets, grace_s)
    for identity in stubborn:
        send_signal(identity, signal.SIGKILL)
    wait_gone(stubborn, 10.0)
    return stubborn


def marked_with(variable: str, values: Iterable[str]) -> tuple[ProcessIdentity, ...]:
    """The living processes of this user whose environment began with `variable` set to one of the `values`.

    Linux only; elsewhere it finds nothing. It is how children that outlive their node are found without their names.
    """
    wanted = {f"{variable}={value}".encode() for value in values}
    found = []
    for entry in Path("/proc").iterdir() if LINUX else ():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or somebody else's
            continue
        identity = None if wanted.isdisjoint(environment) else identify(int(entry.name))
        if identity is not None and is_alive(identity):
            found.append(identity)
    return tuple(found)


def _look(pid: int) -> tuple[str, str] | None:
    """The state letter and the start mark of the process that has this pid now."""
    return _look_linux(pid) if LINUX else _look_ps(pid)


def _look_linux(pid: int) -> tuple[str, str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # Ticks count from boot: the boot is part of the mark, or a process of yesterday could be taken for one of today.
    return fields[_STATE_FIELD], f"{_boot_id()}:{fields[_START_TIME_FIELD]}"


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _look_ps(pid: int) -> tuple[str, str] | None:
    """macOS and the BSDs: `ps`, in the C locale and in UTC, so that the mark is the same from every terminal."""
    said = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    ).stdout.split(None, 1)
    return (said[0][0], " ".join(said[1].split())) if len(said) == 2 else None


def _open_pidfd(pid: int, stack: contextlib.ExitStack) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # gone, or a kernel without pidfds: the look at the start time decides
        return None
    stack.callback(os.close, pidfd)
    return pidfd


def _pause_until_exit(identity: ProcessIdentity, timeout_s: float) -> None:
    """Returns when the process has exited, or soon after."""
    with contextlib.ExitStack() as stack:
        pidfd = _open_pidfd(identity.pid, stack)
        if pidfd is None:
            time.sleep(min(POLL_S, timeout_s))
        else:
            select.select([pidfd], [], [], timeout_s)


def _reap(identity: ProcessIdentity) -> None:
    """Collects the exit status of a child of this process, so that no zombie is left; others have their own parents."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)
