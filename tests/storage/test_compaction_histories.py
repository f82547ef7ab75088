"""Histories of a store that nobody thought of: appends, truncations, snapshots, compactions and crashes, in any order.

The fixed workload of ``test_compaction`` crashes at every step; this one crashes at some, in histories of its own, and
goes on from what came back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import event, given, settings
from hypothesis import strategies as st

from raftd.raft.types import Entry, HardState
from tests.sim.disk import SimulatedCrash
from tests.storage.logs import entry
from tests.storage.test_compaction import Model, Store, new_disk, opened


@dataclass(frozen=True)
class Move:
    """One thing that happens; the numbers are fitted to what is possible then."""

    what: str
    depth: int
    sizes: tuple[int, ...]
    keep: int
    crash: int | None
    """Before which of its steps the machine stops; None where it does not."""
    luck: int
    """What the crash leaves on the medium."""


MOVES = st.builds(
    Move,
    what=st.sampled_from(["append", "append", "replace", "vote", "take", "take", "receive", "restart"]),
    depth=st.integers(0, 9),
    sizes=st.lists(st.sampled_from([0, 10, 600, 1500, 2600, 5000]), max_size=4).map(tuple),
    keep=st.integers(0, 4),
    crash=st.one_of(st.none(), st.none(), st.integers(0, 30)),
    luck=st.integers(0, 999),
)


class History:
    """A store, what Raft would let happen to it next, and what it must still know."""

    def __init__(self) -> None:
        self.disk = new_disk()
        self.store = Store(self.disk)
        self.crashes = 0
        self.purged = False

    @property
    def model(self) -> Model:
        return self.store.acknowledged

    def make(self, move: Move) -> None:
        self.disk.crash_at = None if move.crash is None else self.disk.step_count + move.crash
        try:
            getattr(self, move.what)(move)
        except SimulatedCrash:
            event(f"crash in {move.what}")
            self.crash(move.luck)
        self.disk.crash_at = None
        self.purged |= self.store.directory.recovered.base_index > 0

    def crash(self, luck: int) -> None:
        """The machine stops, and starts until it has come through a start."""
        self.crashes += 1
        source = random.Random(luck)
        before = self.store
        while True:
            self.power_off(source)
            if source.random() < 0.3:
                self.disk.crash_at = self.disk.step_count + source.randint(0, 12)
            try:
                self.store = Store(self.disk)
                break
            except SimulatedCrash:
                event("crash in a start")
        self.disk.crash_at = None
        found = before.came_back(self.store.directory)
        assert found is not None, (before.acknowledged, before.next, self.store.directory.recovered)
        self.store.acknowledged = found

    def power_off(self, source: random.Random) -> None:
        share = source.random()
        self.disk.power_off(lambda _: source.random() < share, lambda count: source.randint(0, count))

    # The moves.

    def append(self, move: Move) -> None:
        """A leader's entries, and a commit that follows them some way behind."""
        last = self.model.last[0]
        old = self.model.hard_state
        entries = self.entries(last + 1, old.term, move)
        end = last + len(entries)
        commit = max(old.commit, end - move.depth)
        self.store.append(HardState(old.term, old.vote, commit), *entries)

    def replace(self, move: Move) -> None:
        """A new leader's entries take the place of a tail that was not committed."""
        old = self.model.hard_state
        first = max(old.commit, self.model.last[0] - move.depth) + 1
        term = old.term + 1
        self.store.append(HardState(term, 0, old.commit), *self.entries(first, term, move))

    def vote(self, move: Move) -> None:
        old = self.model.hard_state
        self.store.append(HardState(old.term + 1, move.depth + 1, old.commit))

    def take(self, move: Move) -> None:
        """A snapshot of what is applied, which is committed; compacted up to it, or less."""
        commit = self.model.hard_state.commit
        newest = self.store.directory.snapshots.newest
        index = max(newest.index if newest is not None else 1, commit - move.depth // 2)
        found = [item.term for at, item in self.model.entries if at == index]
        if found and (newest is None or index > newest.index):
            self.store.take(index, found[0], move.keep)

    def receive(self, move: Move) -> None:
        """A snapshot from a leader of a later term: beyond the end, or of another history than an uncommitted tail."""
        old = self.model.hard_state
        index = old.commit + 1 + move.depth
        term = old.term + 1
        entries = self.entries(index + 1, term, move)
        self.store.receive(index, term, HardState(term, 0, index + move.keep % (len(entries) + 1)), *entries)

    def restart(self, move: Move) -> None:
        if move.depth % 2:
            self.store.directory.log.close()
            self.disk.kill_process()
            found = Store(self.disk)
            assert self.model.matches(found.directory)
            found.acknowledged = self.model
            self.store = found
        else:
            self.crash(move.luck)

    @staticmethod
    def entries(first: int, term: int, move: Move) -> list[Entry]:
        return [entry(first + number, term, b"d" * size) for number, size in enumerate(move.sizes)]


@settings(max_examples=150)
@given(st.lists(MOVES, min_size=4, max_size=24))
def test_nothing_that_was_acknowledged_is_missing_in_any_history(moves: list[Move]) -> None:
    history = History()
    for move in moves:
        history.make(move)
    event(f"purged: {history.purged}")
    event(f"crashes: {min(history.crashes, 3)}")
    history.disk.power_off()
    assert history.model.matches(opened(history.disk))
