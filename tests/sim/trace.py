"""What happened in a run: a line for everything of note, their hash, and how often the rare things happened.

What may live here: the trace and the counters, and which counters a campaign expects above zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b

EXPECTED = (
    "acknowledged submissions",
    "answer lost",
    "attempt crashed",
    "attempt failed",
    "came after what had ended",
    "cancelled while running",
    "cancelled with what it needs",
    "configuration changed",
    "cut both ways",
    "cut one way",
    "cycle refused",
    "damage refused",
    "dedup hit",
    "dedup hit after failover",
    "delay over",
    "disk full",
    "disk stall unseated a leader",
    "disk without room",
    "duplicate delivered",
    "figure 8",
    "follower read",
    "fsync failed",
    "graph accepted",
    "incarnation given up",
    "interrupted roll",
    "interrupted snapshot",
    "joint configuration",
    "labels set",
    "leader elected",
    "leader removed",
    "leadership transferred",
    "lease ran out under work",
    "lost before its turn",
    "member added",
    "member removed",
    "message dropped",
    "no quorum unseated a leader",
    "node cordoned",
    "node draining",
    "node lost",
    "node ready",
    "outcome unknown",
    "pause",
    "power lost everywhere",
    "process killed",
    "promoted",
    "purge refused",
    "purged",
    "queue full",
    "queue timeout",
    "quota refused",
    "ran after others",
    "read after failover",
    "read confirmed",
    "reordered",
    "replay delivered",
    "required label found",
    "reserved",
    "rider accepted",
    "room again",
    "run timeout",
    "same id, after something else",
    "same id, other request",
    "segment rolled",
    "settings refused",
    "settings set",
    "several slots occupied",
    "short reign",
    "snapshot installed",
    "snapshot taken",
    "stale token refused",
    "started from a compacted log",
    "started from a snapshot",
    "stopped by a drain",
    "stopped in order",
    "submitted again",
    "torn tail",
    "truncated one entry",
    "truncated two or more entries",
    "unsynced write survived",
    "wall clock jumped",
    "withdrawn",
    "write under way at a crash",
)
"""What a long campaign must have seen; a run in which one stays at zero has not tried it."""


class Trace:
    """The lines of one run.

    Args:
        now_s: the simulated time.
        tell: called with each line, or None.
    """

    def __init__(self, now_s: Callable[[], float], tell: Callable[[str], None] | None = None) -> None:
        self._now_s = now_s
        self._tell = tell
        self._hash = blake2b(digest_size=16)
        self.counters: Counter[str] = Counter()
        self.line_count = 0

    @property
    def told(self) -> bool:
        """Whether somebody reads the lines."""
        return self._tell is not None

    def say(self, what: str) -> None:
        """One line."""
        line = f"{self._now_s():.6f} {what}"
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.line_count += 1
        if self._tell is not None:
            self._tell(line)

    def count(self, what: str, times: int = 1) -> None:
        """Something rare has happened."""
        self.counters[what] += times

    def digest(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()
