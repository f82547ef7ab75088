"""The messages between cores: frozen dataclasses with the paper's names. The codec gives them their wire form."""

from __future__ import annotations

from dataclasses import dataclass

from raftd.raft.types import Entry, NodeId, Snapshot


@dataclass(frozen=True, slots=True)
class RequestVote:
    """A candidate asks for a vote, or (``pre_vote``) asks whether it would get one.

    ``term`` is the term campaigned for; with ``pre_vote`` it is one above the sender's own, which does not move
    (thesis §9.6). ``transfer`` marks a campaign that the old leader asked for: it overrides that leader's lease.
    ``commit`` is an index that the sender knows to be committed, ``commit_term`` its term. Who has that entry learns
    so, and with it of a change of the membership, perhaps from the only one who knows (docs/decisions/0009).
    """

    sender: NodeId
    receiver: NodeId
    term: int
    last_log_index: int
    last_log_term: int
    pre_vote: bool = False
    transfer: bool = False
    commit: int = 0
    commit_term: int = 0


@dataclass(frozen=True, slots=True)
class RequestVoteReply:
    """``term`` is the voter's own, except that a granted pre-vote carries the term that was asked for.

    A refusal says in ``commit`` and ``commit_term`` what the voter knows to be committed of the asker's log.
    """

    sender: NodeId
    receiver: NodeId
    term: int
    granted: bool
    pre_vote: bool = False
    commit: int = 0
    commit_term: int = 0


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """The leader's log after (``prev_log_index``, ``prev_log_term``); empty to probe, to carry the commit, or to beat.

    A *heartbeat* is an empty append whose prev is the follower's match (0, 0 while that is unknown), so that it
    always fits and whose commit is min(match, commit). It never says where the follower's log ends, only that
    the leader lives. ``round`` counts the leader's read rounds within its term; a reply echoes it, and so proves
    that its sender still followed this leader after the round had begun (ReadIndex, thesis §6.4). 0 = no round yet.
    """

    sender: NodeId
    receiver: NodeId
    term: int
    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    leader_commit: int
    round: int = 0
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class AppendEntriesReply:
    """The answer to one append; ``round`` and ``heartbeat`` are echoed.

    Success: ``match_index`` = prev + len(entries) of the append, all of it durable at the sender.
    Failure: ``reject_index`` is the append's prev, and (``hint_index``, ``hint_term``) is the highest entry of the
    sender at or below it whose term is not above the append's prev term: the logs cannot agree beyond it.
    A stale leader gets a failure that carries the higher term.
    """

    sender: NodeId
    receiver: NodeId
    term: int
    success: bool
    match_index: int = 0
    reject_index: int = 0
    hint_index: int = 0
    hint_term: int = 0
    round: int = 0
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """The leader no longer has the entries that the receiver lacks; this stands in for them (the paper, §7).

    Only a notice: it does not travel with the other messages. The sender's host streams the bytes with this at their
    head, and the receiver's host steps it when it has all of them. ``ready`` says what the hosts owe.
    """

    sender: NodeId
    receiver: NodeId
    term: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class InstallSnapshotReply:
    """``match_index``: the sender holds the leader's log up to here, durably, as a snapshot or as entries.

    A stale leader gets a failure that carries the higher term.
    """

    sender: NodeId
    receiver: NodeId
    term: int
    success: bool
    match_index: int = 0


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader hands over: the receiver stands for election at once (thesis §3.10)."""

    sender: NodeId
    receiver: NodeId
    term: int


Message = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | InstallSnapshot
    | InstallSnapshotReply
    | TimeoutNow
)
