"""Linearizable reads without a log entry (ReadIndex, thesis §6.4), many to a round.

A read waits until the leader has committed an entry of its own term, then for a round: a number that every message
to the followers carries and every answer echoes. When a quorum has echoed a round that began after the read came
in, this node was still the leader then, and what was committed when the round began covers the read. While a lease
holds (``lease``) no round is needed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from raftd.raft.ready import ReadState
from raftd.raft.types import ReadContext


@dataclass(frozen=True, slots=True)
class _Round:
    number: int
    index: int
    contexts: tuple[ReadContext, ...]


class ReadOnly:
    """The reads of one node. ``confirmed`` and ``dropped`` wait for the next Ready."""

    __slots__ = ("_pending", "_rounds", "confirmed", "dropped", "waiting")

    def __init__(self) -> None:
        self.waiting: list[ReadContext] = []
        """Not in a round yet."""
        self._rounds: deque[_Round] = deque()
        self._pending: set[ReadContext] = set()
        """Contexts waiting or in a round."""
        self.confirmed: list[ReadState] = []
        self.dropped: list[ReadContext] = []

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, context: ReadContext) -> bool:
        return context in self._pending

    def add(self, context: ReadContext) -> None:
        """A read came in."""
        self.waiting.append(context)
        self._pending.add(context)

    def begin(self, number: int, commit: int) -> None:
        """A round begins for all that wait."""
        self._rounds.append(_Round(number, commit, tuple(self.waiting)))
        self.waiting.clear()

    def confirm_waiting(self, commit: int) -> None:
        """A lease holds: what is committed now covers all that wait."""
        self._pending.difference_update(self.waiting)
        self.confirmed.extend(ReadState(context, commit, by_lease=True) for context in self.waiting)
        self.waiting.clear()

    def confirm(self, number: int) -> None:
        """A quorum has echoed the round of that number, and with it all before."""
        while self._rounds and self._rounds[0].number <= number:
            done = self._rounds.popleft()
            self._pending.difference_update(done.contexts)
            self.confirmed.extend(ReadState(context, done.index) for context in done.contexts)

    def drop_all(self) -> None:
        """Leadership is lost: nothing pending can be confirmed any more."""
        for round_ in self._rounds:
            self.dropped.extend(round_.contexts)
        self.dropped.extend(self.waiting)
        self._rounds.clear()
        self.waiting.clear()
        self._pending.clear()
