"""Each row of the tables of roles and of replication, by something that brings it about; and what is told of it."""

from collections.abc import Callable
from typing import Any

import pytest

from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.progress import PROGRESS_CHANGES, Progress, ProgressEvent, ProgressState
from raftd.raft.ready import Transition
from raftd.raft.transitions import ROLE_CHANGES, Event, role_after
from raftd.raft.types import Configuration, Entry, EntryType, InvariantViolation, Role, Snapshot
from tests.raft.changes import change_of
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer

THREE = Configuration((1, 2, 3))


def follower(**settings: Any) -> Peer:
    return Peer(1, THREE, log=log_of(1), **settings)


def pre_candidate(**settings: Any) -> Peer:
    peer = follower(**settings)
    peer.campaign()
    return peer


def candidate(*, pre_vote: bool = True, **settings: Any) -> Peer:
    peer = follower(pre_vote=pre_vote, **settings)
    peer.campaign()
    peer.step(RequestVoteReply(2, 1, 2, granted=True, pre_vote=True))
    return peer


def leader() -> Peer:
    peer = candidate()
    peer.step(RequestVoteReply(2, 1, 2, granted=True))
    return peer


IN: dict[Role, Callable[[], Peer]] = {
    Role.FOLLOWER: follower,
    Role.PRE_CANDIDATE: pre_candidate,
    Role.CANDIDATE: candidate,
    Role.LEADER: leader,
}


def later_append(peer: Peer) -> Message:
    return AppendEntries(2, 1, peer.term + 1, 0, 0, (), 0)


def goes_on(peer: Peer, ticks: int) -> None:
    """The others answer the leader all the while."""
    for _ in range(ticks):
        peer.step(*(AppendEntriesReply(node, 1, peer.term, True, heartbeat=True) for node in (2, 3)))
        peer.tick()


def stalls(peer: Peer) -> None:
    peer.write_through = False
    peer.propose(b"x")
    goes_on(peer, 11)


def refusals(peer: Peer) -> None:
    pre_vote = peer.role is Role.PRE_CANDIDATE
    peer.step(*(RequestVoteReply(node, 1, peer.term, granted=False, pre_vote=pre_vote) for node in (2, 3)))


def learns(peer: Peer) -> None:
    """Entry 1 is a change, and a voter that refuses knows it to be committed."""
    peer.step(RequestVoteReply(2, 1, peer.term, granted=False, commit=1, commit_term=1))


def with_a_change(role: Role) -> Peer:
    log = [Entry(1, 1, EntryType.CONF_CHANGE, b"+4")]
    peer = Peer(1, THREE, log=log, pre_vote=role is Role.PRE_CANDIDATE)
    peer.campaign()
    return peer


BROUGHT_ABOUT: dict[Event, Callable[[Peer], object]] = {
    Event.ASKS_PRE_VOTES: lambda peer: peer.tick(30),
    Event.WON: lambda peer: peer.step(RequestVoteReply(3, 1, peer.term, granted=True)),
    Event.LOST: refusals,
    Event.GAVE_VOTE: lambda peer: peer.step(RequestVote(3, 1, peer.term, 1, 1)),
    Event.HEARD_LATER_TERM: lambda peer: peer.step(later_append(peer)),
    Event.HEARD_LEADER: lambda peer: peer.step(AppendEntries(2, 1, peer.term, 0, 0, (), 0)),
    Event.LEARNED_CHANGE: learns,
    Event.NO_QUORUM: lambda peer: peer.tick(20),
    Event.DISK_STALLED: stalls,
    Event.NO_VOTER: lambda peer: peer.raw.apply_configuration(Configuration((2, 3))),
}


def stands(before: Role) -> tuple[Peer, Callable[[Peer], object]]:
    match before:
        case Role.FOLLOWER:
            return follower(), lambda peer: peer.step(TimeoutNow(2, 1, 1))
        case Role.PRE_CANDIDATE:
            return pre_candidate(), lambda peer: peer.step(RequestVoteReply(2, 1, 2, True, pre_vote=True))
        case _:
            return candidate(pre_vote=False), lambda peer: peer.tick(30)


def setting(before: Role, event: Event) -> tuple[Peer, Callable[[Peer], object]]:
    if event is Event.STANDS:
        return stands(before)
    if event is Event.LEARNED_CHANGE:
        return with_a_change(before), learns
    if event is Event.GAVE_VOTE:
        # It came to know of this term without voting in it, and has heard no leader.
        peer = follower()
        peer.step(RequestVoteReply(3, 1, 4, granted=False))
        if before is Role.PRE_CANDIDATE:
            peer.campaign()
        return peer, BROUGHT_ABOUT[event]
    return IN[before](), BROUGHT_ABOUT[event]


ROWS = [(before, event) for event, change in ROLE_CHANGES.items() for before in change.before]


@pytest.mark.parametrize(("before", "event"), ROWS, ids=[f"{before}-{event}" for before, event in ROWS])
def test_every_change_of_role_occurs_and_is_told(before: Role, event: Event) -> None:
    peer, bring_about = setting(before, event)
    assert peer.role is before
    told: list[Transition] = []
    peer.on_transition = lambda _, transition: told.append(transition)
    bring_about(peer)
    assert event in [each.event for each in told]
    first = next(each for each in told if each.event is event)
    assert first.role is ROLE_CHANGES[event].after


def test_no_other_change_of_role_is_possible() -> None:
    for event, change in ROLE_CHANGES.items():
        for role in Role:
            if role in change.before:
                assert role_after(role, event) is change.after
            else:
                with pytest.raises(InvariantViolation, match="cannot be one that"):
                    role_after(role, event)


def progress(state: ProgressState) -> tuple[Peer, Progress]:
    """What a leader knows of 2; the leader's log is compacted up to its no-op, and it has a snapshot."""
    peer = leader()
    peer.step(AppendEntriesReply(3, 1, 2, True, match_index=2))
    peer.take_snapshot()
    known = peer.raw.state.tracker.progress[2]
    if state is ProgressState.REPLICATE:
        known.acknowledge(2)
    elif state is ProgressState.SNAPSHOT:
        known.become_snapshot(2)
    assert known.state is state
    return peer, known


def lacks(peer: Peer) -> None:
    """It lives, and the next that it would be sent is gone."""
    peer.raw.state.tracker.progress[2].next_index = 1
    peer.raw.state.tracker.progress[2].match_index = 0
    peer.step(AppendEntriesReply(2, 1, 2, True, heartbeat=True))


def refuses(peer: Peer) -> None:
    """It lacks what was streamed to it last."""
    peer.propose(b"x")
    peer.step(AppendEntriesReply(2, 1, 2, False, reject_index=3))


MOVED: dict[ProgressEvent, Callable[[Peer], object]] = {
    ProgressEvent.ACKNOWLEDGED: lambda peer: peer.step(AppendEntriesReply(2, 1, 2, True, match_index=2)),
    ProgressEvent.REFUSED: refuses,
    ProgressEvent.UNREACHABLE: lambda peer: peer.raw.report_unreachable(2),
    ProgressEvent.COMPACTED: lacks,
    ProgressEvent.STREAM_ENDED: lambda peer: peer.raw.report_snapshot(2, True),
}
PROGRESS_ROWS = [(before, event) for event, change in PROGRESS_CHANGES.items() for before in change.before]


@pytest.mark.parametrize(
    ("before", "event"), PROGRESS_ROWS, ids=[f"{before.value}-{event}" for before, event in PROGRESS_ROWS]
)
def test_every_change_of_how_a_follower_is_sent_the_log_occurs(
    before: ProgressState, event: ProgressEvent
) -> None:
    peer, known = progress(before)
    MOVED[event](peer)
    assert known.state is PROGRESS_CHANGES[event].after


def test_a_follower_that_streams_nothing_cannot_be_one_that_has_lost_its_stream() -> None:
    _, known = progress(ProgressState.SNAPSHOT)
    with pytest.raises(InvariantViolation, match="cannot be one that lacks"):
        known.become_snapshot(9)


def told_by(peer: Peer, *happenings: Callable[[], object]) -> list[Event]:
    """What is told while these happen that is no change of role."""
    told: list[Event] = []

    def note(_: Peer, transition: Transition) -> None:
        if transition.event not in ROLE_CHANGES:
            told.append(transition.event)

    peer.on_transition = note
    for happens in happenings:
        happens()
    return told


def test_a_life_begins_with_what_the_disk_knew() -> None:
    peer = follower()
    told: list[Transition] = []
    peer.on_transition = lambda _, transition: told.append(transition)
    peer.crash()
    peer.start()
    [started] = told
    assert (started.event, started.role, started.term, started.last_index) == (
        Event.STARTED,
        Role.FOLLOWER,
        1,
        1,
    )
    assert (started.configuration, started.message) == (THREE, None)


def test_the_steps_of_a_handover_are_told() -> None:
    peer = leader()
    assert told_by(peer, lambda: peer.raw.transfer_leadership(3), lambda: goes_on(peer, 10)) == [
        Event.HANDS_OVER,
        Event.HANDOVER_TIMED_OUT,
    ]
    peer = leader()
    assert told_by(
        peer,
        lambda: peer.raw.transfer_leadership(3),
        lambda: peer.raw.apply_conf_change(change_of("-3")),
    ) == [Event.HANDS_OVER, Event.CONFIGURED, Event.HANDOVER_IN_VAIN]
    peer = follower()
    assert told_by(peer, lambda: peer.step(TimeoutNow(2, 1, 1))) == [Event.TOLD_TO_STAND]


def test_a_snapshot_is_told_when_it_is_taken_and_when_it_is_installed_and_what_it_says_of_the_members() -> (
    None
):
    peer = follower()
    peer.write_through = False
    snapshot = InstallSnapshot(2, 1, 3, Snapshot(5, 2, Configuration((1, 2))))
    told = told_by(peer, lambda: peer.receive(snapshot, tuple(log_of(*[2] * 5))), peer.work)
    assert told == [Event.TAKES_SNAPSHOT]
    told = told_by(peer, peer.persist, peer.work)
    assert told == [Event.INSTALLED_SNAPSHOT, Event.CONFIGURED]


def test_what_came_in_is_told_with_what_it_caused_and_with_nothing_later() -> None:
    peer = follower()
    told: list[Transition] = []
    peer.on_transition = lambda _, transition: told.append(transition)
    append = later_append(peer)
    peer.step(append)
    peer.tick(30)
    assert [(each.event, each.message) for each in told[:2]] == [
        (Event.HEARD_LATER_TERM, append),
        (Event.ASKS_PRE_VOTES, None),
    ]
