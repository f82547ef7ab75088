"""How the log reaches the followers: consistency check, conflicts, probing, streaming, windows (the paper, §5.3)."""

from typing import Any

import pytest

from raftd.raft.messages import AppendEntries, AppendEntriesReply, Message
from raftd.raft.progress import ProgressState
from raftd.raft.types import Configuration, Entry, EntryType, HardState
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def follower(*terms: int, term: int = 2) -> Peer:
    return Peer(1, THREE, log=log_of(*terms), hard_state=HardState(term, 0, 0))


def append(
    prev: tuple[int, int], *terms: int, commit: int = 0, term: int = 9, beat: bool = False
) -> AppendEntries:
    entries = tuple(Entry(t, prev[0] + i, EntryType.NORMAL, b"%d" % t) for i, t in enumerate(terms, start=1))
    return AppendEntries(2, 1, term, *prev, entries, commit, heartbeat=beat)


def reply_to(peer: Peer, message: AppendEntries) -> AppendEntriesReply:
    [reply] = peer.step(message)
    assert isinstance(reply, AppendEntriesReply)
    return reply


def appends(messages: list[Message], to: int | None = None) -> list[AppendEntries]:
    return [
        m for m in messages if isinstance(m, AppendEntries) and not m.heartbeat and to in (None, m.receiver)
    ]


@pytest.mark.parametrize(
    ("prev", "terms", "result", "match"),
    [
        ((2, 2), [3], [1, 2, 3], 3),
        ((1, 1), [3, 4], [1, 3, 4], 3),
        ((0, 0), [1], [1, 2], 1),
        ((0, 0), [3], [3], 1),
        ((1, 1), [2], [1, 2], 2),
        ((2, 2), [], [1, 2], 2),
        ((0, 0), [], [1, 2], 0),
    ],
)
def test_an_append_replaces_only_what_conflicts_and_acknowledges_only_what_it_brought(
    prev: tuple[int, int], terms: list[int], result: list[int], match: int
) -> None:
    peer = follower(1, 2)
    reply = reply_to(peer, append(prev, *terms))
    assert peer.terms == result
    assert (reply.success, reply.match_index) == (True, match)


@pytest.mark.parametrize(
    ("prev", "hint"),
    [((3, 3), (2, 2)), ((2, 3), (2, 2)), ((2, 1), (1, 1)), ((9, 1), (1, 1)), ((1, 2), (1, 1))],
)
def test_an_append_that_does_not_fit_is_refused_with_where_it_might(
    prev: tuple[int, int], hint: tuple[int, int]
) -> None:
    peer = follower(1, 2)
    reply = reply_to(peer, append(prev, 9))
    assert peer.terms == [1, 2]
    assert (reply.success, reply.reject_index, (reply.hint_index, reply.hint_term)) == (False, prev[0], hint)


@pytest.mark.parametrize(
    ("message", "commit"),
    [
        (append((1, 1), commit=2), 1),
        (append((1, 1), 2, commit=9), 2),
        (append((1, 1), 2, 2, commit=2), 2),
        (append((2, 2), commit=1), 1),
        (append((0, 0), commit=2, beat=True), 0),
        (append((3, 3), 3, commit=3), 0),
    ],
)
def test_a_follower_commits_no_further_than_the_append_proves(message: AppendEntries, commit: int) -> None:
    peer = follower(1, 2)
    peer.step(message)
    assert peer.commit == commit


def test_a_heartbeat_carries_no_more_commit_than_the_follower_has() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"x")
    cluster[1].raw.tick()
    cluster[1].work()
    beats = {m.receiver: m for m in cluster.network if isinstance(m, AppendEntries) and m.heartbeat}
    assert (beats[2].prev_log_index, beats[2].leader_commit) == (2, 2)
    assert (beats[3].prev_log_index, beats[3].leader_commit) == (1, 1)


def leader(*terms: int, **settings: Any) -> Peer:
    """Node 1 leads 1..3 in the term after its log's; nobody has answered yet."""
    cluster = Cluster(3, logs={1: log_of(*terms)}, **settings)
    cluster.is_lost = lambda message: isinstance(message, AppendEntries)
    cluster.elect(1)
    return cluster[1].unwatched()


def streaming_leader(**settings: Any) -> Peer:
    """As above, and 2 and 3 have acknowledged the no-op."""
    peer = leader(**settings)
    peer.step(*(AppendEntriesReply(node, 1, peer.term, True, match_index=1) for node in (2, 3)))
    return peer


def test_hints_by_term_on_both_sides_find_the_common_entry_in_one_step() -> None:
    cluster = Cluster(3, logs={1: log_of(1, 2, 2, 4, 4, 4, 4), 2: log_of(1, 2, 2, *[3] * 8)})
    cluster[1].campaign()
    probes: list[tuple[int, int]] = []
    hints: list[tuple[int, int]] = []

    def watch(message: Message) -> bool:
        if isinstance(message, AppendEntries) and message.receiver == 2 and not message.heartbeat:
            probes.append((message.prev_log_index, message.prev_log_term))
        if isinstance(message, AppendEntriesReply) and message.sender == 2 and not message.success:
            hints.append((message.hint_index, message.hint_term))
        return False

    cluster.is_lost = watch
    cluster.settle()
    assert probes[:2] == [(7, 4), (3, 2)]
    assert hints == [(7, 3)]
    assert cluster[2].terms == [1, 2, 2, 4, 4, 4, 4, 5]


def test_a_probed_follower_gets_one_append_for_ten_proposals_and_one_more_for_each_heartbeat_reply() -> None:
    peer = leader()
    sent = [message for _ in range(10) for message in peer.propose(b"x")]
    assert appends(sent, to=2) == []  # the no-op was the probe
    beat_reply = AppendEntriesReply(2, 1, peer.term, True, heartbeat=True)
    for more in range(3):
        [probe] = appends(peer.step(beat_reply))
        assert (probe.prev_log_index, len(probe.entries)) == (0, 11 + more)
        assert appends(peer.propose(b"y"), to=2) == []


def test_a_heartbeat_reply_proves_no_agreement() -> None:
    peer = leader(1, 1, 1)
    peer.step(AppendEntriesReply(2, 1, peer.term, True, heartbeat=True))
    assert peer.raw.state.tracker.progress[2].state is ProgressState.PROBE
    assert peer.raw.state.tracker.progress[2].match_index == 0


def test_the_window_holds_back_the_fourth_message_and_each_acknowledgement_frees_what_it_covers() -> None:
    peer = streaming_leader(max_inflight_messages=3)
    sent = [len(appends(peer.propose(b"x"), to=2)) for _ in range(5)]
    assert sent == [1, 1, 1, 0, 0]
    one = appends(peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=2)), to=2)
    assert [[entry.index for entry in m.entries] for m in one] == [
        [5, 6]
    ]  # what was held back travels together
    assert appends(peer.propose(b"x"), to=2) == []
    more = appends(peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=4)), to=2)
    assert [[entry.index for entry in m.entries] for m in more] == [[7]]


def test_the_window_is_bounded_in_bytes_too() -> None:
    peer = streaming_leader(max_inflight_messages=100, max_inflight_bytes=200)
    sent = [len(appends(peer.propose(b"x" * 100), to=2)) for _ in range(4)]
    assert sent == [1, 1, 0, 0]


def test_a_duplicate_acknowledgement_frees_nothing() -> None:
    peer = streaming_leader(max_inflight_messages=2)
    peer.propose(b"a")
    peer.propose(b"b")
    peer.propose(b"c")
    assert len(appends(peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=2)), to=2)) == 1
    peer.propose(b"d")
    assert appends(peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=2)), to=2) == []


def test_a_full_window_that_was_lost_heals_through_an_empty_append() -> None:
    cluster = Cluster(3, max_inflight_messages=2).elect(1)
    cluster.isolate(3)
    for data in (b"a", b"b", b"c", b"d"):
        cluster.propose(1, data)
    assert cluster[1].raw.state.tracker.progress[3].inflights.is_full()
    cluster.heal()
    cluster.tick(2)
    assert cluster.logs_agree()


def test_a_lost_stream_heals_even_when_nothing_new_is_proposed() -> None:
    cluster = Cluster(3).elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"a")
    cluster.heal()
    cluster.tick(2)
    assert cluster.logs_agree()


def test_a_lost_probe_heals() -> None:
    cluster = Cluster(3)
    cluster.is_lost = lambda message: isinstance(message, AppendEntries) and not message.heartbeat
    cluster.elect(1)
    cluster.heal()
    cluster.tick(2)
    assert cluster.logs_agree()


def test_appends_are_cut_by_bytes_but_carry_at_least_one_entry() -> None:
    peer = streaming_leader(max_message_bytes=300)
    sent = appends(peer.propose(b"x" * 1000, *[b"y" * 100] * 4), to=2)
    assert [[entry.index for entry in m.entries] for m in sent] == [[2], [3, 4], [5, 6]]


def test_proposals_between_two_readys_travel_together() -> None:
    peer = streaming_leader()
    for _ in range(5):
        peer.raw.propose(b"x")
    assert [len(m.entries) for m in appends(peer.work(), to=2)] == [5]


def test_a_new_commit_reaches_idle_followers_at_once() -> None:
    cluster = Cluster(3).elect(1)
    cluster.propose(1, b"x")
    assert [peer.commit for peer in cluster.peers.values()] == [2, 2, 2]
    assert all(peer.applied[-1].data == b"x" for peer in cluster.peers.values())


def test_an_unreachable_follower_is_probed() -> None:
    peer = streaming_leader()
    peer.propose(b"lost")
    peer.raw.report_unreachable(2)
    [probe] = appends(peer.work(), to=2)
    assert (probe.prev_log_index, len(probe.entries)) == (1, 1)
    peer.raw.report_unreachable(2)
    assert peer.work() == []


def test_a_late_refusal_moves_nothing() -> None:
    peer = streaming_leader()
    peer.propose(b"x")
    peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=2))
    assert peer.step(AppendEntriesReply(2, 1, peer.term, False, reject_index=2)) == []
    assert peer.step(AppendEntriesReply(2, 1, peer.term, False, reject_index=1)) == []
    assert peer.raw.state.tracker.progress[2].next_index == 3


def test_a_learner_gets_the_log_and_counts_for_nothing() -> None:
    cluster = Cluster(3, learners=[4]).elect(1)
    cluster.propose(1, b"x")
    assert cluster[4].terms == [1, 1]
    cluster.crash(2, 3)
    cluster.propose(1, b"y")
    assert cluster[4].terms == [1, 1, 1]
    assert cluster[1].commit == 2


def test_a_follower_behind_the_compaction_is_sent_no_append_it_could_not_use() -> None:
    cluster = Cluster(3, logs={n: log_of(1, 1, 1) for n in (1, 2)}, hard_states={1: HardState(1, 0, 3)})
    for image in (cluster[1].disk.entries, cluster[1].visible):
        image.compact(2)
    cluster.crash(1)
    cluster[1].start()
    cluster[1].campaign()
    cluster.settle()
    cluster.tick(3)
    assert cluster[1].commit == 4
    assert cluster[2].terms == [1, 1, 1, 2]
    assert cluster[3].terms == []
    assert cluster[3].leader == 1
