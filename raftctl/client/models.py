"""What the SDK gives and takes: frozen values, so that nobody above it ever sees a protobuf message.

What may live here: dataclasses and enums of what a cluster says about itself. Times are Unix milliseconds;
None means "not yet" or "unknown". The translation from and to the wire is ``raftctl.client.wire``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class TaskState(StrEnum):
    """Where a task is in its life."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a task never leaves this state."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class AttemptOutcome(StrEnum):
    """How an attempt ended; RUNNING while it has not."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    LOST = "lost"
    NOT_STARTED = "not_started"
    WITHDRAWN = "withdrawn"


class Condition(StrEnum):
    """What a task that comes after another needs of it."""

    OK = "ok"  # that it succeeds; when it does not, whoever waits for it is cancelled
    ANY = "any"  # that it ends


class OutputStream(StrEnum):
    """Which of a task's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """What makes an attempt the authoritative one; shown ``1.57``."""

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class BlobRef:
    """The name of some bytes: their SHA-256, 64 lower-case hex digits, and how many there are."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArrayRange:
    """The indices of an array job, `last_index` included."""

    first_index: int
    last_index: int
    max_failures: int = 0  # 0: no limit


@dataclass(frozen=True, slots=True)
class Dependency:
    """What must have ended before a task may start: a task (``t17``), or every task of a job (``j3``)."""

    id: str
    condition: Condition = Condition.OK


@dataclass(frozen=True, slots=True)
class Submission:
    """One task, or with `array` one job of many, to be put into the queue.

    Attributes:
        payload: the task's standard input.
        retries: further attempts after an error or a timeout of the task itself; losing a node costs none.
        backoff_first_ms, backoff_max_ms: the pause before a retry; 0 leaves it to the cluster.
        run_timeout_ms: how long one attempt may run; 0 for ever.
        queue_timeout_ms: how long it may wait for its first attempt, once it may start; 0 for ever.
        delay_ms: how long it waits at least.
        after: what must have ended before it may start.
        require: labels that its node must have.
        slots: of one node, that it occupies all at once.
        request_id: empty lets the client make one.
    """

    kind: str
    args: tuple[str, ...] = ()
    payload: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    priority: int = 0
    retries: int = 0
    backoff_first_ms: int = 0
    backoff_max_ms: int = 0
    run_timeout_ms: int = 0
    queue_timeout_ms: int = 0
    delay_ms: int = 0
    after: tuple[Dependency, ...] = ()
    require: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    array: ArrayRange | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class GraphTask:
    """One task of a graph.

    Attributes:
        submission: without request id and array; its ``after`` names tasks outside of the graph.
        after: places in the graph, counted from 0, of the tasks that come first, each with what is needed of it.
    """

    submission: Submission
    after: tuple[tuple[int, Condition], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks that wait for each other: one job, accepted whole or not at all."""

    tasks: tuple[GraphTask, ...]
    name: str = ""
    max_failures: int = 0  # 0: no limit
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a submission became: a task has `task_id`, an array or a graph `job_id` and `task_ids`, in its order."""

    request_id: str
    task_id: str
    job_id: str
    task_ids: tuple[str, ...]
    duplicate: bool  # the request id was known: this is the first answer again


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel did. `error` is None when it was understood; `state` is UNKNOWN for a job."""

    id: str
    state: TaskState
    cancelled_count: int
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a task on one slot. `started_ms` and `ended_ms` are when the slot really ran it."""

    number: int
    node: str
    slot: int
    fencing_token: FencingToken
    outcome: AttemptOutcome
    reason: str
    occupied_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    stopping: bool
    reserved: bool = False  # it waits for its turn on its slot
    extra_slots: tuple[int, ...] = ()  # of a task of several slots, beside `slot`


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A result is either inline bytes or a blob."""

    inline: bytes | None
    blob: BlobRef | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the cluster records it.

    Attributes:
        waiting_for: what has not ended yet of what it comes after.
        failures: attempts that ended by its own error or timeout.
        crashes: attempts that died with their slot or node.
        result: of the attempt that succeeded, or what the last one that failed said of its error.
    """

    task_id: str
    name: str
    kind: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    priority: int
    state: TaskState
    job_id: str | None
    array_index: int | None
    request_id: str
    submitted_ms: int | None
    finished_ms: int | None
    not_before_ms: int | None
    retries: int
    run_timeout_ms: int
    attempts: tuple[Attempt, ...]
    result: TaskResult | None
    reason: str
    changed_index: int
    queue_timeout_ms: int = 0
    waiting_for: tuple[Dependency, ...] = ()
    require: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    failures: int = 0
    crashes: int = 0

    @property
    def title(self) -> str:
        """Kind and arguments, as a person would write them; the name instead, if it has one."""
        return self.name or " ".join((self.kind, *self.args))

    @property
    def last_attempt(self) -> Attempt | None:
        """The current or latest attempt."""
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Job:
    """An array or a graph of tasks, counted by state.

    Attributes:
        kind: of every task of an array; empty for a graph.
        stopping: cancelled, or over max_failures: nothing of it starts any more.
    """

    job_id: str
    name: str
    kind: str
    submitted_ms: int | None
    finished_ms: int | None
    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    max_failures: int
    task_ids: tuple[str, ...]
    changed_index: int
    stopping: bool = False
    graph: bool = False

    @property
    def ended(self) -> int:
        """How many of its tasks are in a terminal state."""
        return self.succeeded + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class ReadInfo:
    """How fresh an answer is, and from whom."""

    stale: bool
    applied_index: int
    answered_by: str
    leader: str | None
    term: int


@dataclass(frozen=True, slots=True)
class ExecutingRow:
    """One occupied slot."""

    node: str
    slot: int
    task_id: str
    task: str
    attempt: int
    fencing_token: FencingToken
    elapsed_ms: int
    progress: float | None  # 0 to 1; None: unknown
    message: str
    stopping: bool


@dataclass(frozen=True, slots=True)
class FreeNodeRow:
    """A node that is up, ready, and has a free slot."""

    node: str
    role: str
    slots_free: int
    slots: int
    last_seen_ms: int | None  # since the leader last heard it; None: it never has


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the cluster records it. `raft_role` is "unknown" and `pid` None where nobody could say."""

    name: str
    store_id: str
    role: str
    raft_role: str
    health: str
    eligibility: str
    address: str
    pid: int | None
    incarnation: int
    slots: int
    slots_free: int
    kinds: tuple[str, ...]
    last_seen_ms: int | None
    reachable: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    drain_deadline_ms: int | None = None  # what still runs then goes back to the queue
    reserved: int = 0  # attempts that wait for their turn on its slots


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many voters there are, how many are up, and whether they are enough."""

    voters: int
    up: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The whole picture: the tables, the nodes, the queue."""

    cluster_id: str
    leader: str | None
    term: int
    commit_index: int
    quorum: Quorum
    read: ReadInfo
    executing: tuple[ExecutingRow, ...]
    free_nodes: tuple[FreeNodeRow, ...]
    nodes: tuple[NodeRow, ...]
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    next_pending: tuple[Task, ...]
    recent: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened, in log order.

    Attributes:
        change: submitted, running, succeeded, failed, cancelled, retrying, stopping, node_up, node_lost,
        leader.
    """

    index: int
    time_ms: int | None
    change: str
    task: Task | None
    node: str
    message: str


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """What a watch says next.

    Attributes:
        next_index: where a later watch would go on.
        gap: changes before this batch are gone from the cluster's memory; whoever counts must read again.
        interruption: not None when the stream broke (and will be taken up again by itself): why.
    """

    changes: tuple[Change, ...]
    next_index: int
    gap: bool = False
    interruption: str | None = None


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes of a task's output."""

    stream: OutputStream
    data: bytes
    truncated: bool
    node: str
    attempt: int
    superseded: bool = False  # a later attempt has taken this one's place


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Where a blob is."""

    blob: BlobRef
    holders: tuple[str, ...]
    local: bool
