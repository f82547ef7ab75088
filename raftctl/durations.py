"""Durations as people write them: ``500ms``, ``10s``, ``5m``, ``1h30m``; a bare number is seconds.

Pure: text to milliseconds and back, for options, tables and messages.
"""

from __future__ import annotations

import re

from raftctl.errors import UsageError

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
_BARE = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

MAX_MS = 366 * _UNIT_MS["d"]


def parse_duration_ms(text: str) -> int:
    """Milliseconds.

    Raises:
        UsageError: it is no duration, or longer than a year.
    """
    stripped = text.strip().lower()
    if _BARE.fullmatch(stripped):
        total = float(stripped) * 1000
    else:
        parts = _PART.findall(stripped)
        if not parts or "".join(number + unit for number, unit in parts) != stripped:
            raise UsageError(f"{text!r} is no duration", "500ms, 10s, 5m, 1h30m, or a number of seconds")
        total = sum(float(number) * _UNIT_MS[unit] for number, unit in parts)
    if total > MAX_MS:
        raise UsageError(f"{text!r} is longer than a year", "a shorter duration")
    return round(total)


def format_duration(ms: int) -> str:
    """At most two units, no more precision than a reader wants: ``850ms``, ``4.2s``, ``3m05s``, ``5d3h``."""
    if ms < 1_000:
        return f"{max(ms, 0)}ms"
    if ms < 10_000:
        return f"{ms // 100 / 10:.1f}s"
    seconds = ms // 1_000
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    minutes = seconds // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = minutes // 60
    return f"{hours // 24}d{hours % 24}h"
