"""Injected cuts on a stream whose messages must not go missing one by one.

What may live here: one end's view of one stream. Raft's own streams need none of this, for Raft repeats what is lost.
On a stream that both ends keep state by (Attach), a message that was swallowed leaves them disagreeing for ever. A
real network would break the connection; so does this: from the first swallowed message on nothing passes any more,
and when the cut is lifted the stream is ended, and the two ends reconcile on the next one.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.transport.faults import FaultTable


class StreamGuard:
    """Decides for each message of one stream whether it passes.

    Args:
        faults: the cuts in force.
        peer: the node at the other end.
        end: called once when the stream has swallowed a message and the cut is lifted.
    """

    def __init__(self, faults: FaultTable, peer: str, end: Callable[[], None]) -> None:
        self._faults = faults
        self._peer = peer
        self._end = end
        self._swallowed = False
        self._unsubscribe = faults.on_change(self._on_change)

    def lets_out(self) -> bool:
        """Whether a message to the peer passes."""
        self._swallowed = self._swallowed or self._faults.drops_to(self._peer)
        return not self._swallowed

    def lets_in(self) -> bool:
        """Whether a message from the peer passes."""
        self._swallowed = self._swallowed or self._faults.drops_from(self._peer)
        return not self._swallowed

    def close(self) -> None:
        """The stream is over; may be called twice."""
        self._unsubscribe()

    def _on_change(self) -> None:
        if self._swallowed and not (self._faults.drops_to(self._peer) or self._faults.drops_from(self._peer)):
            self._unsubscribe()
            self._end()
