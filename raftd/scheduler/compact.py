"""A record as few bytes: numbers as wide as the largest of them needs, and what else there is behind them.

What may live here: that form, and no record. It is for the memory of one process alone: the log and the snapshots have
their own, so it may change at any time.

One byte says how wide the numbers of the two groups are and whether their counts take a byte or four; then come the
counts, the base, the two groups and the rest. A record has many small numbers and a few large ones: were they one
group, one large number would widen them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

_WIDTHS = "BHIQ"
_WIDE_COUNTS = 1 << 4
_NARROW_HEAD = Struct("<BBBQ")
_WIDE_HEAD = Struct("<BIIQ")


def pack(base: int, small: Sequence[int], large: Sequence[int], rest: Iterable[bytes]) -> bytes:
    """The bytes of a record.

    Args:
        base: below 2**64, as every number of ``small`` and ``large``; none is negative.
    """
    small_width, large_width = _width(small), _width(large)
    widths = small_width | large_width << 2
    counts = len(small), len(large)
    if max(counts) > 0xFF:
        head = _WIDE_HEAD.pack(widths | _WIDE_COUNTS, *counts, base)
    else:
        head = _NARROW_HEAD.pack(widths, *counts, base)
    return b"".join(
        (
            head,
            _numbers(small_width, counts[0]).pack(*small),
            _numbers(large_width, counts[1]).pack(*large),
            *rest,
        )
    )


def unpack(data: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    """The base, the two groups, and the place where the rest begins."""
    head = _WIDE_HEAD if data[0] & _WIDE_COUNTS else _NARROW_HEAD
    widths, small_count, large_count, base = head.unpack_from(data)
    small, large = _numbers(widths & 3, small_count), _numbers(widths >> 2 & 3, large_count)
    at = head.size
    numbers = small.unpack_from(data, at)
    at += small.size
    return base, numbers, large.unpack_from(data, at), at + large.size


def text(value: str) -> bytes:
    """The text as bytes: whatever a ``str`` may hold."""
    return value.encode("utf-8", "surrogatepass")


def read_text(data: bytes) -> str:
    """The text in bytes that ``text`` made."""
    return data.decode("utf-8", "surrogatepass")


def zigzag(value: int) -> int:
    """A number of either sign as one without."""
    return value << 1 if value >= 0 else ~(value << 1)


def unzigzag(value: int) -> int:
    """The number that ``zigzag`` was given."""
    return ~(value >> 1) if value & 1 else value >> 1


def _width(numbers: Sequence[int]) -> int:
    largest = max(numbers, default=0)
    if largest <= 0xFF:
        return 0
    if largest <= 0xFFFF:
        return 1
    return 2 if largest <= 0xFFFF_FFFF else 3


@lru_cache(maxsize=1024)
def _numbers(width: int, count: int) -> Struct:
    return Struct(f"<{count}{_WIDTHS[width]}")
