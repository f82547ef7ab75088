"""Records: what is written is read; every sector that a crash may lose is judged torn; anything else is damage."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.raft.types import Entry, EntryType, HardState
from raftd.storage.record import (
    SECTOR_BYTES,
    Base,
    Damage,
    EndOfLog,
    Record,
    RecordKind,
    Torn,
    decode_items,
    encode_items,
    encode_record,
    scan_record,
)
from tests.storage.logs import entry

U64 = st.integers(0, 2**63 - 1)
entries_of_any_kind = st.lists(
    st.builds(Entry, U64, U64, st.sampled_from(EntryType), st.binary(max_size=1500)), max_size=6
)
hard_states = st.none() | st.builds(HardState, U64, st.integers(0, 2**64 - 1), U64)
bases = st.none() | st.tuples(U64, U64)
CHAIN = 0xDEADBEEF
OFFSET = 1024


def record_of(*entries: Entry) -> bytes:
    return encode_record(
        RecordKind.ITEMS, *encode_items(None, entries), number=1, offset=OFFSET, chain=CHAIN
    )[0]


def scan(record: bytes, behind: bytes = bytes(2048)) -> Record | EndOfLog | Torn | Damage:
    return scan_record(bytes(OFFSET) + record + behind, OFFSET, number=1, chain=CHAIN)


@given(hard_states, entries_of_any_kind, bases, st.integers(0, 2**32 - 1), st.integers(0, 2000))
def test_what_is_written_is_read(
    hard_state: HardState | None, entries: list[Entry], base: Base | None, chain: int, sector: int
) -> None:
    body, count = encode_items(hard_state, entries, base)
    offset = sector * SECTOR_BYTES
    record, new_chain = encode_record(
        RecordKind.ITEMS, body, count, number=sector + 1, offset=offset, chain=chain
    )
    found = scan_record(bytes(offset) + record + bytes(512), offset, number=sector + 1, chain=chain)
    assert found == Record(RecordKind.ITEMS, hard_state, entries, base, offset + len(record), new_chain)


@given(st.binary(max_size=200), st.integers(0, 10))
def test_items_that_are_no_items_are_refused_in_one_way(body: bytes, count: int) -> None:
    try:
        hard_state, entries, base = decode_items(body, count)
    except ValueError:
        return
    assert len(encode_items(hard_state, entries, base)[0]) <= len(body)


@given(entries_of_any_kind.filter(bool))
def test_no_sector_of_a_record_is_ever_zero(entries: list[Entry]) -> None:
    record = record_of(*entries)
    sectors = [record[start : start + SECTOR_BYTES] for start in range(0, len(record), SECTOR_BYTES)]
    assert all(any(sector) for sector in sectors)


def test_a_record_of_zeros_is_torn_exactly_when_a_sector_is_missing() -> None:
    record = record_of(entry(2, 1, bytes(2000)))
    sectors = [record[start : start + SECTOR_BYTES] for start in range(0, len(record), SECTOR_BYTES)]
    assert len(sectors) == 5
    for written in product((True, False), repeat=len(sectors)):
        raw = b"".join(
            sector if kept else bytes(SECTOR_BYTES) for sector, kept in zip(sectors, written, strict=True)
        )
        found = scan(raw)
        if all(written):
            assert isinstance(found, Record)
        elif any(written):
            last = max(number for number, kept in enumerate(written, 1) if kept)
            assert found == Torn(OFFSET + last * SECTOR_BYTES)
        else:
            assert found == EndOfLog()


def test_a_missing_sector_with_anything_behind_the_record_is_damage() -> None:
    record = bytearray(record_of(entry(2, 1, b"d" * 2000)))
    record[512:1024] = bytes(512)
    assert isinstance(scan(bytes(record)), Torn)
    assert isinstance(scan(bytes(record), bytes(1024) + b"\1" + bytes(1023)), Damage)


def test_a_headless_record_with_a_later_record_behind_it_is_damage() -> None:
    record = record_of(entry(2, 1, b"d" * 600))
    later, _ = encode_record(
        RecordKind.ITEMS,
        *encode_items(None, [entry(3)]),
        number=2,
        offset=OFFSET + len(record),
        chain=CHAIN + 1,
    )
    assert isinstance(scan(bytes(512) + record[512:]), Torn)
    assert isinstance(scan(bytes(512) + record[512:], later + bytes(512)), Damage)
    assert isinstance(scan(bytes(len(record)), later + bytes(512)), Damage)


def test_every_flipped_bit_of_a_whole_record_is_damage_and_never_torn() -> None:
    """Also in the length, which could otherwise reach into the zeros behind and make the record look torn."""
    record = record_of(entry(2, 1, bytes(600)))
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << (bit % 8)
        assert isinstance(scan(bytes(flipped)), Damage), bit


@pytest.mark.parametrize("shift", [-512, 512, 1024])
def test_a_record_in_another_place_is_damage(shift: int) -> None:
    record = record_of(entry(2, 1, b"d" * 600))
    raw = bytes(OFFSET + shift) + record + bytes(2048)
    assert isinstance(scan_record(raw, OFFSET + min(shift, 0), number=1, chain=CHAIN), Damage)


def test_a_record_after_another_history_is_damage() -> None:
    raw = bytes(OFFSET) + record_of(entry(2))
    assert isinstance(scan_record(raw, OFFSET, number=1, chain=CHAIN + 1), Damage)
    assert isinstance(scan_record(raw, OFFSET, number=2, chain=CHAIN), Damage)


def test_a_record_that_does_not_fit_its_segment_is_damage() -> None:
    record = record_of(entry(2, 1, b"d" * 600))
    assert isinstance(scan_record(bytes(OFFSET) + record[:512], OFFSET, number=1, chain=CHAIN), Damage)
