"""The tail of the log that is not durable yet, with the snapshot it may stand on, and which writes are under way.

Several writes may be under way while the tail is cut and grown again, so "is index i durable?" is not answered by
its term: an entry may be replaced and come back with the same index and term while a write of the first copy, and
one of what replaced it, are still queued (ABA). Instead every cut lowers what the writes under way may attest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raftd.raft.types import Entry, InvariantViolation, Snapshot


class Unstable:
    """Entries ``offset .. last_index``, of which those below ``taken`` are with the storage.

    Invariants: offset <= taken <= last_index + 1; every write under way attests only entries that are still the ones
    it wrote. While a snapshot is not durable, the log begins behind it: offset - 1 >= its index.
    """

    __slots__ = (
        "_durable_below",
        "_snapshots",
        "_untaken",
        "_writes",
        "entries",
        "offset",
        "snapshot",
        "taken",
    )

    def __init__(self, offset: int) -> None:
        self.entries: list[Entry] = []
        self.offset = offset
        self.taken = offset
        self._writes: deque[list[int]] = deque()
        """[Ready number, last index it attests], oldest first."""
        self.snapshot: Snapshot | None = None
        """The newest one that took the place of the whole log and is not durable yet."""
        self._untaken = False
        """It is not with the storage yet."""
        self._snapshots: deque[tuple[int, Snapshot]] = deque()
        """(Ready number, snapshot) of those that are with the storage, oldest first."""
        self._durable_below = 0
        """While there is a snapshot: the highest committed index that is durable without it."""

    @property
    def last_index(self) -> int:
        """The last index of the log; offset - 1 when everything is durable."""
        return self.offset + len(self.entries) - 1

    @property
    def durable_index(self) -> int:
        """The highest index up to which everything is durable, as entries or in a snapshot."""
        return self.offset - 1 if self.snapshot is None else self._durable_below

    def restore(self, snapshot: Snapshot, commit: int) -> None:
        """The snapshot takes the place of the whole log; up to ``commit``, what is durable agrees with it."""
        self._durable_below = min(commit, self.durable_index)
        for write in self._writes:
            write[1] = 0
        self.entries = []
        self.offset = self.taken = snapshot.index + 1
        self.snapshot = snapshot
        self._untaken = True

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

    def take_snapshot(self, number: int) -> Snapshot | None:
        """As :meth:`take`, of the snapshot."""
        if not self._untaken or self.snapshot is None:
            return None
        self._untaken = False
        self._snapshots.append((number, self.snapshot))
        return self.snapshot

    def has_untaken(self) -> bool:
        """Whether there is anything to take."""
        return self._untaken or self.taken <= self.last_index

    def durable(self, number: int) -> Snapshot | None:
        """The writes up to that Ready number are durable: forget what they still attest.

        Answers the newest snapshot among them.
        """
        snapshot = None
        while self._snapshots and self._snapshots[0][0] <= number:
            _, snapshot = self._snapshots.popleft()
            self._durable_below = snapshot.index
            if snapshot is self.snapshot:
                self.snapshot = None
        self._entries_durable(number)
        return snapshot

    def _entries_durable(self, number: int) -> None:
        writes = self._writes
        attested = 0
        while writes and writes[0][0] <= number:
            attested = max(attested, writes.popleft()[1])
        if attested >= self.offset:
            del self.entries[: attested + 1 - self.offset]
            self.offset = attested + 1
