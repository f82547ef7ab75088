"""Records of requests: found by their id, forgotten in order, the same after a freeze."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.model import RequestRecord
from raftd.scheduler.request_table import RequestTable, unpack_request
from raftd.scheduler.requests import id_of, key_of

ids = (
    st.sampled_from(("", "a", "\0a", "\0\0a", "sweep-1", "0" * 12 + "-" + "0" * 20, "0" * 32, "\ud800"))
    | st.from_regex(r"\A[0-9a-f]{12}-[0-9a-f]{20}\Z")
    | st.text(max_size=128)
)
u64 = st.integers(0, 2**64 - 1)
records = st.builds(
    RequestRecord, ids, st.binary(max_size=16), u64, u64, st.none() | st.integers(1, 2**64 - 1), u64
)


@given(ids, ids)
def test_an_id_is_its_key_and_no_other(one: str, other: str) -> None:
    assert id_of(key_of(one)) == one
    assert (key_of(one) == key_of(other)) == (one == other)


moves = st.lists(st.sampled_from(("add", "add", "forget", "hold", "drop")), max_size=60)


@given(st.lists(records, max_size=20, unique_by=lambda record: record.request_id), moves)
def test_a_table_is_a_line_and_what_is_held_and_finds_by_id(
    made: list[RequestRecord], moves: list[str]
) -> None:
    table, coming = RequestTable(), iter(made)
    line, held = dict[int, RequestRecord](), dict[int, RequestRecord]()
    frozen = []
    for move in moves:
        if move == "add" and (record := next(coming, None)) is not None:
            line[table.next_number] = record
            table.add(record)
        elif move == "forget" and line:
            table.forget_oldest()
            del line[min(line)]
        elif move == "hold" and line:
            table.hold_oldest()
            number = min(line)
            held[number] = line.pop(number)
        elif move == "drop":
            for one in made[::2]:
                table.forget_held(one.request_id)
            held = {number: one for number, one in held.items() if one not in made[::2]}
        kept = dict(sorted((held | line).items()))
        frozen.append((table.freeze(), kept, line.copy(), table.oldest_number, table.next_number))
        assert dict(table.items()) == kept
        assert list(table.values()) == list(kept.values())
        assert table.oldest == next(iter(line.values()), None)
        assert len(table) == len(kept)
        known = kept.values()
        assert [table.get(one.request_id) for one in made] == [one if one in known else None for one in made]
        assert list(line) == list(range(table.oldest_number, table.next_number))
    for chunks, then, line_then, oldest_number, next_number in frozen:
        numbered = dict(unpack_request(key, data) for chunk in chunks for key, data in chunk.items())
        assert numbered == then
        again = RequestTable.thaw(reversed(chunks), oldest_number, next_number)
        assert list(again.items()) == list(then.items())
        assert again.oldest == next(iter(line_then.values()), None)


def test_there_is_no_oldest_of_none() -> None:
    with pytest.raises(IndexError):
        RequestTable().forget_oldest()


def test_ids_that_differ_in_one_place_only_are_not_gathered_in_one_bucket() -> None:
    """Else the first write after a freeze would copy all of them."""
    for form in ("sweep-{:06}", "{:06}.task", "0190c0ffee00-{:06x}feedfeedfeedbe"):
        table = RequestTable()
        for number in range(20_000):
            table.add(RequestRecord(form.format(number), b"d", 1, 1, None, 1))
        assert max(map(len, table.freeze())) < 100
