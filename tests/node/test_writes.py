"""The order of writes: what is handed to the disk, what waits for it, and the commit that rides along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftd.node.writes import Writes
from raftd.raft.messages import Message, RequestVoteReply
from raftd.raft.ready import Ready
from raftd.raft.types import Entry, EntryType, HardState

REPLY = RequestVoteReply(sender=1, receiver=2, term=1, granted=True, pre_vote=False)


class Surroundings:
    """Storage, view and peers that remember, in one list, what they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        must_sync: bool,
        install: Any = None,
    ) -> None:
        if install is not None:
            self.told.append(("install", install))
        self.told.append(("submit", number, hard_state and hard_state.commit, len(entries), must_sync))

    first_index = 1

    def compact(self, index: int) -> None:
        self.told.append(("compact", index))

    def restore(self, index: int, term: int) -> None:
        self.told.append(("restore", index, term))

    def append(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.told.append(("visible", entries[-1].index))

    def send(self, messages: Sequence[Message]) -> None:
        if messages:
            self.told.append(("send", len(messages)))

    def taken(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told


def a_ready(number: int, *, commit: int = 0, entry: int = 0, held: bool = False, sync: bool = False) -> Ready:
    return Ready(
        number=number,
        soft_state=None,
        hard_state=HardState(1, 0, commit) if commit else None,
        entries=(Entry(1, entry, EntryType.NORMAL, b"x"),) if entry else (),
        must_sync=sync or bool(entry),
        messages=(),
        messages_after_persist=(REPLY,) if held else (),
        committed_entries=(),
        read_states=(),
        reads_dropped=(),
    )


def made() -> tuple[Writes, Surroundings]:
    around = Surroundings()
    return Writes(around, around, around.send, lambda: 0), around


def test_a_commit_alone_is_held_and_rides_with_the_next_write() -> None:
    writes, around = made()
    writes.hand_over(a_ready(1, commit=5))
    assert around.taken() == []
    writes.hand_over(a_ready(2, entry=6))
    assert around.taken() == [("submit", 2, 5, 1, True)]
    writes.flush_commit()
    assert around.taken() == [], "once"


def test_a_newer_commit_takes_the_place_of_the_one_that_is_held() -> None:
    writes, around = made()
    writes.hand_over(a_ready(1, commit=5))
    writes.hand_over(a_ready(2, commit=6))
    writes.flush_commit()
    assert around.taken() == [("submit", 2, 6, 0, False)]
    writes.hand_over(a_ready(3, commit=7))
    writes.hand_over(a_ready(4, commit=8, entry=9))
    assert around.taken() == [("submit", 4, 8, 1, True)]


def test_nothing_is_visible_or_sent_before_its_write_is_durable() -> None:
    writes, around = made()
    writes.hand_over(a_ready(1, entry=1, held=True))
    writes.hand_over(a_ready(2, entry=2, held=True))
    assert writes.take_durable() == (0, [])
    assert [told[0] for told in around.taken()] == ["submit", "submit"]
    writes.durable(1)
    assert writes.take_durable() == (1, [])
    assert around.taken() == [("visible", 1), ("send", 1)]
    writes.durable(2)
    writes.durable(1)  # completions may be told late, but never take anything back
    assert writes.take_durable() == (2, [])
    assert around.taken() == [("visible", 2), ("send", 1)]


def test_what_needs_no_disk_goes_at_once_unless_something_is_being_written() -> None:
    writes, around = made()
    writes.hand_over(a_ready(1, commit=4))
    writes.hand_over(a_ready(2, held=True))
    assert writes.take_durable() == (2, [])
    assert around.taken() == [("send", 1)], "and the commit goes on being held"
    writes.hand_over(a_ready(3, entry=5))
    writes.hand_over(a_ready(4, held=True))
    assert writes.take_durable() == (0, [])
    assert around.taken() == [("submit", 3, 4, 1, True), ("submit", 4, None, 0, False)]
    writes.durable(4)
    assert writes.take_durable() == (4, [])
    assert around.taken() == [("visible", 5), ("send", 1)]


def test_a_vote_waits_for_its_write() -> None:
    writes, around = made()
    writes.hand_over(a_ready(1, commit=1, held=True, sync=True))
    assert writes.take_durable() == (0, [])
    assert around.taken() == [("submit", 1, 1, 0, True)]
    writes.durable(1)
    assert writes.take_durable() == (1, [])
    assert around.taken() == [("send", 1)]
