"""A leader's lease: for how long after a quorum has heard it nobody else can have been elected (thesis §6.4.1).

Off unless asked for, because it trusts clocks. A voter that hears a leader promises to elect nobody else for an
election timeout, counted in its ticks, whatever term it comes to know of meanwhile; a restarted voter does not know
what it has promised, and elects nobody for as long. The leader counts from when it *sent* what a quorum has answered,
on a clock that its host gives it, and for less than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Lease:
    """The lease of one leader. Nothing is held that was not confirmed by the configuration in force."""

    __slots__ = ("_clock_ms", "_ended", "_length_ms", "_rounds", "_sent_ms")

    def __init__(self, length_ms: int, clock_ms: Callable[[], int]) -> None:
        self._length_ms = length_ms
        self._clock_ms = clock_ms
        self._rounds: deque[tuple[int, int]] = deque()
        """(number, when it was sent) of the rounds that no quorum has answered yet."""
        self._sent_ms: int | None = None
        """When the newest round was sent that a quorum has answered."""
        self._ended = False

    @property
    def is_on(self) -> bool:
        """Whether leases are used at all."""
        return self._length_ms > 0

    def restart(self) -> None:
        """A term of leadership begins, or its configuration changes: answers to earlier rounds count for nothing."""
        self._rounds.clear()
        self._sent_ms = None

    def begin_term(self) -> None:
        """A term of leadership begins."""
        self.restart()
        self._ended = False

    def end(self) -> None:
        """Another was told to stand for election. That message may arrive late, so this is for the rest of the term."""
        self._ended = True

    def sent(self, number: int) -> None:
        """The round of that number is about to be sent."""
        if self.is_on:
            self._rounds.append((number, self._clock_ms()))

    def confirm(self, number: int) -> None:
        """A quorum has answered that round, and with it all before."""
        while self._rounds and self._rounds[0][0] <= number:
            self._sent_ms = self._rounds.popleft()[1]

    def holds(self) -> bool:
        """Whether surely nobody else leads at this moment."""
        return (
            not self._ended
            and self._sent_ms is not None
            and self._clock_ms() - self._sent_ms < self._length_ms
        )
