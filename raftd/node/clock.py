"""The host's clocks: monotonic for timers, and the cluster's time that is stamped on entries.

What may live here: reading clocks, behind a Protocol so that tests bring their own.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the node's loop gets time from."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back, from an arbitrary start."""

    def wall_ms(self) -> int:
        """Unix milliseconds; may jump."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_ms(self) -> int:
        """See ``Clock``."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """See ``Clock``."""
        return time.time_ns() // 1_000_000


class ClusterClock:
    """The time that a leader stamps: the larger of its wall clock and the last cluster time plus what has passed.

    So it never goes back, whatever the wall clock does and whoever led before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._seen_at_ms = clock.monotonic_ms()

    def observe(self, cluster_time_ms: int) -> None:
        """This time has been stamped, here or by an earlier leader: no later stamp may be smaller."""
        if cluster_time_ms > self._last_ms:
            self._last_ms = cluster_time_ms
            self._seen_at_ms = self._clock.monotonic_ms()

    def now_ms(self) -> int:
        """The time, for looking at: a wall clock that jumps forward and back leaves nothing behind."""
        elapsed = self._clock.monotonic_ms() - self._seen_at_ms
        return max(self._clock.wall_ms(), self._last_ms + elapsed)

    def stamp_ms(self) -> int:
        """The time to stamp on the next entry, or to plan by: it never goes back, whatever the wall clock does."""
        now_ms = self.now_ms()
        self.observe(now_ms)
        return now_ms
