"""Changes of the membership on running clusters: when they may be proposed, what they mean while they last, and who
may campaign meanwhile (thesis §4)."""

import pytest

from raftd.raft.membership import LEAVE_JOINT, InvalidConfChange
from raftd.raft.messages import AppendEntries, RequestVote, RequestVoteReply, TimeoutNow
from raftd.raft.types import (
    Configuration,
    Entry,
    EntryType,
    HardState,
    InvariantViolation,
    NotLeader,
    Role,
    UncommittedLimit,
)
from tests.raft.changes import change_of
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def configurations(cluster: Cluster) -> set[Configuration]:
    return {peer.configuration for peer in cluster.peers.values() if peer.is_up}


def changes_in(peer: Peer) -> list[bytes]:
    return [entry.data for entry in peer.applied if entry.type is EntryType.CONF_CHANGE]


def grown(*added: int) -> Cluster:
    """1..3 with 1 leading, and these started but not members yet."""
    cluster = Cluster(3).elect(1)
    for node in added:
        cluster.add(node)
    return cluster


def test_a_node_is_added_as_a_learner_and_promoted_and_votes_then() -> None:
    cluster = grown(4)
    cluster.propose(1, b"x")
    cluster.change(1, "~4")
    assert configurations(cluster) == {Configuration((1, 2, 3), (4,))}
    assert cluster[4].terms == [1, 1, 1]
    cluster.change(1, "+4")
    assert configurations(cluster) == {Configuration((1, 2, 3, 4))}
    cluster.crash(2)
    cluster.propose(1, b"y")
    assert cluster[1].commit == 5
    cluster.crash(3)
    cluster.propose(1, b"z")
    assert cluster[1].commit == 5  # two of four


def test_one_grows_to_five_and_shrinks_to_one_and_keeps_its_leader() -> None:
    cluster = Cluster(1).elect(1)
    for node in (2, 3, 4, 5):
        cluster.add(node)
        cluster.change(1, f"~{node}")
        cluster.change(1, f"+{node}")
        cluster.propose(1, b"%d" % node)
    assert configurations(cluster) == {Configuration((1, 2, 3, 4, 5))}
    assert cluster.logs_agree()
    for node in (5, 4, 3, 2):
        cluster.change(1, f"-{node}")
        cluster.crash(node)
        cluster.tick(30)
    assert cluster.leaders() == [1]
    assert (cluster[1].configuration, cluster[1].term) == (Configuration((1,)), 1)


def test_a_change_takes_effect_when_it_is_applied_and_not_before() -> None:
    cluster = grown(4)
    cluster.isolate(1)
    cluster.change(1, "+4")
    assert cluster[1].terms == [1, 1]
    assert cluster[1].configuration == THREE
    cluster.heal()
    cluster.tick(2)
    assert configurations(cluster) == {Configuration((1, 2, 3, 4))}


def test_a_second_change_before_the_first_is_applied_becomes_an_empty_entry() -> None:
    cluster = grown(4, 5)
    first = cluster[1].change("+4")
    second = cluster[1].change("+5")
    cluster.settle()
    assert [(e.type, e.data) for e in cluster[1].applied[-2:]] == [
        (EntryType.CONF_CHANGE, b"+4"),
        (EntryType.NORMAL, b""),
    ]
    assert (first.index, second.index) == (2, 3)
    cluster.change(1, "+5")
    assert configurations(cluster) == {Configuration((1, 2, 3, 4, 5))}


def test_committed_is_not_applied_a_change_in_between_is_an_empty_entry_too() -> None:
    cluster = grown(4)
    cluster[1].apply_through = False
    cluster.change(1, "+4")
    assert cluster[1].commit == 2
    assert cluster[1].configuration == THREE
    refused = cluster.change(1, "+5")
    cluster[1].apply_through = True
    cluster.settle()
    assert cluster[1].applied[refused.index - 1].type is EntryType.NORMAL
    assert configurations(cluster) == {Configuration((1, 2, 3, 4))}


def test_no_change_before_the_no_op_of_the_own_term_is_committed() -> None:
    cluster = Cluster(3)
    cluster.is_lost = lambda message: isinstance(message, AppendEntries)
    cluster.elect(1)
    early = cluster.change(1, "-3")
    cluster.heal()
    cluster.tick(2)
    assert (early.index, cluster[1].applied[1].type) == (2, EntryType.NORMAL)
    cluster.change(1, "-3")
    assert cluster[1].configuration == Configuration((1, 2))


def test_a_new_leader_waits_for_the_change_that_it_inherits() -> None:
    cluster = grown(4, 5)
    cluster.is_lost = lambda message: not (isinstance(message, AppendEntries) and message.receiver == 2)
    cluster.change(1, "+4")
    cluster.heal()
    cluster.crash(1)
    cluster[2].apply_through = False
    cluster.tick(30)
    assert cluster.leaders() == [2]
    assert cluster[2].commit == 3
    refused = cluster.change(2, "+5")
    cluster[2].apply_through = True
    cluster.settle()
    assert cluster[2].applied[refused.index - 1].type is EntryType.NORMAL
    cluster.tick(2)
    assert configurations(cluster) >= {Configuration((1, 2, 3, 4))}
    cluster.change(2, "+5")
    assert cluster[2].configuration == Configuration((1, 2, 3, 4, 5))


def test_what_is_refused_is_refused_before_it_is_in_the_log() -> None:
    cluster = Cluster(3, max_uncommitted_bytes=1).elect(1)
    with pytest.raises(InvalidConfChange):
        cluster[1].change("-4")
    with pytest.raises(NotLeader):
        cluster[2].change("-3")
    with pytest.raises(ValueError, match="leader's own"):
        cluster[1].raw.propose_conf_change(LEAVE_JOINT, b"x")
    with pytest.raises(ValueError, match="leader's own"):
        cluster[1].raw.propose_conf_change(change_of("-3"), b"")
    cluster.isolate(1)
    cluster.propose(1, b"x")
    with pytest.raises(UncommittedLimit):
        cluster[1].change("-3")
    assert cluster[1].terms == [1, 1]


def test_a_change_that_no_leader_could_have_proposed_stops_the_node() -> None:
    with pytest.raises(InvariantViolation, match="not joint"):
        Peer(1, THREE).raw.apply_conf_change(LEAVE_JOINT)


# Joint consensus.


def joint() -> Cluster:
    """{1, 2, 3} becomes {1, 4, 5}, and the leader is stopped in the middle: it has applied the joint configuration."""
    cluster = grown(4, 5)
    cluster.propose(1, b"x")
    cluster.is_lost = lambda m: (
        isinstance(m, AppendEntries) and any(not e.data for e in m.entries if e.index > 3)
    )
    cluster.change(1, "+4", "+5", "-2", "-3")
    assert cluster[1].configuration == Configuration((1, 4, 5), outgoing=(1, 2, 3))
    return cluster


def test_a_joint_change_is_completed_by_itself_and_once() -> None:
    cluster = grown(4, 5)
    cluster.change(1, "+4", "+5", "-2", "-3")
    cluster.tick(20)
    assert {cluster[node].configuration for node in (1, 4, 5)} == {Configuration((1, 4, 5))}
    assert changes_in(cluster[1]) == [b"+4 +5 -2 -3", b""]
    assert cluster.leaders() == [1]


@pytest.mark.parametrize(
    ("down", "commits"), [((2, 4), True), ((2, 3), False), ((4, 5), False), ((2, 3, 4, 5), False)]
)
def test_in_a_joint_configuration_both_majorities_must_have_an_entry(
    down: tuple[int, ...], commits: bool
) -> None:
    cluster = joint()
    cluster.tick(2)
    before = cluster[1].commit
    cluster.crash(*down)
    cluster.heal()
    cluster.tick(2)
    assert (cluster[1].commit > before) is commits


def test_in_a_joint_configuration_both_majorities_must_elect() -> None:
    peer = Peer(1, Configuration((1, 4, 5), outgoing=(1, 2, 3)), pre_vote=False)
    peer.campaign()
    peer.step(*(RequestVoteReply(node, 1, 1, granted=True) for node in (2, 3)))
    assert peer.leader == 0
    peer.step(RequestVoteReply(4, 1, 1, granted=True))
    assert peer.leader == 1


def test_every_new_leader_completes_a_joint_change_that_it_finds() -> None:
    cluster = joint()
    cluster.tick(2)  # all know now that it is committed
    cluster.crash(1)
    cluster.heal()
    cluster.tick(60)
    [leader] = cluster.leaders()
    assert leader in (4, 5)
    cluster.restart(1)
    cluster.tick(5)
    assert cluster[leader].configuration == cluster[1].configuration == Configuration((1, 4, 5))
    assert changes_in(cluster[leader]) == [b"+4 +5 -2 -3", b""]


def test_a_leader_of_the_outgoing_side_leads_until_the_joint_change_is_complete() -> None:
    cluster = grown(4, 5)
    cluster.change(1, "+4", "+5", "-1", "-3")
    assert cluster[1].role is Role.FOLLOWER
    cluster.tick(40)
    [leader] = cluster.leaders()
    assert leader in (2, 4, 5)
    assert cluster[leader].configuration == Configuration((2, 4, 5))
    assert cluster[leader].term == 2
    cluster.propose(leader, b"y")
    assert cluster[leader].applied[-1].data == b"y"


def test_a_voter_is_demoted_to_a_learner_and_still_follows() -> None:
    cluster = grown(4)
    cluster.change(1, "+4", "~3")
    assert configurations(cluster) == {Configuration((1, 2, 4), (3,))}
    cluster.propose(1, b"x")
    assert cluster[3].applied[-1].data == b"x"
    cluster[3].tick(40)
    assert cluster[3].role is Role.FOLLOWER


# Removed nodes.


def test_a_removed_leader_counts_itself_no_more_and_leads_no_more() -> None:
    cluster = Cluster(3).elect(1)
    cluster.change(1, "-1")
    assert cluster[1].role is Role.FOLLOWER
    assert configurations(cluster) == {Configuration((2, 3))}  # it told them before it went
    cluster.tick(30)
    [leader] = cluster.leaders()
    assert leader in (2, 3)
    cluster.propose(leader, b"x")
    cluster.crash(5 - leader)
    cluster.propose(leader, b"y")
    assert cluster[leader].commit == len(cluster[leader].terms) - 1


def test_until_its_removal_is_committed_the_leader_leads_on() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(1)
    cluster.change(1, "-1")
    assert (cluster[1].role, cluster[1].commit) == (Role.LEADER, 1)


def test_a_removed_node_hears_of_its_removal_and_disturbs_nobody() -> None:
    cluster = Cluster(3).elect(1)
    cluster.change(1, "-3")
    assert cluster[3].configuration == Configuration((1, 2))
    cluster.tick(100)
    assert (cluster.leaders(), cluster[3].role) == ([1], Role.FOLLOWER)
    assert cluster.terms() == {1: 1, 2: 1, 3: 1}


def test_a_removed_node_that_did_not_hear_of_it_campaigns_in_vain() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.change(1, "-3")
    cluster.heal()
    cluster.tick(100)
    assert cluster[3].configuration == THREE
    assert cluster.leaders() == [1]
    assert cluster[1].term == 1


def test_a_removed_node_sends_nothing() -> None:
    peer = Peer(4, Configuration((1, 2, 3)))
    assert peer.tick(100) == []


def test_a_removed_node_may_come_back() -> None:
    cluster = Cluster(3).elect(1)
    cluster.change(1, "-3")
    cluster.propose(1, b"x")
    cluster.change(1, "+3")
    assert cluster.logs_agree()
    assert configurations(cluster) == {THREE}


def test_a_new_voter_that_cannot_answer_yet_does_not_end_the_leadership_at_once() -> None:
    cluster = Cluster(1).elect(1)
    cluster.tick(9)
    cluster.change(1, "+2")
    cluster.tick(5)
    assert cluster.leaders() == [1]
    cluster.tick(20)
    assert cluster.leaders() == []  # one of two is no quorum


def test_fewer_voters_may_commit_at_once_what_waited() -> None:
    """Of {1, 2, 3, 4}, 3 and 4 are slow to write; once 4 is removed, 1 and 2 are enough."""
    cluster = Cluster(4, max_message_bytes=1).elect(1)
    cluster.crash(4)
    removal = cluster[1].change("-4")
    cluster[1].propose(b"x")
    cluster.is_lost = lambda m: (
        isinstance(m, AppendEntries) and m.receiver == 3 and any(e.index > removal.index for e in m.entries)
    )
    cluster.settle()
    assert cluster[1].commit == removal.index + 1
    assert cluster[1].applied[-1].data == b"x"


# Who may campaign, and with what configuration a node comes back.


def change_entry(term: int, index: int, data: bytes) -> Entry:
    return Entry(term, index, EntryType.CONF_CHANGE, data)


def test_nobody_campaigns_on_a_change_that_is_committed_but_not_applied() -> None:
    log = [*log_of(1), change_entry(1, 2, b"-1")]
    peer = Peer(1, THREE, log=log, hard_state=HardState(1, 0, 2))
    peer.apply_through = False
    assert peer.campaign() == []
    assert peer.tick(30) == []
    assert peer.role is Role.FOLLOWER
    peer.apply(9)
    assert peer.configuration == Configuration((2, 3))
    assert peer.tick(30) == []


def test_a_change_that_is_not_known_to_be_committed_hinders_nobody() -> None:
    peer = Peer(1, THREE, log=[change_entry(1, 1, b"-3")])
    assert {m.receiver for m in peer.campaign() if isinstance(m, RequestVote)} == {2, 3}


def test_a_log_with_two_changes_proves_that_the_first_is_committed() -> None:
    """The disk lost the commit, which alone is never synced. By {1, 2, 3} it could now lead together with a 2 that had
    been told nothing, while {1, 4, 5} go on without them."""
    log = [*log_of(1), change_entry(1, 2, b"+4 +5 -2 -3"), change_entry(1, 3, b"")]
    peer = Peer(1, THREE, log=log, hard_state=HardState(1, 0, 0))
    peer.apply_through = False
    assert peer.commit == 2
    assert peer.campaign() == []
    peer.apply(2)
    assert peer.configuration == Configuration((1, 4, 5), outgoing=(1, 2, 3))
    assert {m.receiver for m in peer.campaign() if isinstance(m, RequestVote)} == {2, 3, 4, 5}


@pytest.mark.parametrize("restarted", [False, True])
def test_whoever_knows_of_a_change_tells_the_voter_that_cannot_win_without_it(restarted: bool) -> None:
    """2 removes itself from {1, 2}, is the only one who knows that this is committed, and its log is the longer one.
    It is no voter any more and does not stand; by {1, 2}, 1 could not win without a vote that 2 must refuse."""
    cluster = Cluster(2).elect(2)
    removal = cluster[2].change("-2")
    cluster[2].work()
    cluster[2].propose(b"lost")
    cluster.is_lost = lambda m: (
        isinstance(m, TimeoutNow) or (isinstance(m, AppendEntries) and m.prev_log_index >= removal.index)
    )
    cluster.settle()
    assert cluster[2].configuration == Configuration((1,))
    assert cluster[1].configuration == Configuration((1, 2))
    assert len(cluster[2].terms) > len(cluster[1].terms)
    if restarted:
        cluster.crash(2)
        cluster.restart(2)
    cluster.heal()
    cluster.tick(60)
    assert cluster.leaders() == [1]
    assert cluster[1].configuration == Configuration((1,))


def test_a_voter_that_must_refuse_learns_from_the_request() -> None:
    """{1, 2, 3} becomes {1, 2} and 3 is gone for good. 1 knows; 2 does not, and its log is the longer one."""
    log = [*log_of(1), change_entry(1, 2, b"-3")]
    two = Peer(2, THREE, log=[*log, *log_of(1, 1, 1, 1)[2:]], hard_state=HardState(1, 0, 0))
    two.step(RequestVote(1, 2, 2, 2, 1, commit=2, commit_term=1))
    assert two.configuration == Configuration((1, 2))


def test_what_is_said_to_be_committed_is_believed_only_of_an_entry_that_is_here() -> None:
    peer = Peer(1, THREE, log=log_of(1, 1), hard_state=HardState(1, 0, 0))
    for commit, term in ((2, 2), (3, 1), (0, 0), (1, 0), (-1, 1), (1, -1)):
        peer.step(RequestVote(2, 1, 9, 1, 1, commit=commit, commit_term=term))
        assert peer.commit == 0
    peer.step(RequestVoteReply(2, 1, 9, granted=False, commit=1, commit_term=1))
    assert peer.commit == 1


def test_a_restart_applies_the_changes_again() -> None:
    cluster = grown(4)
    cluster.change(1, "+4")
    cluster.change(1, "-3")
    cluster.propose(1, b"x")
    cluster.crash(2)
    cluster.restart(2)
    cluster.tick(3)
    assert cluster[2].configuration == Configuration((1, 2, 4))


def test_who_joins_may_learn_the_founding_members_from_the_log() -> None:
    peer = Peer(4, Configuration(()))
    peer.raw.apply_configuration(THREE)
    peer.raw.apply_conf_change(change_of("~4"))
    assert peer.configuration == Configuration((1, 2, 3), (4,))


def test_a_read_under_way_is_confirmed_by_the_configuration_in_force() -> None:
    cluster = Cluster(4).elect(1)
    cluster.crash(3, 4)
    cluster.read(1, b"r")
    assert cluster[1].reads == {}
    cluster.is_lost = lambda message: False
    cluster[1].raw.apply_conf_change(change_of("-4"))  # as if it had been committed
    cluster[1].work()
    assert cluster[1].reads == {b"r": 1}


def test_who_hears_the_leader_votes_for_no_removed_node() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.change(1, "-3")
    assert cluster[2].step(RequestVote(3, 2, 9, 1, 1)) == []
    assert cluster[2].term == 1


def test_who_is_left_of_two_needs_nobody_when_the_power_was_lost() -> None:
    """The other may be switched off as soon as the removal is applied; that it is committed must be durable by then."""
    cluster = Cluster(2).elect(1)
    cluster.change(1, "-2")
    assert cluster[1].configuration == Configuration((1,))
    cluster.crash(1, 2)
    cluster.restart(1)
    cluster.tick(20, only=(1,))
    assert cluster.leaders() == [1]
    assert cluster[1].configuration == Configuration((1,))


def test_a_change_is_handed_out_when_its_commit_is_durable_and_what_is_before_it_at_once() -> None:
    peer = Cluster(1).elect(1)[1]
    peer.write_through = False
    peer.raw.propose(b"before")
    peer.change("~2")
    peer.work()
    peer.persist()  # the entries: committed now
    ready = peer.take_ready()
    assert [entry.data for entry in ready.committed_entries] == [b"before"]
    assert (ready.must_sync, ready.hard_state is not None) == (True, True)
    assert not peer.raw.has_ready()
    peer.persist()
    assert [entry.type for entry in peer.take_ready().committed_entries] == [EntryType.CONF_CHANGE]
    assert peer.configuration == Configuration((1,), (2,))
    peer.raw.propose(b"after")
    peer.work()
    peer.persist()
    assert not peer.take_ready().must_sync, "a commit alone is worth no sync"


def test_followers_hear_that_a_change_is_committed_when_the_leader_has_that_on_its_disk() -> None:
    """A leader that removes itself must be gone from its own configuration no later than from theirs: those who have
    applied its removal hear nothing more from it, and it has still to say who stands next."""
    cluster = Cluster(3).elect(1)
    leader = cluster[1]
    leader.write_through = False
    leader.raw.propose(b"before")
    removal = leader.change("-1").index
    cluster.settle()
    assert leader.commit == removal  # the others have it
    while leader.configuration == THREE:
        assert [cluster[node].commit for node in (2, 3)] == [removal - 1, removal - 1]
        cluster.tick()  # nor do they hear of it by a heartbeat
        assert leader.role is Role.LEADER
        leader.persist()
        cluster.settle()
    assert cluster.leaders() == [2]
    assert configurations(cluster) == {Configuration((2, 3))}
