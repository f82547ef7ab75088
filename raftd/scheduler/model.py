"""What the replicated state is made of: records, and the small values in them.

What may live here: enums, frozen dataclasses and their arithmetic-free helpers. Records never change: a transition puts
a new one in the place of the old, so that a snapshot, a watcher or a reply can hold one for as long as it likes.
The numbers of the enums are those of protos/scheduler.proto and of every log and snapshot: never renumber.
Times are Unix milliseconds of the cluster's clock, 0 where there is none yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MAX_TIME_MS = 1 << 60
"""No time in the state is later: sums of times and durations stay far inside 64 bits."""

MAX_DURATION_MS = 10 * 366 * 24 * 3600 * 1000
"""The longest timeout or backoff that is taken: ten years."""


class TaskState(IntEnum):
    """Where a task is (see ``transitions``)."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    RESERVED = 6
    """An attempt of it, token and all, waits for its turn on a slot. People see such a task as pending."""

    @property
    def terminal(self) -> bool:
        """Whether the task has ended for good."""
        return TaskState.SUCCEEDED <= self <= TaskState.CANCELLED

    @property
    def seen_as(self) -> TaskState:
        """What people see, and what jobs count."""
        return TaskState.PENDING if self is TaskState.RESERVED else self


class AttemptOutcome(IntEnum):
    """How an attempt ended; what each costs the task is the table in ``transitions``."""

    SUCCEEDED = 1
    FAILED = 2  # the task's own error
    TIMED_OUT = 3  # its run timeout passed
    CANCELLED = 4
    CRASHED = 5  # the slot's process died under it
    LOST = 6  # its node was lost, or came back as a new incarnation
    NOT_STARTED = 7  # the executor could not start it
    WITHDRAWN = 8  # it was taken back before its turn on its slot came


class StopReason(IntEnum):
    """Why an attempt is asked to end."""

    CANCELLED = 1
    TIMED_OUT = 2
    DRAINED = 3  # its node is drained, and the deadline has passed
    WITHDRAWN = 4
    """It waits for its turn on a slot, and can run elsewhere now; one that has started goes on."""


class Condition(IntEnum):
    """What a task that comes after another needs of it: that it succeeds (or else it is cancelled), or that it ends."""

    OK = 1
    ANY = 2


class Placement(IntEnum):
    """Which of the nodes that could run a task gets it: the least busy or the busiest, so that others stay free."""

    SPREAD = 1
    BINPACK = 2


class Health(IntEnum):
    """What the cluster believes of a node."""

    UP = 1
    LOST = 2


class Eligibility(IntEnum):
    """Whether a node takes new attempts."""

    READY = 1
    CORDONED = 2
    DRAINING = 3


class NodeRole(IntEnum):
    """What a node is beside an executor; a worker takes no part in consensus."""

    VOTER = 1
    LEARNER = 2
    WORKER = 3


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """Names one attempt for ever; later attempts have greater tokens (epoch first, then counter)."""

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Bytes by content: ``digest`` is SHA-256, 64 lower-case hex digits."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is to be run and how; one record for all tasks of an array.

    Attributes:
        args: ``{}`` in an argument stands for the array index (see ``queries.task_args``).
        payload: the task's standard input.
        env: name and value, sorted by name.
        priority: higher first.
        retries: further attempts after an error or a timeout of the task.
        backoff_first_ms: the delay before the first retry; it doubles with each further one.
        backoff_max_ms: the longest delay before a retry.
        run_timeout_ms: how long one attempt may run; 0 = for ever.
        queue_timeout_ms: how long after it may start it may wait for its first attempt; 0 = for ever.
        delay_ms: how long it waits at least, from its submission.
        require: labels that its node must have: name and value, sorted by name.
        slots: of one node, that it occupies all at once.
    """

    kind: str
    args: tuple[str, ...] = ()
    payload: bytes = b""
    env: tuple[tuple[str, str], ...] = ()
    name: str = ""
    priority: int = 0
    retries: int = 0
    backoff_first_ms: int = 1_000
    backoff_max_ms: int = 60_000
    run_timeout_ms: int = 0
    queue_timeout_ms: int = 0
    delay_ms: int = 0
    require: tuple[tuple[str, str], ...] = ()
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Dependency:
    """What must have ended before a task may start: a task, or every task of a job."""

    target: int
    job: bool = False
    condition: Condition = Condition.OK


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """A submission of many tasks, one for each index from first to last, both included; ``max_failures`` as a job's."""

    first_index: int
    last_index: int
    max_failures: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a task on one slot.

    Attributes:
        number: from 1.
        slot: whose process runs it.
        occupied_at_ms: cluster time at which it became the head of its slot; 0 while it waits for its turn.
        started_at_ms: when the slot started it, by the node's clock; 0 until it has ended.
        ended_at_ms: when it ended: by the node's clock, or cluster time where the node is lost.
        outcome: None while it runs, or waits for its turn.
        stopping: why it has been asked to end, if it has been.
        extra_slots: that it occupies beside ``slot``, ascending.
    """

    number: int
    node: str
    slot: int
    incarnation: int
    token: FencingToken
    occupied_at_ms: int
    started_at_ms: int = 0
    ended_at_ms: int = 0
    outcome: AttemptOutcome | None = None
    reason: str = ""
    stopping: StopReason | None = None
    extra_slots: tuple[int, ...] = ()

    @property
    def slots(self) -> tuple[int, ...]:
        """Every slot that it occupies."""
        return (self.slot, *self.extra_slots)


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work.

    Attributes:
        not_before_ms: a pending task waits at least until then.
        attempts: the latest ones, oldest first, at most ``Settings.max_attempts_kept``; of a running or reserved task
            the last is the current one.
        failures: attempts that ended by the task's own error or timeout; these use up ``spec.retries``.
        crashes: attempts that died with their slot or node; these have a limit of their own.
        returns: attempts that cost the task nothing (not started, or given back).
        result: of the attempt that succeeded, or what the last one that failed says of its error.
        reason: why it failed or was cancelled.
        changed_index: log index of its last change.
        after: what has not ended yet of what it comes after; a task that waits so is not in the queue.
    """

    id: int
    spec: TaskSpec
    state: TaskState
    job_id: int | None
    array_index: int | None
    request_id: str
    submitted_at_ms: int
    not_before_ms: int
    attempts: tuple[Attempt, ...]
    failures: int
    crashes: int
    returns: int
    result: bytes | BlobRef | None
    reason: str
    finished_at_ms: int
    changed_index: int
    after: tuple[Dependency, ...] = ()

    @property
    def current(self) -> Attempt | None:
        """The attempt that runs now, or is the next of its slot: the only authoritative one."""
        return self.attempts[-1] if self.state in (TaskState.RUNNING, TaskState.RESERVED) else None


@dataclass(frozen=True, slots=True)
class Job:
    """An array or a graph of tasks; their ids are ``first_task_id`` to ``first_task_id + total - 1``.

    Attributes:
        kind: of every task of an array; empty for a graph.
        max_failures: 0 = no limit; after so many failed tasks the rest is cancelled.
        pending: reserved ones included.
        stopping: cancelled, or over its max_failures: nothing of it starts any more.
        forgotten: ended tasks whose records are gone; the counts still count them.
    """

    id: int
    name: str
    kind: str
    max_failures: int
    first_task_id: int
    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    forgotten: int
    stopping: bool
    submitted_at_ms: int
    finished_at_ms: int
    changed_index: int

    @property
    def task_ids(self) -> range:
        """The ids of its tasks, in the order of their array indices, or of their places in the graph."""
        return range(self.first_task_id, self.first_task_id + self.total)


@dataclass(frozen=True, slots=True)
class Node:
    """An executor that has registered.

    Attributes:
        labels: that it brings itself: name and value, sorted by name.
        kinds: the kinds of task it offers, sorted.
        role: of a member, what the membership says; of others, what they say.
        executing: for each slot the id of the task that occupies it, or None.
        operator_labels: that were set from outside; they go before its own, and outlive its incarnations.
        drain_deadline_ms: what still runs on a draining node then is put back in the queue; 0 = never.
        reserved: for each slot the ids of the tasks that wait for their turn on it, the next one first; empty where
            none wait on any.
    """

    name: str
    store_id: int
    incarnation: int
    role: NodeRole
    labels: tuple[tuple[str, str], ...]
    kinds: tuple[str, ...]
    address: str
    health: Health
    eligibility: Eligibility
    executing: tuple[int | None, ...]
    changed_index: int
    operator_labels: tuple[tuple[str, str], ...] = ()
    drain_deadline_ms: int = 0
    reserved: tuple[tuple[int, ...], ...] = ()

    @property
    def slots(self) -> int:
        """How many attempts it runs at a time."""
        return len(self.executing)

    @property
    def all_labels(self) -> tuple[tuple[str, str], ...]:
        """Its own labels and those that were set from outside, which go before its own; sorted by name."""
        merged = self.operator_labels and {**dict(self.labels), **dict(self.operator_labels)}
        return tuple(sorted(merged.items())) if merged else self.labels

    @property
    def occupants(self) -> tuple[int, ...]:
        """The tasks that occupy its slots, each once, by the first slot of each."""
        return tuple(dict.fromkeys(task_id for task_id in self.executing if task_id is not None))

    @property
    def slots_free(self) -> int:
        """Slots that nothing occupies, whether or not the node may take new attempts."""
        return self.executing.count(None)

    @property
    def takes_work(self) -> bool:
        """Up, ready and with a free slot: what *Free Nodes* means."""
        return self.health is Health.UP and self.eligibility is Eligibility.READY and None in self.executing


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What a request id stands for, kept until ``expires_at_ms``: the digest of the request and its answer."""

    request_id: str
    digest: bytes
    first_task_id: int
    count: int
    job_id: int | None
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """An entry of the blob directory: which nodes hold these bytes, fsynced; names, sorted."""

    ref: BlobRef
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A founding node."""

    name: str
    store_id: int
    address: str
    voter: bool = True


@dataclass(frozen=True, slots=True)
class Genesis:
    """Entry 1 of every log of a cluster, written by ``raftd init`` alone."""

    cluster_id: int
    epoch: int
    members: tuple[Member, ...]


class Standing(IntEnum):
    """What a member counts for in the configuration in force."""

    VOTER = 1
    LEARNER = 2  # is sent the log and does not vote
    LEAVING = 3  # votes in the outgoing half of a joint configuration only, and leaves with it


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A store that takes part in consensus.

    Attributes:
        promote: a learner that becomes a voter when it has caught up.
        replaces: the store that leaves when this one is promoted; 0 for none.
    """

    name: str
    store_id: int
    address: str
    standing: Standing
    promote: bool = False
    replaces: int = 0

    @property
    def voter(self) -> bool:
        """Whether it counts in the configuration in force, in either half of a joint one."""
        return self.standing is not Standing.LEARNER

    @property
    def role(self) -> NodeRole:
        """What its node is beside an executor."""
        return NodeRole.VOTER if self.voter else NodeRole.LEARNER


@dataclass(frozen=True, slots=True)
class Settings:
    """Replicated settings: limits, retention and the lease, the same on every node at the same index.

    Attributes:
        max_queue: pending tasks; a submission that would exceed it is refused.
        max_args_bytes: arguments, environment and name of one submission together.
        request_retention_ms: how long a request id is known; an id that carries its time of creation and is older is
            refused, never run again.
        tasks_kept: ended tasks whose records are kept.
        tasks_kept_ms: how long they are kept at most.
        crash_limit: so many crashes of its slot or node end a task.
        ageing_ms: a task that has waited so much longer than another goes before it though its priority is lower by
            one; 0 = never.
        max_dependencies: of one task, what it comes after.
        max_graph: tasks of one graph.
        reserve_depth: attempts that may wait for their turn on one slot; 0 = none.
    """

    max_payload_bytes: int = 256 * 1024
    max_args_bytes: int = 64 * 1024
    max_queue: int = 1_000_000
    max_array: int = 10_000
    max_inline_result_bytes: int = 4_096
    request_retention_ms: int = 3_600_000
    tasks_kept: int = 100_000
    tasks_kept_ms: int = 7 * 24 * 3_600_000
    max_attempts_kept: int = 20
    crash_limit: int = 5
    lease_ms: int = 6_000
    ageing_ms: int = 300_000
    placement: Placement = Placement.SPREAD
    max_dependencies: int = 1_000
    max_graph: int = 10_000
    reserve_depth: int = 8
