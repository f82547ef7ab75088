"""Durations, typed and shown."""

from __future__ import annotations

import pytest

from raftctl.durations import format_duration, parse_duration_ms
from raftctl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
        ("3", 3000),
        ("0", 0),
    ],
)
def test_what_is_understood(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s", "10x", "s", "1d1", "9999d", "1e3s", "٣s"])
def test_what_is_not(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0ms"),
        (-5, "0ms"),
        (850, "850ms"),
        (4_250, "4.2s"),
        (59_999, "59s"),
        (185_000, "3m05s"),
        (7_800_000, "2h10m"),
        (442_800_000, "5d3h"),
    ],
)
def test_what_is_shown(ms: int, text: str) -> None:
    assert format_duration(ms) == text
