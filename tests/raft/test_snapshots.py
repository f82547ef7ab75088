"""Compaction, and snapshots for those who lack what was compacted (the paper, §7): who is sent one and when, what it
does to a log, and that it is acknowledged only when it is durable."""

import pytest

from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
)
from raftd.raft.progress import ProgressState
from raftd.raft.types import (
    Configuration,
    Entry,
    EntryType,
    HardState,
    InvariantViolation,
    Role,
    Snapshot,
)
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def compacted(behind: int = 3, entries: int = 5) -> Cluster:
    """1 leads; one was cut off while the others went on and 1 compacted what it lacks."""
    cluster = Cluster(3).elect(1)
    cluster.isolate(behind)
    for n in range(entries):
        cluster.propose(1, b"%d" % n)
    cluster[1].take_snapshot()
    return cluster


def progress_of(cluster: Cluster, node: int) -> ProgressState:
    return cluster[1].raw.state.tracker.progress[node].state


# The leader.


def test_a_follower_that_lives_gets_one_snapshot_and_nothing_else_until_it_answers() -> None:
    cluster = compacted()
    cluster.heal()
    sent: list[Message] = []

    def watch(message: Message) -> bool:
        if message.receiver == 3:
            sent.append(message)
        return False

    cluster.is_lost = watch
    cluster[1].raw.report_unreachable(3)
    streams = []
    for _ in range(4):
        for node in (1, 2, 3):
            cluster[node].raw.tick()
            cluster[node].work()
        cluster[1].propose(b"more")
        while cluster.network:
            cluster.deliver(0)
        streams.append([(m.receiver, m.snapshot.index) for m, _ in cluster.streams])
    assert streams[-1] == [(3, 6)]
    assert progress_of(cluster, 3) is ProgressState.SNAPSHOT
    later = sent[sent.index(next(m for m in sent if isinstance(m, AppendEntries))) + 3 :]
    assert all(isinstance(m, AppendEntries) and m.heartbeat for m in later)
    cluster.settle()
    cluster.tick(2)
    assert cluster.logs_agree()
    assert progress_of(cluster, 3) is ProgressState.REPLICATE


def test_a_follower_that_is_silent_gets_none() -> None:
    cluster = compacted()
    cluster.crash(3)
    cluster.tick(25)  # nothing is heard of it between two checks of the quorum
    cluster[1].raw.report_unreachable(3)
    cluster[1].propose(b"more")
    assert cluster.streams == []
    assert progress_of(cluster, 3) is ProgressState.PROBE


def test_a_follower_behind_the_compaction_catches_up_while_the_others_go_on() -> None:
    cluster = compacted()
    cluster.heal()
    cluster.tick(1)
    cluster.propose(1, b"x")
    cluster.tick(3)
    assert cluster.logs_agree()
    assert [entry.data for entry in cluster[3].applied] == [b"", b"0", b"1", b"2", b"3", b"4", b"x"]
    assert cluster[3].raw.status().snapshot_index == 6


def test_a_tail_that_was_kept_makes_a_snapshot_needless() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"a", b"b", b"c")
    cluster[1].take_snapshot(keep=3)
    cluster.heal()
    cluster.tick(3)
    assert cluster.logs_agree()
    assert cluster[3].raw.status().snapshot_index == 0


@pytest.mark.parametrize(("arrived", "next_index"), [(False, 2), (True, 7)])
def test_after_the_stream_the_follower_is_probed_but_not_before_it_is_heard(
    arrived: bool, next_index: int
) -> None:
    leader = compacted()[1]
    progress = leader.raw.state.tracker.progress[3]
    progress.become_snapshot(6)
    leader.unwatched().raw.report_snapshot(3, arrived)
    assert (progress.state, progress.match_index, progress.next_index) == (ProgressState.PROBE, 1, next_index)
    sent = leader.propose(b"x")
    assert [m for m in sent if m.receiver == 3] == []
    sent = leader.step(AppendEntriesReply(3, 1, 1, True, heartbeat=True))
    if arrived:
        [probe] = [m for m in sent if isinstance(m, AppendEntries) and m.receiver == 3]
        assert (probe.prev_log_index, len(probe.entries)) == (6, 1)
    else:
        assert [m.snapshot.index for m in sent if isinstance(m, InstallSnapshot)] == [6]


def test_an_answer_may_come_before_the_report() -> None:
    cluster = compacted()
    leader = cluster[1].unwatched()
    progress = leader.raw.state.tracker.progress[3]
    progress.become_snapshot(6)
    leader.step(InstallSnapshotReply(3, 1, 1, True, match_index=6))
    assert (progress.state, progress.match_index, progress.next_index) == (ProgressState.REPLICATE, 6, 7)
    leader.raw.report_snapshot(3, True)
    leader.raw.report_snapshot(3, False)
    leader.raw.report_snapshot(9, True)
    assert progress.state is ProgressState.REPLICATE


def test_late_answers_do_not_end_the_wait_for_a_snapshot() -> None:
    cluster = compacted()
    leader = cluster[1].unwatched()
    progress = leader.raw.state.tracker.progress[3]
    progress.become_snapshot(6)
    for late in (
        AppendEntriesReply(3, 1, 1, True, match_index=1),
        AppendEntriesReply(3, 1, 1, False, reject_index=6),
        AppendEntriesReply(3, 1, 1, True, heartbeat=True),
        InstallSnapshotReply(3, 1, 1, False),
        InstallSnapshotReply(3, 1, 1, True, match_index=99),
    ):
        assert [m for m in leader.step(late) if m.receiver == 3] == []
        assert progress.state is ProgressState.SNAPSHOT


def test_a_broken_stream_is_tried_again() -> None:
    cluster = compacted()
    cluster.heal()
    broken = 0
    for _ in range(6):
        for node in (1, 2, 3):
            cluster[node].raw.tick()
            cluster[node].work()
        while cluster.network:
            cluster.deliver(0)
        if cluster.streams and broken < 2:
            cluster.end_stream(0, breaks=True)
            broken += 1
    cluster.settle()
    cluster.tick(2)
    assert broken == 2
    assert cluster.logs_agree()


def test_more_compacted_than_there_is_a_snapshot_of_sends_nothing_that_would_leave_a_gap() -> None:
    cluster = compacted()
    cluster.propose(1, b"x", b"y")
    for image in (cluster[1].disk.entries, cluster[1].visible):
        image.compact(8)
    cluster.heal()
    cluster.tick(3)
    assert cluster.streams == []
    assert cluster[3].commit == 1
    cluster.propose(1, b"z")
    cluster[1].take_snapshot()
    cluster.tick(3)
    assert cluster.logs_agree()


def test_a_snapshot_is_only_of_what_is_applied_and_the_newest_counts() -> None:
    peer = Cluster(1).elect(1)[1]
    peer.propose(b"x")
    with pytest.raises(ValueError, match="2 is applied"):
        peer.raw.snapshot_taken(Snapshot(3, 1, Configuration((1,))))
    peer.raw.snapshot_taken(Snapshot(2, 1, Configuration((1,))))
    peer.raw.snapshot_taken(Snapshot(1, 1, Configuration((1,))))
    assert peer.raw.status().snapshot_index == 2


# The follower.


def behind(*terms: int, commit: int = 0, slow: bool = False) -> Peer:
    """Node 1, which has this log, and the bytes of any snapshot up to 9."""
    peer = Peer(1, THREE, log=log_of(*terms), hard_state=HardState(9, 0, commit))
    peer.work()
    peer.write_through = not slow
    return peer


def install(
    peer: Peer, index: int, term: int, configuration: Configuration = THREE, leader: int = 2
) -> list[Message]:
    snapshot = Snapshot(index, term, configuration)
    peer.receive(InstallSnapshot(leader, 1, 9, snapshot), tuple(log_of(*[term] * index)))
    return peer.work()


@pytest.mark.parametrize("index", [2, 3])
def test_a_snapshot_of_what_is_committed_here_changes_nothing(index: int) -> None:
    peer = behind(1, 1, 1, 1, commit=3)
    assert install(peer, index, 1) == [InstallSnapshotReply(1, 2, 9, True, match_index=3)]
    assert (peer.terms, peer.commit, peer.raw.status().snapshot_index) == ([1, 1, 1, 1], 3, 0)


def test_a_snapshot_of_what_is_here_as_entries_commits_them_and_keeps_the_tail() -> None:
    peer = behind(1, 1, 2, 2, commit=1)
    assert install(peer, 3, 2) == [InstallSnapshotReply(1, 2, 9, True, match_index=3)]
    assert (peer.terms, peer.commit, len(peer.applied)) == ([1, 1, 2, 2], 3, 3)
    assert peer.disk.snapshot is None


@pytest.mark.parametrize("terms", [[1, 1, 1, 1, 1, 1], [1, 1], [], [1, 1, 1, 1, 3, 3, 3]])
def test_a_snapshot_over_a_log_that_conflicts_or_ends_before_it_replaces_the_whole_log(
    terms: list[int],
) -> None:
    peer = behind(*terms, commit=min(len(terms), 1))
    assert install(peer, 5, 2) == [InstallSnapshotReply(1, 2, 9, True, match_index=5)]
    assert (peer.terms, peer.commit) == ([], 5)
    status = peer.raw.status()
    assert (status.first_index, status.last_index, status.durable_index, status.applied) == (6, 5, 5, 5)
    assert [entry.term for entry in peer.applied] == [2] * 5
    [reply] = peer.step(AppendEntries(2, 1, 9, 5, 2, (Entry(9, 6, EntryType.NORMAL, b"x"),), 6))
    assert reply == AppendEntriesReply(1, 2, 9, True, match_index=6)
    assert peer.applied[-1].data == b"x"


def test_a_snapshot_is_acknowledged_when_it_is_durable_and_nothing_is_applied_before() -> None:
    peer = behind(1, 1, commit=1, slow=True)
    assert install(peer, 5, 2) == []
    append = AppendEntries(2, 1, 9, 5, 2, (Entry(9, 6, EntryType.NORMAL, b"x"),), 6)
    assert peer.step(append) == []
    beat = AppendEntries(2, 1, 9, 5, 2, (), 5, round=3, heartbeat=True)
    assert peer.step(beat) == []
    assert (peer.raw.status().durable_index, len(peer.applied)) == (1, 1)
    peer.persist()
    assert peer.work() == [InstallSnapshotReply(1, 2, 9, True, match_index=5)]
    assert (peer.raw.status().durable_index, len(peer.applied)) == (5, 5)
    peer.persist()
    peer.work()
    assert peer.applied[-1].data == b"x"


def test_a_late_completion_of_what_the_snapshot_replaced_attests_nothing() -> None:
    peer = behind(slow=True)
    entries = tuple(Entry(3, i, EntryType.NORMAL, b"") for i in range(1, 9))
    peer.step(AppendEntries(2, 1, 9, 0, 0, entries, 0))
    install(peer, 5, 4)
    peer.persist()
    assert (peer.raw.status().durable_index, peer.raw.status().last_index) == (0, 5)
    peer.persist()
    assert peer.raw.status().durable_index == 5


def test_what_was_cut_before_it_was_written_is_not_acknowledged() -> None:
    peer = behind()
    entries = tuple(Entry(3, i, EntryType.NORMAL, b"") for i in range(1, 9))
    peer.raw.step(AppendEntries(2, 1, 9, 0, 0, entries, 0))
    assert install(peer, 5, 4) == [InstallSnapshotReply(1, 2, 9, True, match_index=5)]


def test_a_second_snapshot_before_the_first_is_durable() -> None:
    peer = behind(slow=True)
    install(peer, 3, 2)
    install(peer, 5, 2)
    peer.persist()
    assert (peer.raw.status().durable_index, peer.raw.status().first_index) == (3, 6)
    peer.persist()
    peer.work()
    assert (peer.raw.status().durable_index, len(peer.applied)) == (5, 5)


def test_the_configuration_of_a_snapshot_wins_over_what_came_before_it() -> None:
    new = Configuration((1, 4, 5))
    old_change = Entry(1, 2, EntryType.CONF_CHANGE, b"-3")
    peer = Peer(1, THREE, log=[*log_of(1), old_change], hard_state=HardState(9, 0, 2))
    peer.apply_through = False
    peer.write_through = False
    peer.work()  # handed out, not applied
    install(peer, 5, 2, new)
    peer.persist()
    peer.work()
    assert peer.campaign() == []  # the configuration to come may have taken its vote
    peer.apply(1)
    peer.apply(1)
    assert peer.configuration == Configuration((1, 2))
    peer.apply(1)
    assert peer.configuration == new
    assert peer.applied[-1].index == 5


def test_a_node_that_a_snapshot_makes_a_member_may_campaign_and_one_that_it_removes_may_not() -> None:
    for configuration, role in (
        (Configuration((1, 4)), Role.PRE_CANDIDATE),
        (Configuration((4, 5)), Role.FOLLOWER),
    ):
        peer = behind(1)
        install(peer, 5, 2, configuration)
        peer.tick(30)
        assert peer.role is role


def test_a_crash_before_the_snapshot_is_durable_comes_back_as_before_and_after_it_with_it() -> None:
    peer = behind(1, 1, commit=1, slow=True)
    install(peer, 5, 2)
    peer.crash()
    peer.start()
    assert (peer.terms, peer.commit) == ([1, 1], 1)
    install(peer, 5, 2, Configuration((1, 2)))
    peer.persist()
    peer.crash()
    peer.start()
    assert (peer.terms, peer.commit, peer.configuration) == ([], 5, Configuration((1, 2)))
    assert (len(peer.applied), peer.raw.status().snapshot_index) == (5, 5)


def test_a_crash_between_the_snapshot_and_its_hard_state_comes_back_with_what_was_in_it() -> None:
    peer = behind(1, 1, commit=1)
    peer.disk.hard_state = HardState(1, 0, 1)
    peer.disk.snapshot, peer.disk.content = Snapshot(5, 2, THREE), tuple(log_of(*[2] * 5))
    peer.disk.entries.reset(5, 2)
    peer.crash()
    peer.start()
    assert (peer.commit, peer.term) == (5, 2)


def test_a_snapshot_of_an_old_term_is_answered_with_the_new_one() -> None:
    peer = behind(1)
    peer.receive(InstallSnapshot(2, 1, 4, Snapshot(5, 2, THREE)), ())
    assert peer.work() == [InstallSnapshotReply(1, 2, 9, success=False)]
    assert peer.commit == 0


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(0, 1, THREE),
        Snapshot(5, 0, THREE),
        Snapshot(5, 10, THREE),
        Snapshot(2**63, 1, THREE),
        Snapshot(5, 1, Configuration(())),
        Snapshot(5, 1, THREE, -1),
    ],
    ids=str,
)
def test_a_snapshot_that_no_leader_sends_changes_nothing(snapshot: Snapshot) -> None:
    peer = behind(1)
    peer.receive(InstallSnapshot(2, 1, 9, snapshot), ())
    assert (peer.work(), peer.commit, peer.leader) == ([], 0, 0)


def test_a_snapshot_never_takes_back_what_is_committed() -> None:
    with pytest.raises(InvariantViolation, match="take back"):
        behind(1, 1, commit=2).raw.state.log.restore(Snapshot(2, 1, THREE))


def test_it_comes_from_the_leader_and_makes_a_candidate_follow() -> None:
    peer = behind(1)
    peer.campaign()
    install(peer, 5, 2)
    assert (peer.role, peer.leader) == (Role.FOLLOWER, 2)
    install(peer, 8, 2, leader=3)
    assert (peer.leader, peer.commit) == (2, 5)


def test_a_joiner_gets_its_first_state_as_a_snapshot() -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x", b"y")
    for node in (1, 2, 3):
        cluster[node].take_snapshot()
    cluster.add(4)
    cluster.change(1, "~4")
    cluster.tick(3)
    assert cluster.logs_agree()
    cluster.change(1, "+4")
    assert cluster[4].configuration == Configuration((1, 2, 3, 4))


def test_who_got_its_log_as_a_snapshot_can_lead_and_pass_it_on() -> None:
    cluster = compacted()
    cluster.heal()
    cluster.tick(3)
    cluster[1].raw.transfer_leadership(3)
    cluster.settle()
    assert cluster.leaders() == [3]
    cluster.add(4)
    cluster.change(3, "~4")
    cluster.tick(3)
    assert cluster.logs_agree()
    assert cluster[4].raw.status().snapshot_index == 6
