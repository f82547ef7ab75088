"""`step` is total: whatever comes in, it does not crash, and what nobody correct would send changes nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.raft import invariants
from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.types import MAX_TERM, Configuration, Entry, EntryType, HardState, InvariantViolation, Role
from tests.raft.cluster import Cluster
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

ABSURD = (-(2**70), -1, 2**63, 2**64 - 1, 2**70)


def leader() -> Peer:
    cluster = Cluster(3, learners=[4], logs={n: log_of(1, 1) for n in (1, 2, 3)}).elect(1)
    return cluster[1].unwatched()


def follower() -> Peer:
    peer = Peer(1, Configuration((1, 2, 3), (4,)), log=log_of(1, 1, 1), hard_state=HardState(2, 0, 1))
    peer.step(AppendEntries(2, 1, 2, 3, 1, (), 2))
    return peer


def facts(peer: Peer) -> tuple[object, ...]:
    return peer.term, peer.raw.state.vote, peer.role, peer.leader, peer.commit, peer.terms


def entry(term: int, index: int) -> Entry:
    return Entry(term, index, EntryType.NORMAL, b"")


IGNORED: list[Message] = [
    AppendEntries(2, 9, 5, 0, 0, (), 0),  # for another
    AppendEntries(1, 1, 5, 0, 0, (), 0),  # from itself
    AppendEntries(0, 1, 5, 0, 0, (), 0),  # from nobody
    AppendEntries(3, 1, 2, 0, 0, (), 0),  # a second leader in one term
    AppendEntries(2, 1, 5, 3, 9, (), 0),  # an entry from the future
    AppendEntries(2, 1, 5, 0, 3, (), 0),  # a term where there is no entry
    AppendEntries(2, 1, 5, 3, 0, (), 0),  # an entry of no term
    AppendEntries(2, 1, 5, 3, 1, (entry(1, 5),), 0),  # a gap
    AppendEntries(2, 1, 5, 3, 1, (entry(2, 4), entry(1, 5)), 0),  # terms that fall
    AppendEntries(2, 1, 5, 3, 1, (entry(6, 4),), 0),  # an entry of a later term
    AppendEntries(2, 1, 5, 3, 1, (entry(1, 4),), 0, heartbeat=True),  # a heartbeat that carries
    RequestVote(2, 1, 5, 9, 5),  # a candidate whose log is of the term it stands for
    RequestVoteReply(9, 1, 8, granted=False),  # a stranger's answer
    RequestVoteReply(2, 1, 8, granted=True, pre_vote=True),  # a pre-vote nobody asked for
    AppendEntriesReply(9, 1, 8, True, match_index=3),
    AppendEntriesReply(2, 1, 8, True, match_index=-3),
    RequestVoteReply(2, 1, 0, granted=True),
    RequestVote(2, 1, 0, 9, 0),
]


@pytest.mark.parametrize("message", IGNORED, ids=str)
@pytest.mark.parametrize("role", [Role.LEADER, Role.FOLLOWER])
def test_what_no_correct_node_sends_changes_nothing(message: Message, role: Role) -> None:
    peer = leader() if role is Role.LEADER else follower()
    before = facts(peer)
    assert peer.step(message) == []
    assert facts(peer) == before


def test_an_acknowledgement_beyond_the_log_is_ignored() -> None:
    peer = leader()
    before = facts(peer)
    peer.propose(b"x")
    for index in (5, 100, 2**63):
        peer.step(AppendEntriesReply(2, 1, peer.term, True, match_index=index))
        peer.step(AppendEntriesReply(3, 1, peer.term, True, match_index=index))
    assert peer.commit == before[4]


def test_a_round_that_never_began_confirms_nothing() -> None:
    peer = leader()
    peer.raw.read_index(b"r")
    for node in (2, 3):
        peer.step(AppendEntriesReply(node, 1, peer.term, True, round=2**40, heartbeat=True))
    assert len(peer.raw.state.reads) == 1


def test_replies_to_another_role_change_nothing() -> None:
    peer = follower()
    before = facts(peer)
    for node in (2, 3):
        peer.step(AppendEntriesReply(node, 1, 2, True, match_index=3))
        peer.step(RequestVoteReply(node, 1, 2, granted=True))
    assert facts(peer) == before


def test_a_term_that_could_not_be_counted_up_is_ignored() -> None:
    for term in ABSURD:
        peer = follower()
        before = facts(peer)
        peer.step(AppendEntries(2, 1, term, 0, 0, (), 0))
        peer.step(RequestVote(3, 1, term, 9, 1, transfer=True))
        peer.step(AppendEntriesReply(3, 1, term, False))
        assert facts(peer) == before


def test_a_node_in_the_last_term_stands_for_no_other() -> None:
    peer = follower()
    peer.step(AppendEntries(2, 1, MAX_TERM, 0, 0, (), 0))
    assert peer.term == MAX_TERM
    peer.tick(50)
    assert (peer.role, peer.term) == (Role.FOLLOWER, MAX_TERM)


SMALL = st.integers(-1, 6)
ANY = SMALL | st.sampled_from(ABSURD)
ENTRIES = st.lists(st.builds(Entry, ANY, ANY, st.sampled_from(EntryType), st.just(b"x")), max_size=3).map(
    tuple
)
NODE = st.integers(-1, 6)
MESSAGES = st.one_of(
    st.builds(RequestVote, NODE, st.just(1), ANY, ANY, ANY, st.booleans(), st.booleans(), ANY, ANY),
    st.builds(InstallSnapshotReply, NODE, st.just(1), ANY, st.booleans(), ANY),
    st.builds(TimeoutNow, NODE, st.just(1), ANY),
    st.builds(RequestVoteReply, NODE, st.just(1), ANY, st.booleans(), st.booleans(), ANY, ANY),
    st.builds(AppendEntries, NODE, st.just(1), ANY, ANY, ANY, ENTRIES, ANY, ANY, st.booleans()),
    st.builds(
        AppendEntriesReply, NODE, st.just(1), ANY, st.booleans(), ANY, ANY, ANY, ANY, ANY, st.booleans()
    ),
)


@settings(max_examples=300)
@given(st.lists(MESSAGES, max_size=30), st.booleans(), st.sampled_from([Role.LEADER, Role.FOLLOWER]))
def test_any_garbage_at_all_breaks_nothing(messages: list[Message], slow_disk: bool, role: Role) -> None:
    peer = leader() if role is Role.LEADER else follower()
    peer.write_through = not slow_disk
    term, commit = peer.term, peer.commit
    committed = peer.terms[:commit]
    for message in messages:
        try:
            peer.step(message)
        except InvariantViolation as refusal:
            if "would replace a committed" not in str(refusal):
                raise
            return  # the one thing that is worse than stopping
        assert (peer.term, peer.commit) >= (term, commit)
        assert peer.terms[:commit] == committed
        peer.tick()
        if peer.pending:
            peer.persist()
        invariants.check(peer.raw)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6))
def test_replies_in_any_order_and_repeated_lead_to_the_same_commit(
    order: list[int], repeats: list[int]
) -> None:
    peer = leader()
    start = peer.raw.status().last_index
    for _ in range(3):
        peer.propose(b"x")
    replies = [
        AppendEntriesReply(node, 1, peer.term, True, match_index=start + n)
        for node in (2, 3)
        for n in (1, 2, 3)
    ]
    replies[0] = replace(
        replies[0], success=False, match_index=0, reject_index=start, hint_index=1, hint_term=1
    )
    for n in [*order, *repeats]:
        peer.step(replies[n])
    assert peer.commit == start + 3
