"""The storage thread without a thread, and what is certain to be on the medium.

What may live here: the stand-in that runs the real grouping and the real log at simulated moments, and a record of what
was made durable that does not believe what the log says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from raftd.errors import StorageError
from raftd.raft.types import Entry, HardState, Snapshot
from raftd.storage.errors import StorageFull
from raftd.storage.recovery import Recovered
from raftd.storage.thread import FULL_RETRY_S, IDLE_FLUSH_S, DurableLog, Installable, StorageThread
from raftd.storage.wal import Wal
from tests.sim.disk import SimulatedCrash, SimulatedDisk
from tests.sim.loop import Process
from tests.sim.plan import DATA

_PREPARE_S = 0.002
LOG = f"{DATA}/log"


class NotOnTheMedium(AssertionError):
    """The log said that something is durable, and the disk knows that it is not."""


Place = tuple[int, int]
"""Index and term of an entry."""


class Durable:
    """What a store must still know after any crash.

    Attributes:
        hard_state: the last one that was synced.
        terms: of the synced entries, by index; 0 for those that a snapshot alone holds, but for its last.
        covered: the last entry of the newest snapshot.
        votes: term -> whom it was given to.
        writing: what is on its way to the medium, and may come back from a crash as a whole, or not at all.
        installing: a snapshot that may have its name, while the log does not know of it.
    """

    def __init__(self, recovered: Recovered) -> None:
        self.hard_state = recovered.hard_state
        self.terms = [0, *(entry.term for entry in recovered.entries)]
        self.covered = 0
        self.votes = (
            {recovered.hard_state.term: recovered.hard_state.vote} if recovered.hard_state.vote else {}
        )
        self.writing: tuple[Place | None, HardState | None, Sequence[Entry]] | None = None
        self.installing: Place | None = None

    @property
    def last_index(self) -> int:
        """Of the last synced entry."""
        return len(self.terms) - 1

    def has(self, index: int, term: int) -> bool:
        """Whether that entry is on the medium, in the log or, if it is committed, in a snapshot."""
        if 0 < index <= self.covered:
            return True
        return 0 <= index < len(self.terms) and self.terms[index] == term

    def snapshot_named(self, index: int) -> None:
        """A snapshot of what is applied here is complete, synced and named."""
        self.covered = max(self.covered, index)

    def synced(self) -> None:
        """What was being written is on the medium."""
        assert self.writing is not None, "a write comes before its sync"
        base, hard_state, entries = self.writing
        self.writing = None
        if base is not None:
            self._replaced(base)
        for entry in entries:
            del self.terms[entry.index :]
            self.terms.append(entry.term)
        if hard_state is not None:
            self.hard_state = hard_state
            if hard_state.vote:
                self.votes[hard_state.term] = hard_state.vote

    def _replaced(self, base: Place) -> None:
        index, term = base
        self.terms = [*self.terms[:index], *[0] * (index - len(self.terms)), term]
        self.covered = max(self.covered, index)
        self.installing = None

    def came_back(self, recovered: Recovered, newest: int) -> str:
        """Take what a restart found; what is wrong with it, in words, or empty.

        Exactly what was synced, or that and the one write that was under way, or what a start makes of a snapshot that
        had its name before the log was replaced; and nothing else.

        Args:
            newest: the last entry of the newest snapshot; 0 for none.
        """
        before = self.covered
        self.covered = max(before, newest)
        if self._differs(recovered) and self.writing is not None:
            kept = (self.hard_state, list(self.terms), dict(self.votes), self.installing)
            self.synced()
            if self._differs(recovered):
                self.hard_state, self.terms, self.votes, self.installing = kept
        if self._differs(recovered) and self.installing is not None and newest == self.installing[0]:
            index, term = self.installing
            old = self.hard_state
            self.hard_state = HardState(
                max(old.term, term), old.vote if old.term >= term else 0, max(old.commit, index)
            )
            self._replaced((index, term))
        self.writing = self.installing = None
        if newest < before:
            return f"a snapshot of {before} was named, {newest} came back"
        return self._differs(recovered)

    def _differs(self, recovered: Recovered) -> str:
        if recovered.hard_state != self.hard_state:
            return f"{self.hard_state} was synced, {recovered.hard_state} came back"
        base = recovered.base_index
        found = [entry.term for entry in recovered.entries]
        if base > self.covered or self.terms[base + 1 :] != found or self.last_index != recovered.last_index:
            return (
                f"entries of the terms {self.terms} were synced (a snapshot covers {self.covered}), "
                f"behind {base} came back {found}"
            )
        return ""


class WatchedLog:
    """A ``DurableLog`` that asks the disk after every write whether it is true (``wal.Wal`` under it)."""

    def __init__(self, wal: Wal, disk: SimulatedDisk, durable: Durable) -> None:
        self._wal = wal
        self._disk = disk
        self._durable = durable
        self._held: HardState | None = None

    @property
    def has_held(self) -> bool:
        return self._wal.has_held

    @property
    def bytes_written(self) -> int:
        return self._wal.bytes_written

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        hard_state = hard_state if hard_state is not None else self._held
        if not entries and not sync:
            self._held = hard_state
            self._wal.append(hard_state, entries, sync=sync)
            return
        self._durable.writing = (None, hard_state, entries)
        self._wal.append(hard_state, entries, sync=sync)
        self._synced()

    def flush(self) -> None:
        if self._held is not None:
            self._durable.writing = (None, self._held, ())
            self._wal.flush()
            self._synced()

    def install(self, snapshot: Snapshot, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        base = (snapshot.index, snapshot.term)
        self._durable.writing = (base, hard_state if hard_state is not None else self._held, entries)
        self._wal.install(snapshot, hard_state, entries)
        self._synced()

    def compact(self, index: int) -> None:
        self._wal.compact(index)

    def make_room(self) -> None:
        self._wal.make_room()

    def prepare_next(self) -> bool:
        return self._wal.prepare_next()

    def close(self) -> None:
        self.flush()
        self._wal.close()

    def _synced(self) -> None:
        self._held = None
        pending = self._disk.pending_sectors(LOG)
        if pending:
            raise NotOnTheMedium(f"a write was said to be durable, and {pending} of its sectors are not")
        self._durable.synced()


class SteppedStorage(StorageThread):
    """Takes groups as the thread does, and finishes each after a simulated time.

    Args:
        log: the log.
        on_done: as the thread's.
        on_failure: as the thread's.
        process: whose thread it would be; it pauses and dies with it.
        latency_s: asked for each write.
        on_full: as the thread's.
    """

    def __init__(
        self,
        log: DurableLog,
        on_done: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        *,
        process: Process,
        latency_s: Callable[[], float],
        on_full: Callable[[bool], None] = lambda _: None,
    ) -> None:
        super().__init__(log, on_done, on_failure, on_full=on_full, clock=process.loop.time)
        self._process = process
        self._latency_s = latency_s
        self._under_way: Callable[[], object] | None = None
        self._idle_number = 0
        self._failed = False

    def start(self) -> None:
        self._rest()

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        must_sync: bool,
        install: Installable | None = None,
    ) -> None:
        if self._process.fenced or self._failed:
            return
        super().submit(number, hard_state, entries, must_sync, install)
        if self._under_way is None:
            self._begin()

    def compact(self, index: int) -> None:
        if self._process.fenced or self._failed:
            return
        super().compact(index)
        if self._under_way is None:
            self._begin()

    def close(self, timeout_s: float | None = None) -> bool:
        """Write everything that was submitted, at once, and close the log."""
        if self._failed or self._process.fenced:
            return True
        try:
            if self._under_way is not None:
                self._try(self._under_way)
            while self.has_queued and not self._failed:
                self._try(self._next_write())
            self._try(self._log.close)
        except StorageFull:
            pass  # what waits was never acknowledged
        self._failed = True
        return True

    @property
    def writes(self) -> bool:
        """Whether a write is under way."""
        return self._under_way is not None

    def crash(self, disk: SimulatedDisk, random: Random) -> None:
        """The thread dies in the middle of what it does."""
        disk.crash_at = disk.step_count + random.choice((0, 1, 1, 2, 3, 4, 6, 8))
        work = self._under_way or self._log.prepare_next
        # The one is what is wanted, and of the other nobody hears any more.
        with suppress(SimulatedCrash, StorageError):
            work()
        self._failed = True

    def _begin(self) -> None:
        self._idle_number += 1
        try:
            write = self._next_write()
        except StorageError as error:
            self._fail(error)
            return
        self._under_way = write
        self._process.call_later(self._latency_s(), self._finish, write)

    def _next_write(self) -> Callable[[], object]:
        group = self._next_group()
        assert group is not None, "nothing closes the queue"
        return lambda: self._write(group)

    def _finish(self, write: Callable[[], object]) -> None:
        if self._under_way is not write:
            return
        try:
            self._try(write)
        except StorageFull:
            self._set_full(True)
            self._process.call_later(FULL_RETRY_S, self._finish, write)
            return
        self._under_way = None
        if self._failed:
            return
        if self.has_queued:
            self._begin()
        else:
            self._rest()

    def _try(self, work: Callable[[], object]) -> None:
        """Do it, unless the disk is full, which the caller must deal with."""
        if self._failed:
            return
        try:
            work()
        except StorageFull:
            raise
        except (StorageError, ValueError, NotOnTheMedium) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failed = True
        self._on_failure(error)

    # What the thread does while it waits.

    def _rest(self) -> None:
        self._idle_number += 1
        if self._full:
            self._process.call_later(FULL_RETRY_S, self._look, self._idle_number)
            return
        self._process.call_later(_PREPARE_S, self._prepare, self._idle_number)
        if self._log.has_held:
            self._process.call_later(IDLE_FLUSH_S, self._flush_held, self._idle_number)

    def _prepare(self, idle_number: int) -> None:
        if idle_number != self._idle_number or self._failed or self._under_way is not None:
            return
        try:
            more = self._log.prepare_next()
        except StorageFull:
            self._set_full(True)
            self._rest()
            return
        except StorageError as error:
            self._fail(error)
            return
        if more:
            self._process.call_later(_PREPARE_S, self._prepare, idle_number)

    def _look(self, idle_number: int) -> None:
        if idle_number == self._idle_number and self._under_way is None and not self._failed:
            self._try(self._look_for_room)
            self._rest()

    def _flush_held(self, idle_number: int) -> None:
        if idle_number == self._idle_number and self._under_way is None:
            self._try(self._flush)
