"""What a leader believes about one follower, and how fast it may send to it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from raftd.raft.inflights import Inflights
from raftd.raft.types import InvariantViolation


class ProgressState(enum.Enum):
    """How a follower is sent the log.

    PROBE: where its log agrees is unknown; one append at a time. REPLICATE: known; streamed within the window.
    SNAPSHOT: it lacks entries that the leader has no more; nothing is sent until it has a snapshot or that has failed.
    """

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class ProgressEvent(enum.StrEnum):
    """What moves a follower from one state to another."""

    ACKNOWLEDGED = "acknowledged what it was sent"
    REFUSED = "refused an append"
    UNREACHABLE = "messages to it were lost"
    COMPACTED = "lacks what is compacted here"
    STREAM_ENDED = "its stream has ended"


@dataclass(frozen=True, slots=True)
class ProgressChange:
    """The states in which it can happen, and the one that it leads to."""

    before: tuple[ProgressState, ...]
    after: ProgressState


PROGRESS_CHANGES: Mapping[ProgressEvent, ProgressChange] = {
    ProgressEvent.ACKNOWLEDGED: ProgressChange(
        (ProgressState.PROBE, ProgressState.SNAPSHOT), ProgressState.REPLICATE
    ),
    ProgressEvent.REFUSED: ProgressChange((ProgressState.REPLICATE,), ProgressState.PROBE),
    ProgressEvent.UNREACHABLE: ProgressChange((ProgressState.REPLICATE,), ProgressState.PROBE),
    ProgressEvent.COMPACTED: ProgressChange(
        (ProgressState.PROBE, ProgressState.REPLICATE), ProgressState.SNAPSHOT
    ),
    ProgressEvent.STREAM_ENDED: ProgressChange((ProgressState.SNAPSHOT,), ProgressState.PROBE),
}


class Progress:
    """One follower. Invariant: match_index < next_index; match_index never falls within a term of the leader."""

    __slots__ = (
        "acked_round", "inflights", "is_learner", "match_index", "next_index", "pending_snapshot", "probe_sent",
        "recent_active", "sent_commit", "state",
    )  # fmt: skip

    def __init__(self, next_index: int, inflights: Inflights, is_learner: bool) -> None:
        self.state = ProgressState.PROBE
        self.match_index = 0
        """The follower holds this much of our log, durably."""
        self.next_index = next_index
        """The first index not sent yet (while streaming: not sent yet, optimistically)."""
        self.inflights = inflights
        self.is_learner = is_learner
        self.pending_snapshot = 0
        """The index of the snapshot that is on its way to it; 0 unless the state is SNAPSHOT."""
        self.probe_sent = False
        """A probe is out: wait for its answer, or for a heartbeat's, before the next."""
        self.recent_active = False
        """Heard from since the last check of the quorum."""
        self.acked_round = 0
        """The highest read round that it has echoed."""
        self.sent_commit = 0
        """The highest commit that was sent to it within reach of its log; only saves messages."""

    def _change(self, event: ProgressEvent) -> None:
        """Start over from what is known for certain; the window is forgotten."""
        change = PROGRESS_CHANGES[event]
        if self.state not in change.before:
            raise InvariantViolation(f"a follower in {self.state.value} cannot be one that {event}")
        self.state = change.after
        self.next_index = self.match_index + 1
        self.pending_snapshot = 0
        self.probe_sent = False
        if change.after is not ProgressState.REPLICATE:
            self.sent_commit = 0
        self.inflights.clear()

    def unreachable(self) -> bool:
        """What was streamed may be lost: probe again. Answers whether there is a new probe to send."""
        if self.state is not ProgressState.REPLICATE:
            return False
        self._change(ProgressEvent.UNREACHABLE)
        return True

    def become_snapshot(self, index: int) -> None:
        """A snapshot up to the index is on its way; nothing else is sent."""
        self._change(ProgressEvent.COMPACTED)
        self.pending_snapshot = index

    def snapshot_reported(self, arrived: bool) -> None:
        """The host is done with the snapshot. Probe behind it, or where the follower was, but not before it has been
        heard: it may be busy with the snapshot still, or what broke the stream may last."""
        if self.state is ProgressState.SNAPSHOT:
            installed = self.pending_snapshot if arrived else 0
            self._change(ProgressEvent.STREAM_ENDED)
            self.next_index = max(self.match_index, installed) + 1
            self.probe_sent = True

    def acknowledge(self, index: int) -> bool:
        """The follower holds everything up to the index. Answers whether that is news."""
        advanced = index > self.match_index
        if advanced:
            self.match_index = index
            self.next_index = max(self.next_index, index + 1)
            self.probe_sent = False
        if self.state is ProgressState.REPLICATE:
            self.inflights.free_to(index)
        elif index >= max(self.match_index, self.pending_snapshot):
            self._change(ProgressEvent.ACKNOWLEDGED)
        return advanced

    def reject(self, rejected_index: int, agree_at_most: int) -> bool:
        """The follower does not hold the entry at ``rejected_index``; the logs agree at ``agree_at_most`` or before.

        Answers whether there is a new probe to send; a late answer to an older append changes nothing.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected_index <= self.match_index or rejected_index >= self.next_index:
                return False
            self._change(ProgressEvent.REFUSED)
            self.inflights.refused()
            return True
        if self.state is ProgressState.SNAPSHOT or rejected_index != self.next_index - 1:
            return False
        self.next_index = max(min(rejected_index, agree_at_most + 1), self.match_index + 1)
        self.probe_sent = False
        return True
