"""Proposals between their callers and their replies: queued, appended, applied or failed.

What may live here: the bookkeeping of one leader. Everything that queued while the loop slept becomes one entry, whose
replies are handed out when that entry, with that term, is applied.

There are two lanes. What keeps the cluster at work (ends of attempts, placements, registrations) goes first, whatever
has queued before it; what clients ask for comes in portions, so that a flood of it is never one long piece of work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from raftd.errors import DeadlinePassed, NotLeader, RaftdError, TooManyUncommitted
from raftd.scheduler.commands import (
    Command,
    Expire,
    MarkStopping,
    MembershipChange,
    NodeLost,
    Occupy,
    OccupyNew,
    RecordBlob,
    RegisterNode,
    Vacate,
)
from raftd.scheduler.replies import Reply

MAX_BATCH_BYTES = 768 * 1024
"""A batch is cut here, so that an entry travels in one message of 1 MiB unless a single proposal is larger."""

MAX_BATCH_COMMANDS = 8192

MAX_CLIENT_COMMANDS = 512
"""Of clients in one entry, unless one call brings more: everything else waits while they are applied."""

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Of clients in front of the log."""

UPKEEP = frozenset((Vacate, RegisterNode, Occupy, OccupyNew, MarkStopping, NodeLost, Expire, RecordBlob))
"""Commands that keep the cluster at work: they end or place what was accepted already."""


def keeps_up(commands: Iterable[Command]) -> bool:
    """Whether these go before what clients ask for."""
    return all(type(command) in UPKEEP for command in commands)


@dataclass(slots=True, eq=False)
class Proposal:
    """Commands of one caller and where their replies go.

    Attributes:
        commands: applied in order, in one entry.
        size_bytes: about their encoded size; batches are cut by it.
        expires_at: loop time after which the caller is gone; nothing is appended for it then.
        done: gets one reply a command, or a ``RaftdError``.
        appended: it is in the log, and may be committed by whoever leads next.
        upkeep: it was queued in the lane of what keeps the cluster at work.
    """

    commands: tuple[Command, ...]
    size_bytes: int
    expires_at: float
    done: asyncio.Future[tuple[Reply, ...]]
    appended: bool = False
    upkeep: bool = False


@dataclass(slots=True, eq=False)
class ProposedChange:
    """A change of the membership and where its index goes.

    Attributes:
        changes: all of them at once.
        expires_at: loop time after which the caller is gone; nothing is appended for it then.
        done: gets the index of its entry when that is applied, or a ``RaftdError``.
        appended: it is in the log, and may be committed by whoever leads next.
    """

    changes: tuple[MembershipChange, ...]
    expires_at: float
    done: asyncio.Future[int]
    appended: bool = False


@dataclass(slots=True)
class _Appended:
    term: int
    proposals: list[Proposal] = field(default_factory=list)


class Proposals:
    """The queue in front of the log and the callers that wait behind it."""

    def __init__(self) -> None:
        self._upkeep: deque[Proposal] = deque()
        self._clients: deque[Proposal] = deque()
        self._clients_bytes = 0
        self._appended: dict[int, _Appended] = {}

    def __len__(self) -> int:
        return len(self._upkeep) + len(self._clients)

    def add(self, proposal: Proposal) -> None:
        """Queue one proposal.

        Raises:
            TooManyUncommitted: too much of clients is queued already.
        """
        if keeps_up(proposal.commands):
            proposal.upkeep = True
            self._upkeep.append(proposal)
            return
        if self._clients and self._clients_bytes + proposal.size_bytes > MAX_QUEUED_BYTES:
            raise TooManyUncommitted(
                f"{self._clients_bytes} bytes wait to be proposed; the limit is {MAX_QUEUED_BYTES}",
                try_="try again in a moment",
            )
        self._clients_bytes += proposal.size_bytes
        self._clients.append(proposal)

    def take(self, now: float) -> list[Proposal]:
        """The next batch, at least one proposal unless the queues are empty; expired ones are failed instead."""
        batch: list[Proposal] = []
        size = commands = 0
        for queue, limit in ((self._upkeep, MAX_BATCH_COMMANDS), (self._clients, MAX_CLIENT_COMMANDS)):
            while queue:
                proposal = queue[0]
                if batch and (
                    size + proposal.size_bytes > MAX_BATCH_BYTES or commands + len(proposal.commands) > limit
                ):
                    return batch
                queue.popleft()
                if queue is self._clients:
                    self._clients_bytes -= proposal.size_bytes
                if proposal.done.done():
                    continue
                if proposal.expires_at <= now:
                    proposal.done.set_exception(DeadlinePassed("the deadline passed before it was proposed"))
                    continue
                batch.append(proposal)
                size += proposal.size_bytes
                commands += len(proposal.commands)
        return batch

    def refuse_clients(self, error: RaftdError) -> None:
        """There is no room for what clients want: they are told, and upkeep goes on."""
        refused, self._clients = self._clients, deque()
        self._clients_bytes = 0
        fail(refused, error)

    def appended(self, index: int, term: int, proposals: Sequence[Proposal]) -> None:
        """These proposals are the entry (index, term)."""
        self._appended[index] = _Appended(term, list(proposals))
        for proposal in proposals:
            proposal.appended = True

    def applied(self, index: int, term: int, replies: Sequence[Reply]) -> None:
        """The entry (index, term) is applied: hand its replies out if it is the one that was appended here."""
        entry = self._appended.pop(index, None)
        if entry is None:
            return
        if entry.term != term:
            fail(entry.proposals, NotLeader("another leader's entry took its place: nothing of it happened"))
            return
        start = 0
        for proposal in entry.proposals:
            stop = start + len(proposal.commands)
            if not proposal.done.done():
                proposal.done.set_result(tuple(replies[start:stop]))
            start = stop

    def fail_appended(self, error: RaftdError) -> None:
        """Leadership is lost: what was appended may or may not be committed by the next leader."""
        appended, self._appended = self._appended, {}
        for entry in appended.values():
            fail(entry.proposals, error)

    def fail_queued(self, error: RaftdError) -> None:
        """Nothing of the queue was appended, and nothing will be."""
        queued, self._upkeep = self._upkeep, deque()
        fail(queued, error)
        self.refuse_clients(error)


def fail(proposals: Sequence[Proposal] | deque[Proposal], error: RaftdError) -> None:
    """Give every caller that still waits this error."""
    for proposal in proposals:
        if not proposal.done.done():
            proposal.done.set_exception(error)
