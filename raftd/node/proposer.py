"""From what callers want to entries of the log: batches of commands, changes of the membership, and their answers.

What may live here: making entries and handing them to the core, and who is told what became of them. The queues are
``proposals``'; when entries are made and applied is the loop's to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from raftd.codec.commands import encode_batch
from raftd.codec.conf_change import encode_conf_change, to_core
from raftd.errors import (
    ChangePending,
    DeadlinePassed,
    InvalidChange,
    InvalidRequest,
    NoLeader,
    OutcomeUnknown,
    PayloadTooLarge,
    RaftdError,
    TooManyUncommitted,
    from_code,
)
from raftd.node.clock import ClusterClock
from raftd.node.proposals import Proposal, Proposals, ProposedChange, fail
from raftd.raft import types as raft
from raftd.raft.membership import InvalidConfChange
from raftd.raft.raw_node import RawNode
from raftd.scheduler.commands import Batch, Command, Header
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.membership import check_change
from raftd.scheduler.replies import Reply


class Proposer:
    """What one node proposes.

    Args:
        raw: the core.
        machine: the applied state, that a change of the membership is checked against.
        cluster_clock: the time that entries are stamped with.
        random_u64: the chance that is stamped on entries.
        not_leader: what callers are told while this node does not lead.
        ride: what is to go along in an entry of these commands.
    """

    def __init__(
        self,
        raw: RawNode,
        machine: StateMachine,
        cluster_clock: ClusterClock,
        random_u64: Callable[[], int],
        not_leader: Callable[[], RaftdError],
        ride: Callable[[Sequence[Command]], Proposal | None] = lambda _: None,
    ) -> None:
        self._raw = raw
        self._machine = machine
        self._cluster_clock = cluster_clock
        self._random_u64 = random_u64
        self._not_leader = not_leader
        self._ride = ride
        self._proposals = Proposals()
        self._changes: deque[ProposedChange] = deque()
        self._appended_changes: dict[int, tuple[int, ProposedChange]] = {}

    @property
    def waiting(self) -> bool:
        """Whether something is queued."""
        return bool(self._proposals)

    def add(self, proposal: Proposal) -> None:
        """Queue one proposal. Raises TooManyUncommitted."""
        self._proposals.add(proposal)

    def add_change(self, change: ProposedChange) -> None:
        """Queue a change of the membership."""
        self._changes.append(change)

    def append_queued(self, now: float) -> None:
        """Make entries of what is queued: of all upkeep, and one of what clients want; the rest waits for its turn."""
        self._keep_room()
        clients = False
        while not clients and (batch := self._proposals.take(now)):
            clients = not batch[-1].upkeep
            # Behind everything else, so that nobody's replies move.
            rider = self._ride([command for proposal in batch for command in proposal.commands])
            batch += [rider] if rider is not None else []
            try:
                data = self._encode(batch)
            except ValueError:
                # One of them holds a value that no entry can hold: find it, and let the others pass. A rider that is
                # alone is refused when it is applied.
                for proposal in batch:
                    self._append_alone(proposal)
            else:
                self._append(batch, data)
        while self._changes:
            change = self._changes.popleft()
            if change.done.done():
                continue
            try:
                self._append_change(change, now)
            except RaftdError as error:
                change.done.set_exception(error)

    def _keep_room(self) -> None:
        """Keep some of what may be uncommitted for upkeep: a quorum that is slow must not keep tasks from ending."""
        quota = self._raw.state.quota
        if quota.bytes * 4 > quota.limit_bytes * 3:
            self._proposals.refuse_clients(
                TooManyUncommitted(
                    f"{quota.bytes} bytes are proposed and not committed; for clients the limit is "
                    f"{quota.limit_bytes * 3 // 4}",
                    try_="try again in a moment",
                )
            )

    def applied(self, entry: raft.Entry, replies: Sequence[Reply]) -> None:
        """An entry is applied: whoever waits for it gets the replies."""
        self._proposals.applied(entry.index, entry.term, replies)
        term, change = self._appended_changes.pop(entry.index, (0, None))
        if change is None or change.done.done():
            return
        if entry.term == term and entry.type is raft.EntryType.CONF_CHANGE:
            change.done.set_result(entry.index)
        else:
            change.done.set_exception(_pending())

    def leadership_lost(self) -> None:
        """What was appended may or may not be committed by the next leader; of what is queued nothing will be."""
        self._fail_all(
            self._not_leader(),
            OutcomeUnknown(
                "leadership was lost before it was committed", try_="retry under the same request id"
            ),
        )

    def close(self, error: RaftdError) -> None:
        """This node is about to stop."""
        self._fail_all(error, OutcomeUnknown("this node shut down before it was applied"))

    def _fail_all(self, queued: RaftdError, appended: RaftdError) -> None:
        self._proposals.fail_queued(queued)
        self._proposals.fail_appended(appended)
        changes = [(change, queued) for change in self._changes]
        changes += [(change, appended) for _, change in self._appended_changes.values()]
        self._changes.clear()
        self._appended_changes.clear()
        for change, error in changes:
            if not change.done.done():
                change.done.set_exception(error)

    def _append_change(self, change: ProposedChange, now: float) -> None:
        if change.expires_at <= now:
            raise DeadlinePassed("the deadline passed before it was proposed")
        if self._raw.state.configuration.outgoing:
            raise _pending()
        refusal = check_change(self._machine.state, change.changes)
        if refusal is not None and refusal.retryable:
            raise ChangePending(refusal.message, try_=refusal.try_)
        if refusal is not None:
            raise from_code(refusal.code, refusal.message, refusal.try_)
        try:
            place = self._raw.propose_conf_change(to_core(change.changes), encode_conf_change(change.changes))
        except InvalidConfChange as error:
            raise InvalidChange(error.message) from None
        except (raft.NotLeader, raft.ProposalDropped) as error:
            raise self._refusal(error) from None
        # While another change is pending the core has put an empty entry in its place: its type will tell.
        self._appended_changes[place.index] = (place.term, change)
        change.appended = True

    def _append_alone(self, proposal: Proposal) -> None:
        try:
            data = self._encode([proposal])
        except ValueError as error:
            fail([proposal], InvalidRequest(f"this cannot be written to the log: {error}"))
        else:
            self._append([proposal], data)

    def _encode(self, batch: Sequence[Proposal]) -> bytes:
        commands = tuple(command for proposal in batch for command in proposal.commands)
        header = Header(self._cluster_clock.stamp_ms(), self._random_u64())
        return encode_batch(Batch(header, commands))

    def _append(self, batch: Sequence[Proposal], data: bytes) -> None:
        try:
            place = self._raw.propose(data)
        except raft.EntryTooLarge as error:
            if len(batch) > 1:
                # The sizes that it was cut by were too small a guess: only who is too large alone is at fault.
                for proposal in batch:
                    self._append_alone(proposal)
            else:
                fail(batch, PayloadTooLarge(error.message))
        except (raft.NotLeader, raft.ProposalDropped) as error:
            fail(batch, self._refusal(error))
        else:
            self._proposals.appended(place.index, place.term, batch)

    def _refusal(self, error: raft.NotLeader | raft.ProposalDropped) -> RaftdError:
        """Why nothing was appended."""
        match error:
            case raft.NotLeader():
                return self._not_leader()
            case raft.UncommittedLimit():
                return TooManyUncommitted(error.message, try_="try again in a moment")
            case raft.TransferUnderWay():
                return NoLeader("the leadership is being handed over", try_="try again in a moment")
        raise error


def _pending() -> RaftdError:
    return ChangePending(
        "another change of the membership is under way", try_="wait until it is complete, then try again"
    )
