"""The pictures of docs/raft.md are what the code would draw now, and are pictures at all."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from raftd.raft.progress import ProgressEvent
from raftd.raft.transitions import ROLE_CHANGES
from raftd.raft.types import Role
from tests.raft import diagrams


def texts(svg: str) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())


def test_the_pictures_are_fresh() -> None:
    assert diagrams.stale() == [], "scripts/draw mends it"


def test_a_picture_that_is_missing_or_old_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, draw in diagrams.PICTURES.items():
        (tmp_path / name).write_text(draw(), encoding="utf-8")
    assert diagrams.stale(tmp_path) == []
    old, missing = list(diagrams.PICTURES)[:2]
    (tmp_path / old).write_text("", encoding="utf-8")
    (tmp_path / missing).unlink()
    assert diagrams.stale(tmp_path) == [old, missing]
    assert diagrams.main(["--check"]) == 0
    assert diagrams.main(["--paint"]) == 2
    assert "usage" in capsys.readouterr().err


def test_every_change_of_the_tables_is_in_its_picture() -> None:
    said = texts(diagrams.roles())
    assert all(event in said for event in ROLE_CHANGES)
    assert all(role in said for role in Role)
    said = texts(diagrams.progress())
    assert all(event in said for event in ProgressEvent)


def test_a_part_of_a_ready_that_is_not_in_the_picture_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagrams, "LANES", diagrams.LANES[1:])
    with pytest.raises(ValueError, match="messages"):
        diagrams.ready()


def test_the_steps_of_a_command_that_a_scenario_does_not_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="election does not have"):
        diagrams.steps_of("election", "propose 1 y")
