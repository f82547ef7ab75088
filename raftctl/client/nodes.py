"""What nodes say of themselves and of the membership, as the SDK gives it: frozen values.

What may live here: dataclasses of what ``Admin`` answers. Tasks, and the cluster as a whole, are in
``raftctl.client.models``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """What a leader knows about one follower.

    Attributes:
        progress: probe, replicate or snapshot.
        learner: it does not vote.
        pending_snapshot: the index of the snapshot that is on its way to it; None for none.
    """

    name: str
    match_index: int
    next_index: int
    progress: str
    in_flight: int
    recently_active: bool
    learner: bool = False
    pending_snapshot: int | None = None


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node says about itself, without asking anyone.

    Attributes:
        membership: voter, learner, leaving (it votes in the outgoing configuration only), removed or joining.
        snapshot_index: of its newest snapshot; None for none.
        disk_full: it takes no submissions until there is room.
        transfer_target: whom this leader is handing over to.
    """

    name: str
    cluster_id: str
    store_id: str
    incarnation: int
    address: str
    pid: int
    version: str
    role: str
    leader: str | None
    leader_address: str | None
    term: int
    voted_for: str | None
    commit_index: int
    last_applied: int
    first_index: int
    last_index: int
    peers: tuple[PeerProgress, ...]
    fault_injection: bool
    started_ms: int | None
    fsync_ms: float
    storage_queue: int
    slots_ready: bool
    membership: str = "unknown"
    snapshot_index: int | None = None
    snapshot_bytes: int = 0
    disk_full: bool = False
    transfer_target: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the configuration.

    Attributes:
        voter: it counts in the configuration in force, in either half of a joint one.
        leaving: it votes only until the change under way is complete.
        promote: a learner that becomes a voter when it has caught up.
        replaces: the member that leaves when this one is promoted.
    """

    name: str
    store_id: str
    address: str
    voter: bool
    leaving: bool = False
    promote: bool = False
    replaces: str | None = None

    @property
    def role(self) -> str:
        """``voter``, ``leaving`` or ``learner``."""
        if self.leaving:
            return "leaving"
        return "voter" if self.voter else "learner"


@dataclass(frozen=True, slots=True)
class Membership:
    """The configuration as one node has applied it.

    Attributes:
        joint: a change is half done: two majorities must agree.
        removed_stores: never let in again.
        answered_by: whose answer this is; empty if it does not say.
        leads: whether the node that answered leads: another may be behind.
    """

    members: tuple[Member, ...]
    joint: bool = False
    removed_stores: tuple[str, ...] = ()
    answered_by: str = ""
    leads: bool = False

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def voters(self) -> tuple[Member, ...]:
        """Who votes, and will go on to."""
        return tuple(member for member in self.members if member.role == "voter")


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads, and since which term."""

    leader: str
    term: int


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """What a node wrote down and let go of.

    Attributes:
        index: the last entry that the snapshot covers.
        first_index: where the log begins now.
    """

    node: str
    index: int
    term: int
    size_bytes: int
    first_index: int


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """Traffic from `from_node` to `to_node` is dropped."""

    from_node: str
    to_node: str


@dataclass(frozen=True, slots=True)
class Faults:
    """Which cuts a node acts on, and whether it would take any."""

    fault_injection: bool
    cuts: tuple[Cut, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A replicated setting, with its default and its bounds."""

    name: str
    value: int
    default: int
    least: int
    most: int
