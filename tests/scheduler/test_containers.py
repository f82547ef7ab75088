"""The two containers against the plainest thing that could do the same."""

from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.ordered import OrderedKeys
from raftd.scheduler.table import Table

keys = st.integers(min_value=0, max_value=3_000)
steps = st.lists(st.tuples(st.sampled_from(("put", "remove", "freeze")), keys), max_size=300)


@given(steps)
def test_a_table_is_a_dictionary_and_its_frozen_views_never_change(moves: list[tuple[str, int]]) -> None:
    table: Table[int] = Table()
    plain: dict[int, int] = {}
    frozen = []
    for turn, (move, key) in enumerate(moves):
        if move == "put":
            table.put(key, turn)
            plain[key] = turn
        elif move == "remove" and key in plain:
            table.remove(key)
            del plain[key]
        elif move == "freeze":
            frozen.append((table.freeze(), dict(plain)))
        assert len(table) == len(plain)
        assert table.get(key) == plain.get(key)
        assert (key in table) == (key in plain)
    assert dict(table.items()) == plain
    for chunks, then in frozen:
        assert {key: value for chunk in chunks for key, value in chunk.items()} == then


@given(st.sets(keys), st.sets(keys), keys)
def test_a_table_of_growing_keys_is_read_in_order_from_anywhere(
    found: set[int], removed: set[int], first: int
) -> None:
    table: Table[int] = Table()
    for key in sorted(found):
        table.put(key, key)
    for key in sorted(found & removed):
        table.remove(key)
    assert list(table.from_key(first)) == sorted(key for key in found - removed if key >= first)


def test_freezing_a_table_copies_nothing_and_a_write_after_it_copies_one_chunk() -> None:
    table: Table[int] = Table()
    for key in range(100_000):
        table.put(key, key)
    before = table.freeze()
    assert len(before) < 400
    table.put(70_000, -1)
    after = table.freeze()
    assert sum(old is not new for old, new in zip(before, after, strict=True)) == 1


@given(st.lists(st.tuples(st.booleans(), keys), max_size=400), st.sets(keys))
def test_ordered_keys_are_a_sorted_list(moves: list[tuple[bool, int]], start: set[int]) -> None:
    ordered = OrderedKeys(start)
    plain = set(start)
    for adding, key in moves:
        if adding and key not in plain:
            ordered.add(key)
            plain.add(key)
        elif not adding and key in plain:
            ordered.remove(key)
            plain.remove(key)
        assert ordered.first == min(plain, default=None)
        assert (key in ordered) == (key in plain)
    assert list(ordered) == sorted(plain)
    assert list(reversed(ordered)) == sorted(plain, reverse=True)
    assert len(ordered) == len(plain)


def test_many_ordered_keys_stay_in_order_through_splits_and_empty_blocks() -> None:
    ordered: OrderedKeys[int] = OrderedKeys()
    for key in range(0, 20_000, 2):
        ordered.add(key)
    for key in range(19_999, 0, -2):
        ordered.add(key)
    for key in range(5_000, 15_000):
        ordered.remove(key)
    assert list(ordered) == [*range(5_000), *range(15_000, 20_000)]
