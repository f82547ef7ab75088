"""A snapshot on its way in: the core hears only of what is whole, and is what was announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftd.codec.snapshot import encode_snapshot
from raftd.errors import StorageError
from raftd.node.ports import Received
from raftd.node.snapshots import Intake
from raftd.raft.messages import InstallSnapshot
from raftd.raft.types import Configuration, NodeId, Snapshot
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.model import Genesis, Member
from tests.node.snapshot_files import MemoryFiles
from tests.node.test_node import run

CONFIGURATION = Configuration((1, 2, 3))


class ToldCore:
    """The loop, as an intake uses it."""

    configuration = CONFIGURATION

    def __init__(self) -> None:
        self.received: list[Received] = []

    def receive(self, received: Received) -> None:
        self.received.append(received)

    def report_snapshot(self, receiver: NodeId, ok: bool) -> None: ...

    def snapshot_taken(self, snapshot: Snapshot, kept_entries: int) -> None: ...

    def halt(self, error: BaseException) -> None: ...


async def at_once(work: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return work(*args, **named)


def bytes_of(entries: int) -> bytes:
    """The state after so many entries."""
    machine = StateMachine()
    machine.apply_genesis(1, Genesis(0xC1, 1, (Member("n1", 1, "h:1"),)))
    for index in range(2, entries + 1):
        machine.apply_noop(index)
    return b"".join(encode_snapshot(machine.state.freeze()))


class Arrival:
    """A snapshot that was announced as one of entry 4."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        self.core = ToldCore()
        self.announcement = InstallSnapshot(2, 1, 7, Snapshot(4, 6, CONFIGURATION, 100))
        self.intake = Intake(self.files, self.core, at_once, self.announcement)

    def arrive(self, *pieces: bytes) -> None:
        async def scenario() -> None:
            try:
                for piece in pieces:
                    await self.intake.write(piece)
                await self.intake.finish()
            finally:
                await self.intake.abort()

        run(scenario())


def test_a_whole_snapshot_is_handed_on_with_its_state() -> None:
    arrival = Arrival()
    data = bytes_of(4)
    arrival.arrive(data[:10], data[10:])
    (received,) = arrival.core.received
    assert received.announcement is arrival.announcement
    assert received.state.applied_index == 4
    (file,) = arrival.files.made
    assert file.finished
    assert not file.aborted


@pytest.mark.parametrize(
    "pieces",
    [(bytes_of(3),), (bytes_of(5),), (bytes_of(4)[:-1],), (bytes_of(4), b"more"), (b"",), ()],
    ids=["an older state", "a newer state", "cut short", "too long", "empty", "nothing"],
)
def test_what_is_not_what_was_announced_is_refused_and_leaves_nothing_behind(
    pieces: tuple[bytes, ...],
) -> None:
    arrival = Arrival()
    with pytest.raises(StorageError):
        arrival.arrive(*pieces)
    assert not arrival.core.received
    assert all(file.aborted for file in arrival.files.made)
