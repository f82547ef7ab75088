"""Linearizable reads without the log (thesis §6.4): fresh, batched, and never from a leader that is none any more."""

import pytest

from raftd.raft.messages import AppendEntries, AppendEntriesReply
from raftd.raft.types import NotLeader, ReadContextInUse, Role
from tests.raft.cluster import Cluster


def test_a_read_answers_at_the_commit_once_a_quorum_has_echoed_its_round() -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x")
    cluster.read(1, b"r")
    assert cluster[1].reads == {b"r": 2}


def test_a_read_on_a_new_leader_waits_for_its_no_op() -> None:
    cluster = Cluster(3)
    cluster.is_lost = lambda message: isinstance(message, AppendEntries)
    cluster.elect(1)
    cluster.read(1, 1)
    assert cluster[1].reads == {}
    cluster.heal()
    cluster.tick(2)
    assert cluster[1].reads == {1: 1}


def test_an_isolated_leader_never_confirms_a_read_and_drops_it_when_it_steps_down() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(1)
    cluster.read(1, b"stale")
    cluster.tick(40)
    assert cluster[1].reads == {}
    assert cluster[1].reads_dropped == [b"stale"]
    assert cluster[1].role is not Role.LEADER
    assert cluster.leaders() in ([2], [3])


def test_a_deposed_leader_that_has_not_noticed_confirms_no_read() -> None:
    cluster = Cluster(3, check_quorum=False).elect(1)
    cluster.isolate(1)
    cluster.tick(30, only=[2, 3])
    other = cluster.leaders()[-1]
    cluster.propose(other, b"news")
    assert cluster[1].role is Role.LEADER
    cluster.read(1, b"r")
    cluster.heal()
    cluster.tick(3)
    assert cluster[1].reads == {}
    assert cluster[1].reads_dropped == [b"r"]


def test_reads_between_two_readys_share_one_round() -> None:
    cluster = Cluster(3).elect(1)
    for context in range(100):
        cluster[1].raw.read_index(context)
        cluster.oracle.read_asked(cluster[1], context)
    cluster[1].work()
    assert len(cluster.network) == 2
    cluster.settle()
    assert cluster[1].reads == dict.fromkeys(range(100), 1)


def test_an_echo_of_an_earlier_round_does_not_confirm() -> None:
    cluster = Cluster(3).elect(1)
    cluster.read(1, b"before")
    cluster.isolate(1)
    cluster[1].raw.read_index(b"after")
    cluster.oracle.read_asked(cluster[1], b"after")
    cluster[1].work()
    for echo in (1, 3, 99):
        cluster[1].step(AppendEntriesReply(2, 1, 1, True, match_index=1, round=echo, heartbeat=True))
    assert b"after" not in cluster[1].reads
    cluster[1].step(AppendEntriesReply(2, 1, 1, True, match_index=1, round=2, heartbeat=True))
    assert b"after" in cluster[1].reads


def test_a_late_echo_confirms_its_own_round_and_none_that_began_after_it() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(1)
    for context in (b"before", b"after"):
        cluster[1].raw.read_index(context)
        cluster.oracle.read_asked(cluster[1], context)
        cluster[1].work()
    cluster[1].step(AppendEntriesReply(2, 1, 1, True, match_index=1, round=1, heartbeat=True))
    assert cluster[1].reads == {b"before": 1}


def test_a_lost_round_is_asked_again_by_the_next_heartbeat() -> None:
    cluster = Cluster(3).elect(1)
    cluster.is_lost = lambda message: True
    cluster.read(1, b"r")
    cluster.heal()
    assert cluster[1].reads == {}
    cluster.tick(1)
    assert cluster[1].reads == {b"r": 1}


def test_a_slow_disk_of_followers_does_not_delay_a_read() -> None:
    cluster = Cluster(3).elect(1)
    cluster[2].write_through = cluster[3].write_through = False
    cluster.propose(1, b"x")
    cluster.read(1, b"r")
    assert cluster[1].reads == {b"r": 1}


def test_a_learner_cannot_confirm_a_read() -> None:
    cluster = Cluster(3, learners=[4]).elect(1)
    cluster.crash(2, 3)
    cluster.read(1, b"r")
    cluster.tick(1)
    assert cluster[1].reads == {}


def test_a_single_voter_confirms_at_once() -> None:
    cluster = Cluster(1).elect(1)
    cluster.read(1, b"r")
    assert cluster[1].reads == {b"r": 1}


def test_only_a_leader_takes_reads() -> None:
    cluster = Cluster(3).elect(1)
    with pytest.raises(NotLeader) as refused:
        cluster[2].raw.read_index(b"r")
    assert refused.value.leader == 1


def test_a_context_is_not_used_twice_while_it_is_pending() -> None:
    cluster = Cluster(3).elect(1)
    cluster[1].raw.read_index(b"r")
    with pytest.raises(ReadContextInUse):
        cluster[1].raw.read_index(b"r")
    cluster.oracle.read_asked(cluster[1], b"r")
    cluster.settle()
    cluster.read(1, b"r")
