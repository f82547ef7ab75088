"""The log, its tail that is not durable, and the window, each against a model that is too simple to be wrong."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftd.raft.inflights import Inflights
from raftd.raft.log import Log
from raftd.raft.types import Entry, EntryType, InvariantViolation, entry_bytes
from tests.raft.memory_log import MemoryLog, log_of

TERMS = st.lists(st.integers(1, 5), max_size=12).map(sorted)


class LogAgainstModel(RuleBasedStateMachine):
    """Grow, cut, take and complete writes in any order; a write is modelled as the very objects that it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = MemoryLog()
        self.log = Log(self.reader, 0, 0)
        self.model: list[Entry] = []
        self.disk: list[Entry] = []
        self.writes: deque[tuple[int, tuple[Entry, ...]]] = deque()
        self.number = 0
        self.serial = 0

    @rule(keep=st.integers(0, 30), terms=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def append(self, keep: int, terms: list[int]) -> None:
        keep = max(min(keep, len(self.model)), self.log.commit)
        entries: list[Entry] = []
        for term in terms:
            self.serial += 1
            entries.append(Entry(term, keep + len(entries) + 1, EntryType.NORMAL, b"%d" % self.serial))
        self.log.append(entries)
        self.model[keep:] = entries

    @rule()
    def take(self) -> None:
        self.number += 1
        entries = self.log.unstable.take(self.number)
        if entries:
            self.writes.append((self.number, entries))

    @precondition(lambda self: self.writes)
    @rule(count=st.integers(1, 3))
    def complete(self, count: int) -> None:
        number = 0
        for _ in range(min(count, len(self.writes))):
            number, entries = self.writes.popleft()
            self.reader.write(entries)
            self.disk[entries[0].index - 1 :] = entries
        self.log.unstable.durable(number)

    @rule(index=st.integers(0, 30))
    def commit(self, index: int) -> None:
        self.log.commit_to(min(index, len(self.model)))

    @rule(max_bytes=st.integers(1, 200))
    def apply(self, max_bytes: int) -> None:
        before = self.log.handed_out
        entries = self.log.take_committed(max_bytes, durable_commit=0)  # none of them is a CONF_CHANGE
        assert list(entries) == self.model[before : before + len(entries)]
        assert list(entries) == self.disk[before : before + len(entries)]

    @invariant()
    def the_log_is_the_model(self) -> None:
        assert self.log.last_index == len(self.model)
        assert list(self.log.slice(1, len(self.model) + 1, 10**9)[0]) == self.model
        assert [self.log.term(i) for i in range(len(self.model) + 1)] == [
            0,
            *(entry.term for entry in self.model),
        ]
        assert self.log.term(len(self.model) + 1) is None

    @invariant()
    def what_it_calls_durable_is_on_disk_and_stays_there_whatever_is_still_to_be_written(self) -> None:
        durable = self.log.durable_index
        assert self.disk[:durable] == self.model[:durable]
        assert all(entries[0].index > durable for _, entries in self.writes)

    @invariant()
    def when_all_is_written_all_is_durable(self) -> None:
        if not self.writes and not self.log.unstable.has_untaken():
            assert self.log.durable_index == len(self.model)


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=100, stateful_step_count=40)


def log_with(terms: list[int], durable: int) -> Log:
    entries = log_of(*terms)
    log = Log(MemoryLog(entries[:durable]), 0, 0)
    if entries[durable:]:
        log.append(entries[durable:])
    return log


@given(TERMS, st.data())
def test_a_slice_is_cut_by_bytes_wherever_the_durable_part_ends(
    terms: list[int], data: st.DataObject
) -> None:
    durable = data.draw(st.integers(0, len(terms)), label="durable")
    low = data.draw(st.integers(1, len(terms) + 1), label="low")
    high = data.draw(st.integers(low, len(terms) + 1), label="high")
    limit = data.draw(st.integers(1, 300), label="limit")
    entries, size = log_with(terms, durable).slice(low, high, limit)
    assert list(entries) == log_of(*terms)[low - 1 : low - 1 + len(entries)]
    assert size == sum(map(entry_bytes, entries))
    assert size <= limit or len(entries) == 1
    if low < high:
        assert entries
        if len(entries) < high - low:
            assert size + entry_bytes(log_of(*terms)[low - 1 + len(entries)]) > limit


@given(TERMS, st.integers(0, 15), st.integers(0, 6))
def test_the_hint_is_the_last_entry_that_could_agree(terms: list[int], index: int, term: int) -> None:
    candidates = [(i, t) for i, t in enumerate([0, *terms]) if i <= index and t <= term]
    assert log_with(terms, len(terms) // 2).last_at_or_below(index, term) == candidates[-1]


@given(TERMS, TERMS, st.data())
def test_the_first_conflict_is_where_the_terms_part(
    mine: list[int], others: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, min(len(mine), len(others))), label="start")
    entries = log_of(*others)[start:]
    expected = next(
        (
            i
            for i, entry in enumerate(entries)
            if entry.index > len(mine) or mine[entry.index - 1] != entry.term
        ),
        len(entries),
    )
    assert log_with(mine, len(mine) // 2).first_conflict(entries) == expected


@given(TERMS, TERMS)
def test_of_two_logs_at_least_one_is_as_complete_as_the_other(one: list[int], other: list[int]) -> None:
    def beats(a: list[int], b: list[int]) -> bool:
        return log_with(b, 0).is_up_to_date(len(a), a[-1] if a else 0)

    assert beats(one, other) or beats(other, one)
    assert (beats(one, other) and beats(other, one)) == ((one[-1:], len(one)) == (other[-1:], len(other)))


def test_a_compacted_log_still_knows_the_term_it_was_cut_at() -> None:
    reader = MemoryLog(log_of(1, 1, 2, 3))
    reader.compact(3)
    log = Log(reader, commit=4, applied=3)
    assert [log.term(i) for i in range(1, 6)] == [None, None, 2, 3, None]
    assert log.last_at_or_below(9, 1) == (3, 2)


def test_a_gap_is_never_appended() -> None:
    with pytest.raises(InvariantViolation, match="gap"):
        log_with([1], 1).append([Entry(1, 3, EntryType.NORMAL, b"")])


def test_what_is_not_there_cannot_be_committed() -> None:
    with pytest.raises(InvariantViolation, match="ends at 1"):
        log_with([1], 1).commit_to(2)


def test_an_applied_index_outside_the_log_is_refused() -> None:
    with pytest.raises(InvariantViolation, match="applied 2"):
        Log(MemoryLog(log_of(1, 1)), commit=1, applied=2)


@given(
    st.lists(
        st.one_of(st.integers(1, 50).map(lambda n: ("add", n)), st.integers(0, 60).map(lambda n: ("free", n)))
    )
)
def test_the_window_counts_what_is_above_the_highest_acknowledgement(steps: list[tuple[str, int]]) -> None:
    window = Inflights(3, 100)
    model: list[tuple[int, int]] = []
    last = 0
    for step, n in steps:
        if step == "add" and not window.is_full():
            last += 1 + n % 3
            window.add(last, n)
            model.append((last, n))
        elif step == "free":
            window.free_to(n)
            model = [(index, size) for index, size in model if index > n]
        assert (len(window), window.bytes) == (len(model), sum(size for _, size in model))
        assert window.is_full() == (len(model) >= 3 or sum(size for _, size in model) >= 100)
    window.clear()
    assert (len(window), window.bytes) == (0, 0)


def test_a_refusal_halves_the_window_and_every_acknowledged_append_opens_it_by_one() -> None:
    window = Inflights(max_count=8, max_bytes=1000)
    window.refused()
    assert window.count_limit == 4
    for index in range(1, 5):
        assert not window.is_full()
        window.add(index, 1)
    assert window.is_full()
    window.free_to(3)
    assert window.count_limit == 7
    for _ in range(10):
        window.refused()
    assert window.count_limit == 1, "something may always be sent"
    window.clear()
    for index in range(5, 30):
        window.add(index, 1)
        window.free_to(index)
    assert window.count_limit == window.max_count
