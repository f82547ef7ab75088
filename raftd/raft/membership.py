"""Changes of the membership, and what each makes of a configuration. Pure arithmetic; ``reconfiguration`` has the rules
of when a change may be proposed and what a leader does when one is applied.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from raftd.raft.types import NO_NODE, Configuration, NodeId, ProposalDropped


class ChangeKind(enum.IntEnum):
    """What becomes of one node. Adding a voter as a learner demotes it, adding a learner as a voter promotes it."""

    ADD_VOTER = 1
    ADD_LEARNER = 2
    REMOVE = 3


@dataclass(frozen=True, slots=True)
class MemberChange:
    """What becomes of one node."""

    kind: ChangeKind
    node: NodeId

    def __post_init__(self) -> None:
        if self.node <= NO_NODE:
            raise ValueError(f"a node id must be positive, is {self.node}")


@dataclass(frozen=True, slots=True)
class ConfChange:
    """What one CONF_CHANGE entry does, all of it at once. Without any changes it leaves the joint configuration."""

    changes: tuple[MemberChange, ...] = ()

    def __post_init__(self) -> None:
        nodes = [change.node for change in self.changes]
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"one node is changed twice: {nodes}")


LEAVE_JOINT = ConfChange()
"""Stands in the log as a CONF_CHANGE entry without data. Every leader proposes it by itself while the configuration is
joint and nothing else is pending."""


class InvalidConfChange(ProposalDropped):
    """The change cannot be made of this configuration. Trying again does not help."""


def next_configuration(configuration: Configuration, change: ConfChange) -> Configuration:
    """What the change makes of the configuration.

    One voter more or less is a change in one step: any majority of the old and any of the new have a node in common
    (thesis §4.1). More go through a joint configuration, in which both must agree (§4.3). Learners do not matter to
    either.

    Raises:
        InvalidConfChange: see its message.
    """
    if not change.changes:
        if not configuration.outgoing:
            raise InvalidConfChange("the configuration is not joint")
        return Configuration(configuration.voters, configuration.learners)
    if configuration.outgoing:
        raise InvalidConfChange("the configuration is joint: the change before this one is not complete")
    voters, learners = set(configuration.voters), set(configuration.learners)
    for member in change.changes:
        if member.kind is ChangeKind.REMOVE and member.node not in voters | learners:
            raise InvalidConfChange(f"{member.node:016x} is not a member")
        voters.discard(member.node)
        learners.discard(member.node)
        if member.kind is ChangeKind.ADD_VOTER:
            voters.add(member.node)
        elif member.kind is ChangeKind.ADD_LEARNER:
            learners.add(member.node)
    if not voters:
        raise InvalidConfChange("nobody would be left to vote")
    simple = len(voters.symmetric_difference(configuration.voters)) <= 1
    after = Configuration(tuple(voters), tuple(learners), () if simple else configuration.voters)
    if after == configuration:
        raise InvalidConfChange("this changes nothing")
    return after
