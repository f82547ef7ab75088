"""The log as the algorithm sees it: what the host's reader holds, then the tail that is not durable yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raftd.raft.types import Entry


class LogReader(Protocol):
    """The stable log, in memory, kept by the host (``raftd.storage``). The core never asks outside its range.

    The host brings a Ready's entries in before it calls ``persisted`` for it, in Ready order; earlier is allowed.
    Entries that overwrite replace everything from the first one's index on.
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
