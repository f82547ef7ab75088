"""Holds this process to the limits of an attempt that runs in it, and lets go of them afterwards.

What may live here: soft resource limits and the timer of CPU time. Hard limits can never be raised again, so they are
left alone. The limits pass to what the attempt starts, for each process by itself.
"""

from __future__ import annotations

import math
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from raftd.executor.limits import FENCE_S, Limits

_STATM = Path("/proc/self/statm")


class Fence:
    """Around one attempt at a time.

    Args:
        limits: of the attempt.
        on_cpu: runs in the main thread when the CPU time is used up; may raise.
    """

    def __init__(self, limits: Limits, on_cpu: Callable[[int, FrameType | None], None]) -> None:
        self._limits = limits
        self._on_cpu = on_cpu
        self._before: dict[int, tuple[int, int]] = {}

    def close(self) -> None:
        """The limits hold from now on."""
        limits = self._limits
        if limits.file_bytes:
            self._lower(resource.RLIMIT_FSIZE, limits.file_bytes)
        if limits.memory_bytes:
            pages = int(_STATM.read_bytes().split()[0])
            self._lower(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory_bytes)
        if limits.cpu_ms:
            used = resource.getrusage(resource.RUSAGE_SELF)
            end_s = used.ru_utime + used.ru_stime + limits.cpu_ms / 1000
            # The timer says so in time, and to the task. Who stays in native code, or swallows it, is ended by the
            # signal of the limit, which counts in seconds.
            self._lower(resource.RLIMIT_CPU, math.ceil(end_s) + FENCE_S)
            signal.signal(signal.SIGPROF, self._on_cpu)
            signal.setitimer(signal.ITIMER_PROF, limits.cpu_ms / 1000)

    def open(self) -> None:
        """They hold no more."""
        if self._limits.cpu_ms:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
        for number in list(self._before):
            self._restore(number)

    @contextmanager
    def own_file(self) -> Iterator[None]:
        """While the slot itself writes a file for the attempt."""
        held = self._before.get(resource.RLIMIT_FSIZE)
        if held is None:
            yield
            return
        self._restore(resource.RLIMIT_FSIZE)
        try:
            yield
        finally:
            self._lower(resource.RLIMIT_FSIZE, self._limits.file_bytes)

    def _lower(self, number: int, soft: int) -> None:
        was_soft, hard = self._before[number] = resource.getrlimit(number)
        bounds = [bound for bound in (was_soft, hard) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(number, (min([soft, *bounds]), hard))

    def _restore(self, number: int) -> None:
        resource.setrlimit(number, self._before.pop(number))
