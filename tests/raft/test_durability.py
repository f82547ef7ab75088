"""Nothing is said before it is durable, nothing durable is forgotten, and late completions attest nothing wrong."""

from typing import Any

import pytest

from raftd.raft.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply, TimeoutNow
from raftd.raft.types import Configuration, Entry, EntryType, HardState, InvariantViolation, Role
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

ONE = Configuration((1,))
THREE = Configuration((1, 2, 3))


def slow(node: int = 1, configuration: Configuration = THREE, **kind: Any) -> Peer:
    """A peer whose writes complete only when told."""
    peer = Peer(node, configuration, **kind)
    peer.write_through = False
    return peer


def append(
    term: int, prev: int, prev_term: int, *terms: int, commit: int = 0, sender: int = 2
) -> AppendEntries:
    entries = tuple(Entry(t, prev + i, EntryType.NORMAL, b"%d" % t) for i, t in enumerate(terms, start=1))
    return AppendEntries(sender, 1, term, prev, prev_term, entries, commit)


def test_no_vote_leaves_before_the_disk_has_it() -> None:
    peer = slow()
    assert peer.step(RequestVote(2, 1, 4, 0, 0)) == []
    assert peer.pending[0].hard_state == HardState(4, 2, 0)
    assert peer.pending[0].must_sync
    peer.persist()
    assert peer.disk.hard_state == HardState(4, 2, 0)
    assert peer.sent == [RequestVoteReply(1, 2, 4, granted=True)]


def test_no_request_for_a_vote_leaves_before_the_own_vote_is_durable() -> None:
    peer = slow(pre_vote=False)
    assert peer.campaign() == []
    peer.persist()
    assert {message.receiver for message in peer.work()} == {2, 3}


def test_a_candidate_counts_its_own_vote_only_when_it_is_durable() -> None:
    peer = slow(pre_vote=False)
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 1, granted=True), RequestVoteReply(3, 1, 1, granted=True))
    assert peer.raw.status().role is Role.CANDIDATE
    peer.persist()
    assert peer.role is Role.LEADER


def test_an_own_vote_of_an_earlier_term_elects_nobody() -> None:
    peer = slow(configuration=ONE, pre_vote=False)
    peer.campaign()
    peer.campaign()
    assert len(peer.pending) == 2
    peer.persist()
    assert peer.raw.status().role is Role.CANDIDATE
    while peer.pending:
        peer.persist()
    assert peer.role is Role.LEADER


def test_a_single_voter_commits_only_what_its_own_disk_has() -> None:
    peer = slow(configuration=ONE)
    peer.campaign()
    peer.persist()
    peer.propose(b"x")
    assert (peer.role, peer.commit) == (Role.LEADER, 0)
    peer.persist()
    peer.work()
    assert peer.commit == 2
    assert [entry.data for entry in peer.applied] == [b"", b"x"]


def test_a_follower_acknowledges_each_append_when_it_and_all_before_are_durable() -> None:
    peer = slow()
    assert peer.step(append(1, 0, 0, 1)) == []
    assert peer.step(append(1, 1, 1, 1)) == []
    assert len(peer.pending) == 2
    peer.persist()
    assert [message.match_index for message in peer.sent if isinstance(message, AppendEntriesReply)] == [1]
    peer.persist()
    assert [message.match_index for message in peer.work() if isinstance(message, AppendEntriesReply)] == [
        1,
        2,
    ]


def test_an_acknowledgement_of_old_entries_still_waits_for_its_turn() -> None:
    peer = slow()
    peer.step(append(1, 0, 0, 1))
    assert peer.step(append(1, 0, 0)) == []
    assert [len(ready.messages_after_persist) for ready in peer.pending] == [1, 1]


def test_a_leader_sends_while_it_writes_but_counts_itself_only_afterwards() -> None:
    cluster = Cluster(3).elect(1)
    leader = cluster[1]
    leader.write_through = False
    cluster.crash(3)
    cluster.propose(1, b"x")
    assert cluster[2].terms == [1, 1]
    assert leader.commit == 1
    leader.persist()
    cluster.settle()
    assert leader.commit == 2


def test_two_followers_commit_while_the_leaders_disk_is_behind_but_it_applies_nothing_yet() -> None:
    cluster = Cluster(3).elect(1)
    leader = cluster[1]
    leader.write_through = False
    cluster.propose(1, b"x")
    assert leader.commit == 2
    assert [entry.index for entry in leader.applied] == [1]
    leader.persist()
    cluster.settle()
    assert [entry.index for entry in leader.applied] == [1, 2]


def test_a_heartbeat_is_answered_at_once_if_it_attests_nothing_new() -> None:
    peer = slow()
    peer.step(append(1, 0, 0, 1))
    peer.persist()
    peer.work()
    peer.step(append(1, 1, 1, 1))  # under way
    [reply] = peer.step(AppendEntries(2, 1, 1, 1, 1, (), 1, round=7, heartbeat=True))
    assert reply == AppendEntriesReply(1, 2, 1, True, match_index=1, round=7, heartbeat=True)
    assert peer.step(AppendEntries(2, 1, 1, 2, 1, (), 1, round=8, heartbeat=True)) == []


def test_a_heartbeat_in_a_term_that_is_not_durable_waits() -> None:
    peer = slow()
    assert peer.step(AppendEntries(2, 1, 3, 0, 0, (), 0, round=1, heartbeat=True)) == []
    peer.persist()
    assert len(peer.work()) == 1


def test_a_commit_alone_needs_no_sync() -> None:
    peer = slow()
    peer.step(append(1, 0, 0, 1))
    peer.persist()
    peer.work()
    peer.step(append(1, 1, 1, commit=1))
    assert [(ready.hard_state, ready.must_sync) for ready in peer.pending] == [(HardState(1, 0, 1), False)]
    assert peer.applied[-1].index == 1


def test_a_late_completion_does_not_attest_what_has_been_replaced() -> None:
    peer = slow()
    peer.step(append(1, 0, 0, 1, 1))
    peer.step(append(2, 1, 1, 2, 2, sender=3))
    peer.persist()
    assert peer.raw.status().durable_index == 1
    peer.persist()
    assert peer.raw.status().durable_index == 3


def test_the_same_entry_come_back_is_durable_only_when_its_own_write_is() -> None:
    """ABA: 1@1 is written, replaced by 1@2, and brought back by a leader of term 3, all of it still on its way."""
    peer = slow()
    peer.step(append(1, 0, 0, 1, sender=2))
    peer.step(append(2, 0, 0, 2, sender=3))
    peer.step(append(3, 0, 0, 1, sender=2))
    assert len(peer.pending) == 3
    for durable in (0, 0, 1):
        peer.persist()
        assert peer.raw.status().durable_index == durable
    assert peer.disk.entries.terms() == [1]


def test_what_was_cut_before_it_was_written_is_not_acknowledged() -> None:
    peer = slow()
    peer.raw.step(append(1, 0, 0, 1, 1))
    peer.raw.step(append(2, 1, 1, 2, sender=3))
    peer.work()
    peer.persist()
    assert peer.disk.entries.terms() == [1, 2]
    assert peer.sent == [AppendEntriesReply(1, 3, 2, True, match_index=2)]


def test_a_restart_keeps_term_vote_commit_and_log() -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x", b"y")
    cluster.tick(1)
    cluster.crash(1, 2, 3)
    cluster.restart(1, 2, 3)
    peer = cluster[2]
    assert (peer.term, peer.raw.state.vote, peer.terms) == (1, 1, [1, 1, 1])
    cluster.tick(20)
    assert len(cluster.leaders()) == 1
    assert [entry.data for entry in cluster[2].applied][:3] == [b"", b"x", b"y"]


def test_what_was_not_synced_is_gone_and_was_never_promised() -> None:
    peer = slow()
    peer.step(append(3, 0, 0, 3))
    peer.crash()
    peer.start()
    assert (peer.term, peer.terms) == (0, [])


def test_a_write_torn_before_its_hard_state_leaves_a_node_that_can_be_elected() -> None:
    peer = Peer(1, ONE, log=log_of(1, 5), hard_state=HardState(1, 1, 0))
    assert (peer.term, peer.raw.state.vote) == (5, 0)
    peer.campaign()
    assert (peer.role, peer.term, peer.disk.hard_state.term) == (Role.LEADER, 6, 6)
    peer = slow(log=log_of(1, 5), hard_state=HardState(1, 1, 0))
    assert peer.step(RequestVote(2, 1, 5, 2, 4)) == []  # the term must be durable before it is spoken of
    peer.persist()
    assert peer.work() == [RequestVoteReply(1, 2, 5, granted=False)]


def test_a_log_that_lost_committed_entries_is_refused() -> None:
    with pytest.raises(InvariantViolation, match="committed"):
        Peer(1, THREE, log=log_of(1), hard_state=HardState(1, 0, 2))


def test_a_committed_entry_is_never_replaced() -> None:
    peer = Peer(1, THREE)
    peer.step(append(1, 0, 0, 1, 1, commit=2))
    with pytest.raises(InvariantViolation, match="committed"):
        peer.step(append(2, 1, 1, 2, sender=3))
    assert peer.terms == [1, 1]


def test_a_leader_whose_own_disk_stalls_steps_down_in_its_term() -> None:
    cluster = Cluster(3).elect(1)
    cluster[1].write_through = False
    cluster.propose(1, b"x")
    assert (
        cluster[1].commit == 2
    )  # the others have it: nothing but its own append shows that this disk is dead
    cluster.tick(10, only=[1])
    assert cluster[1].role is Role.LEADER
    cluster.tick(1, only=[1])
    assert (cluster[1].role, cluster[1].term) == (Role.FOLLOWER, 1)


def test_a_leader_whose_disk_stalls_when_it_writes_that_a_change_is_committed_steps_down() -> None:
    """Nobody else hears of that before, and nothing else may come to be written."""
    cluster = Cluster(3).elect(1)
    leader = cluster[1]
    leader.write_through = False
    leader.change("-1")
    cluster.settle()
    leader.persist()  # the entry
    cluster.settle()
    assert [ready.entries for ready in leader.pending if ready.must_sync] == [()]
    cluster.tick(11)
    assert leader.role is Role.FOLLOWER
    cluster.tick(40, only=[2, 3])
    assert cluster.leaders() == [2]
    assert cluster[2].configuration == Configuration((2, 3))


def test_the_watch_of_the_own_disk_can_be_switched_off() -> None:
    cluster = Cluster(3, disk_stall_ticks=0).elect(1)
    cluster[1].write_through = False
    cluster.propose(1, b"x")
    cluster.tick(40)
    assert cluster[1].role is Role.LEADER


def test_the_host_cannot_attest_a_ready_that_it_never_took() -> None:
    peer = Peer(1, THREE)
    with pytest.raises(ValueError, match="never taken"):
        peer.raw.persisted(1)


def test_the_host_cannot_apply_what_was_not_handed_out() -> None:
    with pytest.raises(InvariantViolation, match="handed out"):
        Peer(1, THREE, log=log_of(1)).raw.applied(1)


@pytest.mark.parametrize("pre_vote", [False, True])
@pytest.mark.parametrize("configuration", [ONE, THREE])
def test_nobody_stands_again_and_again_while_its_disk_takes_no_vote(
    configuration: Configuration, pre_vote: bool
) -> None:
    peer = slow(configuration=configuration, pre_vote=pre_vote)
    peer.step(append(1, 0, 0, 1, sender=2))
    assert peer.tick(200) == []
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1), "its disk has not even taken the append"
    peer.persist()
    assert peer.work() == [AppendEntriesReply(1, 2, 1, True, match_index=1)]
    peer.raw.tick()
    assert peer.role is not Role.FOLLOWER, "its timer has long run out: it stands as soon as its disk goes on"


def test_a_candidate_waits_in_its_term_until_its_disk_has_its_vote() -> None:
    single = slow(configuration=ONE)
    single.tick(200)
    assert (single.role, single.term) == (Role.CANDIDATE, 1)
    single.persist()
    assert single.role is Role.LEADER

    peer = slow(pre_vote=False)
    peer.tick(200)
    peer.persist()
    asked = peer.work() + peer.tick(9)
    assert [(message.receiver, message.term) for message in asked] == [(2, 1), (3, 1)], (
        "they have time to answer"
    )
    peer.tick(1)
    assert peer.term == 2


def test_a_single_voter_whose_disk_stalls_leads_on_in_the_next_term_when_it_goes_on() -> None:
    peer = slow(configuration=ONE)
    peer.campaign()
    peer.persist()
    peer.work()
    peer.tick(200)
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1)
    peer.write_through = True
    peer.work()
    peer.tick(1)
    assert (peer.role, peer.term) == (Role.LEADER, 2)


def test_a_disk_that_is_only_slow_keeps_nobody_from_taking_over() -> None:
    peer = slow(disk_stall_ticks=40)
    peer.step(append(1, 0, 0, 1))
    peer.tick(39)
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1), "by itself it does not stand"
    peer.step(TimeoutNow(2, 1, 1))
    assert (peer.role, peer.term) == (Role.CANDIDATE, 2)


def test_a_node_whose_disk_stalls_takes_no_leadership_over() -> None:
    peer = slow()
    peer.step(append(1, 0, 0, 1))
    peer.tick(10)
    peer.step(TimeoutNow(2, 1, 1))
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1)
    peer.persist()
    peer.work()
    assert (peer.role, peer.term) == (Role.FOLLOWER, 1), "the leader has gone on leading meanwhile"
    peer.step(TimeoutNow(2, 1, 1))
    assert (peer.role, peer.term) == (Role.CANDIDATE, 2)
