"""When a leader lets a learner vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from raftd.node.members import Members
from raftd.node.membership import Membership
from raftd.node.node import Node
from raftd.raft.ready import ProgressStatus, Status
from raftd.raft.types import Configuration, Role
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind
from raftd.scheduler.model import MemberRecord, Standing
from raftd.scheduler.state import State
from tests.node.test_node import run

LEARNER = ProgressStatus(4, "replicate", 50, 51, 0, 0, True, True)


def status(commit: int, learner: ProgressStatus) -> Status:
    return Status(
        id=1,
        role=Role.LEADER,
        term=2,
        vote=1,
        leader=1,
        commit=commit,
        applied=commit,
        first_index=1,
        last_index=commit,
        durable_index=commit,
        uncommitted_bytes=0,
        pending_reads=0,
        outstanding_readies=0,
        configuration=Configuration((1, 2, 3), (4,)),
        progress=(learner,),
    )


class ToldNode:
    """A leader that says what a test tells it to, one answer after the other."""

    def __init__(self, *answers: Status) -> None:
        self.answers = list(answers)
        self.changes: list[MembershipChange] = []

    def status(self) -> Status:
        return self.answers.pop(0)

    async def change_membership(self, changes: Sequence[MembershipChange], *, timeout: float) -> int:
        self.changes += changes
        return 99


def promoted_after(*answers: Status) -> int:
    """How many looks it took until the learner was let vote."""
    state = State()
    state.members = (MemberRecord("n4", 4, "h:4", Standing.LEARNER),)
    node = ToldNode(*answers)
    membership = Membership(cast("Node", node), Members(lambda: state))

    async def scenario() -> None:
        assert await membership.promote("n4", timeout=30) == 99

    run(scenario())
    (change,) = node.changes
    assert (change.kind, change.store_id) == (MembershipChangeKind.ADD_VOTER, 4)
    return len(answers) - len(node.answers)


def test_a_learner_votes_when_it_holds_what_was_committed_a_moment_ago() -> None:
    behind = [status(100 + 20 * look, replace(LEARNER, match_index=50 + 10 * look)) for look in range(3)]
    level = status(160, replace(LEARNER, match_index=140))
    assert promoted_after(*behind, level) == 4


@pytest.mark.parametrize(
    "learner",
    [
        replace(LEARNER, match_index=100, recent_active=False),
        replace(LEARNER, match_index=100, state="probe"),
        replace(LEARNER, match_index=100, state="snapshot"),
        replace(LEARNER, node=5, match_index=100),
    ],
    ids=["silent", "probed", "sent a snapshot", "another"],
)
def test_a_learner_that_is_not_sent_the_log_does_not_vote(learner: ProgressStatus) -> None:
    level = replace(LEARNER, match_index=100)
    assert promoted_after(status(100, learner), status(100, learner), status(100, level)) == 3
