"""The durable log in memory, as the consensus core reads it (``raftd.raft.log.LogReader``).

What may live here: the view, its base and its truncation. It does no I/O: the host appends to it when the storage
thread has reported the entries durable. One thread uses it, the event loop's.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft.types import Entry, entry_bytes


class LogStore:
    """Entries ``first_index .. last_index`` without gaps, above a base whose term is kept.

    Args:
        entries: what the log holds, contiguous from ``base_index + 1``.
        base_index: the last index that was compacted away, 0 where nothing was.
        base_term: its term.
    """

    def __init__(self, entries: Sequence[Entry] = (), *, base_index: int = 0, base_term: int = 0) -> None:
        self._base_index = base_index
        self._base_term = base_term
        self._entries: list[Entry] = []
        self.append(entries)

    @property
    def first_index(self) -> int:
        """The lowest index still held; ``last_index + 1`` when empty."""
        return self._base_index + 1

    @property
    def last_index(self) -> int:
        """The highest index held; the base when empty."""
        return self._base_index + len(self._entries)

    def term(self, index: int) -> int:
        """The term at an index from the base to ``last_index``. Raises ``IndexError`` outside of that."""
        if index == self._base_index:
            return self._base_term
        return self._entries[self._position(index)].term

    def entry(self, index: int) -> Entry:
        """The entry at an index from ``first_index`` to ``last_index``. Raises ``IndexError`` outside of that."""
        return self._entries[self._position(index)]

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """The entries low <= index < high, cut so that their ``entry_bytes`` stay within ``max_bytes``.

        At least one where low < high. Raises ``IndexError`` where the range leaves the log.
        """
        if low >= high:
            return []
        start, stop = self._position(low), self._position(high - 1) + 1
        total = 0
        for position in range(start, stop):
            total += entry_bytes(self._entries[position])
            if total > max_bytes and position > start:
                return self._entries[start:position]
        return self._entries[start:stop]

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; the first one replaces what is at its index and everything behind it.

        Raises ``IndexError`` for a gap, for entries that are not contiguous, and for a first index below the base.
        """
        if not entries:
            return
        first = entries[0].index
        if not self.first_index <= first <= self.last_index + 1:
            raise IndexError(f"entry {first} does not join a log of {self.first_index}..{self.last_index}")
        if entries[-1].index - first + 1 != len(entries):
            raise IndexError(f"entries {first}..{entries[-1].index} are not contiguous")
        del self._entries[first - self.first_index :]
        self._entries.extend(entries)

    def compact(self, index: int) -> None:
        """Forget the entries up to that one. Raises ``IndexError`` for one that is not held."""
        position = self._position(index)
        self._base_index, self._base_term = index, self._entries[position].term
        del self._entries[: position + 1]

    def restore(self, index: int, term: int) -> None:
        """A snapshot of that entry takes the place of everything."""
        self._base_index, self._base_term = index, term
        self._entries.clear()

    def _position(self, index: int) -> int:
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"index {index} is outside of {self.first_index}..{self.last_index}")
        return index - self.first_index
