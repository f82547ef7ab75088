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


@given(
    st.lists(records, max_size=20, unique_by=lambda record: record.request_id),
    st.lists(st.booleans(), max_size=60),
)
def test_a_table_is_a_queue_that_finds_by_id(made: list[RequestRecord], adding: list[bool]) -> None:
    table, plain, coming = RequestTable(), list[RequestRecord](), iter(made)
    frozen = []
    for add in adding:
        record = next(coming, None) if add else None
        if record is not None:
            table.add(record)
            plain.append(record)
        elif plain:
            table.forget_oldest()
            del plain[0]
        frozen.append((table.freeze(), list(plain), table.oldest_number, table.next_number))
        assert list(table.values()) == plain
        assert table.oldest == (plain[0] if plain else None)
        assert len(table) == len(plain)
        assert [table.get(one.request_id) for one in made] == [one if one in plain else None for one in made]
        assert table.next_number - table.oldest_number == len(plain)
    for chunks, then, oldest_number, next_number in frozen:
        numbered = sorted(unpack_request(key, data) for chunk in chunks for key, data in chunk.items())
        assert [record for _, record in numbered] == then
        assert [number for number, _ in numbered] == list(range(oldest_number, next_number))
        again = RequestTable.thaw(reversed(chunks), oldest_number, next_number)
        assert list(again.items()) == numbered
        assert again.oldest == (then[0] if then else None)


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
