"""What is typed, or lies in a file, becomes exactly these submissions; whatever else it says is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raftctl.client.models import ArrayRange, Condition, Dependency, Graph, Submission
from raftctl.commands import _submissions as typed
from raftctl.errors import UsageError


def written(path: Path, text: str) -> str:
    file = path / "work.json"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_one_submission_with_everything_it_can_have(tmp_path: Path) -> None:
    document = {
        "kind": "sleep",
        "args": [2],
        "name": "nap",
        "env": {"A": 1},
        "stdin": "in",
        "priority": 3,
        "retries": 2,
        "backoff": "exp:1s..60s",
        "run_timeout": "5m",
        "queue_timeout": "1h",
        "delay": "10s",
        "after": ["t1", "j2:any"],
        "require": {"gpu": "yes"},
        "slots": 2,
        "array": "0-3",
        "max_failures": 1,
        "request_id": "mine",
    }
    found = typed.from_file(written(tmp_path, json.dumps(document)))
    assert found == [
        Submission(
            kind="sleep",
            args=("2",),
            payload=b"in",
            env={"A": "1"},
            name="nap",
            priority=3,
            retries=2,
            backoff_first_ms=1_000,
            backoff_max_ms=60_000,
            run_timeout_ms=300_000,
            queue_timeout_ms=3_600_000,
            delay_ms=10_000,
            after=(Dependency("t1"), Dependency("j2", Condition.ANY)),
            require={"gpu": "yes"},
            slots=2,
            array=ArrayRange(0, 3, 1),
            request_id="mine",
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[{"kind": "noop"}, {"kind": "sleep", "args": ["1"]}]',
        '{"kind": "noop"}\n\n{"kind": "sleep", "args": ["1"]}\n',
    ],
)
def test_a_list_and_lines_are_the_same(tmp_path: Path, text: str) -> None:
    found = typed.from_file(written(tmp_path, text))
    assert found == [Submission(kind="noop"), Submission(kind="sleep", args=("1",))]


def test_a_graph_names_its_own_tasks_and_others(tmp_path: Path) -> None:
    document = {
        "name": "diamond",
        "max_failures": 2,
        "tasks": [
            {"id": "top", "kind": "noop", "after": ["t9:any"]},
            {"id": "left", "kind": "noop", "after": ["top"]},
            {"id": "right", "kind": "noop", "after": ["top:any"]},
            {"kind": "noop", "after": ["left", "right"]},
        ],
    }
    found = typed.from_file(written(tmp_path, json.dumps(document)))
    assert isinstance(found, Graph)
    assert (found.name, found.max_failures) == ("diamond", 2)
    assert found.tasks[0].submission.after == (Dependency("t9", Condition.ANY),)
    assert [task.after for task in found.tasks] == [
        (),
        ((0, Condition.OK),),
        ((0, Condition.ANY),),
        ((1, Condition.OK), (2, Condition.OK)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no submission"),
        ("[]", "holds no submission"),
        ("{", "is no JSON"),
        ("3", "is no JSON object"),
        ('{"args": ["1"]}', "names no kind"),
        ('{"kind": 3}', "kind is text"),
        ('{"kind": "noop", "arg": []}', "has no 'arg'"),
        ('{"kind": "noop", "args": "1"}', "args is a list"),
        ('{"kind": "noop", "retries": "many"}', "retries is a whole number"),
        ('{"kind": "noop", "retries": true}', "retries is a whole number"),
        ('{"kind": "noop", "env": []}', "env is an object"),
        ('{"kind": "noop", "after": ["left"]}', "that is no task and no job"),
        ('{"kind": "noop", "after": ["t1:maybe"]}', "ok or any"),
        ('{"kind": "noop", "array": "9-0"}', "names no indices"),
        ('{"tasks": []}', "at least one"),
        ('{"tasks": [{"kind": "noop"}], "job": 1}', "a graph has no 'job'"),
        ('{"tasks": [{"kind": "noop", "after": ["down"]}]}', "is no task of the graph"),
        ('{"tasks": [{"kind": "noop", "id": "a"}, {"kind": "noop", "id": "a"}]}', "two tasks"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        typed.from_file(written(tmp_path, text))
