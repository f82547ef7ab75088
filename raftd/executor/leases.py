"""The lease of this executor: until when it may run attempts.

What may live here: bookkeeping over heartbeats and their renewals. Times are boot time in ms.
"""

from __future__ import annotations

from collections import OrderedDict

from raftd.executor.protocols import Clock

_REMEMBERED_COUNT = 64


class Lease:
    """Counts a lease from when the heartbeat was **sent** that was renewed.

    The leader counts from when it received that heartbeat, which is later, and adds a margin: this end gives up first.
    """

    def __init__(self, clock: Clock, lease_ms: int) -> None:
        self._clock = clock
        self.lease_ms = lease_ms
        self.deadline_ms = 0
        self._sequence = 0
        self._sent: OrderedDict[int, int] = OrderedDict()

    @property
    def valid(self) -> bool:
        """Whether attempts may start and run."""
        return self._clock.boottime_ms() < self.deadline_ms

    @property
    def held(self) -> bool:
        """Whether there has been a lease that was not given back: valid, or lapsed and not dealt with yet."""
        return self.deadline_ms > 0

    @property
    def lapsed(self) -> bool:
        """Whether a lease was held and has run out."""
        return self.held and not self.valid

    def heartbeat(self) -> int:
        """A heartbeat is about to be sent; returns its sequence number."""
        self._sequence += 1
        self._sent[self._sequence] = self._clock.boottime_ms()
        while len(self._sent) > _REMEMBERED_COUNT:
            self._sent.popitem(last=False)
        return self._sequence

    def renewed(self, sequence: int) -> bool:
        """The leader has renewed this heartbeat; False if that extends nothing.

        A renewal that comes after the lease has run out changes nothing: everything is dead by then, and only a new
        incarnation may begin again.
        """
        sent_ms = self._sent.get(sequence)
        if sent_ms is None or self.lapsed:
            return False
        for older in [number for number in self._sent if number <= sequence]:
            del self._sent[older]
        deadline_ms = sent_ms + self.lease_ms
        if deadline_ms <= max(self.deadline_ms, self._clock.boottime_ms()):
            return False
        self.deadline_ms = deadline_ms
        return True

    def oldest_unanswered_ms(self) -> int | None:
        """When the oldest heartbeat was sent that nobody has renewed; None if there is none."""
        return next(iter(self._sent.values()), None)

    def forget_sent(self) -> None:
        """The stream is over: its heartbeats will not be renewed."""
        self._sent.clear()

    def drop(self) -> None:
        """Gives the lease back: nothing runs."""
        self.deadline_ms = 0
        self._sent.clear()
