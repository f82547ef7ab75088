"""Reads by lease (thesis §6.4.1): only while nobody else can have been elected, which rests on what voters promise."""

from typing import Any

import pytest

from raftd.raft.messages import AppendEntries, RequestVote, RequestVoteReply, TimeoutNow
from raftd.raft.types import Config, Configuration, Role
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))
LEASE_MS = 8


def leased() -> Cluster:
    """1..3, 1 leads and has a lease. A tick of everybody is a millisecond."""
    cluster = Cluster(3, lease_ms=LEASE_MS)
    cluster.tick(10)  # nobody votes before: in a life before this one it may have promised not to
    cluster.elect(1)
    cluster.tick(1)
    assert cluster[1].raw.holds_lease()
    return cluster


def test_a_read_by_lease_asks_nobody() -> None:
    cluster = leased()
    leader = cluster[1]
    leader.raw.read_index(b"r")
    cluster.oracle.read_asked(leader, b"r")
    assert leader.raw.has_ready()
    ready = leader.take_ready()
    assert ready.messages == ()
    assert [(read.context, read.index, read.by_lease) for read in ready.read_states] == [(b"r", 1, True)]


def test_without_leases_every_read_asks() -> None:
    cluster = Cluster(3).elect(1)
    cluster.tick(3)
    assert not cluster[1].raw.holds_lease()
    cluster[1].raw.read_index(b"r")
    cluster.oracle.read_asked(cluster[1], b"r")
    assert len(cluster[1].take_ready().messages) == 2


def test_a_lease_is_counted_from_when_the_heartbeat_was_sent() -> None:
    cluster = leased()
    cluster.now_ms += 1
    cluster[1].tick()
    cluster.now_ms += LEASE_MS - 1  # the answers take that long
    cluster.settle()
    assert cluster[1].raw.holds_lease()
    cluster.now_ms += 1
    assert not cluster[1].raw.holds_lease()


def test_after_a_pause_the_leader_asks() -> None:
    cluster = leased()
    cluster.now_ms += LEASE_MS
    cluster.read(1, b"r")
    assert cluster[1].reads == {b"r": 1}
    assert cluster[1].raw.holds_lease()  # that round renewed it


def test_an_isolated_leader_loses_its_lease_before_another_can_be_elected() -> None:
    cluster = leased()
    cluster.isolate(1)
    for _ in range(40):
        cluster.tick(1)
        held = cluster[1].raw.holds_lease()
        assert not (held and cluster.leaders() != [1])
    assert cluster.leaders() in ([2], [3])


def test_the_answers_of_less_than_a_quorum_renew_nothing() -> None:
    cluster = Cluster(5, lease_ms=LEASE_MS)
    cluster.tick(10)
    cluster.elect(1)
    cluster.tick(1)
    assert cluster[1].raw.holds_lease()
    cluster.isolate(1, 2)
    cluster.tick(LEASE_MS)
    assert cluster[1].role is Role.LEADER
    assert not cluster[1].raw.holds_lease()


def test_only_a_leader_holds_a_lease() -> None:
    cluster = leased()
    assert not cluster[2].raw.holds_lease()
    cluster[1].step(AppendEntries(2, 1, 9, 0, 0, (), 0))
    assert not cluster[1].raw.holds_lease()


def test_telling_another_to_stand_ends_the_lease_for_the_whole_term() -> None:
    """The message may arrive when the transfer has long been given up."""
    cluster = leased()
    cluster.is_lost = lambda message: isinstance(message, TimeoutNow)
    cluster[1].raw.transfer_leadership(2)
    cluster.settle()
    assert not cluster[1].raw.holds_lease()
    cluster.tick(15)
    assert (cluster.leaders(), cluster[1].term) == ([1], 1)
    assert not cluster[1].raw.holds_lease()
    cluster.read(1, b"r")
    assert cluster[1].reads == {b"r": 1}
    cluster.heal()
    cluster[1].raw.transfer_leadership(2)
    cluster.settle()
    cluster.tick(2)
    assert cluster[2].raw.holds_lease()


def test_a_change_of_the_members_must_confirm_the_lease_anew() -> None:
    cluster = leased()
    cluster.change(1, "-3")
    assert not cluster[1].raw.holds_lease()
    cluster.tick(1)
    assert cluster[1].raw.holds_lease()


def voter(**settings: Any) -> Peer:
    return Peer(1, THREE, log=log_of(1), lease_ms=LEASE_MS, **settings)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_restarted_voter_gives_no_vote_for_an_election_timeout(pre_vote: bool) -> None:
    peer = voter()
    ask = RequestVote(2, 1, 5, 1, 1, pre_vote=pre_vote)
    peer.tick(9)
    assert peer.step(ask) == []
    assert peer.term == 1
    peer.tick(1)
    assert [isinstance(m, RequestVoteReply) and m.granted for m in peer.step(ask)] == [True]


def test_a_restarted_voter_gives_its_vote_where_the_leader_asked_for_it() -> None:
    [reply] = voter().step(RequestVote(2, 1, 5, 1, 1, transfer=True))
    assert reply == RequestVoteReply(1, 2, 5, granted=True)


def test_what_was_promised_to_a_leader_holds_in_later_terms_too() -> None:
    """A late answer to an old campaign tells of a later term; the leader of this one counts on us all the same."""
    peer = voter()
    peer.tick(20)
    peer.step(AppendEntries(2, 1, 3, 1, 1, (), 0))
    peer.step(RequestVoteReply(3, 1, 7, granted=False))
    assert (peer.term, peer.leader) == (7, 0)
    for ask in (
        RequestVote(3, 1, 7, 9, 1),
        RequestVote(3, 1, 8, 9, 1),
        RequestVote(3, 1, 9, 9, 1, pre_vote=True),
    ):
        assert peer.step(ask) == []
    assert peer.campaign() == []
    peer.tick(9)
    assert peer.step(RequestVote(3, 1, 8, 9, 1)) == []
    peer.tick(1)
    assert RequestVoteReply(1, 3, 8, granted=True) in peer.step(RequestVote(3, 1, 8, 9, 1))


def test_who_hears_a_leader_is_not_made_to_stand_by_hand() -> None:
    cluster = leased()
    assert cluster[2].campaign() == []
    assert cluster[2].role is Role.FOLLOWER


@pytest.mark.parametrize("settings", [{"lease_ms": -1}, {"lease_ms": 5, "check_quorum": False}])
def test_leases_need_what_they_rest_on(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lease_ms"):
        Config(id=1, jitter=lambda n: 0, **settings)
