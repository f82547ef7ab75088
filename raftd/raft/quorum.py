"""Quorum arithmetic: what one majority, or two that must agree, have decided. Pure functions over small tuples."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping

from raftd.raft.types import Configuration, NodeId


class VoteResult(enum.Enum):
    """What the votes so far amount to."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voter_count: int) -> int:
    """The size of the smallest set that meets every other of its size."""
    return voter_count // 2 + 1


def committed_index(configuration: Configuration, acknowledged: Callable[[NodeId], int]) -> int:
    """The highest index that a quorum has acknowledged; with two majorities the lower of the two.

    Works for anything that only grows and that is counted by majorities (match indices, read rounds). 0 without
    voters: nobody can decide anything.
    """
    if not configuration.voters:
        return 0
    index = _acknowledged_by_majority(configuration.voters, acknowledged)
    if configuration.outgoing:
        index = min(index, _acknowledged_by_majority(configuration.outgoing, acknowledged))
    return index


def _acknowledged_by_majority(voters: tuple[NodeId, ...], acknowledged: Callable[[NodeId], int]) -> int:
    return sorted(map(acknowledged, voters))[len(voters) - majority(len(voters))]


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Won needs every majority; lost is when one of them cannot be had any more."""
    if not configuration.voters:
        return VoteResult.LOST
    results = {_majority_result(configuration.voters, votes)}
    if configuration.outgoing:
        results.add(_majority_result(configuration.outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def _majority_result(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> VoteResult:
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING


def has_quorum(configuration: Configuration, nodes: Collection[NodeId]) -> bool:
    """Whether these nodes alone can decide."""
    return vote_result(configuration, dict.fromkeys(nodes, True)) is VoteResult.WON
