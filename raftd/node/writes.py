"""Readys on their way to the disk: what has been handed over, what is durable, and the commit that is held back.

What may live here: the order of writes and of what waits for them (``raftd.raft.ready``, steps 2 and 3). A commit that
changed alone is worth no write of its own: it rides with the next one, or with the next tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from raftd.node.ports import DurableView, Received, Storage
from raftd.raft.messages import Message
from raftd.raft.ready import Ready
from raftd.raft.types import HardState


class Writes:
    """The writes of one node.

    Args:
        storage: where Readys are written.
        view: the durable log in memory.
        send: where messages go that waited for a write.
        now_ms: monotonic.
    """

    def __init__(
        self,
        storage: Storage,
        view: DurableView,
        send: Callable[[Sequence[Message]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._storage = storage
        self._view = view
        self._send = send
        self._now_ms = now_ms
        self._writing: deque[tuple[Ready, Received | None, int]] = deque()
        self._durable_number = 0
        self._held_commit: tuple[int, HardState] | None = None

    def durable(self, number: int) -> None:
        """The storage has done every Ready up to this one."""
        self._durable_number = max(self._durable_number, number)

    def take_durable(self) -> tuple[int, list[Received]]:
        """Show what is durable, and send what waited for it.

        Returns:
            The number of the last such Ready, 0 for none, and the snapshots that are to be applied now, in order.
        """
        reached = 0
        installed: list[Received] = []
        while self._writing and self._writing[0][0].number <= self._durable_number:
            ready, received, _ = self._writing.popleft()
            if received is not None:
                snapshot = received.announcement.snapshot
                self._view.restore(snapshot.index, snapshot.term)
                installed.append(received)
            self._view.append(ready.entries)
            self._send(ready.messages_after_persist)
            reached = ready.number
        return reached, installed

    @property
    def oldest_ms(self) -> int:
        """For how long the oldest write that is under way has been; 0 where there is none."""
        return self._now_ms() - self._writing[0][2] if self._writing else 0

    def compact(self, index: int) -> None:
        """Forget the log up to that index, in memory now and on the disk in its turn."""
        if index >= self._view.first_index:
            self._view.compact(index)
            self._storage.compact(index)

    def hand_over(self, ready: Ready, received: Received | None = None) -> None:
        """Have a Ready written, if there is anything in it that must be; ``received`` is its snapshot."""
        if ready.entries or ready.must_sync or ready.messages_after_persist:
            hard_state = ready.hard_state
            if hard_state is None and self._held_commit is not None:
                hard_state = self._held_commit[1]
            self._held_commit = None
            self._writing.append((ready, received, self._now_ms()))
            if not ready.entries and not ready.must_sync and len(self._writing) == 1:
                # Nothing to write and nothing being written: what waits for the disk may go at once.
                self._held_commit = None if hard_state is None else (ready.number, hard_state)
                self.durable(ready.number)
            else:
                write = (ready.number, hard_state, ready.entries, ready.must_sync)
                if received is None:
                    self._storage.submit(*write)
                else:
                    self._storage.submit(*write, install=received.file)
        elif ready.hard_state is not None:
            self._held_commit = (ready.number, ready.hard_state)

    def flush_commit(self) -> None:
        """Write the commit that is held back."""
        if self._held_commit is not None:
            number, hard_state = self._held_commit
            self._held_commit = None
            self._storage.submit(number, hard_state, (), False)
