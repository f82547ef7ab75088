"""The simplest LogReader: a list. Knows nothing of durability; the peer says what goes in, and when."""

from collections.abc import Sequence

from raftd.raft.types import Entry, EntryType, entry_bytes


class MemoryLog:
    """Entries 1.. in a list, or, after `compact`, those above a base."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.held = list(entries)
        self.base_index = 0
        self.base_term = 0

    @property
    def first_index(self) -> int:
        return self.base_index + 1

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.held)

    def term(self, index: int) -> int:
        assert self.base_index <= index <= self.last_index, f"term of {index} asked of {self}"
        return self.base_term if index == self.base_index else self.held[index - self.first_index].term

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        assert self.first_index <= low <= high <= self.last_index + 1, f"{low}..{high} asked of {self}"
        taken: list[Entry] = []
        size = 0
        for entry in self.held[low - self.first_index : high - self.first_index]:
            size += entry_bytes(entry)
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return taken

    def write(self, entries: Sequence[Entry]) -> None:
        """Replace everything from the first entry's index on."""
        if entries:
            assert self.first_index <= entries[0].index <= self.last_index + 1, (
                f"{entries[0]} written to {self}"
            )
            del self.held[entries[0].index - self.first_index :]
            self.held.extend(entries)

    def compact(self, index: int) -> None:
        """Forget everything up to the index."""
        self.base_term = self.term(index)
        del self.held[: index - self.base_index]
        self.base_index = index

    def reset(self, index: int, term: int) -> None:
        """Begin anew behind a snapshot."""
        self.held.clear()
        self.base_index, self.base_term = index, term

    def terms(self) -> list[int]:
        return [entry.term for entry in self.held]

    def __repr__(self) -> str:
        return f"MemoryLog({self.first_index}..{self.last_index}, terms {self.terms()})"


def log_of(*terms: int) -> list[Entry]:
    """Entries 1, 2, 3, ... of these terms; equal index and term give equal data, as in any real cluster."""
    return [Entry(term, i, EntryType.NORMAL, f"{i}@{term}".encode()) for i, term in enumerate(terms, start=1)]
