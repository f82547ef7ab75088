"""What the storage tests share: small logs on a simulated disk, and a model of what they must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raftd.raft.types import Entry, EntryType, HardState
from raftd.storage.recovery import Recovered
from raftd.storage.wal import Wal, create_log, open_log
from tests.sim.disk import SimulatedDisk

CLUSTER, STORE = 0xC1, 0x51
SEGMENT_BYTES = 4096
GENESIS = Entry(1, 1, EntryType.CONFIGURATION, b"genesis")
FIRST = HardState(1, 0, 1)


def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    """A NORMAL entry whose data tells where it belongs."""
    return Entry(term, index, EntryType.NORMAL, b"%d.%d" % (term, index) if data is None else data)


@dataclass(frozen=True, slots=True)
class Content:
    """What a log says: the model's side of ``Recovered``."""

    hard_state: HardState
    entries: tuple[Entry, ...]

    def after(self, hard_state: HardState | None, entries: Sequence[Entry]) -> Content:
        kept = self.entries[: entries[0].index - 1] if entries else self.entries
        return replace(self, hard_state=hard_state or self.hard_state, entries=(*kept, *entries))


GENESIS_CONTENT = Content(FIRST, (GENESIS,))


def content(recovered: Recovered) -> Content:
    return Content(recovered.hard_state, tuple(recovered.entries))


def make_log(disk: SimulatedDisk, *, store_id: int = STORE, segment_bytes: int = SEGMENT_BYTES) -> None:
    """A log with the genesis entry in the directory /log."""
    if not disk.exists("/log"):
        disk.mkdir("/log")
        disk.fsync_dir("")
    create_log(
        disk,
        "/log",
        cluster_id=CLUSTER,
        store_id=store_id,
        hard_state=FIRST,
        entries=[GENESIS],
        segment_bytes=segment_bytes,
    )


def reopen(
    disk: SimulatedDisk, *, store_id: int = STORE, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Wal, Recovered]:
    return open_log(disk, "/log", cluster_id=CLUSTER, store_id=store_id, segment_bytes=segment_bytes)


Step = tuple[HardState | None, tuple[Entry, ...]]

WORKLOAD: tuple[Step, ...] = (
    (HardState(2, 7, 1), ()),
    (None, (entry(2, 2), entry(3, 2), entry(4, 2))),
    (
        HardState(3, 0, 2),
        (entry(4, 3, bytes(1200)), entry(5, 3, b"x" * 700)),
    ),  # replaces 4; spans sectors of zeros
    (HardState(3, 9, 3), (entry(6, 3),)),
    (None, (entry(7, 3, b"y" * 2000),)),  # does not fit: rolls
    (HardState(4, 0, 5), (entry(6, 4), entry(7, 4))),
    (None, (entry(8, 4, b"z" * 6000),)),  # larger than a segment
    (HardState(5, 3, 8), ()),
    (None, (entry(9, 5, bytes(1500)),)),
    (None, (entry(10, 5), entry(11, 5))),
)
"""Appends that between them vote, truncate, roll, outgrow a segment and hold sectors of zeros."""


def run_workload(wal: Wal, acknowledged: list[Content], steps: Sequence[Step] = WORKLOAD) -> None:
    """Append every step and note what is acknowledged, as it is."""
    for hard_state, entries in steps:
        wal.append(hard_state, entries, sync=True)
        acknowledged.append(acknowledged[-1].after(hard_state, entries))
        wal.prepare_next()
