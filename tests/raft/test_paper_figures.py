"""Figures 7 and 8 of the paper, and the rule that they explain: only entries of the own term commit by counting."""

import pytest

from raftd.raft.messages import AppendEntries, AppendEntriesReply, RequestVoteReply
from raftd.raft.types import Configuration, HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

FIGURE_7 = {
    "a: misses one": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b: misses many": [1, 1, 1, 4],
    "c: one too many": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d: a later term's": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e: misses some, and too many": [1, 1, 1, 4, 4, 4, 4],
    "f: an old leader's": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
LEADER_7 = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("terms", FIGURE_7.values(), ids=FIGURE_7.keys())
def test_figure_7_each_follower_becomes_equal_to_the_leader(terms: list[int]) -> None:
    hard_states = {node: HardState(7, 0, 0) for node in (1, 2, 3)}
    cluster = Cluster(3, logs={1: log_of(*LEADER_7), 2: log_of(*terms)}, hard_states=hard_states)
    cluster.elect(1)
    assert cluster[2].terms == [*LEADER_7, 8]
    assert cluster.logs_agree()


def test_figure_7_all_six_at_once() -> None:
    logs = {1: log_of(*LEADER_7)} | {n: log_of(*terms) for n, terms in enumerate(FIGURE_7.values(), start=2)}
    cluster = Cluster(7, logs=logs, hard_states={node: HardState(7, 0, 0) for node in range(1, 8)})
    cluster.elect(1)
    assert cluster.logs_agree()
    assert cluster[5].terms == [*LEADER_7, 8]


@pytest.mark.parametrize(("acknowledged", "commit"), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 5)])
def test_only_an_entry_of_the_own_term_commits_by_counting(acknowledged: int, commit: int) -> None:
    """Two nodes; the leader of term 3 has inherited [1, 2, 2, 2] and appended its no-op as 5."""
    peer = Peer(1, Configuration((1, 2)), log=log_of(1, 2, 2, 2), pre_vote=False)
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 3, granted=True))
    assert (peer.role, peer.terms) == (Role.LEADER, [1, 2, 2, 2, 3])
    peer.step(AppendEntriesReply(2, 1, 3, True, match_index=acknowledged))
    assert peer.commit == commit


@pytest.mark.parametrize(("acknowledged", "commit"), [(1, 0), (2, 0), (3, 3), (4, 4)])
def test_what_is_beneath_the_own_term_commits_with_its_first_entry(acknowledged: int, commit: int) -> None:
    """Two nodes; the leader of term 3 has [1, 2, 3, 3]: the first 3 is its no-op."""
    peer = Peer(1, Configuration((1, 2)), log=log_of(1, 2), pre_vote=False)
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 3, granted=True))
    peer.propose(b"x")
    assert (peer.term, peer.terms) == (3, [1, 2, 3, 3])
    peer.step(AppendEntriesReply(2, 1, 3, True, match_index=acknowledged))
    assert peer.commit == commit


def figure_8(*, in_e: bool) -> Cluster:
    """(a) to (c): S1 leads 2 and reaches S2 only; S5 leads 3 alone; S1 leads 4 and brings its 2 to a majority.

    With ``in_e`` it brings its own no-op there too, as in (e).
    """
    logs = {node: log_of(1) for node in range(1, 6)}
    cluster = Cluster(5, logs=logs, check_quorum=False, pre_vote=False, max_message_bytes=1)
    cluster.is_lost = lambda m: isinstance(m, AppendEntries) and m.receiver != 2
    cluster.elect(1)  # (a)
    assert (cluster[1].terms, cluster[2].terms, cluster[3].terms) == ([1, 2], [1, 2], [1])
    cluster.crash(1)
    cluster.is_lost = lambda m: isinstance(m, AppendEntries)
    cluster[5].campaign()  # refused by S2, whose log is longer, elected by S3 and S4
    cluster.settle()
    assert (cluster[5].role, cluster[5].terms) == (Role.LEADER, [1, 3])  # (b)
    cluster.crash(5)
    cluster.restart(1)
    # (c): S1 brings its entry of term 2 to S3, but its own term's no-op only to S2.
    cluster.is_lost = lambda m: (
        isinstance(m, AppendEntries)
        and (m.receiver not in (2, 3) or (m.receiver == 3 and not in_e and cluster[3].terms == [1, 2]))
    )
    for _ in (3, 4):  # S3 and S4 have voted in 3 already
        cluster[1].campaign()
        cluster.settle()
    assert (cluster[1].role, cluster[1].term) == (Role.LEADER, 4)
    return cluster


def test_figure_8_d_an_entry_of_an_old_term_on_a_majority_may_still_be_replaced() -> None:
    cluster = figure_8(in_e=False)
    progress = cluster[1].raw.state.tracker.progress
    assert [progress[node].match_index for node in (2, 3)] == [3, 2]
    assert cluster[1].commit == 0  # 2 is on three of five, and yet not committed
    cluster.crash(1)
    cluster.restart(5)
    cluster.heal()
    for _ in (4, 5):  # in 4 the others have voted for S1 already
        cluster[5].campaign()
        cluster.settle()
    assert cluster.leaders() == [5]
    cluster.restart(1)
    cluster.tick(2)
    assert cluster[1].terms[:2] == cluster[2].terms[:2] == cluster[3].terms[:2] == [1, 3]


def test_figure_8_e_with_an_entry_of_its_own_term_above_it_is_committed_for_good() -> None:
    cluster = figure_8(in_e=True)
    assert cluster[1].commit == 3
    cluster.heal()
    cluster.crash(1)
    cluster.restart(5)
    for _ in range(3):
        cluster[5].campaign()
        cluster.settle()
        assert cluster[5].role is not Role.LEADER
    cluster.tick(40)
    assert len(cluster.leaders()) == 1
    assert cluster[5].terms[:3] == [1, 2, 4]
