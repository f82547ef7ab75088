"""The table of cuts and the guard of a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raftd.errors import FaultInjectionOff, StorageError
from raftd.transport.faults import FaultTable
from raftd.transport.guard import StreamGuard


def table(path: Path, *, enabled: bool = True) -> FaultTable:
    return FaultTable("n1", path / "cuts.json", enabled)


def test_cuts_are_directed(tmp_path: Path) -> None:
    faults = table(tmp_path)
    faults.change([("n1", "n2"), ("n3", "n1")], [], heal=False)
    assert (faults.drops_to("n2"), faults.drops_from("n2")) == (True, False)
    assert (faults.drops_to("n3"), faults.drops_from("n3")) == (False, True)


def test_cuts_survive_a_restart(tmp_path: Path) -> None:
    table(tmp_path).change([("n1", "n2")], [], heal=False)
    assert table(tmp_path).cuts == (("n1", "n2"),)
    assert table(tmp_path, enabled=False).cuts == (), "without fault injection an old file is ignored"


def test_without_fault_injection_nothing_is_cut(tmp_path: Path) -> None:
    faults = table(tmp_path, enabled=False)
    with pytest.raises(FaultInjectionOff):
        faults.change([("n1", "n2")], [], heal=False)
    assert not faults.drops_to("n2")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b'{"format": 2, "cuts": []}', b'{"format": 1}', b'{"format": 1, "cuts": ["n1"]}'],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cuts.json").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        table(tmp_path)
    assert "cuts.json" in caught.value.try_


def test_cuts_that_cannot_be_kept_are_not_made(tmp_path: Path) -> None:
    faults = FaultTable("n1", tmp_path / "gone" / "cuts.json", enabled=True)
    with pytest.raises(StorageError):
        faults.change([("n1", "n2")], [], heal=False)
    assert not faults.drops_to("n2")


def test_listeners_hear_changes_until_they_leave(tmp_path: Path) -> None:
    faults, heard = table(tmp_path), list[str]()
    stop_first = faults.on_change(lambda: heard.append("first"))
    faults.on_change(lambda: heard.append("second"))
    faults.change([("n1", "n2")], [], heal=False)
    stop_first()
    stop_first()
    faults.change([("n1", "n2")], [], heal=False)  # no change
    faults.change([], [], heal=True)
    assert heard == ["first", "second", "second"]
    assert json.loads((tmp_path / "cuts.json").read_text())["cuts"] == []


def test_a_guarded_stream_passes_everything_until_it_has_swallowed_something(tmp_path: Path) -> None:
    faults, ends = table(tmp_path), list[str]()
    guard = StreamGuard(faults, "n2", lambda: ends.append("end"))
    assert guard.lets_out()
    assert guard.lets_in()
    faults.change([("n1", "n2")], [], heal=False)
    assert guard.lets_in(), "that direction is open, and nothing was lost in the other"
    assert not guard.lets_out()
    assert not guard.lets_in(), "one message was lost: the two ends may differ from here on"
    assert not ends
    faults.change([("n2", "n1")], [("n1", "n2")], heal=False)
    assert not ends, "the other direction is cut now"
    faults.change([], [], heal=True)
    assert ends == ["end"]
    assert not guard.lets_out(), "nothing passes on a stream that is ending"
    faults.change([("n1", "n2")], [], heal=False)
    faults.change([], [], heal=True)
    assert ends == ["end"], "once"
    guard.close()


def test_a_cut_during_which_nothing_was_said_leaves_the_stream(tmp_path: Path) -> None:
    faults, ends = table(tmp_path), list[str]()
    guard = StreamGuard(faults, "n2", lambda: ends.append("end"))
    faults.change([("n1", "n2")], [], heal=False)
    faults.change([], [], heal=True)
    assert not ends
    assert guard.lets_out()


def test_a_closed_guard_ends_nothing(tmp_path: Path) -> None:
    faults, ends = table(tmp_path), list[str]()
    guard = StreamGuard(faults, "n2", lambda: ends.append("end"))
    faults.change([("n1", "n2")], [], heal=False)
    assert not guard.lets_out()
    guard.close()
    guard.close()
    faults.change([], [], heal=True)
    assert not ends
