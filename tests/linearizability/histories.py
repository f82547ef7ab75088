"""Random histories of one task, for the tests of the checker: some that are linearizable by construction, some not.

What may live here: a walk through the specification that notes what happened when, intervals drawn around those
moments, and changes to a history that may or may not break it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from hypothesis import strategies as st

from raftctl.client.models import AttemptOutcome, FencingToken, TaskState
from tests.linearizability.checker import Operation
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
    Run,
    Seen,
    State,
    Stopped,
    Submit,
    TakeTurn,
    TaskSpecification,
    Vacate,
)

TaskOperation: TypeAlias = Operation[Call, Answer]
History: TypeAlias = tuple[TaskOperation, ...]

ID = "t1"
SPECIFICATION = TaskSpecification(ID)
MOMENT = 10
"""Between two operations that take effect one after the other."""


_CALLS: st.SearchStrategy[Call] = st.sampled_from((Cancel(), Submit("a"), Submit("b"), Read()))


def token(counter: int) -> FencingToken:
    """One token after the other."""
    return FencingToken(1, counter)


@st.composite
def linearizable(draw: st.DrawFn, max_size: int = 12) -> History:
    """A history that is linearizable, for it was made by taking one step after the other."""
    state: State = None
    history: list[TaskOperation] = []
    for step in range(1, draw(st.integers(1, max_size)) + 1):
        call, answer = draw(_steps(state))
        state = draw(st.sampled_from(list(SPECIFICATION.after(state, call, answer))))
        moment = step * MOMENT
        invoked = moment - draw(st.integers(0, 4 * MOMENT))
        if draw(st.integers(0, 5)) == 0:
            history.append(Operation(f"c{step}", call, None, invoked, None))
        else:
            returned = moment + draw(st.integers(0, 4 * MOMENT))
            history.append(Operation(f"c{step}", call, answer, invoked, returned))
    for extra in range(draw(st.integers(0, 2))):
        # It never took effect, and nobody was told.
        call = draw(_CALLS)
        history.append(Operation(f"never-{extra}", call, None, draw(st.integers(0, max_size * MOMENT)), None))
    return tuple(draw(st.permutations(history)))


@st.composite
def changed(draw: st.DrawFn, max_size: int = 6) -> History:
    """A history in which one thing is not as it was, which it may or may not survive."""
    history = list(draw(linearizable(max_size)))
    which = draw(st.integers(0, len(history) - 1))
    operation = history[which]
    match draw(st.sampled_from(("answer", "later", "sooner", "lost", "call"))):
        case "answer" if operation.answer is not None:
            history[which] = replace(operation, answer=draw(_other_answers(operation.answer)))
        case "later":
            history[which] = _shifted(operation, draw(st.integers(1, 80)))
        case "sooner":
            history[which] = _shifted(operation, -draw(st.integers(1, 80)))
        case "lost":
            del history[which]
        case _ if isinstance(operation.call, Occupy | TakeTurn | Vacate):
            moved = token(draw(st.integers(1, 3)))
            history[which] = replace(operation, call=replace(operation.call, token=moved))
        case _:
            history[which] = replace(operation, call=draw(_CALLS))
    return tuple(history)


def _shifted(operation: TaskOperation, by: int) -> TaskOperation:
    returned = None if operation.returned is None else operation.returned + by
    return replace(operation, invoked=operation.invoked + by, returned=returned)


def _steps(state: State) -> st.SearchStrategy[tuple[Call, Answer]]:
    """What may come next, and how it is answered."""
    if state is None:
        return st.sampled_from(
            [(Submit("a"), Accepted(ID)), (Read(), NotFound()), (Submit("a"), Accepted(ID, fresh=False))]
        )
    steps: list[tuple[Call, Answer]] = [
        (Read(), Seen(ID, state.state, state.runs)),
        (Submit("a"), Accepted(ID, fresh=False)),
        (Submit("b"), Conflict()),
    ]
    at_once = state.state is TaskState.PENDING and not state.has_attempt
    cancelled = TaskState.CANCELLED if at_once else state.state
    steps += [(Cancel(), Stopped(cancelled)), (Cancel(), Stopped(None))]
    if at_once:
        steps += [(Occupy(token(len(state.runs) + 1)), Done())] * 3
        if not state.runs:
            steps.append((Expire(), Done()))
    if state.has_attempt and state.state is TaskState.PENDING:
        steps += [(TakeTurn(state.runs[-1].token), Done())] * 2
    if state.has_attempt:
        current = state.runs[-1].token
        after_loss = (
            (TaskState.CANCELLED,)
            if state.cancelling
            else (TaskState.PENDING, TaskState.PENDING, TaskState.FAILED)
        )
        steps += [(Vacate(current, AttemptOutcome.LOST, then), Done()) for then in after_loss]
        steps += [(Vacate(current, AttemptOutcome.SUCCEEDED, TaskState.SUCCEEDED), Done())]
    return st.sampled_from(steps)


def _other_answers(answer: Answer) -> st.SearchStrategy[Answer]:
    """Answers of the same kind, and then some."""
    same_kind: list[Answer] = [NotFound()]
    match answer:
        case Accepted():
            same_kind += [Accepted(ID), Accepted(ID, fresh=False), Accepted("t2"), Conflict()]
        case Stopped():
            same_kind += [Stopped(state) for state in TaskState]
        case Seen(_, state, runs):
            same_kind += [Seen(ID, other, runs) for other in TaskState if other is not state]
            same_kind += [Seen(ID, state, runs[:-1]), Seen(ID, state, (*runs, Run(token(7))))]
        case _:
            same_kind += [Seen(ID, TaskState.PENDING), Accepted(ID)]
    return st.sampled_from(same_kind)
