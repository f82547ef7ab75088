"""Members come, go and are replaced: names, stores and addresses stay their own, and who is removed stays away."""

from dataclasses import replace

import pytest

from raftd.codec.snapshot import decode_snapshot, encode_snapshot
from raftd.scheduler import invariants, queries
from raftd.scheduler.commands import MembershipChange, MembershipChangeKind, RecordBlob
from raftd.scheduler.effects import MembersChanged
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.membership import check_change
from raftd.scheduler.model import (
    AttemptOutcome,
    BlobRef,
    Eligibility,
    MemberRecord,
    NodeRole,
    Standing,
    TaskState,
)
from raftd.scheduler.replies import Lost, Recorded, Refused, Registered
from tests.scheduler.world import GENESIS, World, registration

ADD_VOTER, ADD_LEARNER, REMOVE = MembershipChangeKind
BLOB = BlobRef("ab" * 32, 7)
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


def record(world: World, names: tuple[str, ...]) -> None:
    assert isinstance(world.do(RecordBlob(BLOB, names)), Recorded)


def holders(world: World) -> tuple[str, ...]:
    found = queries.blob(world.state, BLOB.digest)
    assert found is not None
    return found.holders


def role(world: World, name: str) -> NodeRole:
    return world.state.nodes[name].role


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


def test_who_bears_a_name_next_holds_nothing_of_what_the_one_before_held() -> None:
    members = Members("n1", "n2")
    world = members.world
    record(world, ("n1", "n2"))
    members.change(removal(2), voters=FOUNDERS - {2})
    assert holders(world) == ("n1", "n2"), "it can be asked as long as it is there"
    world.lose("n2")
    assert holders(world) == ("n1",)


def test_a_member_that_never_registered_leaves_no_blobs_behind_either() -> None:
    members = Members("n1")
    record(members.world, ("n1", "n2"))
    members.change(removal(2), voters=FOUNDERS - {2})
    assert holders(members.world) == ("n1",)


def test_a_node_is_what_its_membership_says() -> None:
    members = Members()
    world = members.world
    world.do(replace(registration("n6"), role=NodeRole.VOTER))
    assert role(world, "n6") is NodeRole.VOTER, "of others it is what they say"
    members.change(learner(promote=True), learners=frozenset({6}))
    assert role(world, "n6") is NodeRole.LEARNER
    world.do(replace(registration("n6", incarnation=2), role=NodeRole.VOTER))
    assert role(world, "n6") is NodeRole.LEARNER
    members.change(voter(), voters=FOUNDERS | {6})
    assert role(world, "n6") is NodeRole.VOTER
    members.change(removal(6))
    assert role(world, "n6") is NodeRole.WORKER


def test_a_node_of_a_removed_store_is_found_under_whatever_name_it_runs() -> None:
    """A worker took another name between the check of the change and its entry."""
    members = Members()
    world = members.world
    world.do(replace(registration("n9"), store_id=6))
    members.change(learner(), learners=frozenset({6}))
    members.change(removal(6))
    assert not world.free()
    world.lose("n9")
    assert not world.state.nodes


def test_a_member_takes_its_name_from_a_worker_once_that_is_lost() -> None:
    """The worker registered under it between the check of the change and its entry."""
    members = Members()
    world = members.world
    world.do(replace(registration("n6"), store_id=99))
    record(world, ("n6",))
    members.change(learner(), learners=frozenset({6}))
    refusal = world.do(registration("n6"))
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.retryable) == ("name_taken", True)
    world.lose("n6")
    assert isinstance(world.do(registration("n6")), Registered)
    assert world.state.nodes["n6"].store_id == 6
    assert holders(world) == ()
    assert world.refused(replace(registration("n6", 2), store_id=99)) == "wrong_identity"


def test_a_member_takes_its_store_from_the_name_it_ran_under_once_that_is_lost() -> None:
    members = Members()
    world = members.world
    world.do(replace(registration("n9"), store_id=6))
    members.change(learner(), learners=frozenset({6}))
    assert world.refused(registration("n6")) == "wrong_identity"
    world.lose("n9")
    assert isinstance(world.do(registration("n6")), Registered)
    assert list(world.state.nodes) == ["n6"]


def test_a_learner_whose_voter_to_replace_has_left_replaces_nobody() -> None:
    members = Members()
    members.change(learner(promote=True, replaces=2), learners=frozenset({6}))
    members.change(removal(2), voters=FOUNDERS - {2}, learners=frozenset({6}))
    newcomer = members.world.state.members[-1]
    assert (newcomer.promote, newcomer.replaces) == (True, 0)


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
        (learner(store_id=0), "invalid_request"),
        (learner(store_id=1 << 64), "invalid_request"),
        (learner(replaces=6), "node_not_found"),
        (learner(2, "n7", "127.0.0.1:7007"), "name_taken"),
        (learner(2, "n2", "127.0.0.1:7007"), "name_taken"),
        (learner(2, "n2", "127.0.0.1:7002", replaces=2), "invalid_change"),
    ],
)
def test_what_makes_no_sense_is_not_proposed(change: MembershipChange, code: str) -> None:
    assert refused(Members(), change) == code


def test_where_a_member_has_registered_since_is_its_address_too() -> None:
    members = Members()
    members.world.do(replace(registration("n1"), address="10.0.0.1:1"))
    for address in ("127.0.0.1:7001", "10.0.0.1:1"):
        assert refused(members, learner(address=address)) == "name_taken"
        demotion = MembershipChange(ADD_LEARNER, 1, "n1", address)
        assert check_change(members.world.state, (demotion,)) is None


def test_a_store_that_runs_under_another_name_is_not_added_under_this_one() -> None:
    members = Members()
    members.world.do(replace(registration("n9"), store_id=6))
    assert refused(members, learner()) == "name_taken"
    assert check_change(members.world.state, (learner(name="n9"),)) is None
    members.world.lose("n9")
    assert check_change(members.world.state, (learner(),)) is None


def test_changes_that_make_sense_alone_may_make_none_together() -> None:
    members = Members()
    assert refused(members) == "invalid_change"
    assert refused(members, removal(2), removal(2)) == "invalid_change"
    assert refused(members, learner(), learner(7, "n6", "127.0.0.1:7007")) == "name_taken"
    assert refused(members, learner(), learner(7, "n7")) == "name_taken"
    other = learner(7, "n7", "127.0.0.1:7007", replaces=2)
    assert refused(members, learner(replaces=2), other) == "invalid_change"
    members.change(learner(replaces=2), learners=frozenset({6}))
    assert refused(members, other) == "invalid_change"


def test_somebody_must_be_left_to_vote() -> None:
    members = Members()
    members.change(*(removal(store) for store in (2, 3, 4, 5)), voters=frozenset({1}), learners=frozenset())
    assert refused(members, removal(1)) == "invalid_change"
    assert refused(members, MembershipChange(ADD_LEARNER, 1)) == "invalid_change"
