"""Proposals between their callers and their replies: queued, appended, applied or failed.

What may live here: the bookkeeping of one leader. Everything that queued while the loop slept becomes one entry, whose
replies are handed out when that entry, with that term, is applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from raftd.errors import DeadlinePassed, NotLeader, RaftdError
from raftd.scheduler.commands import Command, MembershipChange
from raftd.scheduler.replies import Reply

MAX_BATCH_BYTES = 768 * 1024
"""A batch is cut here, so that an entry travels in one message of 1 MiB unless a single proposal is larger."""

MAX_BATCH_COMMANDS = 8192


@dataclass(slots=True, eq=False)
class Proposal:
    """Commands of one caller and where their replies go.

    Attributes:
        commands: applied in order, in one entry.
        size_bytes: about their encoded size; batches are cut by it.
        expires_at: loop time after which the caller is gone; nothing is appended for it then.
        done: gets one reply a command, or a ``RaftdError``.
        appended: it is in the log, and may be committed by whoever leads next.
    """

    commands: tuple[Command, ...]
    size_bytes: int
    expires_at: float
    done: asyncio.Future[tuple[Reply, ...]]
    appended: bool = False


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
        self._queue: deque[Proposal] = deque()
        self._appended: dict[int, _Appended] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, proposal: Proposal) -> None:
        """Queue one proposal."""
        self._queue.append(proposal)

    def take(self, now: float) -> list[Proposal]:
        """The next batch, at least one proposal unless the queue is empty; expired ones are failed instead."""
        batch: list[Proposal] = []
        size = commands = 0
        while self._queue:
            proposal = self._queue[0]
            if batch and (
                size + proposal.size_bytes > MAX_BATCH_BYTES
                or commands + len(proposal.commands) > MAX_BATCH_COMMANDS
            ):
                break
            self._queue.popleft()
            if proposal.done.done():
                continue
            if proposal.expires_at <= now:
                proposal.done.set_exception(DeadlinePassed("the deadline passed before it was proposed"))
                continue
            batch.append(proposal)
            size += proposal.size_bytes
            commands += len(proposal.commands)
        return batch

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
        queued, self._queue = self._queue, deque()
        fail(queued, error)


def fail(proposals: Sequence[Proposal] | deque[Proposal], error: RaftdError) -> None:
    """Give every caller that still waits this error."""
    for proposal in proposals:
        if not proposal.done.done():
            proposal.done.set_exception(error)
