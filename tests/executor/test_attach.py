"""The conversation with the leader, over streams in memory and a pool without processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raftd.errors import IncarnationLost, NotLeader, OldCopy, WrongIdentity
from raftd.executor.attach import AttachLoop
from raftd.executor.config import ExecutorConfig
from raftd.scheduler.attach import AttachDown, AttemptEnded, Hello, Renewal
from raftd.scheduler.model import AttemptOutcome, FencingToken
from tests.executor.fakes import (
    FakeAttempts,
    FakeClock,
    FakeLeader,
    FakeLeaders,
    FakeNetwork,
    Incarnations,
    assignment,
    token,
)
from tests.support import eventually

WAIT_S = 20.0
LEASE_MS = 6_000


class Stage:
    """An Attach loop between fakes, with two leaders that it may be sent to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.one, self.two = FakeLeader("n1", LEASE_MS, 50), FakeLeader("n2", LEASE_MS, 50)
        self.leaders = FakeLeaders(("n1", "nowhere:1"))
        self.network = FakeNetwork(self.one, self.two)
        self.attempts = FakeAttempts()
        self.incarnations = Incarnations()
        self.supervised: list[int] = []
        self.running: asyncio.Task[None] | None = None
        self.loop = AttachLoop(
            ExecutorConfig(
                Path("unused"), cluster_id=7, store_id=9, name="n5", slots=2, kinds=("noop",), progress_ms=10
            ),
            1,
            self.incarnations.next,
            self.leaders,
            self.network,
            self.attempts,
            self.clock,
            self.supervised.append,
        )

    async def attached(self, name: str = "n1") -> None:
        await eventually(lambda: self.loop.attached_to == name, WAIT_S, f"the welcome of {name}")

    async def leased(self) -> None:
        await eventually(lambda: self.loop.lease_valid, WAIT_S, "a lease")

    def end(self, counter: int) -> AttemptEnded:
        return AttemptEnded(counter, 1, token(counter), AttemptOutcome.SUCCEEDED, "", None, (), 1, 2)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    built = Stage()
    built.running = running = asyncio.create_task(built.loop.run())
    try:
        yield built
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def told(leader: FakeLeader) -> list[FencingToken]:
    return [end.token for end in leader.ended]


async def test_hello_says_who_it_is_and_what_it_runs() -> None:
    async with stage() as s:
        await s.attached()
        hello = s.one.hellos[0]
        assert (hello.cluster_id, hello.store_id, hello.name, hello.incarnation) == (7, 9, "n5", 1)
        assert (hello.slots, hello.kinds, hello.running) == (2, ("noop",), ())


async def test_the_lease_counts_from_when_the_renewed_heartbeat_was_sent() -> None:
    async with stage() as s:
        s.one.renewing = False
        await eventually(lambda: s.one.heartbeats, WAIT_S, "a heartbeat")
        sent_ms = s.clock.now_ms
        assert not s.loop.lease_valid
        s.clock.now_ms += 400
        s.one.say(AttachDown(renewal=Renewal(s.one.heartbeats[0].sequence)))
        await s.leased()
        assert s.supervised == [sent_ms + LEASE_MS]
        assert s.attempts.deadlines[-1] == sent_ms + LEASE_MS


async def test_a_renewal_of_an_earlier_stream_extends_nothing() -> None:
    async with stage() as s:
        s.one.renewing = False
        await eventually(lambda: s.one.heartbeats, WAIT_S, "a heartbeat")
        s.leaders.set(("n2", "nowhere:2"))
        s.two.renewing = False
        await s.attached("n2")
        s.two.say(AttachDown(renewal=Renewal(s.one.heartbeats[0].sequence), start=(assignment(1),)))
        await eventually(lambda: s.attempts.present, WAIT_S, "the message to be acted on")
        assert not s.loop.lease_valid


async def test_a_new_leader_is_followed_at_once_and_kills_nothing() -> None:
    async with stage() as s:
        s.one.start(assignment(1))
        await eventually(lambda: s.attempts.present, WAIT_S, "the attempt")
        await s.leased()
        s.two.desired = dict(s.one.desired)
        s.leaders.set(("n2", "nowhere:2"))
        await s.attached("n2")
        assert s.two.hellos[0].running == (token(1),)
        assert s.attempts.asked == [("start", token(1))]
        assert s.loop.incarnation == 1
        assert s.one.streams[0].closed


async def test_what_runs_and_is_not_desired_is_killed_and_what_is_missing_is_started() -> None:
    async with stage() as s:
        s.one.start(assignment(1), assignment(2))
        await eventually(lambda: len(s.attempts.present) == 2, WAIT_S, "both attempts")
        s.two.desired = {a.token: a for a in (assignment(2), assignment(3))}
        s.leaders.set(("n2", "nowhere:2"))
        await s.attached("n2")
        assert s.attempts.asked[2:] == [("discard", token(1)), ("start", token(3))]


async def test_ends_are_told_until_they_are_recorded_and_then_forgotten() -> None:
    async with stage() as s:
        await s.attached()
        s.one.recording = False
        s.loop.on_ended(s.end(1))
        await eventually(lambda: told(s.one) == [token(1)], WAIT_S, "the end to be told")
        # The record of the next leader has it as running still: it is not started again, but told again.
        s.two.desired = {token(1): assignment(1)}
        s.leaders.set(("n2", "nowhere:2"))
        await eventually(lambda: told(s.two) == [token(1)], WAIT_S, "the end to be told again")
        await asyncio.wait_for(s.loop.all_recorded(), WAIT_S)
        assert s.attempts.asked == []
        s.leaders.set(("n1", "nowhere:1"))
        await s.attached("n1")
        assert told(s.one) == [token(1)]


async def test_that_it_leaves_is_told_before_any_end_and_to_the_next_leader_too() -> None:
    async with stage() as s:
        await s.attached()
        await s.leased()
        s.one.recording = False
        s.one.heartbeat_ms = 60_000
        assert not any(message.leaving for message in s.one.heard)
        s.loop.leave()
        s.loop.on_ended(s.end(1))
        await eventually(lambda: s.one.ended, WAIT_S, "the end to be told")
        [telling] = [message for message in s.one.heard if message.ended]
        assert telling.leaving
        s.leaders.set(("n2", "nowhere:2"))
        await eventually(lambda: s.two.ended, WAIT_S, "the end to be told again")
        assert all(message.leaving for message in s.two.heard if message.hello is None)


async def test_that_it_leaves_is_told_though_nothing_runs() -> None:
    async with stage() as s:
        s.one.heartbeat_ms = 60_000
        await s.attached()
        await s.leased()
        s.loop.leave()
        await eventually(lambda: s.one.heard[-1].leaving, WAIT_S, "the leader to be told")


async def test_many_ends_travel_together() -> None:
    async with stage() as s:
        await s.attached()
        sent = len(s.one.ended)
        for counter in range(1, 601):
            s.loop.on_ended(s.end(counter))
        await asyncio.wait_for(s.loop.all_recorded(), WAIT_S)
        assert len(s.one.ended) - sent == 600


async def test_an_end_without_an_answer_is_told_again_after_a_while() -> None:
    async with stage() as s:
        await s.leased()
        s.one.recording = False
        s.loop.on_ended(s.end(1))
        await eventually(lambda: len(told(s.one)) == 1, WAIT_S, "the end to be told")
        s.clock.now_ms += 5_500
        await eventually(lambda: len(told(s.one)) >= 2, WAIT_S, "the end to be told again")


async def test_a_lapse_kills_everything_before_a_new_incarnation_registers() -> None:
    async with stage() as s:
        await s.leased()
        s.one.start(assignment(1))
        await eventually(lambda: s.attempts.present, WAIT_S, "the attempt")
        s.one.renewing = False
        s.attempts.dead.clear()
        s.clock.now_ms += LEASE_MS + 1
        await eventually(lambda: ("discard_all", None) in s.attempts.asked, WAIT_S, "everything to be killed")
        assert s.incarnations.value == 1
        hellos = len(s.one.hellos)
        s.attempts.dead.set()
        await eventually(lambda: len(s.one.hellos) > hellos, WAIT_S, "another Hello")
        assert s.one.hellos[-1].incarnation == 2
        assert s.attempts.deadlines[-1] == 0


async def test_a_renewal_that_comes_after_the_lapse_changes_nothing() -> None:
    async with stage() as s:
        await s.leased()
        s.one.renewing = False
        beats = len(s.one.heartbeats)
        await eventually(lambda: len(s.one.heartbeats) > beats, WAIT_S, "a heartbeat that is not renewed")
        s.clock.now_ms += LEASE_MS + 1
        s.one.say(AttachDown(renewal=Renewal(s.one.heartbeats[-1].sequence)))
        await eventually(lambda: s.incarnations.value == 2, WAIT_S, "a new incarnation")


async def test_a_refused_incarnation_kills_everything_and_begins_anew() -> None:
    async with stage() as s:

        def lost(hello: Hello) -> IncarnationLost | None:
            return IncarnationLost("given up") if hello.incarnation < 2 else None

        s.two.refusal = lost
        s.one.start(assignment(1))
        await eventually(lambda: s.attempts.present, WAIT_S, "the attempt")
        await s.leased()
        s.leaders.set(("n2", "nowhere:2"))
        await s.attached("n2")
        assert [hello.incarnation for hello in s.two.hellos] == [1, 2]
        assert ("discard_all", None) in s.attempts.asked


async def test_an_old_copy_takes_no_new_incarnation_that_would_hide_it() -> None:
    async with stage() as s:
        s.two.refusal = lambda _: OldCopy("the cluster knows incarnation 9")
        await s.leased()
        s.leaders.set(("n2", "nowhere:2"))
        assert s.running is not None
        with pytest.raises(OldCopy, match="incarnation 9"):
            await asyncio.wait_for(s.running, WAIT_S)
        assert s.incarnations.value == 1


async def test_an_incarnation_that_is_lost_in_the_middle_begins_anew() -> None:
    async with stage() as s:
        await s.attached()
        s.one.say(AttachDown(start=(assignment(1),)))
        assert s.one.stream is not None
        s.one.stream.say(IncarnationLost("given up"))
        await eventually(lambda: s.one.hellos[-1].incarnation == 2, WAIT_S, "another Hello")
        assert s.attempts.asked == [("start", token(1)), ("discard_all", None)]


async def test_a_silent_leader_is_tried_anew_and_nothing_is_killed_for_it() -> None:
    async with stage() as s:
        await s.leased()
        s.one.renewing = False
        beats = len(s.one.heartbeats)
        await eventually(lambda: len(s.one.heartbeats) > beats, WAIT_S, "a heartbeat")
        s.clock.now_ms += 1_000
        await eventually(lambda: len(s.one.streams) > 1, WAIT_S, "another stream")
        s.one.renewing = True
        await s.attached()
        assert s.loop.incarnation == 1
        assert s.attempts.asked == []


async def test_a_leader_that_does_not_welcome_is_tried_anew() -> None:
    async with stage() as s:
        s.one.welcoming = False
        await eventually(lambda: len(s.one.streams) > 1, WAIT_S, "another stream")
        s.one.welcoming = True
        await s.attached()


async def test_refusals_are_kept_for_those_who_ask_and_tried_again() -> None:
    async with stage() as s:
        s.one.refusal = lambda hello: WrongIdentity("another cluster")
        await eventually(lambda: len(s.one.hellos) > 2, WAIT_S, "several tries")
        assert isinstance(s.loop.last_error, WrongIdentity)
        s.one.refusal = lambda hello: NotLeader("not me")
        hellos = len(s.one.hellos)
        await eventually(lambda: len(s.one.hellos) > hellos, WAIT_S, "another try")
        s.one.refusal = lambda hello: None
        await s.attached()
        assert s.incarnations.value == 1


async def test_an_ended_stream_is_opened_again() -> None:
    async with stage() as s:
        await s.attached()
        assert s.one.stream is not None
        s.one.stream.say(None)
        await eventually(lambda: len(s.one.hellos) == 2, WAIT_S, "another Hello")


async def test_without_a_leader_it_waits_for_one() -> None:
    async with stage() as s:
        s.leaders.set(None)
        await eventually(lambda: s.loop.attached_to == "", WAIT_S, "the stream to be dropped")
        dials = s.network.dials
        s.leaders.set(("n2", "nowhere:2"))
        await s.attached("n2")
        assert s.network.dials == dials + 1
