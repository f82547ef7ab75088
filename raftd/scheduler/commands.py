"""What may be asked of the state machine: the commands of the log, as plain data.

What may live here: frozen dataclasses. A command names what was observed or wanted; it never carries a decision that
``apply`` could not check again. Many commands travel as one ``Batch``; they apply in order, each on its own.
A change of what a command means is a new ``COMMAND_VERSION``; a node that does not know a version halts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    BlobRef,
    FencingToken,
    NodeRole,
    StopReason,
    TaskSpec,
)

FORMAT_VERSION = 1
"""Of the bytes of a batch."""

COMMAND_VERSION = 1
"""Of the meaning of the commands."""


@dataclass(frozen=True, slots=True)
class Header:
    """Stamped by the leader on every entry: the only clock and the only chance that the state machine knows.

    Attributes:
        cluster_time_ms: never goes back on one leader; ``apply`` holds it back where a new leader's clock is behind.
        random_u64: for the jitter of retries.
    """

    cluster_time_ms: int
    random_u64: int
    format_version: int = FORMAT_VERSION
    command_version: int = COMMAND_VERSION


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """An executor is here. A higher incarnation gives up whatever the old one ran."""

    name: str
    store_id: int
    incarnation: int
    role: NodeRole
    slots: int
    labels: tuple[tuple[str, str], ...]
    kinds: tuple[str, ...]
    address: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Accept one task, or an array of them as one job, all or nothing.

    Attributes:
        digest: of the request's content (``requests.request_digest``).
        created_ms: the time that the request id carries (``requests.created_ms``), 0 where it carries none.
    """

    request_id: str
    digest: bytes
    created_ms: int
    spec: TaskSpec
    array: ArraySpec | None = None


@dataclass(frozen=True, slots=True)
class Occupy:
    """Put a pending task on a free slot of a node; ``apply`` gives the attempt its number and token."""

    task_id: int
    node: str
    incarnation: int
    slot: int


@dataclass(frozen=True, slots=True)
class Vacate:
    """An attempt has ended. It counts only if it is the current one and its token is equal."""

    task_id: int
    attempt: int
    token: FencingToken
    outcome: AttemptOutcome
    reason: str = ""
    result: bytes | BlobRef | None = None
    blob_holders: tuple[str, ...] = ()
    started_at_ms: int = 0
    ended_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a task, or every task of a job. Exactly one of the two is given."""

    task_id: int | None = None
    job_id: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MarkStopping:
    """Ask an attempt to end; its slot stays occupied until its Vacate, or the loss of its node."""

    task_id: int
    attempt: int
    token: FencingToken
    reason: StopReason


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The lease of this incarnation has run out: what it ran may be placed again."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class RecordBlob:
    """These nodes hold these bytes, fsynced."""

    ref: BlobRef
    holders: tuple[str, ...]


class MembershipChangeKind(IntEnum):
    """What becomes of one store."""

    ADD_VOTER = 1
    ADD_LEARNER = 2
    REMOVE = 3


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """What becomes of one store; those of one entry take effect together. Not a command: it has an entry of its own.

    Attributes:
        name, address: of the store, as it is added.
        promote: a learner that becomes a voter when it has caught up.
        replaces: the store that leaves when this one is promoted; 0 for none.
    """

    kind: MembershipChangeKind
    store_id: int
    name: str = ""
    address: str = ""
    promote: bool = False
    replaces: int = 0


Command: TypeAlias = RegisterNode | Submit | Occupy | Vacate | Cancel | MarkStopping | NodeLost | RecordBlob


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of one entry."""

    header: Header
    commands: tuple[Command, ...]
