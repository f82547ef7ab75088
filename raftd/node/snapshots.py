"""Snapshots of one node: taking them, sending them, taking them in, and compacting the log behind them.

What may live here: what ``raftd.raft.ready`` says that the host owes. A snapshot is a frozen view of the applied state,
encoded in slices between the loop's turns and written by another thread, so that the loop never waits for it; it counts
when it is whole, synced and named. One that arrives is decoded before the core hears of it, for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

from raftd.codec.snapshot import decode_snapshot, encode_snapshot
from raftd.errors import RaftdError, ShuttingDown, StorageError, Unavailable
from raftd.node.applier import Applier
from raftd.node.ports import Received, SnapshotFile
from raftd.raft.messages import InstallSnapshot
from raftd.raft.types import Configuration, NodeId, Snapshot
from raftd.scheduler.state import State
from raftd.storage.errors import DamagedLog

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
"""Written and sent at a time: a snapshot, however large, takes no more memory than a few of these."""

RETRY_TURNS = 4_096
"""After a snapshot that could not be written (a full disk), so many entries pass before the next try."""

CLOSE_S = 5.0
"""A disk that hangs does not keep a node from stopping for longer."""

Blocking = Callable[..., Awaitable[Any]]
"""Runs a function that waits for the disk, or computes for long, somewhere else (``asyncio.to_thread``)."""


class SnapshotReader(Protocol):
    """An open snapshot; it stays readable when its file goes."""

    def read(self, max_bytes: int) -> bytes:
        """The next bytes; empty at the end. Raises ``StorageError`` where they are not what was written."""

    def close(self) -> None:
        """Let it go."""


class SnapshotFiles(Protocol):
    """The snapshots on the disk (``raftd.storage.snapshots.SnapshotStore``); its calls wait for the disk."""

    @property
    def newest(self) -> Snapshot | None:
        """The one that is complete, durable and named."""

    def begin(self, index: int, term: int, configuration: Configuration, *, received: bool) -> SnapshotFile:
        """A new file under a temporary name."""

    def publish(self, file: Any, /) -> Snapshot:
        """Give it its name, durably. Raises ``ValueError`` where there is a newer one."""

    def open(self, snapshot: Snapshot) -> SnapshotReader:
        """Read that very snapshot. Raises ``StorageError`` where it is gone."""


class SnapshotTransport(Protocol):
    """The way of a snapshot to another node (``raftd.transport.snapshot_stream.SnapshotSender``)."""

    async def send(self, announcement: InstallSnapshot, chunks: AsyncIterator[bytes]) -> None:
        """Return when the receiver has it. Raises ``RaftdError``."""


class Core(Protocol):
    """The node's loop, as snapshots use it (``raftd.node.node.Node``)."""

    @property
    def configuration(self) -> Configuration:
        """The one in force."""

    def receive(self, received: Received) -> None:
        """Hand the core a snapshot that has arrived."""

    def report_snapshot(self, receiver: NodeId, ok: bool) -> None:
        """Say how a stream ended."""

    def halt(self, error: BaseException) -> None:
        """The node must not go on."""

    def snapshot_taken(self, snapshot: Snapshot, kept_entries: int) -> None:
        """A snapshot is complete: compact the log behind it, but for so many entries."""


async def _outlast(blocking: Blocking, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Run it, and where this task is cancelled meanwhile, wait for its end all the same: nobody may close a file that
    another thread is writing."""
    running = asyncio.ensure_future(blocking(work, *args, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


class Policy:
    """When to take a snapshot, and how much of the log to keep behind it.

    Args:
        entries: that may be applied after the last snapshot before the next is due.
        log_bytes: their size, likewise; it grows with the snapshot, so that writing those never outweighs the log.
        kept_entries: for followers that are a little behind: they are sent entries, not a snapshot.
    """

    def __init__(self, entries: int = 20_000, log_bytes: int = 64 << 20, kept_entries: int = 5_000) -> None:
        self.entries = entries
        self.log_bytes = log_bytes
        self.kept_entries = kept_entries

    def is_due(self, entries: int, log_bytes: int, last: Snapshot | None) -> bool:
        """Whether a snapshot is due after so much."""
        size = 0 if last is None else last.size_bytes
        return entries >= self.entries or log_bytes >= max(self.log_bytes, size)


class Snapshots:
    """The snapshots of one node.

    Args:
        files: where they are kept.
        transport: how they travel.
        applier: the applied state.
        core: the node's loop.
        policy: when one is due.
        blocking: runs what waits for the disk.
        chunk_bytes: what is written and sent at a time.
    """

    def __init__(
        self,
        files: SnapshotFiles,
        transport: SnapshotTransport,
        applier: Applier,
        core: Core,
        policy: Policy,
        blocking: Blocking = asyncio.to_thread,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._files = files
        self._transport = transport
        self._applier = applier
        self._core = core
        self._policy = policy
        self._blocking = blocking
        self._entries = 0
        self._bytes = 0
        self._taking: asyncio.Task[Snapshot] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    # --- taking -------------------------------------------------------------------------------------------------

    def applied(self, entries: int, log_bytes: int) -> None:
        """So much was applied; take a snapshot if one is due."""
        self._entries += entries
        self._bytes += log_bytes
        if self._policy.is_due(self._entries, self._bytes, self._files.newest) and self._taking is None:
            self._start_taking(self._policy.kept_entries)

    async def take_snapshot(self) -> Snapshot:
        """Take one now, or wait for the one that is being taken.

        Raises:
            StorageError: it could not be written.
            ShuttingDown: this node is about to stop.
            Unavailable: nothing is applied here yet.
        """
        if not self._applier.last_applied:
            raise Unavailable("nothing is applied on this node yet", try_="wait until it has heard a leader")
        newest = self._files.newest
        if newest is not None and newest.index == self._applier.last_applied:
            return newest
        return await asyncio.shield(self._taking or self._start_taking(self._policy.kept_entries))

    def _start_taking(self, kept_entries: int) -> asyncio.Task[Snapshot]:
        if self._closed:
            raise ShuttingDown("this node is shutting down")
        self._entries = self._bytes = 0
        # Frozen here and not in the task: this call is between two applied entries, the configuration is that of both.
        frozen = self._applier.machine.state.freeze()
        place = (self._applier.last_applied, self._applier.last_applied_term, self._core.configuration)
        task = self._taking = self._spawn(self._take(place, encode_snapshot(frozen), kept_entries))
        task.add_done_callback(self._taken)
        return task

    async def _take(
        self, place: tuple[int, int, Configuration], slices: Iterator[bytes], kept_entries: int
    ) -> Snapshot:
        index, term, configuration = place
        file: SnapshotFile | None = None
        try:
            file = await _outlast(
                self._blocking, self._files.begin, index, term, configuration, received=False
            )
            chunk = bytearray()
            for piece in slices:
                chunk += piece
                if len(chunk) >= self._chunk_bytes:
                    await _outlast(self._blocking, file.write, bytes(chunk))
                    chunk.clear()
                else:
                    await asyncio.sleep(0)
            await _outlast(self._blocking, file.write, bytes(chunk))
            await _outlast(self._blocking, file.finish)
            snapshot: Snapshot = await _outlast(self._blocking, self._files.publish, file)
        except BaseException as error:
            if file is not None:
                await self._discard(file)
            if isinstance(error, ValueError):
                # A newer one has arrived from the leader meanwhile.
                newest = self._files.newest
                if newest is not None and newest.index >= index:
                    return newest
            raise
        log.info("snapshot of entry %d taken, %d bytes", snapshot.index, snapshot.size_bytes)
        self._core.snapshot_taken(snapshot, kept_entries)
        return snapshot

    def _taken(self, task: asyncio.Task[Snapshot]) -> None:
        self._taking = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        # The log goes on without it. It is tried again when some more is applied.
        self._entries = max(0, self._policy.entries - RETRY_TURNS)
        if isinstance(error, StorageError):
            log.error("no snapshot could be taken: %s", error.message)
        else:
            log.error("no snapshot could be taken", exc_info=error)

    # --- sending ------------------------------------------------------------------------------------------------

    def send(self, announcement: InstallSnapshot) -> None:
        """Stream a snapshot to a follower; how that ended is reported, once, whatever happens."""
        if self._closed:
            self._core.report_snapshot(announcement.receiver, False)
        else:
            self._spawn(self._send(announcement))

    async def _send(self, announcement: InstallSnapshot) -> None:
        snapshot, receiver = announcement.snapshot, announcement.receiver
        ok = False
        try:
            reader = await _outlast(self._blocking, self._files.open, snapshot)
            try:
                log.info("sends the snapshot of entry %d to store %016x", snapshot.index, receiver)
                await self._transport.send(announcement, self._chunks(reader))
                ok = True
            finally:
                await _outlast(self._blocking, reader.close)
        except DamagedLog as error:
            # A node whose disk changes on its own must not go on any more: who knows what else it has forgotten?
            self._core.halt(error)
        except RaftdError as error:
            log.warning(
                "the snapshot of entry %d did not reach store %016x: %s",
                snapshot.index,
                receiver,
                error.message,
            )
        finally:
            self._core.report_snapshot(receiver, ok)

    async def _chunks(self, reader: SnapshotReader) -> AsyncIterator[bytes]:
        while chunk := await _outlast(self._blocking, reader.read, self._chunk_bytes):
            yield chunk

    # --- taking in ----------------------------------------------------------------------------------------------

    def begin(self, announcement: InstallSnapshot) -> Intake:
        """A snapshot begins to arrive (``raftd.services.consensus.SnapshotIntake``).

        Raises:
            ShuttingDown: this node is about to stop.
        """
        if self._closed:
            raise ShuttingDown("this node is shutting down")
        return Intake(self._files, self._core, self._blocking, announcement)

    # --- the end ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End what is under way."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLOSE_S)

    def discard(self, file: SnapshotFile) -> None:
        """Remove a file that was not needed."""
        self._spawn(self._discard(file))

    async def _discard(self, file: SnapshotFile) -> None:
        try:
            await _outlast(self._blocking, file.abort)
        except (OSError, StorageError) as error:
            log.warning("a snapshot that is not needed could not be removed: %s", error)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Intake:
    """One snapshot on its way in, chunk by chunk."""

    def __init__(
        self, files: SnapshotFiles, core: Core, blocking: Blocking, announcement: InstallSnapshot
    ) -> None:
        self._files = files
        self._core = core
        self._blocking = blocking
        self._announcement = announcement
        self._file: SnapshotFile | None = None
        self._given_away = False

    async def write(self, data: bytes) -> None:
        """The next bytes. Raises ``StorageError``."""
        if self._file is None:
            snapshot = self._announcement.snapshot
            self._file = await _outlast(
                self._blocking,
                self._files.begin,
                snapshot.index,
                snapshot.term,
                snapshot.configuration,
                received=True,
            )
        await _outlast(self._blocking, self._file.write, data)

    async def finish(self) -> None:
        """All of it is here: sync it, read it, and hand it to the core.

        Raises:
            StorageError: it is not whole, or the disk failed.
            UnknownFormat: it is of a newer version.
        """
        file = self._file
        if file is None:
            raise StorageError("a snapshot without a byte arrived")
        await _outlast(self._blocking, file.finish)
        state = await _outlast(self._blocking, _decode, file)
        if state.applied_index != self._announcement.snapshot.index:
            raise StorageError(
                f"a snapshot of entry {self._announcement.snapshot.index} holds the state of {state.applied_index}"
            )
        self._given_away = True
        self._core.receive(Received(self._announcement, file, state))

    async def abort(self) -> None:
        """It will not be completed, or was not taken; the second time, nothing happens."""
        file, self._file = self._file, None
        if file is not None and not self._given_away:
            await _outlast(self._blocking, file.abort)


def _decode(file: SnapshotFile) -> State:
    reader = file.open()
    try:
        return decode_snapshot(iter(lambda: reader.read(CHUNK_BYTES), b""))
    finally:
        reader.close()
