"""The log as the algorithm sees it: what the host's reader holds, then the tail that is not durable yet."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from raftd.raft.types import ENTRY_OVERHEAD_BYTES, Entry, EntryType, InvariantViolation, Snapshot
from raftd.raft.unstable import Unstable


class LogReader(Protocol):
    """The stable log, in memory, kept by the host (``raftd.storage``). The core never asks outside its range.

    The host brings a Ready's entries in before it calls ``persisted`` for it, in Ready order; earlier is allowed.
    Entries that overwrite replace everything from the first one's index on. A Ready's snapshot replaces the whole
    log: it is empty then, and goes on behind the snapshot's index, whose term it keeps. The host may compact what is in
    a snapshot of its own, and no more, whenever it likes.
    """

    @property
    def first_index(self) -> int:
        """The lowest index still held; 1 until something is compacted. ``last_index + 1`` when empty."""

    @property
    def last_index(self) -> int:
        """The highest index held; ``first_index - 1`` when empty."""

    def term(self, index: int) -> int:
        """The term at an index in ``first_index - 1 .. last_index``. Index 0 has term 0; below a compaction the last
        compacted term is kept."""

    def entries(self, low: int, high: int, max_bytes: int) -> Sequence[Entry]:
        """The entries low <= index < high, cut so that ``entry_bytes`` sum to at most ``max_bytes``, but never none
        when low < high."""


class Log:
    """The reader's entries followed by the unstable tail, with the three indices that move along it.

    Invariants: applied <= handed_out <= min(commit, durable_index); commit <= last_index; terms never decrease with
    the index. A committed entry is never replaced.
    """

    __slots__ = ("_changes", "_reader", "applied", "commit", "handed_out", "unstable")

    def __init__(self, reader: LogReader, commit: int, applied: int) -> None:
        if commit > reader.last_index:
            raise InvariantViolation(
                f"the hard state says {commit} is committed, but the log ends at {reader.last_index}"
            )
        # What was compacted was committed, whether or not the hard state got so far.
        commit = max(commit, reader.first_index - 1)
        if not reader.first_index - 1 <= applied <= commit:
            raise InvariantViolation(
                f"applied {applied} is not between the log's start ({reader.first_index - 1}) and the commit {commit}"
            )
        self._reader = reader
        self.unstable = Unstable(reader.last_index + 1)
        self.commit = commit
        self.handed_out = applied
        """The last index that left in a Ready's committed entries."""
        self.applied = applied
        self._changes: deque[int] = deque()
        """The CONF_CHANGEs that were committed since and are not handed out."""

    @property
    def first_index(self) -> int:
        """The lowest index whose entry is still held."""
        snapshot = self.unstable.snapshot
        return self._reader.first_index if snapshot is None else snapshot.index + 1

    @property
    def last_index(self) -> int:
        """The highest index, durable or not."""
        return self.unstable.last_index

    @property
    def durable_index(self) -> int:
        """The highest index whose entry is durable here."""
        return self.unstable.durable_index

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 in an empty log."""
        return self._held_term(self.last_index)

    def term(self, index: int) -> int | None:
        """The term at an index; None beyond the end or below what is held. Index 0 has term 0."""
        if index > self.unstable.last_index or index < self.first_index - 1:
            return None
        return self._held_term(index)

    def _held_term(self, index: int) -> int:
        unstable = self.unstable
        if index >= unstable.offset:
            return unstable.entries[index - unstable.offset].term
        if unstable.snapshot is not None:
            return unstable.snapshot.term
        return self._reader.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Whether the log holds that entry; (0, 0) is where every log starts."""
        return self.term(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log with that end is at least as complete as this one (the paper, §5.4.1)."""
        mine = self.last_term
        return last_term > mine or (last_term == mine and last_index >= self.last_index)

    def last_at_or_below(self, index: int, term: int) -> tuple[int, int]:
        """The highest (index, term) held at or below the index whose term is at most the given one.

        Both sides use it to jump over a whole term when their logs disagree (the end of the paper's §5.3).
        """
        low = self.first_index - 1
        high = max(low, min(index, self.last_index))
        found = max(low, low - 1 + bisect_right(range(low, high + 1), term, key=self._held_term))
        return found, self._held_term(found)

    def slice(self, low: int, high: int, max_bytes: int) -> tuple[tuple[Entry, ...], int]:
        """The entries low <= index < high and their size, cut to ``max_bytes`` but never none when low < high."""
        if low >= high:
            return (), 0
        offset = self.unstable.offset
        if low < offset:
            stable = self._reader.entries(low, min(high, offset), max_bytes)
            entries, size = _cut(stable, 0, len(stable), 0, max_bytes)
            if high <= offset or len(entries) < offset - low:
                return entries, size
            more, size = _cut(self.unstable.entries, 0, high - offset, size, max_bytes)
            return entries + more, size
        return _cut(self.unstable.entries, low - offset, high - offset, 0, max_bytes)

    def append(self, entries: Sequence[Entry]) -> None:
        """Replace everything from the first entry's index on."""
        if entries[0].index <= self.commit:
            raise InvariantViolation(
                f"entry {entries[0].index} would replace a committed one (commit {self.commit})"
            )
        self.unstable.append(entries)

    def first_conflict(self, entries: Sequence[Entry]) -> int:
        """The position of the first entry that this log does not hold with that term; len(entries) if it holds all."""
        last = self.last_index
        for position, entry in enumerate(entries):
            if entry.index > last or self._held_term(entry.index) != entry.term:
                return position
        return len(entries)

    def commit_to(self, index: int) -> bool:
        """Raise the commit; never lowers it. Answers whether it moved."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            raise InvariantViolation(f"cannot commit {index}: the log ends at {self.last_index}")
        committed = self._scan(max(self.commit + 1, self.first_index), index + 1)
        self._changes.extend(entry.index for entry in committed if entry.type is EntryType.CONF_CHANGE)
        self.commit = index
        return True

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot of what is committed."""
        if snapshot.index <= self.commit:
            raise InvariantViolation(f"a snapshot up to {snapshot.index} would take back {self.commit}")
        self.unstable.restore(snapshot, self.commit)
        self._changes.clear()
        self.commit = snapshot.index

    def durable(self, number: int) -> Snapshot | None:
        """The writes up to that Ready number are durable. Answers the newest snapshot among them: the host applies it
        next."""
        snapshot = self.unstable.durable(number)
        if snapshot is not None:
            self.handed_out = max(self.handed_out, snapshot.index)
        return snapshot

    def has_committed(self, durable_commit: int) -> bool:
        """Whether :meth:`take_committed` would give anything."""
        return self.unstable.snapshot is None and self.handed_out < self._ready_to_apply(durable_commit)

    def take_committed(self, max_bytes: int, durable_commit: int) -> tuple[Entry, ...]:
        """The next entries to apply: committed, and durable here, so that no applied state outruns the disk.

        A CONF_CHANGE only when it is durable that it is committed. Who has applied one says so, and whoever leaves by
        it may be switched off then; a node that came back from a crash and did not know would ask for their votes.
        """
        if not self.has_committed(durable_commit):
            return ()
        entries, _ = self.slice(self.handed_out + 1, self._ready_to_apply(durable_commit) + 1, max_bytes)
        self.handed_out += len(entries)
        while self._changes and self._changes[0] <= self.handed_out:
            self._changes.popleft()
        return entries

    def _ready_to_apply(self, durable_commit: int) -> int:
        return min(self.commit_before_change(durable_commit), self.durable_index)

    def commit_before_change(self, after: int) -> int:
        """How far it is committed before the first CONF_CHANGE behind that index which was not handed out; all of it
        if there is none."""
        return next((index - 1 for index in self._changes if index > after), self.commit)

    def applied_to(self, index: int) -> None:
        """The host has applied up to the index."""
        if index > self.handed_out:
            raise InvariantViolation(f"applied {index}, but only {self.handed_out} was handed out")
        self.applied = max(self.applied, index)

    def has_unapplied_configuration(self) -> bool:
        """Whether a snapshot, or a committed CONFIGURATION or CONF_CHANGE entry, is not applied yet."""
        return self.applied < self.first_index - 1 or any(
            entry.type is not EntryType.NORMAL for entry in self._scan(self.applied + 1, self.commit + 1)
        )

    def commit_changes_but_the_last(self) -> None:
        """After a restart: commit every CONF_CHANGE that another one follows, and so all before it.

        A leader proposes a change only when it has applied the one before, so where there are two, the first is
        committed, even if the disk has lost that it is. This node must not go back behind that configuration: those
        who completed the change may by now be a quorum that has nobody in common with the one before it.
        """
        changes = [
            entry.index
            for entry in self._scan(self.commit + 1, self.last_index + 1)
            if entry.type is EntryType.CONF_CHANGE
        ]
        if len(changes) > 1:
            self.commit_to(changes[-2])

    def _scan(self, low: int, high: int) -> Iterator[Entry]:
        while low < high:
            entries, _ = self.slice(low, high, _SCAN_BYTES)
            yield from entries
            low += len(entries)


_SCAN_BYTES = 1024 * 1024


def _cut(
    entries: Sequence[Entry], start: int, stop: int, size: int, max_bytes: int
) -> tuple[tuple[Entry, ...], int]:
    """entries[start:stop], cut where ``size`` and the entries together exceed the limit; one is let through at 0."""
    end = start
    while end < stop:
        larger = size + len(entries[end].data) + ENTRY_OVERHEAD_BYTES
        if larger > max_bytes and size:
            break
        size = larger
        end += 1
    return tuple(entries[start:end]), size
