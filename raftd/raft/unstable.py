"""The tail of the log that is not durable yet, and which write of it is under way.

Several writes may be under way while the tail is cut and grown again, so "is index i durable?" is not answered by
its term: an entry may be replaced and come back with the same index and term while a write of the first copy, and
one of what replaced it, are still queued (ABA). Instead every cut lowers what the writes under way may attest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raftd.raft.types import Entry, InvariantViolation


class Unstable:
    """Entries ``offset .. last_index``, of which those below ``taken`` are with the storage.

    Invariants: offset <= taken <= last_index + 1; every write under way attests only entries that are still the ones
    it wrote.
    """

    __slots__ = ("_writes", "entries", "offset", "taken")

    def __init__(self, offset: int) -> None:
        self.entries: list[Entry] = []
        self.offset = offset
        self.taken = offset
        self._writes: deque[list[int]] = deque()
        """[Ready number, last index it attests], oldest first."""

    @property
    def last_index(self) -> int:
        """The last index of the log; offset - 1 when everything is durable."""
        return self.offset + len(self.entries) - 1

    def append(self, entries: Sequence[Entry]) -> None:
        """Replace everything from the first entry's index on, cutting what is durable too when it lies there."""
        first = entries[0].index
        if first > self.offset + len(self.entries):
            raise InvariantViolation(
                f"a gap: the log ends at {self.last_index}, the new entries start at {first}"
            )
        if first < self.taken:
            for write in self._writes:
                write[1] = min(write[1], first - 1)
            self.taken = first
        if first <= self.offset:
            self.offset = first
            self.entries = list(entries)
        else:
            del self.entries[first - self.offset :]
            self.entries.extend(entries)

    def take(self, number: int) -> tuple[Entry, ...]:
        """What is not with the storage yet; from now on it is, as the write of the Ready of that number."""
        last = self.last_index
        if self.taken > last:
            return ()
        taken = tuple(self.entries[self.taken - self.offset :])
        self.taken = last + 1
        self._writes.append([number, last])
        return taken

    def has_untaken(self) -> bool:
        """Whether :meth:`take` would give anything."""
        return self.taken <= self.last_index

    def durable(self, number: int) -> None:
        """The writes up to that Ready number are durable: forget the entries that they still attest."""
        writes = self._writes
        attested = 0
        while writes and writes[0][0] <= number:
            attested = max(attested, writes.popleft()[1])
        if attested >= self.offset:
            del self.entries[: attested + 1 - self.offset]
            self.offset = attested + 1
