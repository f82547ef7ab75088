"""The durable log in memory, against a naive model, and as the core's ``LogReader``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.raft.log import LogReader
from raftd.raft.types import Entry, entry_bytes
from raftd.storage.log_store import LogStore
from tests.storage.logs import entry


def test_it_is_what_the_core_reads() -> None:
    reader: LogReader = LogStore()
    assert (reader.first_index, reader.last_index, reader.term(0)) == (1, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=8), st.integers(0, 3))
def test_appending_replaces_what_is_at_and_behind_the_first(
    appends: list[tuple[int, int]], base: int
) -> None:
    store = LogStore(base_index=base, base_term=1)
    model: list[Entry] = []
    for term, (back, count) in enumerate(appends, 2):
        first = base + 1 + max(0, len(model) - back)
        new = [entry(index, term) for index in range(first, first + count)]
        model = model[: first - base - 1] + new
        store.append(new)
    assert store.entries(store.first_index, store.last_index + 1, 10**9) == model
    assert [store.term(one.index) for one in model] == [one.term for one in model]
    assert (store.first_index, store.last_index) == (base + 1, base + len(model))
    assert store.term(base) == 1


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_entries_are_cut_by_bytes_but_never_to_none(data: list[bytes], draw: st.DataObject) -> None:
    store = LogStore([entry(index, 1, piece) for index, piece in enumerate(data, 1)])
    low = draw.draw(st.integers(1, len(data)))
    high = draw.draw(st.integers(low + 1, len(data) + 1))
    limit = draw.draw(st.integers(0, 300))
    found = store.entries(low, high, limit)
    assert [one.index for one in found] == list(range(low, low + len(found)))
    size = sum(map(entry_bytes, found))
    assert len(found) == 1 or size <= limit
    if found[-1].index < high - 1:
        assert size + entry_bytes(store.entry(found[-1].index + 1)) > limit


def test_an_empty_range_is_empty() -> None:
    assert LogStore([entry(1)]).entries(1, 1, 0) == []


@pytest.mark.parametrize(("low", "high"), [(0, 2), (2, 4), (4, 5)])
def test_a_range_outside_of_the_log_is_refused(low: int, high: int) -> None:
    with pytest.raises(IndexError):
        LogStore([entry(1), entry(2)]).entries(low, high, 100)


@pytest.mark.parametrize("entries", [[entry(4)], [entry(3), entry(5)], [entry(0)]])
def test_what_does_not_join_the_log_is_refused(entries: list[Entry]) -> None:
    store = LogStore([entry(1), entry(2)])
    with pytest.raises(IndexError):
        store.append(entries)
    assert store.last_index == 2


def test_terms_below_the_base_are_gone() -> None:
    store = LogStore([entry(8, 3)], base_index=7, base_term=2)
    assert (store.term(7), store.term(8)) == (2, 3)
    for index in (6, 9):
        with pytest.raises(IndexError):
            store.term(index)
