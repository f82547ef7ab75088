"""What supervisor and slots ask of the operating system beyond Python's own library.

What may live here: one function per request, each with its behaviour where the system lacks it. The supervisor loads
this module, so it imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

LINUX = sys.platform.startswith("linux")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Counts suspension: on Linux only CLOCK_BOOTTIME does, on macOS CLOCK_MONOTONIC."""


def boottime_ms() -> int:
    """Milliseconds since the machine started, suspension included; the same in every process."""
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


class SystemClock:
    """The machine's clocks, as ``protocols.Clock`` wants them."""

    def boottime_ms(self) -> int:
        """See ``protocols.Clock``."""
        return boottime_ms()

    def wall_ms(self) -> int:
        """See ``protocols.Clock``."""
        return time.time_ns() // 1_000_000


def die_with_parent(number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent dies (Linux; elsewhere nothing happens).

    The setting is per process and survives exec, but not fork. The parent may be gone already: check ``getppid``
    afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, int(number))


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent dies (Linux; elsewhere nothing happens).

    So a daemon that detached itself by forking twice stays below this process, where it can be found.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def lower_priority(nice: int) -> None:
    """Adds ``nice`` to this process's niceness. Call ``lower_autogroup`` after, where sessions have groups."""
    if nice:
        os.nice(nice)


def lower_autogroup(nice: int) -> bool:
    """Gives this session's autogroup the niceness ``nice``: between sessions, nice alone counts for nothing.

    Returns:
        False if it must be tried again later: the kernel lets ordinary users change one autogroup every 100 ms.
    """
    if not nice or not LINUX:
        return True
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as autogroup:
            autogroup.write(str(nice))
    except BlockingIOError:
        return False
    except OSError:
        return True  # no autogroups in this kernel, or not for us: nice is all there is
    return True


def _prctl(option: int, value: int) -> None:
    if not LINUX:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
