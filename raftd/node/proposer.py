"""From what callers want to entries of the log: batches of commands, changes of the membership, and their answers.

What may live here: making entries and handing them to the core, and who is told what became of them. The queues are
``proposals``'; when entries are made and applied is the loop's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftd.codec.commands import encode_batch
from raftd.errors import (
    InvalidRequest,
    NoLeader,
    OutcomeUnknown,
    PayloadTooLarge,
    RaftdError,
    TooManyUncommitted,
)
from raftd.node.clock import ClusterClock
from raftd.node.proposals import Proposal, Proposals, fail
from raftd.raft import types as raft
from raftd.raft.raw_node import RawNode
from raftd.scheduler.commands import Batch, Header
from raftd.scheduler.replies import Reply


class Proposer:
    """What one node proposes.

    Args:
        raw: the core.
        cluster_clock: the time that entries are stamped with.
        random_u64: the chance that is stamped on entries.
        not_leader: what callers are told while this node does not lead.
    """

    def __init__(
        self,
        raw: RawNode,
        cluster_clock: ClusterClock,
        random_u64: Callable[[], int],
        not_leader: Callable[[], RaftdError],
    ) -> None:
        self._raw = raw
        self._cluster_clock = cluster_clock
        self._random_u64 = random_u64
        self._not_leader = not_leader
        self._proposals = Proposals()

    def add(self, proposal: Proposal) -> None:
        """Queue one proposal."""
        self._proposals.add(proposal)

    def append_queued(self, now: float) -> None:
        """Make entries of everything that is queued."""
        while batch := self._proposals.take(now):
            try:
                data = self._encode(batch)
            except ValueError:
                # One of them holds a value that no entry can hold: find it, and let the others pass.
                for proposal in batch:
                    self._append_alone(proposal)
            else:
                self._append(batch, data)

    def applied(self, entry: raft.Entry, replies: Sequence[Reply]) -> None:
        """An entry is applied: whoever waits for it gets the replies."""
        self._proposals.applied(entry.index, entry.term, replies)

    def leadership_lost(self) -> None:
        """What was appended may or may not be committed by the next leader; of what is queued nothing will be."""
        self._proposals.fail_appended(
            OutcomeUnknown(
                "leadership was lost before it was committed", try_="retry under the same request id"
            )
        )
        self._proposals.fail_queued(self._not_leader())

    def close(self, error: RaftdError) -> None:
        """This node is about to stop."""
        self._proposals.fail_queued(error)
        self._proposals.fail_appended(OutcomeUnknown("this node shut down before it was applied"))

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
