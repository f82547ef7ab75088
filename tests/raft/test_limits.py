"""What a leader refuses to append: too much that is not committed, one entry too large, anything at all on others."""

import pytest

from raftd.raft.types import Config, Configuration, EntryTooLarge, NotLeader, UncommittedLimit
from tests.raft.cluster import Cluster
from tests.raft.peer import Peer


def test_the_quota_refuses_the_next_proposal_but_not_an_empty_one() -> None:
    cluster = Cluster(3, max_uncommitted_bytes=100).elect(1)
    cluster.isolate(1)
    cluster.propose(1, b"x" * 60)
    with pytest.raises(UncommittedLimit) as refused:
        cluster.propose(1, b"x" * 60)
    assert (refused.value.uncommitted_bytes, refused.value.limit_bytes) == (60, 100)
    cluster.propose(1, b"")
    cluster.propose(1, b"x" * 40)
    assert cluster[1].raw.status().uncommitted_bytes == 100
    cluster.heal()
    cluster.tick(2)
    assert cluster[1].raw.status().uncommitted_bytes == 0
    cluster.propose(1, b"x" * 60)


def test_the_quota_accepts_anything_when_nothing_is_open() -> None:
    cluster = Cluster(3, max_uncommitted_bytes=100).elect(1)
    cluster.isolate(1)
    cluster.propose(1, b"x" * 1000)
    with pytest.raises(UncommittedLimit):
        cluster.propose(1, b"x")


def test_a_new_term_of_leadership_starts_with_an_empty_quota() -> None:
    cluster = Cluster(3, max_uncommitted_bytes=100).elect(1)
    cluster.isolate(1)
    cluster.propose(1, b"x" * 100)
    cluster.tick(20, only=[1])
    cluster.heal()
    cluster.crash(2)
    cluster.tick(30)
    assert cluster.leaders() == [1]
    assert cluster[1].raw.status().uncommitted_bytes == 0


def test_an_entry_over_the_limit_is_refused_and_nothing_of_its_batch_is_appended() -> None:
    cluster = Cluster(3, max_entry_bytes=10).elect(1)
    with pytest.raises(EntryTooLarge) as refused:
        cluster.propose(1, b"x", b"y" * 11)
    assert (refused.value.size_bytes, refused.value.limit_bytes) == (11, 10)
    assert cluster[1].terms == [1]
    cluster.propose(1, b"y" * 10)


def test_a_batch_says_where_it_went() -> None:
    cluster = Cluster(3).elect(1)
    proposed = cluster[1].raw.propose_batch([b"a", b"b", b"c"])
    assert (proposed.term, proposed.first_index, proposed.last_index) == (1, 2, 4)
    assert cluster[1].raw.propose(b"d").index == 5
    with pytest.raises(ValueError, match="no proposals"):
        cluster[1].raw.propose_batch([])


def test_only_a_leader_proposes_and_says_where_to_go() -> None:
    cluster = Cluster(3).elect(1)
    with pytest.raises(NotLeader) as refused:
        cluster[3].raw.propose(b"x")
    assert refused.value.leader == 1
    with pytest.raises(NotLeader) as refused:
        Peer(1, Configuration((1, 2, 3))).raw.propose(b"x")
    assert refused.value.leader == 0


def test_a_ready_hands_out_no_more_to_apply_than_asked_for() -> None:
    cluster = Cluster(1, max_committed_bytes_per_ready=100).elect(1)
    peer = cluster[1]
    peer.write_through = False
    peer.raw.propose_batch([b"x" * 30] * 5)
    peer.work()
    peer.persist()
    handed_out = []
    while peer.raw.has_ready():
        handed_out.append(len(peer.take_ready().committed_entries))
    assert handed_out == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"id": 0},
        {"heartbeat_ticks": 0},
        {"election_ticks": 2},
        {"max_message_bytes": 0},
        {"disk_stall_ticks": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Config(**{"id": 1, "jitter": lambda n: 0, **settings})  # type: ignore[arg-type]  # jitter is not among the settings


def test_a_configuration_is_sorted_and_free_of_contradictions() -> None:
    assert Configuration((3, 1, 2, 1)).voters == (1, 2, 3)
    assert Configuration((1, 2, 3), outgoing=(1, 4, 5)).all_voters() == (1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="both"):
        Configuration((1, 2), learners=(2,))
    with pytest.raises(ValueError, match="positive"):
        Configuration((0, 1))
