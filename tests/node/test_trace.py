"""The trace: one line of JSON for each transition, bounded, and never in the way of the node."""

import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from raftd.node.clock import SystemClock
from raftd.node.trace import Output, TraceWriter
from raftd.raft.messages import RequestVote
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Transition
from raftd.raft.transitions import Event
from raftd.raft.types import Config, Configuration, HardState, Role
from tests.raft.memory_log import MemoryLog

NAMES = {1: "n1", 2: "n2"}


class Noon(SystemClock):
    """It is always the same time."""

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Disk:
    """A file on a disk that has this much room left."""

    def __init__(self) -> None:
        self.room = 10_000
        self.data = b""
        self.opened = 0
        self.opens = True

    def open(self, file: Path) -> Output:
        if not self.opens:
            raise OSError(errno.EMFILE, "too many open files")
        self.opened += 1
        return self

    def write(self, data: bytes, /) -> int:
        part = data[: self.room]
        if not part:
            raise OSError(errno.ENOSPC, "no space left")
        self.room -= len(part)
        self.data += part
        return len(part)

    def truncate(self, size: int | None = None, /) -> int:
        assert size is not None
        self.room += len(self.data) - size
        self.data = self.data[:size]
        return size

    def tell(self) -> int:
        return len(self.data)

    def close(self) -> None:
        """Nothing is kept back that could be lost."""

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.data.decode().splitlines()]


def transition(event: Event = Event.STANDS, **fields: Any) -> Transition:
    known = {
        "node": 1, "role": Role.CANDIDATE, "term": 5, "vote": 1, "leader": 0, "last_index": 7, "commit": 6,
        "configuration": Configuration((1, 2, 3)),
    }  # fmt: skip
    return Transition(event=event, **{**known, **fields})


def writer(file: Path, **settings: Any) -> TraceWriter:
    return TraceWriter(file, lambda store_id: NAMES.get(store_id, ""), Noon(), **settings)


def test_a_line_says_what_happened_and_how_the_node_stands(tmp_path: Path) -> None:
    write = writer(tmp_path / "trace")
    write(transition())
    write(transition(Event.GAVE_VOTE, vote=2, message=RequestVote(3, 1, 5, 7, 4)))
    write(transition(Event.CONFIGURED, configuration=Configuration((1, 2), (3,), (1, 3))))
    write(transition(Event.HANDS_OVER, transfer_target=2))
    write.close()
    first, vote, configured, handover = map(json.loads, (tmp_path / "trace").read_text().splitlines())
    assert first == {
        "time_ms": 1_700_000_000_000,
        "node": "n1",
        "event": "stands for election",
        "role": "candidate",
        "term": 5,
        "vote": "n1",
        "leader": "",
        "last_index": 7,
        "commit_index": 6,
        "message": "",
        "voters": ["n1", "n2", "0000000000000003"],
    }
    assert vote["message"] == "RequestVote of term 5 from 0000000000000003"
    assert [configured[key] for key in ("voters", "learners", "outgoing")] == [
        ["n1", "n2"],
        ["0000000000000003"],
        ["n1", "0000000000000003"],
    ]
    assert handover["transfer_target"] == "n2"


def test_the_core_tells_it_the_life_of_a_node_and_what_came_in(tmp_path: Path) -> None:
    write = writer(tmp_path / "trace")
    config = Config(id=1, jitter=lambda n: 0)
    raw = RawNode(config, Configuration((1, 2)), HardState(4, 0, 0), MemoryLog(), on_transition=write)
    raw.step(RequestVote(2, 1, 5, 0, 0))
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    asked = "RequestVote of term 5 from n2"
    assert [(line["event"], line["term"], line["vote"], line["message"]) for line in lines] == [
        ("started", 4, "", ""),
        ("heard a later term", 5, "", asked),
        ("gave a vote", 5, "n2", asked),
    ]
    write.close()


def test_the_file_is_bounded_and_the_one_before_it_is_kept(tmp_path: Path) -> None:
    write = writer(tmp_path / "trace", max_bytes=1000)
    for term in range(100):
        write(transition(term=term))
    write.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"trace", "trace.1"}
    assert max(sizes.values()) <= 1000
    assert json.loads((tmp_path / "trace").read_text().splitlines()[-1])["term"] == 99


def test_a_later_life_goes_on_behind_the_lines_of_the_one_before(tmp_path: Path) -> None:
    for term in (1, 2):
        write = writer(tmp_path / "trace", max_bytes=1000)
        write(transition(term=term))
        write.close()
        write(transition(term=9))  # dropped: it is closed
    assert [json.loads(line)["term"] for line in (tmp_path / "trace").read_text().splitlines()] == [1, 2]


def test_a_full_disk_drops_lines_whole_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = Disk()
    write = writer(Path("trace"), open_file=disk.open)
    write(transition(Event.STANDS))
    disk.room = 10
    for _ in range(3):
        write(transition(Event.WON))
    assert disk.events() == [Event.STANDS]
    disk.room = 10_000
    write(transition(Event.NO_QUORUM))
    assert disk.events() == [Event.STANDS, Event.NO_QUORUM]
    said = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in said] == [
        "the trace trace cannot be written, lines are missing in it",
        "the trace trace goes on; 3 lines are missing in it",
    ]


def test_a_file_that_cannot_be_moved_aside_or_opened_anew_is_tried_again(tmp_path: Path) -> None:
    disk = Disk()
    file = tmp_path / "trace"
    write = writer(file, max_bytes=1, open_file=disk.open)
    write(transition(Event.STANDS))
    write(transition(Event.WON))  # there is no such file, so it cannot be moved
    assert disk.events() == [Event.STANDS]
    file.touch()
    disk.opens = False
    write(transition(Event.WON))
    disk.opens = True
    disk.data = b""
    write(transition(Event.NO_QUORUM))
    assert disk.events() == [Event.NO_QUORUM]
