"""Readys on their way to the disk: what has been handed over, what is durable, and the commit that is held back.

What may live here: the order of writes and of what waits for them (``raftd.raft.ready``, steps 2 and 3). A commit that
changed alone is worth no write of its own: it rides with the next one, or with the next tick.
"""

from __future__ import annotations

from collections import deque

from raftd.node.ports import DurableView, Peers, Storage
from raftd.raft.ready import Ready
from raftd.raft.types import HardState


class Writes:
    """The writes of one node.

    Args:
        storage: where Readys are written.
        view: the durable log in memory.
        peers: where messages go that waited for a write.
    """

    def __init__(self, storage: Storage, view: DurableView, peers: Peers) -> None:
        self._storage = storage
        self._view = view
        self._peers = peers
        self._writing: deque[Ready] = deque()
        self._durable_number = 0
        self._held_commit: tuple[int, HardState] | None = None

    def durable(self, number: int) -> None:
        """The storage has done every Ready up to this one."""
        self._durable_number = max(self._durable_number, number)

    def take_durable(self) -> int:
        """Show what is durable, and send what waited for it; the number of the last such Ready, 0 for none."""
        reached = 0
        while self._writing and self._writing[0].number <= self._durable_number:
            ready = self._writing.popleft()
            self._view.append(ready.entries)
            self._peers.send(ready.messages_after_persist)
            reached = ready.number
        return reached

    def hand_over(self, ready: Ready) -> None:
        """Have a Ready written, if there is anything in it that must be."""
        if ready.entries or ready.must_sync or ready.messages_after_persist:
            hard_state = ready.hard_state
            if hard_state is None and self._held_commit is not None:
                hard_state = self._held_commit[1]
            self._held_commit = None
            self._writing.append(ready)
            if not ready.entries and not ready.must_sync and len(self._writing) == 1:
                # Nothing to write and nothing being written: what waits for the disk may go at once.
                self._held_commit = None if hard_state is None else (ready.number, hard_state)
                self.durable(ready.number)
            else:
                self._storage.submit(ready.number, hard_state, ready.entries, ready.must_sync)
        elif ready.hard_state is not None:
            self._held_commit = (ready.number, ready.hard_state)

    def flush_commit(self) -> None:
        """Write the commit that is held back."""
        if self._held_commit is not None:
            number, hard_state = self._held_commit
            self._held_commit = None
            self._storage.submit(number, hard_state, (), False)
