"""Everyone's progress and votes under the configuration in force: the arithmetic of one leader or candidate."""

from __future__ import annotations

from raftd.raft.inflights import Inflights
from raftd.raft.progress import Progress
from raftd.raft.quorum import VoteResult, committed_index, has_quorum, vote_result
from raftd.raft.types import Config, Configuration, NodeId


class Tracker:
    """The members' progress (meaningful on a leader) and the votes of the running campaign (on a candidate)."""

    __slots__ = ("_config", "configuration", "progress", "votes")

    def __init__(self, config: Config, configuration: Configuration) -> None:
        self._config = config
        self.configuration = configuration
        self.progress: dict[NodeId, Progress] = {}
        self.votes: dict[NodeId, bool] = {}

    def reset_progress(self, last_index: int) -> None:
        """A new leader knows nothing of anybody: probe everyone just behind the log's end."""
        self.progress = {node: self._unknown(node, last_index) for node in self.configuration.members()}

    def reconfigure(self, configuration: Configuration, last_index: int, *, leads: bool) -> None:
        """Another configuration is in force; who stays keeps the progress."""
        self.configuration = configuration
        if not leads:
            return
        known = self.progress
        self.progress = {}
        for node in configuration.members():
            # A newcomer's first probe carries the last entry, so that it need not wait for a heartbeat.
            progress = self.progress[node] = known.get(node) or self._unknown(node, last_index - 1)
            progress.is_learner = not configuration.is_voter(node)
            # It could not answer yet: its silence must not end this leadership at the next check of the quorum.
            progress.recent_active |= node not in known

    def _unknown(self, node: NodeId, last_index: int) -> Progress:
        return Progress(
            last_index + 1,
            Inflights(self._config.max_inflight_messages, self._config.max_inflight_bytes),
            is_learner=not self.configuration.is_voter(node),
        )

    def peers(self) -> list[tuple[NodeId, Progress]]:
        """Everyone but this node, in order of their ids."""
        return [(node, progress) for node, progress in self.progress.items() if node != self._config.id]

    def record_vote(self, node: NodeId, granted: bool) -> VoteResult:
        """The first answer of a node counts."""
        self.votes.setdefault(node, granted)
        return vote_result(self.configuration, self.votes)

    def committed_index(self) -> int:
        """The highest index that a quorum holds durably, of whatever term."""
        return committed_index(self.configuration, self._match_index)

    def confirmed_round(self) -> int:
        """The highest read round that a quorum has echoed."""
        return committed_index(self.configuration, self._acked_round)

    def quorum_is_active(self) -> bool:
        """Whether a quorum was heard since the last call; starts the next count."""
        own = self._config.id
        active = [node for node, progress in self.progress.items() if progress.recent_active or node == own]
        for progress in self.progress.values():
            progress.recent_active = False
        return has_quorum(self.configuration, active)

    def _match_index(self, node: NodeId) -> int:
        return self.progress[node].match_index

    def _acked_round(self, node: NodeId) -> int:
        return self.progress[node].acked_round
