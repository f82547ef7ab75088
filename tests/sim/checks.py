"""What must hold after every event, of consensus: who leads, what is in the logs, what is committed, said and applied.

What may live here: the invariants, checked as things happen and not by walking over everything; each check names its
invariant. The state machine's own are in ``ledger``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raftd.codec.snapshot import encode_snapshot
from raftd.raft import invariants as core_invariants
from raftd.raft.messages import (
    AppendEntriesReply,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raftd.raft.ready import Transition
from raftd.raft.types import Configuration, Entry, EntryType, InvariantViolation, Role
from raftd.scheduler import invariants as state_invariants
from raftd.scheduler.replies import Reply
from raftd.storage.recovery import Recovered
from tests.sim.books import Broken
from tests.sim.ledger import Ledger
from tests.sim.loop import Process
from tests.sim.plan import Plan
from tests.sim.storage import Durable
from tests.sim.trace import Trace

if TYPE_CHECKING:
    from tests.sim.machine import Life, Machine

STATE_HASH_EVERY = 64
STATE_CHECK_EVERY = 24


class Violation(AssertionError):
    """An invariant does not hold.

    Attributes:
        invariant: its name.
    """

    def __init__(self, invariant: str, what: str, cause: BaseException | None = None) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
        self.__cause__ = cause


def is_quorum(configuration: Configuration, stores: set[int]) -> bool:
    """Whether these are a majority of the voters, in both halves of a joint configuration."""
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return all(2 * len(stores.intersection(half)) > len(half) for half in halves)


class Checks:
    """The invariants of one run.

    Attributes:
        failure: the first one that did not hold. Kept, and raised by ``after_event``: the code under test must not
            catch it.
        on_leader: called with every node that has won an election.
        commit_index: the highest index that any node has known to be committed.
    """

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self.failure: Violation | None = None
        self.on_leader: Callable[[Life], None] = lambda _: None
        self.commit_index = 0
        self.ledger = Ledger(plan, trace)
        self._plan = plan
        self._trace = trace
        self._durable: dict[int, Durable] = {}
        self._lives: dict[int, Life] = {}
        self._leaders: dict[int, int] = {}
        """Term -> who led it."""
        self._votes: dict[tuple[int, int], int] = {}
        """(Voter, term) -> for whom, as it said, or as its disk says."""
        self._said_term: dict[int, int] = {}
        self._chains: dict[tuple[int, int], bytes] = {}
        """(Index, term) -> hash of the log up to there."""
        self._committed: list[bytes] = [b""]
        """By index: the hash of the log up to that committed entry."""
        self._committed_in: list[int] = [0]
        """By index: the term in which somebody first knew that."""
        self._outcomes: list[int] = [0]
        """By index: what applying it gave."""
        self._states: dict[int, str] = {}
        self._snapshots: dict[int, bytes] = {}

    # A node's lives.

    def installed(self, machine: Machine) -> None:
        """A machine is there, with a store that has entry 1."""
        self._durable[machine.store_id] = machine.durable

    def recovered(self, machine: Machine, found: Recovered, newest: int) -> None:
        """A node starts with what its disk kept; ``newest`` is the last entry of its snapshot, 0 for none."""
        if found.torn_tail is not None:
            self._trace.count("torn tail")
        wrong = machine.durable.came_back(found, newest)
        if wrong:
            self.fail("DurableBeforeSay", f"{machine.name}: {wrong}")
        term = found.hard_state.term
        if term < self._said_term.get(machine.store_id, 0):
            self.fail(
                "TermMonotone", f"{machine.name} comes back in term {term}, and has spoken of a later one"
            )

    def begins(self, life: Life, found: Recovered) -> None:
        """A life begins with this log."""
        life.chain = self._covered(life, found.base_index)
        self._extend(life, found.entries)
        self._lives[life.store_id] = life
        life.seen_configuration = life.raw.state.configuration
        if life.applier.last_applied:
            self._trace.count("started from a snapshot")
            self._restored(life)

    def ends(self, life: Life) -> None:
        """A life is over."""
        if self._lives.get(life.store_id) is life:
            del self._lives[life.store_id]

    # Snapshots.

    def installs(self, life: Life, index: int) -> None:
        """A snapshot is about to take the place of a node's log."""
        self._trace.count("snapshot installed")
        life.chain = self._covered(life, index)

    def restored(self, life: Life) -> None:
        """A node's state is that of a snapshot now."""
        if not life.process.fenced:
            self._restored(life)

    def _restored(self, life: Life) -> None:
        """SnapshotEqualsReplay: it is the state of whoever applied the same entries one by one."""
        self.same_state(life)
        body = b"".join(encode_snapshot(life.state.freeze()))
        self.same_snapshot(life.name, life.state.applied_index, body)
        try:
            state_invariants.check(life.state)
        except state_invariants.InvariantBroken as error:
            self.fail("StateInvariants", str(error), error)

    def _covered(self, life: Life, index: int) -> list[bytes]:
        if index >= len(self._committed):
            self.fail(
                "SnapshotEqualsReplay",
                f"{life.name} has a snapshot of {index}, committed is {self.commit_index}",
            )
            index = self.commit_index
        return self._committed[: index + 1]

    # What nodes do.

    def taken(self, life: Life, entries: Sequence[Entry]) -> None:
        """A node has put these into its log."""
        first = entries[0].index
        cut = len(life.chain) - first
        if cut > 0:
            self._trace.count("truncated two or more entries" if cut > 1 else "truncated one entry")
            self._watch_figure_8(life, first)
            if first <= life.seen_commit:
                self.fail(
                    "LeaderComplete", f"{life.name} replaces entry {first}, committed is {life.seen_commit}"
                )
        self._extend(life, entries)

    def _extend(self, life: Life, entries: Sequence[Entry]) -> None:
        chain = life.chain
        for entry in entries:
            del chain[entry.index :]
            if len(chain) != entry.index:
                self.fail("LogMatching", f"{life.name} has a gap before entry {entry.index}")
                return
            digest = hashlib.blake2b(chain[-1], digest_size=8)
            digest.update(b"%d %d " % (entry.term, entry.type))
            digest.update(entry.data)
            link = digest.digest()
            known = self._chains.setdefault((entry.index, entry.term), link)
            if known != link:
                self.fail(
                    "LogMatching", f"entry {entry.index} of term {entry.term} is another on {life.name}"
                )
            chain.append(link)

    def _watch_figure_8(self, life: Life, first: int) -> None:
        """An entry that a majority holds is replaced: the reason for the rule about the own term (figure 8)."""
        own = self._durable[life.store_id]
        for index in range(first, min(len(life.chain), own.last_index + 1)):
            term = own.terms[index]
            holders = {store for store, durable in self._durable.items() if durable.has(index, term)}
            configuration = life.raw.state.configuration
            if len(configuration.voters) > 1 and is_quorum(configuration, holders):
                self._trace.count("figure 8")
                return

    def said(self, life: Life, messages: Sequence[Message]) -> None:
        """These leave a node: nothing in them may be forgotten by a crash."""
        durable = self._durable[life.store_id]
        on_disk = durable.hard_state.term
        for message in messages:
            term = message.term
            match message:
                case RequestVote(pre_vote=True):
                    term -= 1
                case RequestVoteReply(pre_vote=True, granted=True):
                    continue
                case RequestVote():
                    self._vote(life.name, life.store_id, term, life.store_id)
                    # While it was being written the winner of this term may have been heard, and have cut the log: the
                    # request is untrue then, and too late to be granted.
                    late = on_disk > term or durable.terms[-1] == term
                    self._require_durable(life, late or durable.last_index >= message.last_log_index, message)
                case RequestVoteReply(granted=True):
                    self._vote(life.name, life.store_id, term, message.receiver)
                    kept = durable.votes.get(term) == message.receiver
                    self._require_durable(life, kept or on_disk > term, message)
                case AppendEntriesReply(success=True) | InstallSnapshotReply(success=True):
                    has = durable.last_index >= message.match_index
                    self._require_durable(life, has or on_disk > term, message)
                case _:
                    pass
            self._require_durable(life, on_disk >= term, message)
            if term > self._said_term.get(life.store_id, 0):
                self._said_term[life.store_id] = term

    def _require_durable(self, life: Life, holds: bool, message: Message) -> None:
        if not holds:
            self.fail("DurableBeforeSay", f"{life.name} says what its disk does not know: {message}")

    def _vote(self, name: str, voter: int, term: int, candidate: int) -> None:
        known = self._votes.setdefault((voter, term), candidate)
        if known != candidate:
            self.fail("VoteOnce", f"{name} votes for {candidate} in term {term}, and did for {known}")

    def transition(self, life: Life, transition: Transition) -> None:
        """A node has changed its role, its term or its leader."""
        self._trace.say(
            f"{life.name} {transition.event}: {transition.role} t{transition.term} vote {transition.vote} "
            f"leader {transition.leader} last {transition.last_index} commit {transition.commit}"
        )
        if transition.event == "own disk stalled":
            self._trace.count("disk stall unseated a leader")
        elif transition.event == "no quorum heard":
            self._trace.count("no quorum unseated a leader")
        if transition.event == "won the election":
            self._leads(life, transition.term)
            self.on_leader(life)

    def _leads(self, life: Life, term: int) -> None:
        self._trace.count("leader elected")
        other = self._leaders.setdefault(term, life.store_id)
        if other != life.store_id:
            self.fail("OneLeaderPerTerm", f"n{other} and {life.name} lead term {term}")
        self._vote(life.name, life.store_id, term, life.store_id)
        voters = {store for store in self._durable if self._votes.get((store, term)) == life.store_id}
        if not is_quorum(life.raw.state.configuration, voters):
            self.fail("QuorumsMeet", f"{life.name} leads term {term} with the votes of {sorted(voters)}")
        if self._durable[life.store_id].votes.get(term) != life.store_id:
            self.fail(
                "DurableBeforeSay", f"{life.name} leads term {term}, and its disk has no vote of its own"
            )
        self._require_complete(life)

    def _require_complete(self, life: Life) -> None:
        # What a later leader has committed meanwhile, a node that wins an old election late cannot have.
        at = self.commit_index
        while self._committed_in[at] >= life.raw.state.term:
            at -= 1
        if len(life.chain) <= at or life.chain[at] != self._committed[at]:
            self.fail("LeaderComplete", f"{life.name} leads without what was committed up to {at}")

    # After every event.

    def after_event(self, process: Process | None) -> None:
        """Look at the node that has just done something; raise what does not hold."""
        if process is not None and not process.fenced:
            self._look(process)
        if self.failure is not None:
            raise self.failure

    def _look(self, process: Process) -> None:
        life = self._by_process(process)
        if life is None:
            return
        state = life.raw.state
        log = state.log
        seen = (state.role, state.term, log.commit, log.last_index, log.applied, state.configuration)
        if seen == life.seen:
            return
        life.seen = seen
        try:
            core_invariants.check(life.raw)
        except InvariantViolation as error:
            self.fail("CoreInvariants", str(error), error)
        if log.commit < life.seen_commit:
            self.fail(
                "CommitMonotone", f"the commit of {life.name} falls from {life.seen_commit} to {log.commit}"
            )
        if log.commit > life.seen_commit:
            self._committed_up_to(life, min(log.commit, len(life.chain) - 1))
        if state.configuration != life.seen_configuration:
            life.seen_configuration = state.configuration
            if state.configuration.outgoing:
                self._trace.count("joint configuration")

    def _by_process(self, process: Process) -> Life | None:
        for life in self._lives.values():
            if life.process is process:
                return life
        return None

    def _committed_up_to(self, life: Life, index: int) -> None:
        for at in range(life.seen_commit + 1, index + 1):
            link = life.chain[at]
            if at < len(self._committed):
                if self._committed[at] != link:
                    self.fail("LogMatching", f"{life.name} commits another entry {at}")
                    return
                continue
            self._commit(life, at, link)
        life.seen_commit = max(life.seen_commit, index)

    def _commit(self, life: Life, at: int, link: bytes) -> None:
        """Nobody knew before that this entry is committed."""
        self._committed.append(link)
        self._committed_in.append(life.raw.state.term)
        term = life.raw.state.log.term(at) or 0
        self.commit_index = at
        holders = {store for store, durable in self._durable.items() if durable.has(at, term)}
        # In one event it may have committed, and then applied a change of the configuration, or the other way round.
        used = (life.raw.state.configuration, life.seen_configuration)
        if not any(is_quorum(configuration, holders) for configuration in used):
            self.fail(
                "QuorumsMeet", f"{life.name} commits entry {at}, which the disks of {sorted(holders)} hold"
            )
        for other in self._lives.values():
            state = other.raw.state
            if state.role is Role.LEADER and state.term > life.raw.state.term:
                self._require_complete(other)

    # What nodes apply.

    def applied(
        self, life: Life, entry: Entry, replies: tuple[Reply, ...], effects: tuple[object, ...]
    ) -> None:
        """A node has applied an entry."""
        if life.process.fenced:
            return
        index = entry.index
        if index > self.commit_index:
            self._committed_up_to(life, index)
        if index > self.commit_index or life.chain[index] != self._committed[index]:
            self.fail("SameApply", f"{life.name} applies entry {index}, which is not committed")
            return
        outcome = hash((replies, effects))
        if index == len(self._outcomes):
            self._outcomes.append(outcome)
            self._first_applied(life, entry, replies, effects)
        elif self._outcomes[index] != outcome:
            self.fail(
                "SameApply", f"entry {index} gives {replies} on {life.name}, and gave something else before"
            )
        if index % STATE_HASH_EVERY == 0:
            self.same_state(life)

    def same_state(self, life: Life) -> None:
        """The state of this node is that of every other at the same index."""
        state = life.state
        digest = state_invariants.state_hash(state)
        if self._states.setdefault(state.applied_index, digest) != digest:
            self.fail("SameApply", f"the state of {life.name} after entry {state.applied_index} is another")

    def same_snapshot(self, name: str, index: int, body: bytes) -> None:
        """The bytes of a snapshot are those of every other one of that entry, and of any state that is restored."""
        digest = hashlib.blake2b(body, digest_size=8).digest()
        if self._snapshots.setdefault(index, digest) != digest:
            self.fail("SnapshotEqualsReplay", f"the snapshot of entry {index} of {name} is another")

    def _first_applied(
        self, life: Life, entry: Entry, replies: tuple[Reply, ...], effects: tuple[object, ...]
    ) -> None:
        self._trace.say(f"{entry.index}/{entry.term} applied: {len(replies)} replies, {len(effects)} effects")
        if entry.type is EntryType.CONFIGURATION:
            return
        if entry.type is EntryType.CONF_CHANGE:
            self._trace.count("configuration changed")
        try:
            self.ledger.applied(entry, replies, effects, life.state)
            if entry.index % STATE_CHECK_EVERY == 0:
                state_invariants.check(life.state)
        except Broken as error:
            self.fail(error.invariant, str(error), error)
        except state_invariants.InvariantBroken as error:
            self.fail("StateInvariants", str(error), error)

    def fail(self, invariant: str, what: str, cause: BaseException | None = None) -> None:
        """An invariant does not hold; the first one counts."""
        if self.failure is None:
            self.failure = Violation(invariant, what, cause)
            self._trace.say(f"VIOLATION {invariant}")
