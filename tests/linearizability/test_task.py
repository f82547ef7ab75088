"""Histories of one task made by hand: what is wrong must be seen, what only looks odd must be accepted."""

from __future__ import annotations

import pytest

from raftctl.client.models import AttemptOutcome, FencingToken, TaskState
from tests.linearizability.checker import Operation, check
from tests.linearizability.histories import ID, SPECIFICATION, TaskOperation
from tests.linearizability.oracle import explains
from tests.linearizability.task import (
    Accepted,
    Answer,
    Call,
    Cancel,
    Conflict,
    Done,
    Expire,
    NotFound,
    Occupy,
    Read,
    Refused,
    Run,
    Seen,
    Stopped,
    Submit,
    TakeTurn,
    Vacate,
)

PENDING, RUNNING = TaskState.PENDING, TaskState.RUNNING
SUCCEEDED, FAILED, CANCELLED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED
LOST = AttemptOutcome.LOST
ONE, TWO, THREE = FencingToken(1, 4), FencingToken(1, 9), FencingToken(2, 1)
END = 1_000
"""When the record was read at last, which is when Occupy and Vacate are known at the latest."""

H = list[TaskOperation]


def op(call: Call, answer: Answer | None, invoked: int, returned: int | None) -> TaskOperation:
    """One operation."""
    return Operation("c", call, answer, invoked, returned)


def submitted(invoked: int = 0, returned: int = 1, *, fresh: bool = True, task_id: str = ID) -> TaskOperation:
    """A submission that was accepted."""
    return op(Submit(), Accepted(task_id, fresh), invoked, returned)


def occupied(token: FencingToken = ONE, until: int = END) -> TaskOperation:
    """An attempt of the record."""
    return op(Occupy(token), Done(), 0, until)


def vacated(
    then: TaskState | None = SUCCEEDED,
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED,
    token: FencingToken = ONE,
    until: int = END,
) -> TaskOperation:
    """The end of it."""
    return op(Vacate(token, outcome, then), Done(), 0, until)


def seen(state: TaskState, *runs: Run, at: int, until: int | None = None) -> TaskOperation:
    """A read."""
    return op(Read(), Seen(ID, state, runs), at, at + 1 if until is None else until)


def run(outcome: AttemptOutcome = AttemptOutcome.RUNNING, token: FencingToken = ONE) -> Run:
    """An attempt as reads show it."""
    return Run(token, outcome)


RAN = run(AttemptOutcome.SUCCEEDED)

GOOD: dict[str, H] = {
    "submitted, run, read": [
        submitted(),
        seen(PENDING, at=2),
        occupied(),
        seen(RUNNING, run(), at=4),
        vacated(),
        seen(SUCCEEDED, RAN, at=6),
    ],
    "the same request from two clients at once, and again": [
        submitted(0, 5),
        submitted(1, 4, fresh=False),
        submitted(7, 8, fresh=False),
    ],
    "nobody was told, and it is there": [op(Submit(), None, 0, None), seen(PENDING, at=50)],
    "nobody was told, and it was asked again": [op(Submit(), None, 0, None), submitted(3, 9, fresh=False)],
    "nobody was told, and it came a second time after the answer": [
        op(Submit(), None, 0, None),
        submitted(3, 9),
    ],
    "a read that overlaps the submission sees nothing yet": [
        op(Read(), NotFound(), 0, 5),
        submitted(0, 9),
    ],
    "another request under the same id": [submitted(), op(Submit("other"), Conflict(), 2, 3)],
    "a full queue takes nothing": [
        op(Submit(), Refused(), 0, 1),
        op(Read(), NotFound(), 2, 3),
        submitted(4, 5),
    ],
    "two reads at once see what was and what is": [
        submitted(),
        seen(RUNNING, run(), at=2, until=9),
        seen(PENDING, at=3, until=8),
        occupied(),
    ],
    "lost and run again": [
        submitted(),
        occupied(),
        vacated(PENDING, LOST),
        seen(PENDING, run(LOST), at=4),
        occupied(THREE),
        seen(RUNNING, run(LOST), run(token=THREE), at=6),
        vacated(token=THREE),
    ],
    "a cancel met it in the queue": [
        submitted(),
        op(Cancel(), Stopped(CANCELLED), 2, 3),
        seen(CANCELLED, at=4),
    ],
    "a cancel met it running, and it was done before it heard": [
        submitted(),
        occupied(),
        op(Cancel(), Stopped(RUNNING), 2, 3),
        vacated(),
        seen(SUCCEEDED, RAN, at=9),
    ],
    "a cancel met it running, and its node was lost": [
        submitted(),
        occupied(),
        op(Cancel(), Stopped(RUNNING), 2, 3),
        vacated(CANCELLED, LOST),
        seen(CANCELLED, run(LOST), at=9),
    ],
    "a cancel met it before it was run again, and nobody saw it wait": [
        submitted(),
        occupied(),
        vacated(None, LOST),
        seen(RUNNING, run(), at=3),
        op(Cancel(), Stopped(CANCELLED), 5, 6),
        seen(CANCELLED, run(LOST), at=9),
    ],
    "a cancel met it running, and nobody saw what that came to": [
        submitted(),
        occupied(),
        vacated(None, LOST),
        op(Cancel(), Stopped(RUNNING), 2, 3),
        seen(CANCELLED, run(LOST), at=9),
    ],
    "nobody was told of the cancel, which came late": [
        submitted(),
        op(Cancel(), None, 2, None),
        occupied(),
        seen(RUNNING, run(), at=10),
        vacated(CANCELLED, AttemptOutcome.CANCELLED),
        seen(CANCELLED, run(AttemptOutcome.CANCELLED), at=12),
    ],
    "nobody was told of the cancel, which never came": [
        submitted(),
        op(Cancel(), None, 2, None),
        occupied(),
        vacated(),
        seen(SUCCEEDED, RAN, at=10),
    ],
    "it waited in line, and then it was its turn": [
        submitted(),
        occupied(),
        seen(PENDING, run(), at=3),
        op(TakeTurn(ONE), None, 0, None),
        seen(RUNNING, run(), at=5),
        vacated(),
        seen(SUCCEEDED, RAN, at=7),
    ],
    "it waited in line, and had ended before the record knew of its turn": [
        submitted(),
        occupied(),
        op(TakeTurn(ONE), None, 0, None),
        seen(PENDING, run(), at=3),
        vacated(),
        seen(SUCCEEDED, RAN, at=5),
    ],
    "a cancel met it in line": [
        submitted(),
        occupied(),
        seen(PENDING, run(), at=2),
        op(Cancel(), Stopped(PENDING), 4, 5),
        vacated(CANCELLED, LOST),
        seen(CANCELLED, run(LOST), at=9),
    ],
    "the cancel of a whole job": [submitted(), op(Cancel(), Stopped(None), 2, 3), seen(CANCELLED, at=4)],
    "it was in the queue for too long": [submitted(), op(Expire(), Done(), 0, END), seen(FAILED, at=9)],
}

BAD: dict[str, H] = {
    "a stale read after a newer one": [
        submitted(),
        occupied(),
        seen(RUNNING, run(), at=2),
        seen(PENDING, at=5),
    ],
    "a stale read after the end was seen by another": [
        submitted(),
        occupied(),
        vacated(),
        seen(SUCCEEDED, RAN, at=2, until=9),
        seen(RUNNING, run(), at=10),
    ],
    "an acknowledged submission is lost": [submitted(), op(Read(), NotFound(), 2, 3)],
    "an acknowledged submission is lost, and found again": [
        submitted(),
        op(Read(), NotFound(), 2, 3),
        seen(PENDING, at=4),
    ],
    "it is there before anybody asked for it": [seen(PENDING, at=0), submitted(5, 6)],
    "a submission gives two ids": [submitted(), submitted(3, 4, fresh=False, task_id="t2")],
    "a submission is new twice": [submitted(), submitted(3, 4)],
    "a submission that was accepted is in conflict": [submitted(), op(Submit(), Conflict(), 2, 3)],
    "another request under the same id is taken": [
        submitted(),
        op(Submit("other"), Accepted(ID, fresh=False), 2, 3),
    ],
    "it ran though nobody submitted it": [occupied(), seen(RUNNING, run(), at=2)],
    "an end is undone": [
        submitted(),
        occupied(),
        vacated(),
        seen(SUCCEEDED, RAN, at=2),
        occupied(TWO),
        seen(RUNNING, RAN, run(token=TWO), at=5),
    ],
    "its turn is taken back, and nobody ended it": [
        submitted(),
        occupied(),
        op(TakeTurn(ONE), None, 0, None),
        seen(RUNNING, run(), at=2),
        seen(PENDING, run(), at=4),
    ],
    "it waited in line twice at once": [
        submitted(),
        occupied(ONE),
        seen(PENDING, run(), at=2),
        occupied(TWO),
    ],
    "a cancel met it in line, and it was run again": [
        submitted(),
        occupied(),
        seen(PENDING, run(), at=2),
        op(Cancel(), Stopped(PENDING), 4, 5),
        vacated(PENDING, LOST),
        seen(PENDING, run(LOST), at=9),
    ],
    "it ended in two ways": [
        submitted(),
        occupied(),
        vacated(),
        seen(SUCCEEDED, RAN, at=2),
        seen(FAILED, run(AttemptOutcome.FAILED), at=5),
    ],
    "tokens go backwards": [submitted(), occupied(TWO), vacated(PENDING, LOST, TWO), occupied(ONE)],
    "two tokens at once": [submitted(), occupied(ONE), occupied(TWO)],
    "a second attempt though the first one goes on": [
        submitted(),
        occupied(ONE),
        occupied(TWO),
        vacated(PENDING, LOST, ONE),
        seen(RUNNING, run(), run(token=TWO), at=3),
    ],
    "an attempt ends by another one's token": [submitted(), occupied(TWO), vacated(token=ONE)],
    "an attempt ends twice": [submitted(), occupied(), vacated(PENDING, LOST), vacated()],
    "cancelled in the queue, and it succeeded": [
        submitted(),
        op(Cancel(), Stopped(CANCELLED), 2, 3),
        occupied(),
        vacated(),
        seen(SUCCEEDED, RAN, at=9),
    ],
    "cancelled while it ran, and it was run again": [
        submitted(),
        occupied(),
        op(Cancel(), Stopped(RUNNING), 2, 3),
        vacated(PENDING, LOST),
        seen(PENDING, run(LOST), at=9),
    ],
    "cancelled by nobody, and nobody saw what its end came to": [
        submitted(),
        occupied(),
        vacated(None, LOST),
        seen(CANCELLED, run(LOST), at=9),
    ],
    "cancelled by nobody": [submitted(), occupied(), vacated(CANCELLED, AttemptOutcome.CANCELLED)],
    "cancelled before anybody asked for it": [
        submitted(),
        seen(CANCELLED, at=2),
        op(Cancel(), Stopped(CANCELLED), 5, 6),
    ],
    "a cancel is told that it runs, before it does": [
        submitted(),
        op(Cancel(), Stopped(RUNNING), 2, 3),
        seen(PENDING, at=4),
        occupied(),
    ],
    "the record has an attempt less": [
        submitted(),
        occupied(),
        vacated(PENDING, LOST),
        seen(PENDING, run(LOST), at=4),
        occupied(TWO),
        seen(RUNNING, run(token=TWO), at=8),
    ],
    "it succeeded without having succeeded": [submitted(), occupied(), vacated(SUCCEEDED, LOST)],
    "an attempt was seen that the record does not have": [submitted(), seen(RUNNING, run(), at=5)],
    "it expired though it had run": [
        submitted(),
        occupied(),
        vacated(PENDING, LOST),
        seen(PENDING, run(LOST), at=2),
        op(Expire(), Done(), 0, END),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_only_looks_odd_is_accepted(name: str) -> None:
    assert explains(GOOD[name], SPECIFICATION), "so does trying every order"
    assert check(GOOD[name], SPECIFICATION) is None


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_seen(name: str) -> None:
    assert not explains(BAD[name], SPECIFICATION), "so does trying every order"
    assert check(BAD[name], SPECIFICATION) is not None
