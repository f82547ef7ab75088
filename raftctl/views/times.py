"""Moments for programs and for people. Times in the models are Unix milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from raftctl.durations import format_duration


def now_ms() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000


def iso(ms: int | None) -> str | None:
    """``2026-01-31T12:00:00.123000Z``: always UTC, always six digits; None for what has not happened."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clock(ms: int | None) -> str:
    """``12:00:00``, local time, for lines that follow each other."""
    if ms is None:
        return "--:--:--"
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%H:%M:%S")


def ago(ms: int | None, now: int) -> str:
    """``4.2s ago``, or a dash. A clock that is a little ahead of ours is no reason for negative times."""
    return "-" if ms is None else f"{format_duration(max(now - ms, 0))} ago"


def between(start_ms: int | None, end_ms: int | None) -> str:
    """How long it took, or a dash."""
    return "-" if start_ms is None or end_ms is None else format_duration(end_ms - start_ms)
