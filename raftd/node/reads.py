"""Linearizable reads between their callers and their confirmation (thesis §6.4).

What may live here: the bookkeeping of one leader. All reads that queued while the loop slept share one confirmation
round; each round has a context of its own, never used again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable

from raftd.errors import RaftdError
from raftd.raft.ready import ReadState
from raftd.raft.types import ReadContext

Waiter = asyncio.Future[bool]
"""Done when the applied state is fresh enough; tells whether that rests on the leader's lease."""


class Reads:
    """Callers that want to know that what they are about to read is fresh."""

    def __init__(self) -> None:
        self._contexts = itertools.count(1)
        self._queued: list[Waiter] = []
        self._asked: dict[ReadContext, list[Waiter]] = {}
        self._confirmed: list[tuple[int, int, bool, list[Waiter]]] = []
        self._order = itertools.count()

    @property
    def queued(self) -> bool:
        """Whether a round must be started for somebody."""
        return bool(self._queued)

    def add(self, waiter: Waiter) -> None:
        """Queue one read."""
        self._queued.append(waiter)

    def start_round(self) -> int:
        """Put everything that is queued into a new round and return its context."""
        context = next(self._contexts)
        self._asked[context] = self._queued
        self._queued = []
        return context

    def confirmed(self, states: Iterable[ReadState]) -> None:
        """These rounds are confirmed: their reads wait only for their index to be applied."""
        for state in states:
            waiters = self._asked.pop(state.context, None)
            if waiters is not None:
                self._push(state.index, state.by_lease, waiters)

    def add_confirmed(self, index: int, waiter: Waiter) -> None:
        """A read that somebody else has confirmed waits only for its index to be applied."""
        self._push(index, False, [waiter])

    def applied(self, index: int) -> None:
        """Everything up to ``index`` is applied: let the reads at or below it go."""
        while self._confirmed and self._confirmed[0][0] <= index:
            _, _, by_lease, waiters = heapq.heappop(self._confirmed)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(by_lease)

    def dropped(self, contexts: Iterable[ReadContext], error: RaftdError) -> None:
        """These rounds will never be confirmed."""
        for context in contexts:
            _fail(self._asked.pop(context, []), error)

    def fail_all(self, error: RaftdError) -> None:
        """Nobody here confirms anything any more."""
        self.fail_queued(error)
        self.dropped(tuple(self._asked), error)
        while self._confirmed:
            _fail(self._confirmed.pop()[3], error)

    def _push(self, index: int, by_lease: bool, waiters: list[Waiter]) -> None:
        heapq.heappush(self._confirmed, (index, next(self._order), by_lease, waiters))

    def fail_queued(self, error: RaftdError) -> None:
        """Nobody here can confirm a read."""
        queued, self._queued = self._queued, []
        _fail(queued, error)


def _fail(waiters: list[Waiter], error: RaftdError) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
