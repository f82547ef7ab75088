"""A segment's name and header: which stretch of which store's log a file is. Pure: bytes and names, no files.

What may live here: the header's encoding, the naming rule and their checks.

A segment is a file of fixed size, written full of zeros before it gets its name, and never used again once its log has
moved on. Its first sector is the header; its chain, the header's checksum, starts the chain of its records.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from zlib import crc32

from raftd.storage.record import SECTOR_BYTES, RecordKind, encode_record

SEGMENT_FORMAT = 2
MAGIC = b"RAFTDLOG"
TEMP_NAME = "next.tmp"
"""The one name under which a segment is prepared. A file left under it by a crash is worth nothing."""

_HEADER = struct.Struct("<8sIIQQQQQQ")
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says about itself.

    Attributes:
        cluster_id: the cluster the store belongs to.
        store_id: the store that wrote it.
        sequence: the segment's number, from 1, without gaps.
        first_index: the index after the last entry before this segment, when it was made.
        size_bytes: the length of the whole file.
        previous_chain: the chain at the seal of the segment before; 0 in the first.
        previous_term: the term of the entry before ``first_index``, when this segment was made: where the log begins
            with this segment, that is all that is left of what came before. 0 where no entry was before.
    """

    cluster_id: int
    store_id: int
    sequence: int
    first_index: int
    size_bytes: int
    previous_chain: int
    previous_term: int


def segment_name(sequence: int, first_index: int) -> str:
    """The file name: sequence and first index, so that names sort as the log runs."""
    return f"{sequence:016x}-{first_index:016x}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Sequence and first index, or None for a name that no segment has."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def encode_header(header: SegmentHeader) -> tuple[bytes, int]:
    """The header's sector, and its checksum, which is the chain of the first record."""
    fields = _HEADER.pack(
        MAGIC,
        SEGMENT_FORMAT,
        header.previous_chain,
        header.cluster_id,
        header.store_id,
        header.sequence,
        header.first_index,
        header.size_bytes,
        header.previous_term,
    )
    sector = fields + bytes(SECTOR_BYTES - len(fields) - 4)
    chain = crc32(sector)
    return sector + chain.to_bytes(4, "little"), chain


def decode_header(raw: bytes) -> tuple[SegmentHeader, int]:
    """The header and the chain that starts with it. Raises ``ValueError`` that says what is wrong."""
    sector = raw[:SECTOR_BYTES]
    if len(sector) < SECTOR_BYTES:
        raise ValueError("shorter than a segment header")
    chain = crc32(sector[:-4])
    if chain != int.from_bytes(sector[-4:], "little"):
        raise ValueError("a segment header with a bad checksum")
    magic, version, previous_chain, *numbers = _HEADER.unpack_from(sector)
    if magic != MAGIC or version != SEGMENT_FORMAT:
        raise ValueError(f"a segment of format {version}, which this build does not know")
    cluster_id, store_id, sequence, first_index, size, previous_term = numbers
    return (
        SegmentHeader(cluster_id, store_id, sequence, first_index, size, previous_chain, previous_term),
        chain,
    )


def encode_seal(*, number: int, offset: int, chain: int) -> tuple[bytes, int]:
    """The record that ends a segment: determined by its place, so the next segment's header can be written first."""
    return encode_record(RecordKind.SEAL, b"", 0, number=number, offset=offset, chain=chain)
