"""The write-ahead log: entries and hard state, appended as checksummed records to preallocated segments.

What may live here: opening (repairing what a crash explains), appending, and rolling to the next segment. The bytes are
``record``'s and ``segment``'s, the judgement of what is on the disk is ``recovery``'s.

Rules:

- One ``append`` is one record, one write, one fsync. A record never spans segments; a segment that must hold a larger
  record is made larger.
- Nothing is written without an fsync. A hard state in which only the commit moved is held back and rides with the next
  record, or is flushed when the log is idle: so at most one record is ever in flight, and a crash can tear only that.
- The order of a roll: next segment complete and named durably, then the seal on the old one, synced, then the first
  record in the new one. ``recovery`` says what each crash in between looks like.
- The first record of every segment has the hard state, so that what is left after a compaction has one.
- A snapshot that takes the place of the log is one record, the first of a new segment: its base, the hard state, and
  what follows. All segments before it are obsolete then.
- Compaction removes whole segments, the oldest first, each durably before the next, and never the one being written.
- A disk without room for the next segment is no failure: nothing that counts was written (``StorageFull``). After the
  first real failure nothing is written or synced again (``StorageFailed``).
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft.types import Entry, HardState, Snapshot
from raftd.storage.errors import StorageFailed, StorageFull, is_full
from raftd.storage.filesystem import File, FileSystem
from raftd.storage.record import (
    SECTOR_BYTES,
    Base,
    RecordKind,
    encode_items,
    encode_record,
    sectors_for,
)
from raftd.storage.recovery import Recovered, Walk, walk_log
from raftd.storage.segment import TEMP_NAME, SegmentHeader, encode_header, encode_seal, segment_name
from raftd.storage.segment_maker import SegmentMaker, round_up_to_sector

DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024
MIN_SEGMENT_BYTES = 4 * SECTOR_BYTES


def create_log(
    fs: FileSystem,
    directory: str,
    *,
    cluster_id: int,
    store_id: int,
    hard_state: HardState,
    entries: Sequence[Entry],
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> None:
    """Make the first segment, with its first record, in an existing and empty directory.

    Raises ``StorageFailed``. A crash leaves either nothing but a temporary file or the whole log.
    """
    body, count = encode_items(hard_state, entries)
    size = _size_for(sectors_for(len(body)) * SECTOR_BYTES, segment_bytes)
    header = SegmentHeader(cluster_id, store_id, 1, 1, size, 0, 0)
    _, chain = encode_header(header)
    record, _ = encode_record(RecordKind.ITEMS, body, count, number=1, offset=SECTOR_BYTES, chain=chain)
    maker = SegmentMaker(fs, directory)
    try:
        maker.name(header, record)
        file, _ = maker.publish()
        file.close()
    except OSError as error:
        raise StorageFailed(f"making the log in {directory}", error) from error


class Wal:
    """An open log. One thread uses it; every call may block on the disk. Made by ``open_log``."""

    def __init__(self, fs: FileSystem, directory: str, walk: Walk, file: File, segment_bytes: int) -> None:
        tail, recovered = walk.tail, walk.recovered
        self._fs = fs
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._header = tail.header
        self._file = file
        self._offset = tail.offset
        self._number = tail.number
        self._chain = tail.chain
        self._base_index = recovered.base_index
        self._last_index = recovered.last_index
        self._last_term = recovered.term(recovered.last_index) or 0
        self._hard_state = recovered.hard_state
        self._segments = walk.segments
        """(Path, first index) of all that are there, oldest first; the last one is being written."""
        self._maker = SegmentMaker(fs, directory)
        self._held: HardState | None = None
        self._failure: StorageFailed | None = None
        self.bytes_written = 0

    @property
    def has_held(self) -> bool:
        """Whether a hard state waits for ``flush`` or the next record."""
        return self._held is not None

    @property
    def segment_sequence(self) -> int:
        """The number of the segment being written."""
        return self._header.sequence

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], *, sync: bool) -> None:
        """Make them durable, together; return when they are.

        Args:
            hard_state: the new one, None where it did not change.
            entries: in the order in which they were appended to the Raft log; an index at or below the last one
                replaces that entry and all after it.
            sync: False where only the commit moved and nobody waits for it; it is then kept for later.

        Raises:
            StorageFull: nothing was written; the same call may be made again.
            StorageFailed: nothing of it may be acknowledged, and the process must end.
        """
        self._check_alive()
        hard_state = hard_state if hard_state is not None else self._held
        if not entries and not sync:
            self._held = hard_state
            return
        if not entries and hard_state is None:
            return
        self._check_order(self._base_index, self._last_index, entries)
        self._append(hard_state, entries, None)

    def install(self, snapshot: Snapshot, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Have a snapshot, complete and named, take the place of the whole log; return when that is durable.

        Args:
            snapshot: what the log begins behind from now on.
            hard_state: the new one, None where it did not change.
            entries: that follow it.

        Raises ``StorageFull`` and ``StorageFailed``, as ``append``.
        """
        self._check_alive()
        self._check_order(snapshot.index, snapshot.index, entries)
        hard_state = hard_state if hard_state is not None else self._held
        commit = (hard_state or self._hard_state).commit
        if commit > snapshot.index + len(entries):
            raise ValueError(f"commit is {commit}, but the log would end at {snapshot.index + len(entries)}")
        self._append(hard_state, entries, (snapshot.index, snapshot.term))
        self._purge(len(self._segments) - 1)

    def compact(self, index: int) -> None:
        """Remove the segments that hold nothing above that index. Raises ``StorageFailed``.

        Args:
            index: covered by a snapshot that is complete and named.
        """
        self._check_alive()
        if self._offset == SECTOR_BYTES:
            # Nothing is in this segment yet, no hard state either, and the one before it may be as empty.
            return
        count = 0
        while count < len(self._segments) - 1 and self._segments[count + 1][1] - 1 <= index:
            count += 1
        self._purge(count)
        if count:
            self._base_index = max(self._base_index, self._segments[0][1] - 1)

    def purge_replaced(self, count: int) -> None:
        """Remove the first segments, which a snapshot has replaced. Raises ``StorageFailed``."""
        self._purge(count)

    def make_room(self) -> None:
        """Have the whole next segment ready. Raises ``StorageFull`` and ``StorageFailed``."""
        self._check_alive()
        try:
            self._maker.prepare(self._segment_bytes)
        except OSError as error:
            raise self._no_room("preallocating the next log segment", error) from error

    def flush(self) -> None:
        """Make a held-back hard state durable. Raises ``StorageFull`` and ``StorageFailed``."""
        if self._held is not None:
            self.append(None, (), sync=True)

    def prepare_next(self) -> bool:
        """Zero one slice of the next segment if this one fills up; say whether there was anything to do.

        Called between appends, after their acknowledgement, so that a roll finds its segment ready: the next segment
        is kept zeroed to twice the share that this one is filled. Raises ``StorageFull`` and ``StorageFailed``.
        """
        self._check_alive()
        wanted = min(self._segment_bytes, 2 * self._offset * self._segment_bytes // self._header.size_bytes)
        if self._maker.zeroed_bytes >= wanted or 4 * self._offset < self._header.size_bytes:
            return False
        try:
            self._maker.zero_slice(self._segment_bytes)
        except OSError as error:
            raise self._no_room("preallocating the next log segment", error) from error
        return True

    def close(self) -> None:
        """Flush what is held back, unless the log has failed, and close. Raises ``StorageFailed``."""
        try:
            if self._failure is None:
                self.flush()
        finally:
            self._maker.close()
            self._file.close()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    @staticmethod
    def _check_order(base_index: int, last_index: int, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.index <= base_index:
                raise ValueError(f"entry {entry.index} in a log that begins behind entry {base_index}")
            if entry.index > last_index + 1:
                raise ValueError(f"entry {entry.index} cannot follow entry {last_index}")
            last_index = entry.index

    def _append(self, hard_state: HardState | None, entries: Sequence[Entry], base: Base | None) -> None:
        try:
            self._write(hard_state, entries, base)
        except OSError as error:
            raise self._fail("writing the log", error) from error
        if base is not None:
            self._base_index = base[0]
            self._last_index, self._last_term = base
        if entries:
            self._last_index, self._last_term = entries[-1].index, entries[-1].term
        if hard_state is not None:
            self._hard_state = hard_state
        self._held = None

    def _write(self, hard_state: HardState | None, entries: Sequence[Entry], base: Base | None) -> None:
        begun = self._offset > SECTOR_BYTES
        body, count = encode_items(self._first(hard_state, begun), entries, base)
        needed = sectors_for(len(body)) * SECTOR_BYTES
        if (begun and base is not None) or self._offset + needed + SECTOR_BYTES > self._header.size_bytes:
            body, count = encode_items(self._first(hard_state, False), entries, base)
            self._roll(_size_for(sectors_for(len(body)) * SECTOR_BYTES, self._segment_bytes))
        record, chain = encode_record(
            RecordKind.ITEMS, body, count, number=self._number, offset=self._offset, chain=self._chain
        )
        self._file.pwrite(record, self._offset)
        self._file.sync()
        self._offset += len(record)
        self._number += 1
        self._chain = chain
        self.bytes_written += len(record)

    def _first(self, hard_state: HardState | None, begun: bool) -> HardState | None:
        """What a record says of the hard state: the first one of a segment says it in any case."""
        return self._hard_state if hard_state is None and not begun else hard_state

    def _roll(self, size: int) -> None:
        seal, seal_chain = encode_seal(number=self._number, offset=self._offset, chain=self._chain)
        old = self._header
        header = SegmentHeader(
            old.cluster_id,
            old.store_id,
            old.sequence + 1,
            self._last_index + 1,
            size,
            seal_chain,
            self._last_term,
        )
        try:
            self._maker.name(header)
        except OSError as error:
            raise self._no_room("making the next log segment", error) from error
        file, chain = self._maker.publish()
        self._file.pwrite(seal, self._offset)
        self._file.sync()
        self._file.close()
        self._maker = SegmentMaker(self._fs, self._directory)
        self._header, self._file, self._offset, self._number, self._chain = (
            header,
            file,
            SECTOR_BYTES,
            1,
            chain,
        )
        name = segment_name(header.sequence, header.first_index)
        self._segments.append((f"{self._directory}/{name}", header.first_index))
        self.bytes_written += len(seal) + SECTOR_BYTES

    def _purge(self, count: int) -> None:
        try:
            for path, _ in self._segments[:count]:
                self._fs.unlink(path)
                # One at a time: a crash must not leave a gap.
                self._fs.fsync_dir(self._directory)
        except OSError as error:
            raise self._fail("removing an old log segment", error) from error
        del self._segments[:count]

    def _no_room(self, doing: str, error: OSError) -> StorageFailed | StorageFull:
        """What has failed was no part of the log yet: where it was for want of room, it can be made again."""
        if not is_full(error):
            return self._fail(doing, error)
        try:
            self._maker.discard()
        except OSError as failure:
            return self._fail("removing what was preallocated", failure)
        return StorageFull(self._directory)

    def _fail(self, doing: str, error: OSError) -> StorageFailed:
        self._failure = StorageFailed(f"{doing} in {self._directory}", error)
        return self._failure


def open_log(
    fs: FileSystem,
    directory: str,
    *,
    cluster_id: int,
    store_id: int,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> tuple[Wal, Recovered]:
    """Read the log, repair what a crash explains, and open it for appending.

    Raises ``DamagedLog`` and ``StorageFailed``.
    """
    if segment_bytes < MIN_SEGMENT_BYTES or segment_bytes % SECTOR_BYTES:
        raise ValueError(f"segment_bytes is {segment_bytes}, not a multiple of 512 from {MIN_SEGMENT_BYTES}")
    try:
        if TEMP_NAME in fs.listdir(directory):
            fs.unlink(f"{directory}/{TEMP_NAME}")
        fs.fsync_dir(directory)
        walk = walk_log(fs, directory, cluster_id=cluster_id, store_id=store_id)
        file = _settle(fs, walk)
    except OSError as error:
        raise StorageFailed(f"opening the log in {directory}", error) from error
    wal = Wal(fs, directory, walk, file, segment_bytes)
    wal.purge_replaced(walk.replaced)
    return wal, walk.recovered


def _settle(fs: FileSystem, walk: Walk) -> File:
    """Make what was read durable, for it may have been in the page cache only, and cut the torn tail.

    The process may have been killed between a write and its fsync, or after a failed fsync, which leaves pages that are
    clean and not on the medium. Only the last record can be in that state: it is written again and synced.
    """
    if walk.before is not None:
        before = walk.before
        seal, _ = encode_seal(number=before.number, offset=before.offset, chain=before.chain)
        sealed = fs.open(before.file)
        sealed.pwrite(seal, before.offset)
        sealed.sync()
        sealed.close()
    tail = walk.tail
    file = fs.open(tail.file)
    torn = walk.recovered.torn_tail
    if torn is not None:
        file.pwrite(bytes(torn.end - torn.offset), torn.offset)
    file.pwrite(tail.last_record, tail.offset - len(tail.last_record))
    file.sync()
    return file


def _size_for(record_bytes: int, segment_bytes: int) -> int:
    """The size of a segment that can hold this record beside its header and its seal."""
    return max(segment_bytes, round_up_to_sector(record_bytes + 2 * SECTOR_BYTES))
