"""What one task does, one operation after the other: the specification that histories of tasks are checked against.

What may live here: the calls on a task, their answers, and what each makes of it. It is written from the promises of
the README and the table of transitions, not from the state machine.

The object is a task, and its key the request that it was submitted by, with its place in it for a task of an array: so
that a submission which is answered with two ids is seen. Occupy and Vacate are operations, too, though no client asks
for them: whoever makes a history takes them from the record, open from the submission until somebody saw them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from raftctl.client.models import AttemptOutcome, FencingToken, TaskState


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt: its token, and how it ended (RUNNING while it has not)."""

    token: FencingToken
    outcome: AttemptOutcome = AttemptOutcome.RUNNING

    def __str__(self) -> str:
        return f"{self.token} {self.outcome}"


# --- calls ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Put it into the queue; `content` is what was asked for, as far as one can tell two requests apart."""

    content: str = ""


@dataclass(frozen=True, slots=True)
class Occupy:
    """An attempt begins, or waits in line for its slot: then the task is still pending to everybody."""

    token: FencingToken


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """The turn of an attempt that waited in line has come."""

    token: FencingToken


@dataclass(frozen=True, slots=True)
class Vacate:
    """An attempt ends, and leaves the task as `then`; None: nobody saw it in between, as it may be."""

    token: FencingToken
    outcome: AttemptOutcome
    then: TaskState | None


@dataclass(frozen=True, slots=True)
class Expire:
    """It has been in the queue for too long."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop it: by a client, or, where nobody is answered, by what it depends on."""


@dataclass(frozen=True, slots=True)
class Read:
    """Look at it."""


Call = Submit | Occupy | TakeTurn | Vacate | Expire | Cancel | Read


# --- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is in the record under this id; not `fresh`: as it was before, or the same call has been sent before."""

    task_id: str
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """The request id was used for something else."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing has happened, and nothing will."""


@dataclass(frozen=True, slots=True)
class Done:
    """It has happened: all that can be said of Occupy, Vacate and Expire."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The cancel is in the record, and the task then was so; None: it was not told, which is so for whole jobs."""

    state: TaskState | None


@dataclass(frozen=True, slots=True)
class Seen:
    """The task, as it is."""

    task_id: str
    state: TaskState
    runs: tuple[Run, ...] = ()

    def __str__(self) -> str:
        runs = "; ".join(map(str, self.runs))
        return f"{self.task_id} {self.state}" + (f" ({runs})" if runs else "")


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such task."""


Answer = Accepted | Conflict | Refused | Done | Stopped | Seen | NotFound


# --- the specification ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A task in the record. One that is pending and has an attempt that has not ended waits in line for a slot.

    Attributes:
        cancelling: a cancel met it while it had an attempt: it may still succeed, and never goes back to the queue.
    """

    task_id: str
    content: str
    state: TaskState = TaskState.PENDING
    runs: tuple[Run, ...] = ()
    cancelling: bool = False

    @property
    def has_attempt(self) -> bool:
        """Whether an attempt has begun, or waits for its turn, and has not ended."""
        return bool(self.runs) and self.runs[-1].outcome is AttemptOutcome.RUNNING

    def __str__(self) -> str:
        return f"{Seen(self.task_id, self.state, self.runs)}" + ", to be cancelled" * self.cancelling


State = Task | None
"""None: it was never submitted."""


@dataclass(frozen=True, slots=True)
class TaskSpecification:
    """One task.

    Attributes:
        task_id: its id, where that is known for certain, so that a submission without an answer has one; else empty.
    """

    task_id: str = ""
    initial: State = None

    def after(self, state: State, call: Call, answer: Answer | None) -> Iterable[State]:
        """The states that this may lead to."""
        if isinstance(answer, Refused):
            return (state,)
        match call:
            case Submit():
                return self._submit(state, call, answer)
            case Read():
                expected = NotFound() if state is None else Seen(state.task_id, state.state, state.runs)
                return (state,) if answer in (None, expected) else ()
            case _ if state is None:
                return (state,) if answer == NotFound() else ()
            case _ if answer == NotFound():
                return ()
            case Cancel():
                return _cancel(state, answer)
            case Occupy():
                return _occupy(state, call.token)
            case TakeTurn():
                waits = state.state is TaskState.PENDING and state.runs[-1:] == (Run(call.token),)
                return (replace(state, state=TaskState.RUNNING),) if waits else ()
            case Vacate():
                return _vacate(state, call)
            case Expire():
                waits = state.state is TaskState.PENDING and not state.runs
                return (replace(state, state=TaskState.FAILED),) if waits else ()

    def only_reads(self, call: Call) -> bool:
        """Whether such a call never changes anything."""
        return isinstance(call, Read)

    def _submit(self, state: State, call: Submit, answer: Answer | None) -> Iterable[State]:
        match answer:
            case Conflict():
                return (state,) if state is not None and state.content != call.content else ()
            case None if state is not None:
                return (state,)
            case None:
                return (Task(self.task_id, call.content),)
            case Accepted(task_id, fresh) if state is None:
                return (Task(task_id, call.content),)
            case Accepted(task_id, fresh) if state is not None:
                same = (state.task_id, state.content) == (task_id, call.content)
                return (state,) if same and not fresh else ()
            case _:
                return ()


def _cancel(task: Task, answer: Answer | None) -> Iterable[State]:
    if task.has_attempt:
        following = replace(task, cancelling=True)
    elif task.state is TaskState.PENDING:
        following = replace(task, state=TaskState.CANCELLED)
    else:
        following = task
    return (following,) if answer in (None, Stopped(None), Stopped(following.state)) else ()


def _occupy(task: Task, token: FencingToken) -> Iterable[State]:
    grows = all(run.token < token for run in task.runs)
    if task.state is not TaskState.PENDING or task.has_attempt or not grows:
        return ()
    runs = (*task.runs, Run(token))
    return (replace(task, state=TaskState.RUNNING, runs=runs), replace(task, runs=runs))


def _vacate(task: Task, call: Vacate) -> Iterable[State]:
    if task.runs[-1:] != (Run(call.token),):
        return ()  # it may end before the record knows that its turn has come
    if call.outcome is AttemptOutcome.SUCCEEDED:
        possible = {TaskState.SUCCEEDED}
    elif call.outcome is AttemptOutcome.RUNNING:
        possible = set()
    elif task.cancelling:
        possible = {TaskState.CANCELLED}  # a cancel that met it forbids the retry
    else:
        possible = {TaskState.PENDING, TaskState.FAILED}
    runs = (*task.runs[:-1], Run(call.token, call.outcome))
    return [replace(task, state=then, runs=runs) for then in sorted(possible) if call.then in (None, then)]
