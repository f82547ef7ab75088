"""Storage without a disk, for tests: the interface of the real log and of the parts of a data directory that they use.

What may live here: an in-memory log and data directory. They forget everything with the process, so no node runs on
them: it could never come back as itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft.types import Entry, HardState, Snapshot
from raftd.storage.identity import Identity
from raftd.storage.recovery import Recovered


class MemoryLog:
    """A log that is durable as long as the object lives. ``recovered`` is what a reopened one would say."""

    def __init__(self, hard_state: HardState, entries: Sequence[Entry]) -> None:
        self._hard_state = hard_state
        self._entries = list(entries)
        self._base = (0, 0)
        self.bytes_written = 0

    @property
    def has_held(self) -> bool:
        """Nothing is ever held back."""
        return False

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        """As ``wal.Wal.append``; it cannot fail."""
        base = self._base[0]
        for entry in entries:
            if not base < entry.index <= base + len(self._entries) + 1:
                raise ValueError(f"entry {entry.index} cannot follow entry {base + len(self._entries)}")
            del self._entries[entry.index - base - 1 :]
            self._entries.append(entry)
            self.bytes_written += len(entry.data)
        if hard_state is not None:
            self._hard_state = hard_state

    def install(self, snapshot: Snapshot, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """As ``wal.Wal.install``."""
        self._base = (snapshot.index, snapshot.term)
        self._entries.clear()
        self.append(hard_state, entries, sync=True)

    def compact(self, index: int) -> None:
        """Forget the entries up to that one."""
        count = index - self._base[0]
        if 0 < count <= len(self._entries):
            self._base = (index, self._entries[count - 1].term)
            del self._entries[:count]

    def make_room(self) -> None:
        """There always is."""

    def flush(self) -> None:
        """Nothing to do."""

    def prepare_next(self) -> bool:
        """Nothing to do."""
        return False

    def close(self) -> None:
        """Nothing to do."""

    def recovered(self) -> Recovered:
        """The content, as ``wal.open_log`` would return it."""
        return Recovered(self._hard_state, list(self._entries), None, *self._base)


class MemoryDirectory:
    """What ``directory.DataDirectory`` is, without a directory."""

    def __init__(self, identity: Identity, hard_state: HardState, entries: Sequence[Entry]) -> None:
        self.identity = identity
        self.incarnation = 0
        self.log = MemoryLog(hard_state, entries)
        self.recovered = self.log.recovered()
        self.next_incarnation()

    def next_incarnation(self) -> int:
        """Raise the incarnation and return it."""
        self.incarnation += 1
        return self.incarnation

    def close(self) -> None:
        """Nothing to do."""
