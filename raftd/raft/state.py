"""The state of one core, and the few moves that every role shares: sending, and becoming a follower.

The rules live in ``election``, ``follower`` and ``leader``, as functions over this state; ``core`` dispatches to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raftd.raft.durability import Durability
from raftd.raft.lease import Lease
from raftd.raft.log import Log, LogReader
from raftd.raft.messages import AppendEntriesReply, InstallSnapshotReply, Message, RequestVote
from raftd.raft.quota import UncommittedQuota
from raftd.raft.read_only import ReadOnly
from raftd.raft.ready import Transition
from raftd.raft.tracker import Tracker
from raftd.raft.transitions import Event, role_after
from raftd.raft.types import NO_NODE, Config, Configuration, HardState, NodeId, Role, Snapshot

TransitionHook = Callable[[Transition], None]


class RaftState:
    """Invariants: term and commit never fall; vote changes within a term only from nobody to somebody.

    ``durability.term`` <= ``term``: what is in memory may run ahead of the disk, but nothing says so to anybody.
    """

    __slots__ = (
        "cause", "config", "durability", "election_elapsed", "election_timeout", "flush_wanted", "heartbeat_elapsed",
        "held", "id", "leader", "lease", "log", "messages", "on_transition", "pending_change",
        "promised_until", "quota", "reads", "restored", "role", "round", "snapshot", "term", "ticks",
        "tracker", "transfer_elapsed", "transfer_target", "transfer_told", "vote",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        configuration: Configuration,
        hard_state: HardState,
        reader: LogReader,
        applied: int,
        on_transition: TransitionHook | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.config = config
        self.id = config.id
        # What is in a snapshot was committed, whether or not the hard state on the disk got so far.
        commit = max(hard_state.commit, 0 if snapshot is None else snapshot.index)
        self.log = Log(reader, commit, applied)
        self.log.commit_changes_but_the_last()
        self.tracker = Tracker(config, configuration)
        self.snapshot = snapshot
        """The newest one that the host can send to others."""
        self.restored: deque[Snapshot] = deque()
        """What took the place of the log and is not applied yet, oldest first."""
        self.durability = Durability(hard_state)
        self.reads = ReadOnly()
        self.lease = Lease(config.lease_ms, config.clock_ms)
        self.quota = UncommittedQuota(config.max_uncommitted_bytes)
        self.on_transition = on_transition
        self.cause: Message | None = None
        """What has just come in, while it is dealt with."""

        # A write may be torn between the entries and the hard state that came with them. Of the entries' term nothing
        # was said yet, so nothing was promised in it; to fall behind it would leave a log that nobody votes for.
        self.term = max(hard_state.term, self.log.last_term)
        self.vote: NodeId = hard_state.vote if self.term == hard_state.term else NO_NODE
        self.role = Role.FOLLOWER
        self.leader: NodeId = NO_NODE

        self.ticks = 0
        """Ticks of this life."""
        self.promised_until = config.election_ticks
        """Where leases are used: the tick before which no vote is given. At the start nobody knows what was promised in
        the life before."""
        self.election_elapsed = 0
        """Ticks since the leader was heard or a vote was given; on a leader, since the last check of the quorum."""
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        self.round = 0
        """The current read round of this leader's term."""
        self.pending_change = 0
        """On a leader: no entry above this index is a CONF_CHANGE. Another may be proposed once it is applied."""
        self.transfer_target: NodeId = NO_NODE
        """Whom this leader is handing over to; proposals are refused meanwhile."""
        self.transfer_elapsed = 0
        self.transfer_told = False
        """The leader of this term told this node to stand, but a change of the members must be applied first."""
        self.flush_wanted = False
        """A leader has something that followers may not know yet."""

        self.messages: list[Message] = []
        """May leave at once."""
        self.held: list[Message] = []
        """May leave only when everything up to the next Ready is durable."""
        self.reset_election_timer()
        self.trace(Event.STARTED)

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.tracker.configuration

    def hard_state(self) -> HardState:
        """What must survive a crash, as it is in memory."""
        return HardState(self.term, self.vote, self.log.commit)

    def has_committed_in_term(self) -> bool:
        """Before its own no-op commits a new leader may not know of entries that its predecessor committed."""
        return self.log.term(self.log.commit) == self.term

    def reset_election_timer(self) -> None:
        """Count afresh towards a newly drawn timeout of ET..2ET-1 ticks."""
        base = self.config.election_ticks
        self.election_elapsed = 0
        self.election_timeout = base + self.config.jitter(base)

    def send(self, message: Message) -> None:
        """At once, unless it carries a term that a crash could still take back."""
        if message.term > self.durability.term:
            self.held.append(message)
        else:
            self.messages.append(message)

    def send_when_durable(self, message: Message) -> None:
        """Only after everything that the message may be based on is durable."""
        self.held.append(message)

    def retract_from(self, index: int) -> None:
        """The log is about to be replaced from the index on: take back what would have been said of it.

        Such a message belongs to an older term and could do no harm (the disk that it waits for would also know of the
        newer one), but it would be untrue: what it attests was cut before it was ever written.
        """
        if index <= self.log.last_index and self.held:
            self.held = [message for message in self.held if _attested_index(message) < index]

    def become_follower(self, term: int, leader: NodeId, event: Event) -> None:
        """Follow ``leader`` (0: whoever turns up) in ``term``, which is at least the current one."""
        if term > self.term:
            self.term = term
            self.vote = NO_NODE
            self.transfer_told = False
        # A later term alone does not reset the timer (the paper, §5.2: only a leader's append or a vote given does):
        # a node whose log is too old to win could else keep all the others from standing, again and again.
        if leader != NO_NODE or self.role is Role.LEADER:
            self.reset_election_timer()
        if self.role is Role.LEADER:
            self.reads.drop_all()
            self.quota.clear()
            self.tracker.progress.clear()
            self.transfer_target = NO_NODE
        self.role = role_after(self.role, event)
        self.leader = leader
        self.tracker.votes.clear()
        self.flush_wanted = False
        self.trace(event)

    def heard_leader(self) -> None:
        """An append or a snapshot came from the leader of this term."""
        self.election_elapsed = 0
        self.promised_until = self.ticks + self.config.election_ticks

    def is_promised(self) -> bool:
        """Whether a leader, of whatever term, may count on this node to elect nobody else now (``lease``)."""
        return self.lease.is_on and self.ticks < self.promised_until

    def is_leased(self) -> bool:
        """Whether a leader was heard so recently that no other may be elected (thesis §6.2, §4.2.3)."""
        return self.is_promised() or (
            self.config.check_quorum
            and self.leader != NO_NODE
            and self.election_elapsed < self.config.election_ticks
        )

    def trace(self, event: Event) -> None:
        """Tell the hook, if there is one, what has happened."""
        if self.on_transition is not None:
            log = self.log
            self.on_transition(
                Transition(
                    node=self.id,
                    event=event,
                    role=self.role,
                    term=self.term,
                    vote=self.vote,
                    leader=self.leader,
                    last_index=log.last_index,
                    commit=log.commit,
                    configuration=self.configuration,
                    transfer_target=self.transfer_target,
                    message=self.cause,
                )
            )


def _attested_index(message: Message) -> int:
    match message:
        case AppendEntriesReply(success=True) | InstallSnapshotReply(success=True):
            return message.match_index
        case RequestVote():
            return message.last_log_index
        case _:
            return 0
