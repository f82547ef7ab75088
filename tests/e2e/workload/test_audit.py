"""The audit itself, on a small run made by hand: it holds, and every way to break it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raftctl.client.models import AttemptOutcome, FencingToken, TaskState
from tests.e2e.workload import history as h
from tests.e2e.workload import ledger
from tests.e2e.workload.audit import audit
from tests.e2e.workload.history import AttemptView, Event, History, TaskView, load

LOST, SUCCEEDED, FAILED = AttemptOutcome.LOST, AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED
ASKED = {
    "count": 1,
    "content": "x",
    "duration_ms": 50,
    "failing": 0,
    "dying": 0,
    "result_bytes": 0,
    "retries": 0,
    "run_timeout_ms": 0,
    "max_failures": 0,
    "after": [],
}
SECOND = 1_000_000_000


def attempt(
    counter: int, outcome: AttemptOutcome = SUCCEEDED, *, number: int = 1, node: str = "n1"
) -> AttemptView:
    """An attempt with the token 1.COUNTER, that began and ended at that second."""
    at_ms = counter * 1000
    return AttemptView(number, FencingToken(1, counter), outcome, node, "", at_ms, at_ms + 500)


def task(
    number: int,
    request_id: str,
    *attempts: AttemptView,
    position: int = 0,
    state: TaskState = TaskState.SUCCEEDED,
    reason: str = "",
) -> TaskView:
    """A task of the record."""
    return TaskView(f"t{number}", request_id, position, state, attempts, reason, 10 * number)


@dataclass
class Run:
    """Six tasks of five requests: t1 was lost with its node and ran again, t4 was cancelled while it waited, t5 came
    after the job of t2 and t3, and after t4 however that ended, and t6 was cancelled because t4 was."""

    record: list[TaskView] = field(
        default_factory=lambda: [
            task(1, "a", attempt(1, LOST), attempt(4, number=2, node="n2")),
            task(2, "b", attempt(2)),
            task(3, "b", attempt(3), position=1),
            task(4, "c", state=TaskState.CANCELLED),
            task(5, "d", attempt(5)),
            task(6, "e", state=TaskState.CANCELLED, reason="t4, which it comes after, was cancelled"),
        ]
    )
    lines: list[str] = field(
        default_factory=lambda: [
            "start t1 1 1.1 1 7", "beat t1 1 1.1 2 7",
            "start t2 1 1.2 3 8", "end t2 1 1.2 4 8",
            "start t3 1 1.3 5 8", "end t3 1 1.3 6 8",
            "start t1 2 1.4 7 9", "end t1 2 1.4 8 9",
            "start t5 1 1.5 9 9", "end t5 1 1.5 9 9",
        ]
    )  # fmt: skip
    submits: list[tuple[str, tuple[str, ...], dict[str, Any]]] = field(
        default_factory=lambda: [
            ("a", ("t1",), ASKED),
            ("b", ("t2", "t3"), {**ASKED, "count": 2}),
            ("c", ("t4",), ASKED),
            ("d", ("t5",), {**ASKED, "after": [["j1", "ok"], ["t4", "any"]]}),
            ("e", ("t6",), {**ASKED, "after": [["t1", "any"], ["t4", "ok"]]}),
        ]
    )
    cancels: list[str] = field(default_factory=lambda: ["t4"])
    touched: list[str] = field(default_factory=lambda: ["n1"])
    results: dict[str, str] = field(
        default_factory=lambda: {"t1": "t1 2 1.4", "t2": "t2 1 1.2", "t3": "t3 1 1.3", "t5": "t5 1 1.5"}
    )
    told: list[tuple[int, str, str]] = field(
        default_factory=lambda: [
            (1, "t1", "submitted"), (2, "t1", "running"), (3, "t2", "submitted"), (3, "t3", "submitted"),
            (3, "t5", "submitted"), (3, "t6", "submitted"),
            (4, "t2", "running"), (4, "t3", "running"), (5, "t4", "submitted"), (6, "t4", "cancelled"),
            (6, "t6", "cancelled"),
            (7, "t1", "retrying"), (8, "t1", "running"), (9, "t2", "succeeded"), (10, "t3", "succeeded"),
            (10, "t5", "running"), (11, "t1", "succeeded"), (12, "t5", "succeeded"),
        ]
    )  # fmt: skip

    def events(self) -> list[Event]:
        """Its history: one thing after the other, half a second each."""
        found: list[Event] = []

        def add(client: str, what: str, about: str, **more: Any) -> None:
            event = Event(
                client, what, about, {}, {}, (), len(found) * SECOND, len(found) * SECOND + SECOND // 2
            )
            found.append(dataclasses.replace(event, **more))

        for request_id, task_ids, asked in self.submits:
            job_id = "j1" if asked["count"] > 1 else ""
            answer = {"task_ids": task_ids, "job_id": job_id, "fresh": True}
            add("c1", h.SUBMIT, request_id, asked=asked, answer=answer)
        for task_id in self.cancels:
            add("c2", h.CANCEL, task_id, answer={"state": "cancelled"})
        add("nemesis", h.FAULT, "kill n1", asked={"touched": self.touched}, invoked_ns=0)
        for index, task_id, change in self.told:
            add("watch", h.WATCH, task_id, answer={"index": index, "change": change})
        add("auditor", h.RECORD, "", tasks=tuple(self.record))
        for task_id, result in self.results.items():
            add("auditor", h.RESULT, task_id, answer={"result": result})
        return found

    def audited(self) -> list[str]:
        """What does not hold."""
        return audit(self.events(), ledger.read("\n".join(self.lines)), 0)


def test_a_run_in_which_nothing_went_wrong_is_accepted() -> None:
    assert Run().audited() == []


def test_a_history_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    kept = History(tmp_path / "history.jsonl")
    for event in Run().events():
        answer, tasks = event.answer, event.tasks
        kept.note(event.client, event.what, event.about, 0, asked=event.asked, answer=answer, tasks=tasks)
    assert [dataclasses.asdict(one) for one in load(kept.path)] == [
        dataclasses.asdict(dataclasses.replace(one, answer=_as_lists(one.answer))) for one in kept.events
    ]


def _as_lists(answer: Any) -> Any:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in answer.items()}


def _replace(run: Run, place: int, **more: Any) -> None:
    run.record[place] = dataclasses.replace(run.record[place], **more)


def _fail_too_soon(run: Run) -> None:
    run.submits[1] = ("b", ("t2", "t3"), {**ASKED, "count": 2, "retries": 3})
    _replace(run, 1, attempts=(attempt(2, FAILED),), state=TaskState.FAILED)


BROKEN: dict[str, tuple[Callable[[Run], object], str]] = {
    "a task is lost": (
        lambda run: run.record.pop(1),
        "lost: b[0] was acknowledged as t2, the record has None",
    ),
    "a task is under another id": (lambda run: _replace(run, 1, task_id="t9"), "the record has t9"),
    "a task is there twice": (lambda run: run.record.append(run.record[0]), "recorded twice: t1"),
    "a request is there twice": (
        lambda run: run.record.append(task(5, "a", attempt(5))),
        "recorded twice: a[0]",
    ),
    "a task that nobody asked for": (
        lambda run: run.record.append(task(5, "z", attempt(5))),
        "acknowledged to nobody: z",
    ),
    "a task has not ended": (
        lambda run: _replace(run, 1, state=TaskState.RUNNING),
        "not ended: t2 of b is running",
    ),
    "two runs at once": (
        lambda run: run.lines.append("beat t1 1 1.1 9 7"),
        "two runs of t1 at once, for 0 ms: 1.1 and 1.4",
    ),
    "one attempt ran twice": (
        lambda run: run.lines.insert(3, "start t2 1 1.2 3 9"),
        "one attempt ran twice: t2 1.2",
    ),
    "one attempt ran in two processes": (
        lambda run: run.lines.insert(3, "beat t2 1 1.2 3 9"),
        "one attempt ran twice: t2 1.2",
    ),
    "an attempt went on": (lambda run: run.lines.append("beat t2 1 1.2 9 8"), "went on after its end: t2"),
    "a run with an older token": (
        lambda run: run.lines.append("start t1 3 1.2 9 9"),
        "tokens of t1 go backwards: 1.4, then 1.2",
    ),
    "something ran that is not in the record": (
        lambda run: run.lines.append("start t8 1 1.8 9 9"),
        "not in the record: t8",
    ),
    "an attempt ran that is not in the record": (
        lambda run: run.lines.append("start t3 2 1.8 9 9"),
        "not in the record: attempt 2 of t3, 1.8",
    ),
    "lost, though nothing was done to its node": (
        lambda run: run.touched.remove("n1"),
        "on n1 lost (): nothing was done to its node",
    ),
    "succeeded without an end": (lambda run: run.lines.pop(3), "succeeded (): it wrote no end"),
    "failed, and was not to": (
        lambda run: _replace(run, 1, attempts=(attempt(2, FAILED),), state=TaskState.FAILED),
        "failed (): it was not to fail",
    ),
    "failed with retries left": (
        _fail_too_soon,
        "failed with retries left: t2",
    ),
    "timed out without a timeout": (
        lambda run: _replace(run, 1, attempts=(attempt(2, AttemptOutcome.TIMED_OUT),)),
        "timed_out (): it lasted 500 ms",
    ),
    "run again after it had succeeded": (
        lambda run: _replace(run, 1, attempts=(attempt(2), attempt(5, number=2))),
        "run again after it had succeeded: t2",
    ),
    "attempts are missing": (
        lambda run: _replace(run, 1, attempts=(attempt(2, number=2),)),
        "it should be number 1",
    ),
    "cancelled by nobody": (lambda run: run.cancels.clear(), "cancelled by nobody: t4"),
    "the result of another attempt": (
        lambda run: run.results.__setitem__("t1", "t1 1 1.1"),
        "the result of t1 is 't1 1 1.1', not 't1 2 1.4'",
    ),
    "a result is missing": (lambda run: run.results.pop("t2"), "the result of t2 is None"),
    "the watch goes back": (lambda run: run.told.append((2, "t1", "stopping")), "the watch went back"),
    "the watch tells twice": (lambda run: run.told.append((12, "t5", "succeeded")), "told twice of t5"),
    "the watch leaves something out": (lambda run: run.told.pop(0), "the watch told of t1"),
    "one ran before what it comes after had ended": (
        lambda run: run.lines.insert(3, run.lines.pop(8)),
        "ran too soon: t5 began before t2 had ended, and comes after j1",
    ),
    "one was recorded as running too soon": (
        lambda run: run.told.insert(10, (8, "t5", "running")),
        "recorded too soon: t5 began before t3 had ended, after j1",
    ),
    "one ran though what it needs went wrong": (
        lambda run: run.submits.__setitem__(3, ("d", ("t5",), {**ASKED, "after": [["t4", "ok"]]})),
        "not cancelled: t5 is succeeded, though t4 did not succeed",
    ),
    "one was cancelled though what it needs went well": (
        lambda run: _replace(run, 5, reason="t1, which it comes after, failed"),
        "cancelled for nothing: t6, t1, which it comes after, failed",
    ),
    "no order explains it": (
        lambda run: run.submits.append(("a", ("t1",), ASKED)),  # accepted as new a second time
        "not linearizable: a[0]",
    ),
    "a submission has two ids": (
        lambda run: run.submits.append(("a", ("t9",), ASKED)),
        "not linearizable: a[0]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_hold_is_told(name: str) -> None:
    break_it, told = BROKEN[name]
    run = Run()
    break_it(run)
    assert any(told in one for one in run.audited()), run.audited()
