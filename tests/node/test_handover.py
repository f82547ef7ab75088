"""Whom a leader hands over to."""

from raftd.node.handover import Handover
from tests.raft.cluster import Cluster


def test_somebody_is_there_to_hand_over_to_at_the_moment_when_it_is_counted_anew_who_is_heard() -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x")
    leader = cluster[1].raw
    while any(row.recent_active for row in leader.status().progress if row.node != 1):
        leader.tick()
    assert Handover(leader).heir() in (2, 3)


def test_who_is_heard_goes_before_who_is_not() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(2)
    cluster.tick(30)
    assert cluster.leaders() == [1]
    cluster.propose(1, b"x")
    assert Handover(cluster[1].raw).heir() == 3
