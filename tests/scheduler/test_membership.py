"""Members come, go and are replaced: names, stores and addresses stay their own, and who is removed stays away."""

from dataclasses import replace

import pytest

from raftd.codec.snapshot import decode_snapshot, encode_snapshot
from raftd.scheduler import invariants
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind
from raftd.scheduler.effects import MembersChanged
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.membership import check_change
from raftd.scheduler.model import AttemptOutcome, Eligibility, MemberRecord, Standing, TaskState
from raftd.scheduler.replies import Lost, Registered
from tests.scheduler.world import GENESIS, World, registration

ADD_VOTER, ADD_LEARNER, REMOVE = MembershipChangeKind
FOUNDERS = frozenset(member.store_id for member in GENESIS.members)


def learner(
    store_id: int = 6, name: str = "n6", address: str = "127.0.0.1:7006", **more: int
) -> MembershipChange:
    return MembershipChange(
        ADD_LEARNER, store_id, name, address, bool(more.get("promote")), more.get("replaces", 0)
    )


def voter(store_id: int = 6) -> MembershipChange:
    return MembershipChange(ADD_VOTER, store_id)


def removal(store_id: int) -> MembershipChange:
    return MembershipChange(REMOVE, store_id)


class Members:
    """A world whose membership changes: as the core would say it."""

    def __init__(self, *nodes: str) -> None:
        self.world = World(list(nodes))

    def change(
        self,
        *changes: MembershipChange,
        voters: frozenset[int] = FOUNDERS,
        learners: frozenset[int] = frozenset(),
        outgoing: frozenset[int] = frozenset(),
    ) -> MembersChanged:
        machine = self.world.machine
        before = self.world.state.freeze()
        outcome = machine.apply_conf_change(machine.applied_index + 1, changes, voters, learners, outgoing)
        invariants.check(machine.state)
        again = StateMachine(decode_snapshot(encode_snapshot(before)))
        assert again.apply_conf_change(machine.applied_index, changes, voters, learners, outgoing) == outcome
        assert invariants.state_hash(again.state) == invariants.state_hash(machine.state)
        (told,) = [effect for effect in outcome.effects if isinstance(effect, MembersChanged)]
        assert told.members == machine.state.members
        return told

    @property
    def standing(self) -> dict[str, Standing]:
        return {member.name: member.standing for member in self.world.state.members}


def refused(members: Members, *changes: MembershipChange) -> str:
    refusal = check_change(members.world.state, changes)
    assert refusal is not None
    return refusal.code


def test_the_founders_are_the_first_members() -> None:
    members = Members()
    assert members.standing == dict.fromkeys(("n1", "n2", "n3", "n4", "n5"), Standing.VOTER)


def test_a_learner_comes_and_is_promoted() -> None:
    members = Members()
    members.change(learner(promote=True), learners=frozenset({6}))
    record = members.world.state.members[-1]
    assert record == MemberRecord("n6", 6, "127.0.0.1:7006", Standing.LEARNER, promote=True)
    assert not record.voter
    members.change(voter(), voters=FOUNDERS | {6})
    assert members.world.state.members[-1] == MemberRecord("n6", 6, "127.0.0.1:7006", Standing.VOTER)


def test_a_replaced_voter_leaves_with_the_joint_configuration_and_is_gone_for_good() -> None:
    members = Members()
    members.change(learner(replaces=2), learners=frozenset({6}))
    after = FOUNDERS - {2} | {6}
    told = members.change(voter(), removal(2), voters=after, outgoing=FOUNDERS)
    assert not told.removed
    assert members.standing["n2"] is Standing.LEAVING
    assert members.world.state.members[1].voter, "it votes in the outgoing half"
    told = members.change(voters=after)
    assert [member.name for member in told.removed] == ["n2"]
    assert "n2" not in members.standing
    assert members.world.state.removed_stores == {2}
    assert refused(members, learner(2, "n2", "127.0.0.1:7002")) == "store_removed"


def test_a_demoted_voter_stays_as_a_learner() -> None:
    members = Members()
    members.change(MembershipChange(ADD_LEARNER, 3), voters=FOUNDERS - {3}, learners=frozenset({3}))
    assert members.standing["n3"] is Standing.LEARNER
    assert not members.world.state.removed_stores


def test_what_a_removed_node_runs_ends_only_with_its_lease() -> None:
    members = Members("n1", "n2")
    world = members.world
    task = world.submit()
    world.occupy(task, "n2")
    members.change(removal(2), voters=FOUNDERS - {2})
    assert world.state.tasks[task].state is TaskState.RUNNING
    assert world.state.nodes["n2"].eligibility is Eligibility.DRAINING
    assert world.refused(registration("n2", incarnation=2)) == "store_removed"
    assert world.lose("n2") == Lost("n2", 1)
    assert world.state.tasks[task].attempts[-1].outcome is AttemptOutcome.LOST
    assert "n2" not in world.state.nodes


def test_a_removed_node_that_was_lost_already_is_forgotten_at_once() -> None:
    members = Members("n1", "n2")
    members.world.lose("n2")
    members.change(removal(2), voters=FOUNDERS - {2})
    assert "n2" not in members.world.state.nodes


def test_a_name_is_free_again_when_the_record_of_the_one_before_is_gone() -> None:
    members = Members("n1", "n2")
    members.change(removal(2), voters=FOUNDERS - {2})
    newcomer = learner(7, "n2", "127.0.0.1:7002")
    refusal = check_change(members.world.state, (newcomer,))
    assert refusal is not None
    assert (refusal.code, refusal.retryable) == ("name_taken", True)
    members.world.lose("n2")
    assert check_change(members.world.state, (newcomer,)) is None
    members.change(newcomer, voters=FOUNDERS - {2}, learners=frozenset({7}))
    registered = members.world.do(replace(registration("n2"), store_id=7))
    assert isinstance(registered, Registered)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (learner(name="n1"), "name_taken"),
        (learner(address="127.0.0.1:7001"), "name_taken"),
        (learner(name=""), "invalid_request"),
        (learner(name="x" * 65), "invalid_request"),
        (learner(address=""), "invalid_request"),
        (learner(replaces=99), "node_not_found"),
        (removal(99), "node_not_found"),
    ],
)
def test_what_makes_no_sense_is_not_proposed(change: MembershipChange, code: str) -> None:
    assert refused(Members("n1"), change) == code


def test_somebody_must_be_left_to_vote() -> None:
    members = Members()
    members.change(*(removal(store) for store in (2, 3, 4, 5)), voters=frozenset({1}), learners=frozenset())
    assert refused(members, removal(1)) == "invalid_change"
    assert refused(members, MembershipChange(ADD_LEARNER, 1)) == "invalid_change"
