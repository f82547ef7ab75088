"""Making the next segment: zero-filled ahead of need, in slices, and given its name only when it is complete.

What may live here: the preparation of one file from nothing to a published segment. When to do it is ``wal``'s to say.

Zeros are really written and synced, not left as a hole: an fsync of a record then changes no metadata (118 us against
83 us measured), a full disk shows here and not under a record, and what a crash leaves unwritten reads as zeros, on
which the judgement torn or damaged rests. The order is: zeros, sync, header, sync, rename, directory sync. So a file
that has a segment's name is always full-sized and has a whole header.
"""

from __future__ import annotations

from raftd.storage.filesystem import File, FileSystem
from raftd.storage.record import SECTOR_BYTES
from raftd.storage.segment import TEMP_NAME, SegmentHeader, encode_header, segment_name

SLICE_BYTES = 1 << 20
"""Zeros written and synced in one go: small enough that a record that arrives meanwhile waits a few milliseconds."""


class SegmentMaker:
    """One segment on its way; every method may raise ``OSError``, after which it must not be used again."""

    def __init__(self, fs: FileSystem, directory: str) -> None:
        self._fs = fs
        self._directory = directory
        self._temp = f"{directory}/{TEMP_NAME}"
        self._file: File | None = None
        self._chain = 0
        self.zeroed_bytes = 0

    def zero_slice(self, size_bytes: int) -> None:
        """Bring one more slice of zeros to the medium, up to a file of ``size_bytes``."""
        if self._file is None:
            self._file = self._fs.create(self._temp)
        length = min(SLICE_BYTES, size_bytes - self.zeroed_bytes)
        if length > 0:
            self._file.pwrite(bytes(length), self.zeroed_bytes)
            self._file.sync()
            self.zeroed_bytes += length

    def prepare(self, size_bytes: int) -> None:
        """Bring all the zeros of a file of that size to the medium."""
        while self._file is None or self.zeroed_bytes < size_bytes:
            self.zero_slice(size_bytes)

    def name(self, header: SegmentHeader, first_record: bytes = b"") -> None:
        """Finish the file and give it its name. Until this has returned, nothing of it counts, and it may be discarded.

        Args:
            header: its ``size_bytes`` is the size of the file, at least what was zeroed already.
            first_record: written behind the header before the file gets its name.
        """
        self.prepare(header.size_bytes)
        assert self._file is not None, "prepared"
        sector, self._chain = encode_header(header)
        self._file.pwrite(sector + first_record, 0)
        self._file.sync()
        self._fs.rename(self._temp, f"{self._directory}/{segment_name(header.sequence, header.first_index)}")

    def publish(self) -> tuple[File, int]:
        """Make its name durable, and return it open with the chain that its header starts."""
        assert self._file is not None, "named"
        self._fs.fsync_dir(self._directory)
        return self._file, self._chain

    def close(self) -> None:
        """Close an unfinished file; what it left is removed at the next start."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Remove what was made so far; the maker is as new then."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.zeroed_bytes = 0
        if self._fs.exists(self._temp):
            self._fs.unlink(self._temp)


def round_up_to_sector(length: int) -> int:
    """The next multiple of the sector size."""
    return -(-length // SECTOR_BYTES) * SECTOR_BYTES
