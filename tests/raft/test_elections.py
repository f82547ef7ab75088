"""Who is elected, who votes for whom, and who leaves whom in peace (the paper, §5.2, §5.4.1; thesis §6.2, §9.6)."""

from random import Random
from typing import Any

import pytest

from raftd.raft.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from raftd.raft.types import Configuration, EntryType, HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def voter(*terms: int, **settings: Any) -> Peer:
    return Peer(1, THREE, log=log_of(*terms), **settings)


def ask(term: int, last_log_index: int, last_log_term: int, *, sender: int = 2, **kind: bool) -> RequestVote:
    return RequestVote(sender, 1, term, last_log_index, last_log_term, **kind)


@pytest.mark.parametrize(
    ("log", "last_log_term", "last_log_index", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 1, 2, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1, 1], 2, 1, True),
        ([2], 1, 1, False),
        ([2], 1, 2, False),
        ([], 0, 0, True),
    ],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_vote_goes_only_to_a_log_at_least_as_complete(
    log: list[int], last_log_term: int, last_log_index: int, granted: bool, pre_vote: bool
) -> None:
    [reply] = voter(*log).step(ask(3, last_log_index, last_log_term, pre_vote=pre_vote))
    assert isinstance(reply, RequestVoteReply)
    assert reply.granted is granted
    assert reply.pre_vote is pre_vote


def test_one_vote_a_term_even_after_a_restart() -> None:
    peer = voter(1)
    assert peer.step(ask(5, 1, 1, sender=2))[0] == RequestVoteReply(1, 2, 5, granted=True)
    assert peer.step(ask(5, 1, 1, sender=3))[0] == RequestVoteReply(1, 3, 5, granted=False)
    assert peer.step(ask(5, 1, 1, sender=2))[0] == RequestVoteReply(1, 2, 5, granted=True)
    peer.crash()
    peer.start()
    assert peer.step(ask(5, 1, 1, sender=3))[0] == RequestVoteReply(1, 3, 5, granted=False)
    assert peer.step(ask(5, 1, 1, sender=2))[0] == RequestVoteReply(1, 2, 5, granted=True)


def test_a_pre_vote_binds_nobody() -> None:
    peer = voter(1)
    assert peer.step(ask(2, 1, 1, sender=2, pre_vote=True))[0] == RequestVoteReply(
        1, 2, 2, True, pre_vote=True
    )
    assert peer.step(ask(2, 1, 1, sender=3, pre_vote=True))[0] == RequestVoteReply(
        1, 3, 2, True, pre_vote=True
    )
    assert (peer.term, peer.raw.state.vote) == (1, 0)


def test_every_timeout_between_one_and_two_base_timeouts_occurs() -> None:
    peer = Peer(1, THREE, jitter=Random(0).randrange, pre_vote=False)
    seen = set()
    for _ in range(500):
        before, ticks = peer.term, 0
        while peer.term == before:
            peer.tick()
            ticks += 1
        seen.add(ticks)
    assert seen == set(range(10, 20))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_candidate_that_hears_a_leader_of_its_term_or_a_later_one_follows_it(ahead: int) -> None:
    peer = voter(pre_vote=False)
    peer.campaign()
    assert (peer.role, peer.term) == (Role.CANDIDATE, 1)
    peer.step(AppendEntries(2, 1, 1 + ahead, 0, 0, (), 0))
    assert (peer.role, peer.leader, peer.term) == (Role.FOLLOWER, 2, 1 + ahead)


def test_a_pre_candidate_has_no_leader_and_so_leases_nobody() -> None:
    peer = voter(1)
    peer.step(AppendEntries(3, 1, 1, 1, 1, (), 0))
    peer.tick(10)
    assert (peer.role, peer.leader) == (Role.PRE_CANDIDATE, 0)
    [reply] = peer.step(ask(2, 1, 1, pre_vote=True))
    assert isinstance(reply, RequestVoteReply)
    assert reply.granted


def test_an_isolated_node_comes_back_without_moving_the_term() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.tick(50)
    assert cluster[3].role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.tick(3)
    assert cluster.terms() == {1: 1, 2: 1, 3: 1}
    assert cluster.leaders() == [1]
    assert cluster[3].leader == 1


def test_a_node_whose_log_is_short_is_refused_and_moves_no_term() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"x")
    cluster.crash(1)
    cluster.heal()
    cluster.tick(10, only=[2])  # 2 does not hear 1 any more: no lease protects anybody from here on
    cluster[3].campaign()
    cluster.settle()
    assert cluster.terms() == {1: 1, 2: 1, 3: 1}
    assert cluster[3].role is Role.PRE_CANDIDATE
    cluster.tick(20, only=[2])
    assert cluster.leaders() == [2]


def test_who_hears_a_leader_neither_answers_a_candidate_nor_changes_its_term() -> None:
    for pre_vote in (True, False):
        cluster = Cluster(3, pre_vote=pre_vote).elect(1)
        requests = cluster[2].campaign()
        assert not requests  # they went into the network
        sent = [message for message in cluster.network if isinstance(message, RequestVote)]
        assert {message.receiver for message in sent} == {1, 3}
        cluster.network.clear()
        for request in sent:
            assert cluster[request.receiver].step(request) == []
        assert not cluster.network
        assert (cluster[1].term, cluster[3].term) == (1, 1)
        assert cluster[1].role is Role.LEADER


def test_a_transfer_overrides_the_lease() -> None:
    cluster = Cluster(3).elect(1)
    cluster[3].step(RequestVote(2, 3, 2, 1, 1, transfer=True))
    assert cluster.network == [RequestVoteReply(3, 2, 2, granted=True)]


def test_without_a_quorum_the_leader_steps_down_in_its_term() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(1)
    cluster.tick(20, only=[1])
    assert (cluster[1].role, cluster[1].term, cluster[1].leader) == (Role.FOLLOWER, 1, 0)


def test_with_a_bare_quorum_the_leader_stays() -> None:
    cluster = Cluster(5).elect(1)
    cluster.crash(4, 5)
    cluster.tick(60)
    assert cluster.leaders() == [1]
    assert cluster[1].term == 1


@pytest.mark.parametrize("node", [4, 9])
def test_a_learner_and_a_stranger_never_campaign(node: int) -> None:
    peer = Peer(node, Configuration((1, 2, 3), learners=(4,)))
    assert peer.tick(100) == []
    assert peer.campaign() == []
    assert peer.role is Role.FOLLOWER


def test_a_learner_votes_when_asked() -> None:
    """The asker may know already that it has been promoted."""
    peer = Peer(4, Configuration((1, 2, 3), learners=(4,)))
    assert peer.step(RequestVote(1, 4, 1, 0, 0)) == [RequestVoteReply(4, 1, 1, granted=True)]


def test_nobody_campaigns_on_a_configuration_that_is_committed_but_not_applied() -> None:
    genesis = log_of(1)[0]
    genesis = type(genesis)(genesis.term, genesis.index, EntryType.CONFIGURATION, b"who")
    peer = Peer(1, THREE, log=[genesis], hard_state=HardState(1, 0, 1))
    peer.raw.campaign()
    assert peer.raw.status().role is Role.FOLLOWER
    peer.work()  # applies it
    peer.campaign()
    assert peer.raw.status().role is Role.PRE_CANDIDATE


def test_a_node_ahead_of_the_leader_unseats_it_instead_of_being_stuck() -> None:
    """By pre-votes and leases its campaigns would be refused for ever, and the leader's appends are of an old term."""
    cluster = Cluster(3).elect(1)
    cluster.crash(3)
    cluster[3].disk.hard_state = HardState(7, 3, 0)  # it had stood for election in 7 when it was cut off
    cluster.restart(3)
    cluster.tick(1)
    assert cluster[1].term == 7
    assert cluster[1].role is Role.FOLLOWER
    cluster.tick(30)
    assert len(cluster.leaders()) == 1
    assert len(set(cluster.terms().values())) == 1


def test_a_candidate_of_an_old_term_learns_the_new_one() -> None:
    [reply] = voter(5).step(ask(3, 9, 2))
    assert reply == RequestVoteReply(1, 2, 5, granted=False)
    [reply] = voter(5).step(AppendEntries(2, 1, 3, 0, 0, (), 0))
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.term, reply.success) == (5, False)


def test_a_lost_election_ends_it() -> None:
    peer = voter(pre_vote=False)
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 1, granted=False))
    assert peer.role is Role.CANDIDATE
    peer.step(RequestVoteReply(3, 1, 1, granted=False))
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1)


def test_late_pre_votes_do_not_count_in_the_election() -> None:
    peer = Peer(1, Configuration((1, 2, 3, 4, 5)))
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 1, True, pre_vote=True), RequestVoteReply(3, 1, 1, True, pre_vote=True))
    assert (peer.role, peer.term) == (Role.CANDIDATE, 1)
    peer.step(RequestVoteReply(4, 1, 1, True, pre_vote=True), RequestVoteReply(5, 1, 1, True, pre_vote=True))
    assert peer.role is Role.CANDIDATE


def test_a_follower_that_cannot_hear_the_leader_disturbs_nobody() -> None:
    cluster = Cluster(3).elect(1)
    cluster.cut(1, 3)
    cluster.tick(100)
    assert cluster.leaders() == [1]
    assert cluster.terms() == {1: 1, 2: 1, 3: 1}
    cluster.heal()
    cluster.tick(2)
    assert cluster[3].leader == 1


def test_a_leader_that_can_send_but_not_hear_gives_way() -> None:
    cluster = Cluster(3).elect(1)
    cluster.cut(2, 1)
    cluster.cut(3, 1)
    cluster.tick(20)
    assert cluster[1].role is not Role.LEADER
    cluster.tick(30)
    assert cluster.leaders() in ([2], [3])


def test_a_leader_that_can_hear_but_not_send_gives_way() -> None:
    cluster = Cluster(3).elect(1)
    cluster.cut(1, 2)
    cluster.cut(1, 3)
    cluster.tick(40)
    assert cluster.leaders() in ([2], [3])
    cluster.heal()
    cluster.tick(3)
    assert len(cluster.leaders()) == 1
    assert cluster[1].role is Role.FOLLOWER


def test_after_the_leaders_death_another_leads_within_two_timeouts() -> None:
    cluster = Cluster(5).elect(3)
    cluster.propose(3, b"x")
    cluster.crash(3)
    cluster.tick(20)
    assert len(cluster.leaders()) == 1
    assert all(peer.leader == cluster.leaders()[0] for peer in cluster.peers.values() if peer.is_up)


def test_a_pre_candidate_that_votes_for_another_stops_campaigning() -> None:
    peer = voter(1)
    peer.campaign()
    peer.step(ask(1, 1, 0, sender=2))
    assert (peer.role, peer.raw.state.vote) == (Role.PRE_CANDIDATE, 0)  # refused: that log is older
    peer = voter(hard_state=HardState(1, 0, 0))
    peer.campaign()
    peer.step(ask(1, 0, 0, sender=2))
    assert (peer.role, peer.raw.state.vote) == (Role.FOLLOWER, 2)


def test_a_node_whose_log_is_too_old_to_win_does_not_put_off_the_others() -> None:
    """Only a leader's append or a vote given starts the timer afresh (the paper, §5.2), not a later term."""
    logs = {1: log_of(1, 1), 2: log_of(1, 1), 3: log_of(1)}
    cluster = Cluster(3, logs=logs, pre_vote=False)
    cluster.tick(9, only=[1])
    for _ in range(5):
        cluster[3].campaign()
        cluster.settle()
        assert cluster[3].role is not Role.LEADER
    cluster.tick(1, only=[1])
    assert cluster.leaders() == [1]
