"""The storage thread: one FIFO between the event loop and the log, with group commit.

What may live here: the queue, the grouping and its figures. How a log is written is behind ``DurableLog``.

Everything that queued while the last fsync ran goes into the next record: one write and one fsync for all of it
(thesis §10.2.1). Completions are reported in order, once a group, by the largest number in it, which attests everything
before it. A snapshot that takes the place of the log is a group of its own. After a failure nothing is reported again.

A disk without room is no failure: what is queued waits, in its order, and is tried again until there is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from raftd.raft.types import Entry, HardState, Snapshot, entry_bytes
from raftd.storage.errors import StorageFull

MAX_GROUP_BYTES = 8 * 1024 * 1024
"""A group takes no further submission once it holds this much, so that the first one in it does not wait for ever."""
IDLE_FLUSH_S = 0.5
"""How long the log is idle before a held-back commit is flushed, so that a restart knows what was committed."""
FULL_RETRY_S = 1.0
"""How often a full disk is looked at again."""
EWMA_WEIGHT = 0.1


class DurableLog(Protocol):
    """What the thread writes to: ``wal.Wal``, or ``memory.MemoryLog``."""

    @property
    def has_held(self) -> bool:
        """Whether a hard state waits for ``flush``."""

    @property
    def bytes_written(self) -> int:
        """Bytes of records written so far."""

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        """Make them durable and return, or raise."""

    def install(self, snapshot: Snapshot, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Have a snapshot take the place of everything, durably, and return, or raise."""

    def compact(self, index: int) -> None:
        """Remove what is not needed above that index, or some of it."""

    def make_room(self) -> None:
        """Have all the room that the next segment needs, or raise ``StorageFull``."""

    def flush(self) -> None:
        """Make a held-back hard state durable."""

    def prepare_next(self) -> bool:
        """A small piece of work ahead of need; whether there was any."""

    def close(self) -> None:
        """Flush and close."""


@dataclass(frozen=True, slots=True)
class StorageMetrics:
    """Figures since the start, for status and metrics.

    Attributes:
        queue_depth: submissions that wait or are being written.
        group_count: groups that were written with an fsync.
        submission_count: submissions that were completed.
        bytes_written: bytes of records.
        fsync_last_ms: the last write with its fsync.
        fsync_mean_ms: its moving average.
        fsync_max_ms: the slowest one.
    """

    queue_depth: int
    group_count: int
    submission_count: int
    bytes_written: int
    fsync_last_ms: float
    fsync_mean_ms: float
    fsync_max_ms: float


class Installable(Protocol):
    """The file of a snapshot that has arrived (``snapshots.SnapshotWriter``)."""

    def publish(self) -> Snapshot:
        """Give it its name, durably; the second time, nothing happens."""


@dataclass(slots=True)
class _Submission:
    number: int
    hard_state: HardState | None
    entries: Sequence[Entry]
    must_sync: bool
    install: Installable | None = None


@dataclass(slots=True)
class _Compaction:
    index: int


_Item = _Submission | _Compaction | None
"""What is queued; None to close."""


class _GivenUp(Exception):
    """The thread is to end while the disk is full: what waits was never acknowledged."""


class StorageThread:
    """Owns a log from ``start`` to ``close``.

    Args:
        log: used by this thread alone from now on.
        on_done: called in the storage thread with the number up to which everything is durable.
        on_failure: called in the storage thread, once, with what went wrong; the host must end the process without
            acknowledging. Nothing is written or reported after it.
        on_full: called in the storage thread when there is no room for the next segment, and when there is again.
        clock: monotonic seconds, for the figures.
    """

    def __init__(
        self,
        log: DurableLog,
        on_done: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        *,
        on_full: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
        full_retry_s: float = FULL_RETRY_S,
    ) -> None:
        self._log = log
        self._on_done = on_done
        self._on_failure = on_failure
        self._on_full = on_full
        self._clock = clock
        self._full_retry_s = full_retry_s
        self._full = False
        self._next_look_s = 0.0
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._put_back: list[_Item] = []
        """Taken from the queue too early; first in order."""
        self._told_to_close = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._submitted = 0
        self._completed = 0
        self._groups = 0
        self._last_s = self._mean_s = self._max_s = 0.0
        self._closing = False

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        must_sync: bool,
        install: Installable | None = None,
    ) -> None:
        """Queue one Ready's writes and return at once. From one thread only.

        Args:
            number: the Ready's, growing.
            hard_state: None where it did not change.
            entries: to append; the first replaces everything at its index and above.
            must_sync: False where nothing must be durable before ``on_done``; entries are always made durable.
            install: a snapshot that takes the place of the whole log, before the entries.
        """
        if self._closing:
            raise RuntimeError("the storage thread is closed")
        self._submitted += 1
        self._queue.put(_Submission(number, hard_state, entries, must_sync or bool(entries), install))

    def compact(self, index: int) -> None:
        """Queue the removal of what is not needed above that index; a complete snapshot covers it."""
        if not self._closing:
            self._queue.put(_Compaction(index))

    def close(self, timeout_s: float | None = None) -> bool:
        """Write and report everything that was submitted, close the log, and wait for the thread to end.

        While the disk is full, what waits is given up: none of it was acknowledged.

        Args:
            timeout_s: how long to wait for a disk that does not answer; None: for ever.

        Returns:
            Whether the thread has ended.
        """
        if not self._closing:
            self._closing = True
            self._queue.put(None)
            self._told_to_close.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def metrics(self) -> StorageMetrics:
        """The figures as they are now; from any thread."""
        return StorageMetrics(
            queue_depth=self._submitted - self._completed,
            group_count=self._groups,
            submission_count=self._completed,
            bytes_written=self._log.bytes_written,
            fsync_last_ms=self._last_s * 1000,
            fsync_mean_ms=self._mean_s * 1000,
            fsync_max_ms=self._max_s * 1000,
        )

    def _run(self) -> None:
        try:
            with suppress(_GivenUp):
                while (group := self._next_group()) is not None:
                    self._write_when_there_is_room(group)
            # A commit that was held back and finds no room is learned again from any leader.
            with suppress(StorageFull):
                self._log.close()
        except BaseException as error:
            # Whatever it is, nothing of the group is durable for certain: the host ends the process.
            self._on_failure(error)

    def _next_group(self) -> list[_Submission] | _Compaction | None:
        """What is to be done next: everything that is queued and can be one write, after waiting for at least one.

        None to close. Idle work is done meanwhile.
        """
        first = self._put_back.pop() if self._put_back else self._wait()
        if first is None or isinstance(first, _Compaction):
            return first
        group = [first]
        size = 0
        while first.install is None:
            size += sum(map(entry_bytes, group[-1].entries))
            if size >= MAX_GROUP_BYTES:
                return group
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group
            if item is None or isinstance(item, _Compaction) or item.install is not None:
                self._put_back.append(item)
                return group
            group.append(item)
        return group

    @property
    def has_queued(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._put_back) or not self._queue.empty()

    def _wait(self) -> _Item:
        while self._full:
            wait_s = self._next_look_s - self._clock()
            if wait_s <= 0:
                self._look_for_room()
                continue
            try:
                return self._queue.get(timeout=wait_s)
            except Empty:
                continue
        try:
            while self._log.prepare_next():
                try:
                    return self._queue.get_nowait()
                except Empty:
                    continue
        except StorageFull:
            self._set_full(True)
            return self._wait()
        if self._log.has_held:
            try:
                return self._queue.get(timeout=IDLE_FLUSH_S)
            except Empty:
                if not self._flush():
                    return self._wait()
        return self._queue.get()

    def _look_for_room(self) -> None:
        self._next_look_s = self._clock() + self._full_retry_s
        try:
            self._log.make_room()
        except StorageFull:
            return
        self._set_full(False)

    def _set_full(self, full: bool) -> None:
        if full != self._full:
            self._full = full
            self._next_look_s = self._clock() + self._full_retry_s
            self._on_full(full)

    def _flush(self) -> bool:
        """Whether there was room for it; a commit alone is learned again from any leader."""
        try:
            self._log.flush()
        except StorageFull:
            self._set_full(True)
            return False
        return True

    def _write_when_there_is_room(self, group: list[_Submission] | _Compaction) -> None:
        while True:
            try:
                self._write(group)
            except StorageFull:
                self._set_full(True)
                if self._told_to_close.wait(self._full_retry_s):
                    raise _GivenUp from None
            else:
                return

    def _write(self, group: list[_Submission] | _Compaction) -> None:
        if isinstance(group, _Compaction):
            self._log.compact(group.index)
            return
        hard_state: HardState | None = None
        entries: Sequence[Entry] = group[0].entries
        if len(group) > 1:
            entries = [entry for submission in group for entry in submission.entries]
        for submission in group:
            hard_state = submission.hard_state if submission.hard_state is not None else hard_state
        sync = any(submission.must_sync for submission in group)
        started = self._clock()
        if group[0].install is not None:
            self._log.install(group[0].install.publish(), hard_state, entries)
        else:
            self._log.append(hard_state, entries, sync=sync)
        if sync:
            self._count(self._clock() - started)
        self._completed += len(group)
        self._on_done(group[-1].number)

    def _count(self, took_s: float) -> None:
        self._groups += 1
        self._last_s = took_s
        self._mean_s = took_s if self._groups == 1 else self._mean_s + EWMA_WEIGHT * (took_s - self._mean_s)
        self._max_s = max(self._max_s, took_s)
