"""Which Readys are with the storage, and which term, vote and commit are known to survive a crash."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from raftd.raft.types import HardState, NodeId


@dataclass(frozen=True, slots=True)
class _Write:
    number: int
    tick: int
    hard_state: HardState | None


class Durability:
    """Storage is one FIFO: a completion attests everything before it. Only Readys that need a sync are kept here."""

    __slots__ = ("_outstanding", "commit", "term", "vote")

    def __init__(self, hard_state: HardState) -> None:
        self.term = hard_state.term
        self.vote: NodeId = hard_state.vote
        self.commit = hard_state.commit
        self._outstanding: deque[_Write] = deque()

    def __len__(self) -> int:
        return len(self._outstanding)

    def begin(self, number: int, tick: int, hard_state: HardState | None) -> None:
        """A Ready that needs a sync was handed out at that tick."""
        self._outstanding.append(_Write(number, tick, hard_state))

    def complete(self, number: int) -> None:
        """The Ready of that number and all before it are durable."""
        while self._outstanding and self._outstanding[0].number <= number:
            hard_state = self._outstanding.popleft().hard_state
            if hard_state is not None:
                self.term, self.vote = hard_state.term, hard_state.vote
                self.commit = hard_state.commit

    def oldest_tick(self) -> int | None:
        """When the oldest Ready that is not durable was handed out; None if there is none."""
        return self._outstanding[0].tick if self._outstanding else None
