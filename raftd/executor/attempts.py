"""An attempt from when it is accepted until its end is told, and what others see of it.

What may live here: the records that the slots, the Attach loop and the facade share.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from raftd.executor.logs import AttemptOutput
from raftd.scheduler.attach import Assignment
from raftd.scheduler.model import AttemptOutcome, FencingToken, StopReason

STOPPED_AS = {
    StopReason.CANCELLED: AttemptOutcome.CANCELLED,
    StopReason.TIMED_OUT: AttemptOutcome.TIMED_OUT,
    # It was its own node's turn to stop: the record knows why, and gives the task back.
    StopReason.DRAINED: AttemptOutcome.CANCELLED,
    StopReason.WITHDRAWN: AttemptOutcome.WITHDRAWN,
}


class Phase(Enum):
    """Where an attempt is."""

    WAITING = "waiting"
    """For its slot: the process is starting, or busy with an earlier attempt."""
    ON_SLOT = "on_slot"
    STORING = "storing"
    """It has ended; its result is on the way to the result store."""


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """What a slot does now.

    Attributes:
        started_at_ms: Unix time when it was handed to its slot's process; 0 while it waits for that.
        fraction: how far it is, 0 to 1; negative when it is not known.
    """

    task_id: int
    attempt: int
    token: FencingToken
    slot: int
    kind: str
    started_at_ms: int
    fraction: float
    message: str
    stopping: StopReason | None


class Attempt:
    """The mutable side of an attempt; owned by the slots."""

    __slots__ = (
        "assignment",
        "discarded",
        "fraction",
        "message",
        "output",
        "phase",
        "started_at_ms",
        "stop_outcome",
        "stop_why",
        "stopping",
        "storing",
        "timer",
        "token_text",
    )

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.token_text = str(assignment.token)
        self.phase = Phase.WAITING
        self.stopping: StopReason | None = None
        self.stop_outcome: AttemptOutcome | None = None  # as what it ends, once it has been asked to
        self.stop_why = ""
        self.discarded = False  # nobody waits for its end any more
        self.fraction = -1.0
        self.message = ""
        self.started_at_ms = 0
        self.output: AttemptOutput | None = None
        self.timer: asyncio.TimerHandle | None = None  # run timeout, then grace
        self.storing: asyncio.Task[None] | None = None

    def seen(self) -> RunningAttempt:
        """As others see it."""
        assignment = self.assignment
        return RunningAttempt(
            task_id=assignment.task_id,
            attempt=assignment.attempt,
            token=assignment.token,
            slot=assignment.slot,
            kind=assignment.kind,
            started_at_ms=self.started_at_ms,
            fraction=self.fraction,
            message=self.message,
            stopping=self.stopping,
        )

    def stop_timer(self) -> None:
        """Cancels whatever timer runs."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
