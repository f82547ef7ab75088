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
- After the first failure nothing is written or synced again (``StorageFailed``).
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.raft.types import Entry, HardState
from raftd.storage.errors import StorageFailed
from raftd.storage.filesystem import File, FileSystem
from raftd.storage.record import (
    SECTOR_BYTES,
    RecordKind,
    encode_items,
    encode_record,
    sectors_for,
)
from raftd.storage.recovery import Recovered, Tail, Walk, walk_log
from raftd.storage.segment import TEMP_NAME, SegmentHeader, encode_header, encode_seal
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
    body = encode_items(hard_state, entries)
    size = _size_for(sectors_for(len(body)) * SECTOR_BYTES, segment_bytes)
    header = SegmentHeader(cluster_id, store_id, 1, 1, size, 0)
    _, chain = encode_header(header)
    record, _ = encode_record(
        RecordKind.ITEMS, body, 1 + len(entries), number=1, offset=SECTOR_BYTES, chain=chain
    )
    maker = SegmentMaker(fs, directory)
    try:
        file, _ = maker.publish(header, record)
        file.close()
    except OSError as error:
        raise StorageFailed(f"making the log in {directory}", error) from error


class Wal:
    """An open log. One thread uses it; every call may block on the disk. Made by ``open_log``."""

    def __init__(
        self, fs: FileSystem, directory: str, tail: Tail, file: File, last_index: int, segment_bytes: int
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._header = tail.header
        self._file = file
        self._offset = tail.offset
        self._number = tail.number
        self._chain = tail.chain
        self._last_index = last_index
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

        Raises ``StorageFailed``: nothing of it may be acknowledged, and the process must end.
        """
        if self._failure is not None:
            raise self._failure
        hard_state = hard_state if hard_state is not None else self._held
        if not entries and not sync:
            self._held = hard_state
            return
        if not entries and hard_state is None:
            return
        last_index = self._check_order(entries)
        body = encode_items(hard_state, entries)
        try:
            self._write(body, len(entries) + (hard_state is not None))
        except OSError as error:
            raise self._fail("writing the log", error) from error
        self._last_index = last_index
        self._held = None

    def flush(self) -> None:
        """Make a held-back hard state durable. Raises ``StorageFailed``."""
        if self._held is not None:
            self.append(None, (), sync=True)

    def prepare_next(self) -> bool:
        """Zero one slice of the next segment if this one fills up; say whether there was anything to do.

        Called between appends, after their acknowledgement, so that a roll finds its segment ready: the next segment
        is kept zeroed to twice the share that this one is filled. Raises ``StorageFailed``, also when the disk is full.
        """
        if self._failure is not None:
            raise self._failure
        wanted = min(self._segment_bytes, 2 * self._offset * self._segment_bytes // self._header.size_bytes)
        if self._maker.zeroed_bytes >= wanted or 4 * self._offset < self._header.size_bytes:
            return False
        try:
            self._maker.zero_slice(self._segment_bytes)
        except OSError as error:
            raise self._fail("preallocating the next log segment", error) from error
        return True

    def close(self) -> None:
        """Flush what is held back, unless the log has failed, and close. Raises ``StorageFailed``."""
        try:
            if self._failure is None:
                self.flush()
        finally:
            self._maker.close()
            self._file.close()

    def _check_order(self, entries: Sequence[Entry]) -> int:
        last_index = self._last_index
        for entry in entries:
            if not 0 < entry.index <= last_index + 1:
                raise ValueError(f"entry {entry.index} cannot follow entry {last_index}")
            last_index = entry.index
        return last_index

    def _write(self, body: bytes, item_count: int) -> None:
        needed = sectors_for(len(body)) * SECTOR_BYTES
        if self._offset + needed + SECTOR_BYTES > self._header.size_bytes:
            self._roll(_size_for(needed, self._segment_bytes))
        record, chain = encode_record(
            RecordKind.ITEMS, body, item_count, number=self._number, offset=self._offset, chain=self._chain
        )
        self._file.pwrite(record, self._offset)
        self._file.sync()
        self._offset += len(record)
        self._number += 1
        self._chain = chain
        self.bytes_written += len(record)

    def _roll(self, size: int) -> None:
        seal, seal_chain = encode_seal(number=self._number, offset=self._offset, chain=self._chain)
        old = self._header
        header = SegmentHeader(
            old.cluster_id, old.store_id, old.sequence + 1, self._last_index + 1, size, seal_chain
        )
        file, chain = self._maker.publish(header)
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
        self.bytes_written += len(seal) + SECTOR_BYTES

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
    entries = walk.recovered.entries
    last_index = entries[-1].index if entries else 0
    return Wal(fs, directory, walk.tail, file, last_index, segment_bytes), walk.recovered


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
