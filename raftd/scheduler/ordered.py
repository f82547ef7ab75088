"""Keys in order: the queue, the timers and the ranking of the nodes are all this one structure.

What may live here: the container. Every operation costs the same whether it holds ten keys or a hundred thousand, and
what it holds is exact (no entries that are deleted later), so that it can be rebuilt from a snapshot and be equal.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Comparable(Protocol):
    """Whatever has an order."""

    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Comparable)

_BLOCK = 512


class OrderedKeys(Generic[K]):
    """Distinct keys, ascending, as a list of short sorted lists.

    Invariant: no block is empty or longer than two ``_BLOCK``; ``_lasts[i]`` is the last key of block i.
    """

    __slots__ = ("_blocks", "_count", "_lasts")

    def __init__(self, keys: Iterable[K] = ()) -> None:
        self._blocks: list[list[K]] = []
        self._lasts: list[K] = []
        ordered = sorted(keys)
        self._count = len(ordered)
        for start in range(0, len(ordered), _BLOCK):
            block = ordered[start : start + _BLOCK]
            self._blocks.append(block)
            self._lasts.append(block[-1])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        for block in self._blocks:
            yield from block

    def __reversed__(self) -> Iterator[K]:
        for block in reversed(self._blocks):
            yield from reversed(block)

    def __contains__(self, key: K) -> bool:
        at = bisect_left(self._lasts, key)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, key)] == key

    def between(self, low: K, high: K) -> list[K]:
        """The keys from ``low`` to ``high``, both included, ascending."""
        found: list[K] = []
        for at in range(bisect_left(self._lasts, low), len(self._blocks)):
            block = self._blocks[at]
            start, end = bisect_left(block, low), bisect_right(block, high)
            found += block[start:end]
            if end < len(block):
                break
        return found

    def count_below(self, key: K) -> int:
        """How many keys are smaller."""
        at = bisect_left(self._lasts, key)
        below = sum(map(len, self._blocks[:at]))
        return below if at == len(self._blocks) else below + bisect_left(self._blocks[at], key)

    @property
    def first(self) -> K | None:
        """The smallest key, or None."""
        return self._blocks[0][0] if self._blocks else None

    def add(self, key: K) -> None:
        """Put in a key that is not there yet."""
        self._count += 1
        if not self._blocks:
            self._blocks.append([key])
            self._lasts.append(key)
            return
        at = bisect_left(self._lasts, key)
        if at == len(self._blocks):
            at -= 1
            self._blocks[at].append(key)
            self._lasts[at] = key
        else:
            insort(self._blocks[at], key)
        if len(self._blocks[at]) > 2 * _BLOCK:
            self._split(at)

    def remove(self, key: K) -> None:
        """Take a key out.

        Raises:
            KeyError: it is not there.
        """
        at = bisect_left(self._lasts, key)
        if at == len(self._blocks):
            raise KeyError(key)
        block = self._blocks[at]
        place = bisect_left(block, key)
        if block[place] != key:
            raise KeyError(key)
        del block[place]
        self._count -= 1
        if not block:
            del self._blocks[at]
            del self._lasts[at]
        elif place == len(block):
            self._lasts[at] = block[-1]

    def _split(self, at: int) -> None:
        block = self._blocks[at]
        tail = block[_BLOCK:]
        del block[_BLOCK:]
        self._blocks.insert(at + 1, tail)
        self._lasts[at] = block[-1]
        self._lasts.insert(at + 1, tail[-1])
