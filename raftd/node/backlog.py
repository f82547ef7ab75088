"""What is committed and not applied yet: entries, and snapshots that take the place of everything before them.

What may live here: applying it in the order in which the core handed it out, a while at a time, and telling the core
how far that has got.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from raftd.node.applier import Applier
from raftd.node.clock import Clock
from raftd.node.ports import Received
from raftd.node.proposer import Proposer
from raftd.raft.raw_node import RawNode
from raftd.raft.types import Entry, entry_bytes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Applied:
    """What one call applied: up to which index (0: nothing), how many entries, and their size."""

    index: int = 0
    entries: int = 0
    size_bytes: int = 0


class Backlog:
    """Applies what is committed.

    Args:
        raw: the core.
        applier: what it is applied to.
        proposer: whoever waits for an entry of its own is told through it.
        clock: time.
    """

    def __init__(self, raw: RawNode, applier: Applier, proposer: Proposer, clock: Clock) -> None:
        self._raw = raw
        self._applier = applier
        self._proposer = proposer
        self._clock = clock
        self._waiting: deque[Entry | Received] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, items: Iterable[Entry | Received]) -> None:
        """These are to be applied, behind what waits already."""
        self._waiting.extend(items)

    def apply(self, until_ms: int) -> Applied:
        """Apply in order, until the time is up, but one entry at least: a small entry may be much work (an array of
        tasks), and peers and ticks must not wait for many of those."""
        done = Applied()
        while self._waiting and (not done.index or self._clock.monotonic_ms() < until_ms):
            item = self._waiting.popleft()
            if isinstance(item, Received):
                self._restore(item)
                done.index = item.announcement.snapshot.index
                continue
            self._proposer.applied(item, self._applier.apply(item))
            done.index = item.index
            done.entries += 1
            done.size_bytes += entry_bytes(item)
        if done.index:
            self._raw.applied(done.index)
        return done

    def _restore(self, received: Received) -> None:
        snapshot = received.announcement.snapshot
        if snapshot.index > self._applier.last_applied:
            self._applier.restore(received.state, snapshot.index, snapshot.term)
            log.info(
                "the snapshot of entry %d from store %016x has taken the place of the log",
                snapshot.index,
                received.announcement.sender,
            )
        # At once: what follows may be a change of the configuration that is in it.
        self._raw.applied(snapshot.index)
