"""A table of immutable records that can be frozen at once, whatever its size.

What may live here: the container. A snapshot must see one moment, but copying a dictionary of 100,000 records stops
the loop for longer than a heartbeat may wait. So a table is cut into chunks, of neighbouring keys or, where keys have
no neighbours, by buckets; freezing hands out the chunks and marks them as shared, and the first write to a shared chunk
copies that chunk alone (copy on write).
Cost: freezing, one reference per chunk; a write after it, at most one copy of one chunk: 256 neighbours, or a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

R = TypeVar("R")

_NEIGHBOURS_BITS = 8


class Table(Generic[R]):
    """Records by non-negative integer.

    Args:
        buckets: how many chunks there are at most, for keys that are far apart; 0: neighbouring keys lie in one chunk.
    """

    __slots__ = ("_buckets", "_chunks", "_count", "_shared")

    def __init__(self, buckets: int = 0) -> None:
        self._buckets = buckets
        self._chunks: dict[int, dict[int, R]] = {}
        # Membership only: the order of a set must not decide anything.
        self._shared: set[int] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        return key in self._chunks.get(self._number(key), ())

    def get(self, key: int) -> R | None:
        """The record, or None."""
        chunk = self._chunks.get(self._number(key))
        return None if chunk is None else chunk.get(key)

    def __getitem__(self, key: int) -> R:
        return self._chunks[self._number(key)][key]

    def put(self, key: int, record: R) -> None:
        """Add a record, or put it in the place of the old one."""
        number = self._number(key)
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = {}
        elif number in self._shared:
            chunk = self._own(number, chunk)
        if key not in chunk:
            self._count += 1
        chunk[key] = record

    def remove(self, key: int) -> None:
        """Take a record out.

        Raises:
            KeyError: there is none.
        """
        number = self._number(key)
        chunk = self._chunks[number]
        if number in self._shared:
            chunk = self._own(number, chunk)
        del chunk[key]
        self._count -= 1
        if not chunk:
            del self._chunks[number]

    def values(self) -> Iterator[R]:
        """Every record; in the order of the keys where keys are only ever added in ascending order."""
        for chunk in self._chunks.values():
            yield from chunk.values()

    def items(self) -> Iterator[tuple[int, R]]:
        """Every key with its record, in the order of ``values``."""
        for chunk in self._chunks.values():
            yield from chunk.items()

    def from_key(self, first: int) -> Iterator[R]:
        """Records with keys from ``first`` on, in ascending order, for tables whose keys only grow."""
        return (record for _, record in self.items_from(first))

    def items_from(self, first: int) -> Iterator[tuple[int, R]]:
        """The same with their keys."""
        if not self._chunks:
            return
        start = first >> _NEIGHBOURS_BITS
        if start in self._chunks:
            numbers: Iterator[int] = iter(range(start, next(reversed(self._chunks)) + 1))
        else:
            numbers = (number for number in self._chunks if number > start)
        for number in numbers:
            for key, record in self._chunks.get(number, {}).items():
                if key >= first:
                    yield key, record

    def freeze(self) -> tuple[dict[int, R], ...]:
        """The records of this moment, as chunks that never change any more: not to be written to."""
        self._shared = set(self._chunks)
        return tuple(self._chunks.values())

    def _number(self, key: int) -> int:
        return key % self._buckets if self._buckets else key >> _NEIGHBOURS_BITS

    def _own(self, number: int, chunk: dict[int, R]) -> dict[int, R]:
        self._shared.discard(number)
        copy = self._chunks[number] = chunk.copy()
        return copy
