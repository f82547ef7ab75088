"""The checks of what was told of a job: a small run made by hand holds, and every way to break it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from raftctl.client import models as m
from raftctl.client.models import AttemptOutcome, FencingToken, TaskState
from tests.e2e.workload import ledger
from tests.e2e.workload.job import WIDTH, diamonds
from tests.e2e.workload.truth import CountsTold, Explained, ran_wrongly, untruths

PENDING, RUNNING, SUCCEEDED = TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCEEDED


def task(number: int, index: int, job_id: str = "j1", state: TaskState = SUCCEEDED) -> m.Task:
    """A task with the token 1.NUMBER, that has been as it is since this index."""
    attempt = m.Attempt(1, "n1", 0, FencingToken(1, number), AttemptOutcome.SUCCEEDED, "", 1, 1, 2, False)
    return m.Task(
        f"t{number}", "", "noop", (), {}, 0, state, job_id, None, "r", 1, 2, None, 0, 0, (attempt,), None, "", index
    )  # fmt: skip


def counts(index: int, succeeded: int, running: int = 0) -> CountsTold:
    """What was told of the job of three."""
    return CountsTold("info", "j1", index, 3, 3 - succeeded - running, running, succeeded, 0, 0)


def explained(number: int, index: int, state: TaskState, *waits: tuple[str, str]) -> Explained:
    """What was told of a task."""
    summary = f"t{number} waits for {waits[0][0] if waits else 'a slot'}"
    return Explained(f"t{number}", index, state, summary, waits, len(waits))


@dataclass
class Run:
    """Three tasks: t3 comes after t1 and t2, which end at 10 and 20; it ends at 30."""

    tasks: list[m.Task] = field(default_factory=lambda: [task(1, 10), task(2, 20), task(3, 30)])
    counts: list[CountsTold] = field(
        default_factory=lambda: [counts(5, 0), counts(10, 1), counts(12, 1, 1), counts(30, 3)]
    )
    explained: list[Explained] = field(
        default_factory=lambda: [
            explained(3, 9, PENDING, ("t1", "running"), ("t2", "pending")),
            explained(3, 15, PENDING, ("t2", "running")),
            explained(3, 25, RUNNING),
            explained(3, 30, SUCCEEDED),
            explained(1, 3, PENDING),
        ]
    )
    lines: list[str] = field(
        default_factory=lambda: [
            f"{what} t{number} 1 1.{number} 1 7" for number in (1, 2, 3) for what in ("start", "end")
        ]
    )

    def failures(self) -> list[str]:
        """What does not hold."""
        edges = {"t3": ("t1", "t2")}
        found = untruths({"j1": 3}, self.tasks, edges, self.counts, self.explained)
        return found + ran_wrongly(self.tasks, edges, ledger.read("\n".join(self.lines)))


def test_a_run_of_which_only_the_truth_was_told_is_accepted() -> None:
    assert Run().failures() == []


def _say(run: Run, place: int, **more: object) -> None:
    run.explained[place] = dataclasses.replace(run.explained[place], **more)  # type: ignore[arg-type]  # by name


BROKEN: dict[str, tuple[Callable[[Run], object], str]] = {
    "a task is missing": (lambda run: run.tasks.pop(), "j1 has 2 tasks, not 3"),
    "a task has failed": (
        lambda run: run.tasks.__setitem__(2, task(3, 30, state=TaskState.FAILED)),
        "t3 is failed",
    ),
    "the counts do not add up": (
        lambda run: run.counts.__setitem__(1, dataclasses.replace(counts(10, 1), pending=1)),
        "the counts add up to 2",
    ),
    "the counts go back": (lambda run: run.counts.append(counts(20, 2)), "the counts went back"),
    "the counts are ahead": (lambda run: run.counts.insert(1, counts(9, 1)), "0 had succeeded by then"),
    "the counts are behind": (lambda run: run.counts.insert(3, counts(20, 1)), "2 had succeeded by then"),
    "it waits for what has ended": (
        lambda run: _say(run, 1, waits_for=(("t1", "running"), ("t2", "running"))),
        "t3 waits for ['t1'] no longer",
    ),
    "it does not say what it waits for": (
        lambda run: _say(run, 0, waits_for=(("t1", "running"),)),
        "t3 waits for ['t2'] too",
    ),
    "it waits for what it says has ended": (
        lambda run: _say(run, 1, waits_for=(("t2", "succeeded"),)),
        "t3 waits for what has ended",
    ),
    "the summary is of something else": (
        lambda run: _say(run, 1, summary="t3 is about to be placed"),
        "and the summary does not say so",
    ),
    "it has ended, and is said to run": (
        lambda run: run.explained.append(explained(3, 31, RUNNING)),
        "t3 ended at 30, and was said otherwise",
    ),
    "it runs, and is said to have ended": (lambda run: _say(run, 3, index=29), "t3 ended at 30"),
    "it ran before its turn": (
        lambda run: run.lines.insert(3, run.lines.pop(4)),
        "t3 ran before ['t2'] had ended",
    ),
    "it did not run to its end": (lambda run: run.lines.pop(), "t3 has not run to its end"),
    "it ran under a token that nobody knows": (
        lambda run: run.lines.append("start t3 2 1.9 1 7"),
        "t3 ran, and is not in the record",
    ),
    "it ran twice at once": (
        lambda run: run.lines.insert(5, "start t3 2 1.9 1 7"),
        "two runs of t3 at once",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_was_not_so_is_told(name: str) -> None:
    break_it, told = BROKEN[name]
    run = Run()
    break_it(run)
    assert any(told in one for one in run.failures()), run.failures()


def test_diamonds_hang_together() -> None:
    after = diamonds(1_000)
    assert len(after) == 1_000
    assert after[:2] == [(), (0,)]
    assert after[WIDTH + 1] == tuple(range(1, WIDTH + 1))
    assert after[WIDTH + 2] == (WIDTH + 1,)
    assert after[999] == tuple(range(991, 999))
