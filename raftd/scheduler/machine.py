"""The replicated state machine: a committed entry goes in, replies and effects come out, the state has moved on.

What may live here: the order in which an entry is applied, and which module decides which command.

``apply`` is total and deterministic. Total: whatever can be decoded is answered; a command that cannot be done is
refused by a reply, never by an exception, for an exception would stop every node at the same entry for ever.
Deterministic: it reads the state and the entry and nothing else: no clock, no chance, no order of a set, no float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raftd.scheduler.attempts import occupy, occupy_new, vacate
from raftd.scheduler.cancellation import cancel, mark_stopping
from raftd.scheduler.commands import (
    Batch,
    Cancel,
    Expire,
    ForgetNode,
    MarkStopping,
    MembershipChange,
    NodeLost,
    Occupy,
    OccupyNew,
    Purge,
    RecordBlob,
    RegisterNode,
    Retry,
    SetEligibility,
    SetLabels,
    SetSettings,
    Submit,
    SubmitGraph,
    Vacate,
)
from raftd.scheduler.dependencies import settle
from raftd.scheduler.directory import record_blob
from raftd.scheduler.effects import Effect
from raftd.scheduler.expiry import expire
from raftd.scheduler.graphs import submit_graph
from raftd.scheduler.membership import change_members, found
from raftd.scheduler.model import MAX_TIME_MS, Genesis
from raftd.scheduler.nodes import forget_node, set_eligibility, set_labels
from raftd.scheduler.purge import purge
from raftd.scheduler.registration import node_lost, register_node
from raftd.scheduler.replies import Reply
from raftd.scheduler.resubmission import retry
from raftd.scheduler.retention import forget_old
from raftd.scheduler.settings import set_settings
from raftd.scheduler.state import State
from raftd.scheduler.submission import submit
from raftd.scheduler.turn import Turn

_RULES: dict[type, Callable[[Turn, Any], Reply]] = {
    RegisterNode: register_node,
    Submit: submit,
    SubmitGraph: submit_graph,
    Retry: retry,
    Expire: expire,
    Purge: purge,
    Occupy: occupy,
    OccupyNew: occupy_new,
    Vacate: vacate,
    Cancel: cancel,
    MarkStopping: mark_stopping,
    NodeLost: node_lost,
    ForgetNode: forget_node,
    SetEligibility: set_eligibility,
    SetLabels: set_labels,
    SetSettings: set_settings,
    RecordBlob: record_blob,
}


class OutOfOrder(AssertionError):
    """An entry was applied twice, or one was left out: the state cannot be trusted any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an entry did: one reply for each command, in order, and what was caused, in order."""

    replies: tuple[Reply, ...]
    effects: tuple[Effect, ...]


class StateMachine:
    """Applies entries, each once, in the order of their indices.

    Args:
        state: to go on from (of a snapshot); without one, the state before entry 1.
    """

    __slots__ = ("state",)

    def __init__(self, state: State | None = None) -> None:
        self.state = state if state is not None else State()

    @property
    def applied_index(self) -> int:
        """The index of the last entry that was applied."""
        return self.state.applied_index

    def apply(self, index: int, batch: Batch) -> Outcome:
        """Apply an entry of commands."""
        self._advance(index)
        state, header = self.state, batch.header
        state.advance_clock(min(header.cluster_time_ms, MAX_TIME_MS))
        turn = Turn(state, index, header.random_u64)
        first_new_task_id = state.next_task_id
        replies = turn.replies
        for command in batch.commands:
            replies.append(_RULES[type(command)](turn, command))
            if turn.ended:
                settle(turn)
        forget_old(state, len(batch.commands), state.next_task_id - first_new_task_id)
        return Outcome(tuple(replies), tuple(turn.effects))

    def apply_noop(self, index: int) -> Outcome:
        """Apply an entry that changes nothing here: a leader's first, or one in the place of a change that could not be
        made."""
        self._advance(index)
        return Outcome((), ())

    def apply_genesis(self, index: int, genesis: Genesis) -> Outcome:
        """Apply the entry that founds the cluster."""
        self._advance(index)
        self.state.genesis = genesis
        turn = Turn(self.state, index, 0)
        found(turn, genesis)
        return Outcome((), tuple(turn.effects))

    def apply_conf_change(
        self,
        index: int,
        changes: Sequence[MembershipChange],
        voters: frozenset[int],
        learners: frozenset[int],
        outgoing: frozenset[int],
    ) -> Outcome:
        """Apply a change of the membership.

        Args:
            changes: of the entry; none where it leaves the joint configuration.
            voters, learners, outgoing: the stores of the configuration in force after it.
        """
        self._advance(index)
        turn = Turn(self.state, index, 0)
        change_members(turn, changes, voters, learners, outgoing)
        settle(turn)
        return Outcome((), tuple(turn.effects))

    def _advance(self, index: int) -> None:
        if index != self.state.applied_index + 1:
            raise OutOfOrder(f"entry {index} after {self.state.applied_index}")
        self.state.applied_index = index
