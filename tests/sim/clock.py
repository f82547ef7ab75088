"""A machine's clocks: they run at a rate of their own, and the wall clock may jump.

What may live here: reading the simulated time as one machine sees it, for the node and for its executor.
"""

from __future__ import annotations

from collections.abc import Callable

EPOCH_MS = 1_700_000_000_000
"""Unix time at the start of every run."""


class MachineClock:
    """The clocks of one machine (``raftd.node.clock.Clock`` and ``raftd.executor.protocols.Clock``).

    Args:
        now_s: the simulated time.
        start_ms: what its monotonic clock says at the start.
        wall_off_ms: how far its wall clock is off.
    """

    def __init__(self, now_s: Callable[[], float], start_ms: int, wall_off_ms: int) -> None:
        self._now_s = now_s
        self._since_s = now_s()
        self._start_ms = float(start_ms)
        self.rate = 1.0
        self.wall_off_ms = wall_off_ms

    def set_rate(self, rate: float) -> None:
        """From now on its seconds are that much shorter."""
        self._start_ms += (self._now_s() - self._since_s) * 1000 * self.rate
        self._since_s = self._now_s()
        self.rate = rate

    def monotonic_ms(self) -> int:
        """Never goes back."""
        return int(self._start_ms + (self._now_s() - self._since_s) * 1000 * self.rate)

    def boottime_ms(self) -> int:
        """The same: no machine of a run is suspended."""
        return self.monotonic_ms()

    def wall_ms(self) -> int:
        """May be wrong, and jump."""
        return EPOCH_MS + int(self._now_s() * 1000) + self.wall_off_ms

    def until_s(self, monotonic_ms: int) -> float:
        """Simulated seconds until the monotonic clock says so; 0 when it does already."""
        return max(0.0, (monotonic_ms - self.monotonic_ms()) / 1000 / self.rate)
