"""The bytes of one log record: framing, checksums, and the judgement torn or damaged. Pure: bytes in, bytes out.

What may live here: encoding and decoding of records and of the items in them, and the decision what a stretch of a
segment is. No files, no segments, no state between calls.

A **record** is what one group commit writes: one write, one fsync, one checksum, and so all or nothing. It holds
**items**: entries, a hard state, or the seal that ends a segment. Records fill whole 512-byte sectors, so a write never
touches a sector that holds an older record, and a sector is the unit that a disk writes or does not::

    sector    504 bytes of payload | u32 TAG_MARK + the sector's number in its file | u32 chain
    payload   record_crc u32 | header_crc u32 | length u32 | item count u32 | number u32 | kind u16 | version u16 | body
    body      entry       kind u8 | entry type u8 | length u32 | term u64 | index u64 | data
              hard state  kind u8 | term u64 | vote u64 | commit u64
              base        kind u8 | index u64 | term u64: a snapshot of that entry takes the place of all before it

``chain`` is the checksum of the record before this one, and the first chain of a segment is the checksum of its header,
which covers cluster, store, segment number and the chain of the segment before. So a record stands only where it was
written: not elsewhere in its file, not in another segment, not in another store.

Why the tags: no written sector is ever all zero, whatever its payload, and every sector says which record and which
place it belongs to. That makes the rule of raft.md decidable: *a record is torn only if one of its 512-byte sectors is
all zero and only zeros follow*. ``header_crc`` makes it safe to ask which sectors are "its": a damaged length would
otherwise reach into the zeros behind the log and pass for torn.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from raftd.raft.types import Entry, EntryType, HardState

SECTOR_BYTES = 512
TAG_BYTES = 8
PAYLOAD_BYTES = SECTOR_BYTES - TAG_BYTES
TAG_MARK = 0xA5000000
"""Or-ed into every sector's number, so that no single flipped bit can turn a written sector into a zero one."""
MAX_SECTORS = 1 << 24
RECORD_VERSION = 1

_HEADER = struct.Struct("<IIIIIHH")
_HEADER_CHECKED = struct.Struct("<IIIHH")
_ENTRY = struct.Struct("<BBIQQ")
_HARD_STATE = struct.Struct("<BQQQ")
_BASE = struct.Struct("<BQQ")
_ZERO_SECTOR = bytes(SECTOR_BYTES)


class RecordKind(IntEnum):
    """What a record is for."""

    ITEMS = 1
    SEAL = 2


class ItemKind(IntEnum):
    """What an item in a record is."""

    ENTRY = 1
    HARD_STATE = 2
    BASE = 3


Base = tuple[int, int]
"""The index and the term of the entry that a log begins behind."""


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record, its checksums verified.

    Attributes:
        kind: what it is for.
        hard_state: the hard state it sets, if any.
        entries: the entries it appends, in order; one at or below the last index replaces that index and all after it.
        base: where the log begins from here on, before the entries; None where nothing is replaced.
        end: the offset of the first sector behind it.
        chain: its checksum, the chain of the next record.
    """

    kind: RecordKind
    hard_state: HardState | None
    entries: list[Entry]
    base: Base | None
    end: int
    chain: int


@dataclass(frozen=True, slots=True)
class EndOfLog:
    """Nothing was written here: zeros to the end of the segment."""


@dataclass(frozen=True, slots=True)
class Torn:
    """The write of the last record did not finish; ``end`` is behind its last sector that is not zero."""

    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Not what was written, and not explained by a crash: ``found`` says what is at ``offset``."""

    offset: int
    found: str


def encode_items(
    hard_state: HardState | None, entries: Sequence[Entry], base: Base | None = None
) -> tuple[bytes, int]:
    """The body of a record, and how many items are in it."""
    pack = _ENTRY.pack
    parts: list[bytes] = []
    if base is not None:
        parts.append(_BASE.pack(ItemKind.BASE, *base))
    if hard_state is not None:
        parts.append(
            _HARD_STATE.pack(ItemKind.HARD_STATE, hard_state.term, hard_state.vote, hard_state.commit)
        )
    for entry in entries:
        data = entry.data
        parts.append(pack(1, entry.type, len(data), entry.term, entry.index))
        parts.append(data)
    return b"".join(parts), len(entries) + (hard_state is not None) + (base is not None)


def decode_items(body: bytes, count: int) -> tuple[HardState | None, list[Entry], Base | None]:
    """The items of a verified body. Raises ``ValueError`` where they do not fill it exactly."""
    hard_state: HardState | None = None
    base: Base | None = None
    entries: list[Entry] = []
    unpack_entry, entry_bytes = _ENTRY.unpack_from, _ENTRY.size
    types = {int(kind): kind for kind in EntryType}
    position = 0
    try:
        for _ in range(count):
            kind = body[position]
            if kind == ItemKind.ENTRY:
                _, type_number, length, term, index = unpack_entry(body, position)
                position += entry_bytes
                data = body[position : position + length]
                if len(data) != length:
                    raise ValueError("an entry reaches beyond its record")
                position += length
                entries.append(Entry(term, index, types[type_number], data))
            elif kind == ItemKind.HARD_STATE:
                _, term, vote, commit = _HARD_STATE.unpack_from(body, position)
                position += _HARD_STATE.size
                hard_state = HardState(term, vote, commit)
            elif kind == ItemKind.BASE and position == 0:
                _, index, term = _BASE.unpack_from(body, position)
                position += _BASE.size
                base = (index, term)
            else:
                raise ValueError(f"unknown item kind {kind}")
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"items do not parse: {error!r}") from error
    if position != len(body):
        raise ValueError("bytes behind the last item")
    return hard_state, entries, base


def sectors_for(body_length: int) -> int:
    """How many sectors a record with such a body fills."""
    return -(-(_HEADER.size + body_length) // PAYLOAD_BYTES)


def encode_record(
    kind: RecordKind, body: bytes, item_count: int, *, number: int, offset: int, chain: int
) -> tuple[bytes, int]:
    """The sectors of one record, to be written at ``offset`` (a multiple of 512), and its checksum.

    Args:
        kind: what the record is for.
        body: from ``encode_items``.
        item_count: the number of items in it.
        number: the record's number in its segment, from 1.
        offset: where in the segment it will stand.
        chain: the checksum of the record before it, or of the segment's header.
    """
    count = sectors_for(len(body))
    header_crc = crc32(_HEADER_CHECKED.pack(len(body), item_count, number, kind, RECORD_VERSION), chain)
    payload = _HEADER.pack(0, header_crc, len(body), item_count, number, kind, RECORD_VERSION) + body
    out = bytearray(count * SECTOR_BYTES)
    position = 0
    for start in range(0, len(out), SECTOR_BYTES):
        piece = payload[position : position + PAYLOAD_BYTES]
        out[start : start + len(piece)] = piece
        position += PAYLOAD_BYTES
    _write_tags(out, count, offset // SECTOR_BYTES, chain)
    record_crc = crc32(memoryview(out)[4:], chain)
    out[0:4] = record_crc.to_bytes(4, "little")
    return bytes(out), record_crc


def _write_tags(out: bytearray, count: int, first_sector: int, chain: int) -> None:
    marks = struct.pack(f"<{count}I", *range(first_sector | TAG_MARK, (first_sector | TAG_MARK) + count))
    chain_bytes = chain.to_bytes(4, "little")
    for byte in range(4):
        out[PAYLOAD_BYTES + byte :: SECTOR_BYTES] = marks[byte::4]
        out[PAYLOAD_BYTES + 4 + byte :: SECTOR_BYTES] = chain_bytes[byte : byte + 1] * count


def scan_record(raw: bytes, offset: int, *, number: int, chain: int) -> Record | EndOfLog | Torn | Damage:
    """What stands at ``offset`` of a segment, given the chain that leads there.

    Args:
        raw: the whole segment, its length a multiple of 512.
        offset: where the next record must begin.
        number: the number that the record must have.
        chain: the checksum of the record before it, or of the segment's header.
    """
    if offset >= len(raw):
        return EndOfLog()
    tag = _tag(offset, chain)
    if raw[offset : offset + SECTOR_BYTES] == _ZERO_SECTOR:
        return _judge_headless(raw, offset, chain)
    if raw[offset + PAYLOAD_BYTES : offset + SECTOR_BYTES] != tag:
        return Damage(offset, "a sector that was not written for this place")
    record_crc, header_crc, length, count, found_number, kind, version = _HEADER.unpack_from(raw, offset)
    if header_crc != crc32(_HEADER_CHECKED.pack(length, count, found_number, kind, version), chain):
        return Damage(offset, "a record header with a bad checksum")
    end = offset + sectors_for(length) * SECTOR_BYTES
    if end > len(raw) or found_number != number:
        return Damage(offset, "a record header that does not fit its place")
    if record_crc != crc32(memoryview(raw)[offset + 4 : end], chain):
        return _judge_bad_record(raw, offset, end, chain)
    if version != RECORD_VERSION or kind not in (RecordKind.ITEMS, RecordKind.SEAL):
        return Damage(
            offset, f"a record of kind {kind} and version {version}, which this build does not know"
        )
    pieces = [raw[start : start + PAYLOAD_BYTES] for start in range(offset, end, SECTOR_BYTES)]
    body = b"".join(pieces)[_HEADER.size : _HEADER.size + length]
    try:
        hard_state, entries, base = decode_items(body, count)
    except ValueError as error:
        return Damage(offset, f"a record whose items do not parse: {error}")
    return Record(RecordKind(kind), hard_state, entries, base, end, record_crc)


def is_zero_from(raw: bytes, offset: int) -> bool:
    """Whether only zeros follow."""
    return raw[offset:] == bytes(max(0, len(raw) - offset))


def _tag(offset: int, chain: int) -> bytes:
    return (TAG_MARK | offset // SECTOR_BYTES).to_bytes(4, "little") + chain.to_bytes(4, "little")


def _judge_headless(raw: bytes, offset: int, chain: int) -> EndOfLog | Torn | Damage:
    """The first sector is zero: the end of the log, or a record that lost its first sector to a crash.

    A disk writes the sectors of one write in any order. What follows may belong to this one record only: a sector
    with another chain is a later record, whose write began when this one had been synced.
    """
    if is_zero_from(raw, offset):
        return EndOfLog()
    return _judge_sectors(raw, offset, len(raw), chain, "a gap of zeros with")


def _judge_bad_record(raw: bytes, offset: int, end: int, chain: int) -> Torn | Damage:
    """The checksum is bad and the extent is known: torn if a sector of it is zero and only zeros follow it."""
    if not is_zero_from(raw, end):
        return Damage(offset, "a bad record with data behind it")
    return _judge_sectors(raw, offset, end, chain, "a bad record with")


def _judge_sectors(raw: bytes, offset: int, end: int, chain: int, what: str) -> Torn | Damage:
    last_end, zero_seen = offset, False
    for start in range(offset, end, SECTOR_BYTES):
        if raw[start : start + SECTOR_BYTES] == _ZERO_SECTOR:
            zero_seen = True
            continue
        if raw[start + PAYLOAD_BYTES : start + SECTOR_BYTES] != _tag(start, chain):
            return Damage(start, f"{what} a sector behind it that is not its own")
        last_end = start + SECTOR_BYTES
    if not zero_seen:
        return Damage(offset, "a record with a bad checksum and data in every sector")
    return Torn(last_end)
