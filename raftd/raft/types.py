"""The nouns of consensus: entries, states, configuration, limits and the core's exceptions.

Only plain immutable data lives here, with no behaviour beyond validation, so that every other module of the
core (and the codec, the log on disk and the tests) can import it without importing the algorithm.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from raftd.errors import RaftdError

NodeId = int
"""A store id: a positive 64-bit integer. 0 means "no node" wherever a NodeId may be absent."""

NO_NODE: NodeId = 0

ReadContext = bytes | int
"""Names one linearizable read; the host chooses it, unique among the reads that are still pending."""

Jitter = Callable[[int], int]
"""``jitter(n)`` answers a number in 0..n-1. The only source of randomness; injected, so a seed replays a run."""

MAX_TERM = 2**63 - 1
"""Terms and indices above this are garbage: they could not be stored or counted up."""


class EntryType(enum.IntEnum):
    """What an entry's data means to the host. The core never reads the data, but it looks at the type.

    CONFIGURATION: the members as a whole, as a cluster is founded with; the host calls ``apply_configuration``.
    CONF_CHANGE: a change of the members; the host calls ``apply_conf_change``. Without data it leaves the joint
    configuration.
    """

    NORMAL = 0
    CONFIGURATION = 1
    CONF_CHANGE = 2


class Role(enum.StrEnum):
    """What a node does now. Learner is not a role but a property of the membership."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of the replicated log (the paper, figure 2). Indices start at 1; empty NORMAL data is a no-op."""

    term: int
    index: int
    type: EntryType
    data: bytes


ENTRY_OVERHEAD_BYTES = 24
"""What an entry is taken to cost beside its data wherever messages, windows and batches are cut by bytes."""


def entry_bytes(entry: Entry) -> int:
    """The size of an entry for every limit that cuts by bytes (the uncommitted quota counts only the data)."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash beside the log. ``vote`` is 0 when none was given in ``term``."""

    term: int = 0
    vote: NodeId = NO_NODE
    commit: int = 0


@dataclass(frozen=True, slots=True)
class SoftState:
    """What the host wants to know at once but need not keep. ``leader`` is 0 when unknown."""

    role: Role
    leader: NodeId


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who takes part. ``outgoing`` is empty unless two majorities must agree (joint consensus, thesis §4.3).

    The tuples are kept sorted and free of repeats; a learner is never also a voter of the incoming majority.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        for name in ("voters", "learners", "outgoing"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if any(node <= NO_NODE for node in self.members()):
            raise ValueError(f"a node id must be positive: {self}")
        both = set(self.voters) & set(self.learners)
        if both:
            raise ValueError(f"both voter and learner: {sorted(both)}")

    def is_voter(self, node: NodeId) -> bool:
        """Whether the node counts in either majority."""
        return node in self.voters or node in self.outgoing

    def all_voters(self) -> tuple[NodeId, ...]:
        """The voters of both majorities, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing})) if self.outgoing else self.voters

    def members(self) -> tuple[NodeId, ...]:
        """Everyone who is sent the log, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the core knows of a snapshot: the state after ``index``, the last entry in it. The bytes are the host's."""

    index: int
    term: int
    """The term of the entry at ``index``."""
    configuration: Configuration
    """The one in force after ``index``."""
    size_bytes: int = 0


def _no_clock() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one core, validated when made. Times are in ticks, sizes in bytes."""

    id: NodeId
    jitter: Jitter = field(repr=False)
    election_ticks: int = 10
    """The base election timeout ET; each node draws ET + jitter(ET), so ET..2ET-1."""
    heartbeat_ticks: int = 2
    max_message_bytes: int = 1024 * 1024
    """An append carries at most this much, but always at least one entry."""
    max_inflight_messages: int = 256
    """Appends with entries sent to one follower and not answered yet."""
    max_inflight_bytes: int = 16 * 1024 * 1024
    max_uncommitted_bytes: int = 64 * 1024 * 1024
    """Data proposed to this leader and not committed yet; see :class:`UncommittedLimit`."""
    max_entry_bytes: int = 4 * 1024 * 1024
    """Data of one proposal; a larger one is refused before it enters the log, see :class:`EntryTooLarge`."""
    max_committed_bytes_per_ready: int = 4 * 1024 * 1024
    pre_vote: bool = True
    """Ask before moving the term (thesis §9.6)."""
    check_quorum: bool = True
    """A leader that hears no quorum for an election timeout steps down; others honour its lease (thesis §6.2)."""
    disk_stall_ticks: int | None = None
    """A leader whose own oldest append has been with its disk for longer than this steps down.

    None means ``election_ticks``; 0 switches the watch off.
    """
    lease_ms: int = 0
    """How long a leader answers reads by itself after a quorum has heard it; 0: it always asks (see ``lease``).

    Either 0 on every member or on none, and less than any member's clock can show while another's host makes
    ``election_ticks - 1`` ticks, of which a late loop makes some at once: with ticks of 50 ms, an election timeout of
    8, two ticks at once and clocks that drift by 1 % at most, (8 - 1 - 2) * 50 ms * 0.98 = 245 ms.
    """
    clock_ms: Callable[[], int] = field(default=_no_clock, repr=False)
    """Monotonic, and goes on while the machine is suspended; used only for leases."""

    def __post_init__(self) -> None:
        if self.id <= NO_NODE:
            raise ValueError(f"id must be positive, is {self.id}")
        if self.heartbeat_ticks < 1:
            raise ValueError(f"heartbeat_ticks must be at least 1, is {self.heartbeat_ticks}")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks ({self.election_ticks}) must exceed heartbeat_ticks ({self.heartbeat_ticks})"
            )
        for name in (
            "max_message_bytes", "max_inflight_messages", "max_inflight_bytes", "max_uncommitted_bytes",
            "max_entry_bytes", "max_committed_bytes_per_ready",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, is {getattr(self, name)}")
        if self.lease_ms < 0 or (self.lease_ms and not self.check_quorum):
            raise ValueError(f"lease_ms needs check_quorum and must not be negative, is {self.lease_ms}")
        if self.disk_stall_ticks is not None and self.disk_stall_ticks < 0:
            raise ValueError(f"disk_stall_ticks must not be negative, is {self.disk_stall_ticks}")


@dataclass(frozen=True, slots=True)
class Proposed:
    """Where proposals went. They are committed only if the entry at that index is applied with that same term."""

    term: int
    first_index: int
    last_index: int

    @property
    def index(self) -> int:
        """The index of a single proposal (the last one of a batch)."""
        return self.last_index


class NotLeader(RaftdError):
    """Only a leader proposes and confirms reads. ``leader`` is where to go, 0 if unknown. Nothing was appended."""

    def __init__(self, leader: NodeId) -> None:
        super().__init__(
            f"not the leader; the leader is {leader:016x}" if leader else "not the leader; none is known"
        )
        self.leader = leader


class ProposalDropped(RaftdError):
    """The leader refused the proposal; nothing was appended, so it may safely be tried again."""


class UncommittedLimit(ProposalDropped):
    """Too much data is proposed and not committed yet. Try again when something has committed."""

    def __init__(self, uncommitted_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{uncommitted_bytes} bytes are proposed and not committed; the limit is {limit_bytes}"
        )
        self.uncommitted_bytes = uncommitted_bytes
        self.limit_bytes = limit_bytes


class EntryTooLarge(ProposalDropped):
    """One proposal is larger than an entry may be. Trying again does not help."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"a proposal of {size_bytes} bytes exceeds the limit of {limit_bytes} bytes for one entry"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class TransferUnderWay(ProposalDropped):
    """The leader is handing over. Go to the next leader, or try again here after an election timeout."""

    def __init__(self, target: NodeId) -> None:
        super().__init__(f"leadership is being handed over to {target:016x}")
        self.target = target


class InvalidTransfer(RaftdError):
    """Only a voter can be handed the leadership."""

    def __init__(self, target: NodeId) -> None:
        super().__init__(f"leadership cannot be handed over to {target:016x}: it is no voter")
        self.target = target


class ReadContextInUse(RaftdError):
    """A read with the same context is still pending: its answer could not be told from this one's."""

    def __init__(self, context: ReadContext) -> None:
        super().__init__(f"a read with context {context!r} is still pending")
        self.context = context


class InvariantViolation(Exception):
    """What Raft proves cannot happen has happened (a bug, or a log that lost what it had acknowledged).

    Not a ``RaftdError``: never caught and carried on from. The process must end before it acknowledges anything.
    """
