"""Leadership handed over on purpose (thesis §3.10): at once to a level target, after catching up to a lagging one."""

import pytest

from raftd.raft.messages import AppendEntries, RequestVote, TimeoutNow
from raftd.raft.types import (
    Configuration,
    Entry,
    EntryType,
    HardState,
    InvalidTransfer,
    NotLeader,
    Role,
    TransferUnderWay,
)
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def transfer(cluster: Cluster, to: int, leader: int = 1) -> None:
    cluster[leader].raw.transfer_leadership(to)
    cluster.settle()


def test_a_level_target_is_told_at_once_and_leads_without_pre_votes_and_in_spite_of_leases() -> None:
    cluster = Cluster(3).elect(1)
    cluster[1].raw.transfer_leadership(2)
    cluster[1].work()
    assert cluster.network == [TimeoutNow(1, 2, 1)]
    cluster.deliver(0)
    asked = [m for m in cluster.network if isinstance(m, RequestVote)]
    assert [(m.receiver, m.pre_vote, m.transfer, m.term) for m in asked] == [
        (1, False, True, 2),
        (3, False, True, 2),
    ]
    cluster.settle()
    assert cluster.leaders() == [2]
    assert cluster.logs_agree()


def test_a_lagging_target_is_told_when_it_has_caught_up() -> None:
    cluster = Cluster(3, max_message_bytes=1, max_inflight_messages=1).elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"a", b"b", b"c")
    cluster.heal()
    told: list[int] = []

    def watch(message: object) -> bool:
        if isinstance(message, TimeoutNow):
            told.append(len(cluster[3].terms))
        return False

    cluster.is_lost = watch
    transfer(cluster, 3)
    cluster.tick(3)
    assert told == [4]
    assert cluster.leaders() == [3]


def test_proposals_are_refused_meanwhile_and_taken_again_when_it_fails() -> None:
    cluster = Cluster(3).elect(1)
    cluster.is_lost = lambda message: isinstance(message, TimeoutNow)
    transfer(cluster, 2)
    with pytest.raises(TransferUnderWay) as refused:
        cluster.propose(1, b"x")
    assert refused.value.target == 2
    with pytest.raises(TransferUnderWay):
        cluster.change(1, "-3")
    assert cluster[1].raw.status().transfer_target == 2
    cluster.tick(9)
    with pytest.raises(TransferUnderWay):
        cluster.propose(1, b"x")
    cluster.tick(1)
    cluster.propose(1, b"x")
    assert (cluster.leaders(), cluster[1].term, cluster[1].commit) == ([1], 1, 2)


def test_a_target_that_is_gone_costs_one_timeout() -> None:
    cluster = Cluster(3).elect(1)
    cluster.crash(2)
    cluster.propose(1, b"x")
    transfer(cluster, 2)
    cluster.tick(10)
    cluster.propose(1, b"y")
    assert cluster[1].commit == 3


def test_another_target_takes_the_place_of_the_first_and_the_same_one_gets_no_more_time() -> None:
    cluster = Cluster(3).elect(1)
    cluster.crash(2)
    cluster.propose(1, b"x")
    transfer(cluster, 2)
    cluster.tick(9)
    transfer(cluster, 2)
    cluster.tick(1)
    assert cluster[1].raw.status().transfer_target == 0
    transfer(cluster, 2)
    transfer(cluster, 3)
    assert cluster.leaders() == [3]


def test_only_a_voter_can_be_the_target_and_only_a_leader_hands_over() -> None:
    cluster = Cluster(3, learners=[4]).elect(1)
    for nobody in (4, 9):
        with pytest.raises(InvalidTransfer):
            transfer(cluster, nobody)
    with pytest.raises(NotLeader):
        transfer(cluster, 1, leader=2)
    transfer(cluster, 1)
    cluster.propose(1, b"x")  # nothing is under way
    assert cluster.leaders() == [1]


def test_a_target_that_is_removed_meanwhile_is_none_any_more() -> None:
    cluster = Cluster(3).elect(1)
    cluster[1].change("-3")
    cluster.is_lost = lambda message: isinstance(message, AppendEntries) and message.receiver == 3
    cluster[1].raw.transfer_leadership(3)
    cluster.settle()
    assert cluster[1].configuration == Configuration((1, 2))
    cluster.propose(1, b"x")


def test_who_is_no_voter_or_hears_another_leader_does_not_stand() -> None:
    learner = Peer(4, Configuration((1, 2, 3), (4,)))
    assert learner.step(TimeoutNow(1, 4, 1)) == []
    assert (learner.role, learner.term) == (Role.FOLLOWER, 1)
    peer = Peer(1, THREE)
    peer.step(AppendEntries(2, 1, 1, 0, 0, (), 0))
    assert peer.step(TimeoutNow(3, 1, 1)) == []
    assert peer.step(TimeoutNow(2, 1, 0)) == []
    assert peer.role is Role.FOLLOWER


def test_a_late_message_of_an_earlier_term_starts_nothing() -> None:
    cluster = Cluster(3).elect(1)
    transfer(cluster, 2)
    before = cluster.terms()
    cluster[3].step(TimeoutNow(1, 3, 1))
    assert cluster.terms() == before


def test_who_has_a_change_to_apply_first_stands_when_it_has() -> None:
    change = Entry(1, 2, EntryType.CONF_CHANGE, b"+4")
    peer = Peer(1, THREE, log=[*log_of(1), change], hard_state=HardState(1, 0, 2))
    peer.apply_through = False
    assert peer.step(TimeoutNow(2, 1, 1)) == []
    assert peer.role is Role.FOLLOWER
    peer.apply(2)
    asked = [message for message in peer.work() if isinstance(message, RequestVote)]
    assert [(message.receiver, message.transfer) for message in asked] == [(2, True), (3, True), (4, True)]


def test_a_removed_leader_hands_over_as_it_goes() -> None:
    cluster = Cluster(3).elect(1)
    cluster.change(1, "-1")
    assert len(cluster.leaders()) == 1
    assert cluster.leaders()[0] in (2, 3)


def test_a_replaced_leader_hands_over_as_it_goes() -> None:
    cluster = Cluster(3).elect(1)
    cluster.add(4)
    cluster.add(5)
    cluster.change(1, "+4", "+5", "-1", "-3")
    [leader] = cluster.leaders()
    assert cluster[leader].configuration == Configuration((2, 4, 5))
