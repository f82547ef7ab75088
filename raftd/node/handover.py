"""When a leader should rather not lead, and whom it hands over to (thesis §3.10).

What may live here: the reasons of this node's own, which the core cannot know: its disk is full or stands still. The
core steps down by itself where nobody takes over in time.
"""

from __future__ import annotations

import logging

from raftd.raft import types as raft
from raftd.raft.progress import ProgressState
from raftd.raft.raw_node import RawNode

log = logging.getLogger(__name__)

STALL_MS = 1_000
"""A write that has been with the disk for so long: half of what makes the core step down. A healthy disk of a busy
machine stalls for a few hundred milliseconds."""


class Handover:
    """Hands the leadership of one node over.

    Args:
        raw: the core.
    """

    def __init__(self, raw: RawNode) -> None:
        self._raw = raw
        self._given_up = ""
        """Why this node has handed over already. It may be elected again, and then leads on: the others are no better
        off, and handing over in a circle would help nobody."""

    def heir(self) -> raft.NodeId:
        """The voter that lives and has most of this leader's log; 0 for nobody."""
        status = self._raw.status()
        voters = [
            row
            for row in status.progress
            if row.node != status.id and row.node in status.configuration.voters
        ]
        # The core has just begun to count anew who is heard where that is nobody: else it would have stepped down.
        rows = [row for row in voters if row.recent_active] or [
            row for row in voters if row.state == ProgressState.REPLICATE.value
        ]
        return max(rows, key=lambda row: row.match_index).node if rows else raft.NO_NODE

    def check(self, *, disk_full: bool, stalled_ms: int) -> None:
        """Hand over where the disk gives reason to, once for each time that it does."""
        reason = "its disk is full" if disk_full else "its disk stands still" if stalled_ms > STALL_MS else ""
        if not reason:
            self._given_up = ""
            return
        if self._given_up or self._raw.state.role is not raft.Role.LEADER:
            return
        if heir := self.heir():
            self._given_up = reason
            log.warning("hands the leadership over to store %016x: %s", heir, reason)
            self._raw.transfer_leadership(heir)
