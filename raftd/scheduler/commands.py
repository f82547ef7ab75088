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
    Condition,
    Dependency,
    Eligibility,
    FencingToken,
    NodeRole,
    StopReason,
    TaskSpec,
    TaskState,
)

FORMAT_VERSION = 1
"""Of the bytes of a batch."""

COMMAND_VERSION = 2
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
    after: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A task of a graph comes after the one at ``position`` of the same graph, counted from 0."""

    position: int
    condition: Condition = Condition.OK


@dataclass(frozen=True, slots=True)
class GraphTask:
    """One task of a graph: what it comes after within the graph, and outside of it."""

    spec: TaskSpec
    after: tuple[GraphEdge, ...] = ()
    after_others: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True)
class SubmitGraph:
    """Accept tasks that wait for each other as one job, all or nothing; a cycle among them is refused."""

    request_id: str
    digest: bytes
    created_ms: int
    name: str
    tasks: tuple[GraphTask, ...]
    max_failures: int = 0


@dataclass(frozen=True, slots=True)
class Occupy:
    """Put a pending task on a slot of a node; ``apply`` gives the attempt its number and token.

    Attributes:
        extra_slots: for a task of several slots, beside ``slot``, ascending.
        reserve: the slot is occupied, and the task waits there for its turn.
    """

    task_id: int
    node: str
    incarnation: int
    slot: int
    extra_slots: tuple[int, ...] = ()
    reserve: bool = False


@dataclass(frozen=True, slots=True)
class OccupyNew:
    """The Occupy of a task that a submission of the same batch makes: it has no id yet.

    Attributes:
        position: of the Submit among the commands of the batch, from 0. It counts only if that was accepted, and was
            not known before.
        offset: of the task among those of the submission, from 0.
    """

    position: int
    offset: int
    node: str
    incarnation: int
    slot: int
    extra_slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """Submit once more what an ended task was, as a new task.

    Attributes:
        request_id, digest, created_ms: as in ``Submit``; the digest is ``requests.retry_digest``.
    """

    task_id: int
    request_id: str
    digest: bytes
    created_ms: int


@dataclass(frozen=True, slots=True)
class Expire:
    """The queue timeout of a task that nothing has started has passed: it fails."""

    task_id: int


@dataclass(frozen=True, slots=True)
class Purge:
    """Forget the records of ended tasks: of those that are named, or else of those that ended before a time.

    Attributes:
        job_ids: of jobs whose tasks have all ended.
        states: of those that ended before ``ended_before_ms`` only these; empty: all.
    """

    task_ids: tuple[int, ...] = ()
    job_ids: tuple[int, ...] = ()
    ended_before_ms: int = 0
    states: tuple[TaskState, ...] = ()


@dataclass(frozen=True, slots=True)
class SetEligibility:
    """Whether a node takes new attempts.

    Attributes:
        deadline_ms: of a drain, in cluster time: what still runs then is put back in the queue; 0 = never.
    """

    name: str
    eligibility: Eligibility
    deadline_ms: int = 0


@dataclass(frozen=True, slots=True)
class SetLabels:
    """Set labels of a node from outside, and take back such ones. Those that it brings itself stay."""

    name: str
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetSettings:
    """Change replicated settings: name and value; all or nothing."""

    changes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """Drop the record of a node that is lost and no member: a worker that will not come back."""

    name: str


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


Command: TypeAlias = (
    RegisterNode
    | Submit
    | SubmitGraph
    | Retry
    | Occupy
    | OccupyNew
    | Vacate
    | Cancel
    | MarkStopping
    | Expire
    | Purge
    | NodeLost
    | ForgetNode
    | SetEligibility
    | SetLabels
    | SetSettings
    | RecordBlob
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of one entry."""

    header: Header
    commands: tuple[Command, ...]
