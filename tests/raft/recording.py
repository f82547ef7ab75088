"""A cluster that writes down what happens, and the words for it.

What may live here: the steps of a run of ``Cluster``, for transcripts (``scenario``) and for pictures (``diagrams``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.ready import Ready, Transition
from raftd.raft.transitions import ROLE_CHANGES, Event
from raftd.raft.types import Configuration, Entry, EntryType, HardState, NodeId, ReadContext
from tests.raft.cluster import Cluster
from tests.raft.peer import Peer


@dataclass(frozen=True)
class Arrived:
    """A message came to its receiver, or did not."""

    message: Message
    lost: bool


@dataclass(frozen=True)
class Told:
    """A line of the trace."""

    transition: Transition


@dataclass(frozen=True)
class Committed:
    """A node has come to know of a commit."""

    node: NodeId
    index: int


@dataclass(frozen=True)
class Wrote:
    """A write of a slow disk has become durable."""

    node: NodeId
    ready: Ready


@dataclass(frozen=True)
class Answered:
    """A read was answered, or given up."""

    node: NodeId
    context: str
    index: int | None


@dataclass(frozen=True)
class Says:
    """Anything else, in words."""

    words: str


Step = Arrived | Told | Committed | Wrote | Answered | Says


class Recorded(Cluster):
    """A cluster that writes down what happens."""

    def __init__(self, voters: int, **settings: Any) -> None:
        self.steps: list[Step] = []
        self._known: dict[NodeId, int] = {}
        self.broken_streams = 0
        """So many of the next snapshots break on their way."""
        super().__init__(voters, **settings)

    def add(self, node: NodeId, log: Any = (), hard_state: HardState | None = None) -> Peer:
        """See ``Cluster``."""
        peer = super().add(node, log, hard_state)
        watch, look = peer.on_transition, peer.on_moved
        self._known[node] = peer.commit

        def on_transition(who: Peer, transition: Transition) -> None:
            self.steps.append(Told(transition))
            watch(who, transition)

        def on_moved(who: Peer) -> None:
            look(who)
            self._look(who)

        peer.on_transition, peer.on_moved = on_transition, on_moved
        return peer

    def deliver(self, position: int) -> None:
        """See ``Cluster``."""
        message = self.network[position]
        self.steps.append(Arrived(message, self._is_unreachable(message)))
        super().deliver(position)
        self.look_at_all()

    def end_stream(self, position: int, *, breaks: bool = False) -> None:
        """See ``Cluster``."""
        message, _ = self.streams[position]
        if self.broken_streams:
            self.broken_streams -= 1
            breaks = True
        lost = breaks or self._is_unreachable(message) or not self[message.sender].is_up
        self.steps.append(Arrived(message, lost))
        super().end_stream(position, breaks=breaks)

    def settle(self) -> None:
        """See ``Cluster``."""
        super().settle()
        self.look_at_all()

    def look_at_all(self) -> None:
        """Note what has changed on every node."""
        for peer in self._up():
            self._look(peer)

    def _look(self, peer: Peer) -> None:
        if peer.commit > self._known[peer.id]:
            self._known[peer.id] = peer.commit
            self.steps.append(Committed(peer.id, peer.commit))
        for context, index in peer.reads.items():
            self.steps.append(Answered(peer.id, _name_of(context), index))
        for context in peer.reads_dropped:
            self.steps.append(Answered(peer.id, _name_of(context), None))
        peer.reads.clear()
        peer.reads_dropped.clear()

    def restart(self, *nodes: NodeId) -> None:
        """See ``Cluster``."""
        for node in nodes:
            self._known[node] = self[node].disk.hard_state.commit
        super().restart(*nodes)


# Words.


def _name_of(context: ReadContext) -> str:
    return context.decode() if isinstance(context, bytes) else str(context)


def at(entry: Entry) -> str:
    """3@2 "x": entry 3 is of term 2."""
    if entry.type is EntryType.CONF_CHANGE:
        return f"{entry.index}@{entry.term} [{entry.data.decode() or 'leave joint'}]"
    # What a test puts into a log that it begins with says no more than where it is.
    own = f"{entry.index}@{entry.term}"
    data = entry.data.decode()
    return own if data in ("", own) else f"{own} {data}"


def kind_of(message: Message) -> str:
    """The name of a message, with the kinds told apart that a reader tells apart."""
    name = type(message).__name__
    if isinstance(message, RequestVote | RequestVoteReply) and message.pre_vote:
        return name.replace("RequestVote", "PreVote")
    if isinstance(message, AppendEntries | AppendEntriesReply) and message.heartbeat:
        return name.replace("AppendEntries", "Heartbeat")
    return name


def content_of(message: Message) -> str:
    """What it says beside its term."""
    match message:
        case RequestVote():
            log = f"log ends at {message.last_log_index}@{message.last_log_term}"
            return log + (", asked to by the leader" if message.transfer else "")
        case RequestVoteReply():
            told = f", {message.commit}@{message.commit_term} is committed" if message.commit else ""
            return ("granted" if message.granted else "refused") + told
        case AppendEntries():
            read = f", round {message.round}" if message.round else ""
            if message.heartbeat:
                return f"commit {message.leader_commit}{read}"
            entries = ": " + ", ".join(map(at, message.entries)) if message.entries else ""
            after = f"after {message.prev_log_index}@{message.prev_log_term}"
            return f"{after}{entries}; commit {message.leader_commit}{read}"
        case AppendEntriesReply():
            read = f", round {message.round}" if message.round else ""
            if not message.success:
                hint = f"{message.hint_index}@{message.hint_term}"
                return f"no {message.reject_index}, at most {hint}{read}"
            return (
                read.removeprefix(", ") or "ok" if message.heartbeat else f"match {message.match_index}{read}"
            )
        case InstallSnapshot():
            return f"up to {message.snapshot.index}@{message.snapshot.term}"
        case InstallSnapshotReply():
            return f"match {message.match_index}" if message.success else "stale"
        case TimeoutNow():
            return ""


def members_in_words(configuration: Configuration) -> str:
    """voters 1 2 3, and before 1 4 5; learners 6."""
    words = "voters " + " ".join(map(str, configuration.voters))
    if configuration.outgoing:
        words += " and also of " + " ".join(map(str, configuration.outgoing))
    if configuration.learners:
        words += ", learners " + " ".join(map(str, configuration.learners))
    return words


def _told_in_words(transition: Transition) -> str:
    event = transition.event
    words = f"{transition.node} {event}"
    if event in ROLE_CHANGES:
        return f"{words}: {transition.role} in term {transition.term}"
    if event is Event.CONFIGURED:
        return f"{words}: {members_in_words(transition.configuration)}"
    if event is Event.HANDS_OVER:
        return f"{words} to {transition.transfer_target}"
    if event is Event.STARTED:
        return f"{words} in term {transition.term}, log ends at {transition.last_index}"
    return words


def in_words(step: Step) -> str:
    """One line of a transcript."""
    match step:
        case Arrived(message, lost):
            arrow = "-x" if lost else "->"
            words = f"{message.sender} {arrow} {message.receiver}  {kind_of(message)} term {message.term}"
            content = content_of(message)
            return f"{words}, {content}" if content else words
        case Told(transition):
            return _told_in_words(transition)
        case Committed(node, index):
            return f"{node} commits {index}"
        case Wrote(node, ready):
            parts = [at(entry) for entry in ready.entries]
            if ready.snapshot is not None:
                parts.append(f"the snapshot up to {ready.snapshot.index}")
            if ready.hard_state is not None:
                state = ready.hard_state
                parts.append(f"term {state.term}, vote {state.vote}, commit {state.commit}")
            return f"{node} has on disk: " + "; ".join(parts or ["nothing new"])
        case Answered(node, context, index):
            return f"{node} " + (f"answers {context} at {index}" if index is not None else f"drops {context}")
        case Says(words):
            return words
