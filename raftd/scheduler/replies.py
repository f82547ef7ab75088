"""What the state machine answers: one reply for every command, in order.

What may live here: frozen dataclasses. An expected refusal is an answer like any other: ``apply`` never raises for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from raftd.scheduler.model import FencingToken, TaskState


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done, and nothing was changed.

    Attributes:
        code: as the classes of ``raftd.errors`` have it.
        message: what was refused and why, one line.
        try_: what to try next, one line, or empty.
        retryable: whether the same may be accepted later.
    """

    code: str
    message: str
    try_: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    """The node is in the tables; ``repeated``: this incarnation was there already and keeps what it runs."""

    name: str
    incarnation: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The tasks exist; ``duplicate``: they did already, and this is the first answer again."""

    first_task_id: int
    count: int
    job_id: int | None = None
    duplicate: bool = False

    @property
    def task_ids(self) -> range:
        """Ids in the order of the array's indices."""
        return range(self.first_task_id, self.first_task_id + self.count)


@dataclass(frozen=True, slots=True)
class Occupied:
    """The slot is taken by this attempt."""

    task_id: int
    attempt: int
    token: FencingToken


@dataclass(frozen=True, slots=True)
class Vacated:
    """The slot is free, and the task is in this state."""

    task_id: int
    state: TaskState


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a Cancel did.

    Attributes:
        count: tasks that it cancelled or marked as stopping.
        state: of the task after it; None for a job.
    """

    count: int
    state: TaskState | None


@dataclass(frozen=True, slots=True)
class Marked:
    """The attempt is stopping."""

    task_id: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The node is lost; so many attempts went with it."""

    name: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """The blob's holders are in the directory: all of them, sorted."""

    digest: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expired:
    """The task has failed: nothing started it in time."""

    task_id: int


@dataclass(frozen=True, slots=True)
class Purged:
    """Records that are gone, and, by the id that was named, why others are not."""

    count: int
    refused: tuple[tuple[str, Refused], ...] = ()


@dataclass(frozen=True, slots=True)
class NodeSet:
    """The node is as it was asked to be; so many attempts are on its slots still."""

    name: str
    running: int


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """Nothing is known of the node any more."""

    name: str


@dataclass(frozen=True, slots=True)
class SettingsSet:
    """The settings are as they were asked to be."""


Reply: TypeAlias = (
    Refused
    | Registered
    | Accepted
    | Occupied
    | Vacated
    | Cancelled
    | Marked
    | Lost
    | Recorded
    | Expired
    | Purged
    | NodeSet
    | NodeForgotten
    | SettingsSet
)
