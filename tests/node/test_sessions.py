"""What an executor may do to its leader, meant or not: every value bounded, every stream ended with a reason."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from raftd.errors import InvalidRequest, NameTaken, NoLeader, RaftdError, Unavailable, WrongIdentity
from raftd.node import reports
from raftd.node.session import MAX_PROGRESS_CHARS, MAX_UNTOLD, MAX_WORK, MESSAGE_BYTES, Session, message_bytes
from raftd.scheduler.attach import (
    Assignment,
    AttachDown,
    AttachUp,
    AttemptEnded,
    AttemptProgress,
    Heartbeat,
    Hello,
    Renewal,
    Stop,
    Welcome,
)
from raftd.scheduler.model import AttemptOutcome, BlobRef, FencingToken, NodeRole, StopReason, TaskState
from raftd.scheduler.replies import Accepted
from tests.node.cluster import CLUSTER_ID, Cluster, Member
from tests.node.executors import FakeExecutor
from tests.node.test_node import a_submit, run
from tests.support import eventually

HELLO = Hello(CLUSTER_ID, 1, "n1", 1, "voter", 1, {}, ("noop",), "127.0.0.1:1", (), 1)


async def refusal(member: Member, hello: Hello) -> RaftdError | None:
    """What a Hello is answered with; None where the stream goes on."""
    executor = FakeExecutor("n1", 1)
    executor.hello = hello
    executor.attach(member)
    await eventually(lambda: executor.error or executor.renewals, 10, "an answer")
    await executor.detach()
    return None if executor.renewals else executor.error


async def attached(member: Member, name: str, store_id: int, *, slots: int = 1) -> FakeExecutor:
    executor = FakeExecutor(name, store_id, slots=slots).attach(member)
    await eventually(lambda: executor.renewals, 10, "a renewal")
    return executor


async def running(member: Member, executor: FakeExecutor, count: int = 1, **spec: Any) -> list[Assignment]:
    """Have tasks placed on the executor."""
    replies = await member.node.propose([a_submit(f"t{n}", **spec) for n in range(count)], timeout=10)
    assert all(isinstance(reply, Accepted) for reply in replies)
    await eventually(lambda: len(executor.started) == count, 10, "the assignments")
    return list(executor.started.values())


# --- the Hello ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "king"},
        {"role": ""},
        {"role": "VOTER"},
        {"name": ""},
        {"name": "n" * 65},
        {"store_id": 0},
        {"incarnation": 0},
        {"slots": 4_000_000_000},
        {"labels": {f"l{number}": "" for number in range(65)}},
        {"labels": {"l": "x" * 257}},
        {"labels": {"x" * 257: ""}},
        {"kinds": tuple(f"k{number}" for number in range(257))},
        {"kinds": ("k" * 65,)},
        {"kinds": ("noop", "")},
        {"address": "h" * 257},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_hello_that_the_record_would_refuse_never_reaches_the_log(changes: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            before = leader.node.status().last_index
            assert isinstance(await refusal(leader, replace(HELLO, **changes)), InvalidRequest)
            assert leader.node.status().last_index == before
            assert leader.sessions.session(replace(HELLO, **changes).name) is None

    run(scenario())


@pytest.mark.parametrize("role", ["voter", "learner", "worker"])
def test_every_role_can_attach(role: str) -> None:
    assert reports.registration(replace(HELLO, role=role)).role is NodeRole[role.upper()]


def test_the_record_takes_whatever_passes_the_check_of_a_hello() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            widest = replace(
                HELLO,
                slots=1024,
                labels={f"l{number}": "x" * 256 for number in range(64)},
                kinds=tuple(f"{number:064}" for number in range(256)),
                address="h" * 256,
            )
            assert await refusal(leader, widest) is None

    run(scenario())


def test_who_bears_a_name_wrongly_does_not_push_its_owner_off() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            member = await attached(leader, "n1", 1)
            worker = await attached(leader, "w1", 101)
            assert isinstance(await refusal(leader, replace(HELLO, store_id=77)), WrongIdentity)
            assert isinstance(await refusal(leader, replace(HELLO, name="n9")), WrongIdentity)
            stranger = replace(HELLO, name="w1", store_id=102, role="worker")
            assert isinstance(await refusal(leader, stranger), NameTaken)
            assert (member.error, worker.error) == (None, None)
            member.beat(2)
            worker.beat(2)
            await eventually(lambda: 2 in member.renewals and 2 in worker.renewals, 10, "both go on")
            await member.detach()
            await worker.detach()

    run(scenario())


# --- who is attached ----------------------------------------------------------------------------------------------


def test_others_that_come_and_go_do_not_make_a_silent_executor_an_attached_one() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            known = await attached(leader, "n1", 1)
            await known.detach()
            silent = FakeExecutor("n1", 1).attach(leader, silent=True)
            await eventually(lambda: silent.welcomed, 10, "the welcome")
            other = FakeExecutor("w1", 101, slots=0).attach(leader)
            await eventually(lambda: other.renewals, 10, "a renewal")
            (reply,) = await leader.node.propose([a_submit("a")], timeout=10)
            assert isinstance(reply, Accepted)
            other.beat(2)  # its renewal takes a quorum round, and so a plan has been made
            await eventually(lambda: 2 in other.renewals, 10, "a renewal")
            assert leader.state.tasks[reply.first_task_id].state is TaskState.PENDING
            silent.beat(1)
            await eventually(lambda: silent.started, 10, "the assignment")
            await silent.detach()
            await other.detach()

    run(scenario())


def test_an_executor_that_leaves_gets_nothing_more_and_is_heard_to_the_end() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            leaving = await attached(leader, "n1", 1)
            [ran] = await running(leader, leaving)
            leaving.leave()
            # Given back: its slot is free, and the task waits again.
            leaving.end(ran, AttemptOutcome.CANCELLED)
            await eventually(lambda: ran.token in leaving.recorded, 10, "the end to be recorded")
            leaving.beat(2)  # its renewal takes a quorum round, and so a plan has been made
            await eventually(lambda: 2 in leaving.renewals, 10, "a renewal")
            assert leader.state.tasks[ran.task_id].state is TaskState.PENDING
            staying = FakeExecutor("w1", 101).attach(leader)
            await eventually(lambda: staying.started, 10, "the assignment to another")
            await leaving.detach()
            back = FakeExecutor("n1", 1, incarnation=2).attach(leader)
            (reply,) = await leader.node.propose([a_submit("b")], timeout=10)
            assert isinstance(reply, Accepted)
            await eventually(lambda: back.started, 10, "the assignment to who has come back")
            assert list(leaving.started) == [ran.token]
            await back.detach()
            await staying.detach()

    run(scenario())


def test_when_a_node_was_last_heard_is_known_after_its_stream_has_ended() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            assert leader.sessions.silence_ms("n1") is None, "never heard is not just now"
            executor = await attached(leader, "n1", 1)
            heard_ms = leader.sessions.silence_ms("n1")
            assert heard_ms is not None
            assert heard_ms < 60_000
            await executor.detach()
            await eventually(lambda: leader.sessions.session("n1") is None, 10, "the stream's end")
            leader.clock.shift_ms += 3_000
            silence_ms = leader.sessions.silence_ms("n1")
            assert silence_ms is not None
            assert silence_ms >= 3_000
            cluster.wire.isolate(leader.store_id)
            await eventually(lambda: not leader.node.leads, 20, "leadership is lost")
            assert leader.sessions.silence_ms("n1") is None, "others have heard it since"

    run(scenario())


# --- what an executor says ----------------------------------------------------------------------------------------


def test_progress_is_bounded_in_every_way() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            executor = await attached(leader, "n1", 1, slots=4)
            tokens = [assignment.token for assignment in await running(leader, executor, 4)]
            strange = [FencingToken(9, number) for number in range(1000)]
            said = [math.nan, math.inf, -math.inf, 0.5]
            progress = [AttemptProgress(t, f, "m" * 10_000) for t, f in zip(tokens, said, strict=True)]
            progress += [AttemptProgress(token, 0.5, "") for token in strange]
            executor.say(AttachUp(heartbeat=Heartbeat(2, tuple(progress))))
            await eventually(lambda: 2 in executor.renewals, 10, "a renewal")
            session = leader.sessions.session("n1")
            assert session is not None
            assert [session.progress[token].fraction for token in tokens] == [-1.0, 1.0, -1.0, 0.5]
            assert {len(kept.message) for kept in session.progress.values()} == {MAX_PROGRESS_CHARS}
            assert len(session.progress) == 4
            executor.say(AttachUp(heartbeat=Heartbeat(3)))
            await eventually(lambda: 3 in executor.renewals, 10, "a renewal")
            assert not session.progress, "what is not said any more is not known any more"
            await executor.detach()

    run(scenario())


def test_ends_of_any_size_are_recorded_and_never_come_back_for_ever() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            executor = await attached(leader, "n1", 1, slots=3)
            first, second, third = await running(leader, executor, 3)
            strangers = tuple(
                an_end(FencingToken(7, number), reason="r" * 20_000, holders=("h" * 9_000,) * 200)
                for number in range(600)
            )
            huge = an_end(first.token, result=b"x" * (5 << 20), task_id=first.task_id)
            blob = BlobRef("z" * 100_000, 1 << 63)
            odd = an_end(second.token, result=blob, task_id=second.task_id, holders=("n1",))
            failed = an_end(
                third.token, outcome=AttemptOutcome.FAILED, result=b"x" * 9_000, task_id=third.task_id
            )
            executor.say(AttachUp(ended=(*strangers, huge, odd, failed)))
            await eventually(lambda: len(executor.recorded) == 603, 20, "all are answered")
            tasks = [leader.state.tasks[a.task_id] for a in (first, second, third)]
            assert [task.state for task in tasks] == [TaskState.FAILED] * 3
            assert "inline result" in tasks[0].reason
            assert executor.error is None
            await executor.detach()

    run(scenario())


def an_end(
    token: FencingToken,
    *,
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED,
    reason: str = "",
    result: bytes | BlobRef | None = None,
    task_id: int = 10**18 - 1,
    holders: Sequence[str] = (),
) -> AttemptEnded:
    return AttemptEnded(
        task_id, 1, token, outcome, reason, result, tuple(holders), (1 << 64) - 1, (1 << 64) - 1
    )


def test_an_executor_that_talks_without_end_is_read_no_faster_than_it_is_answered() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            executor = await attached(leader, "w1", 101)
            session = leader.sessions.session("w1")
            assert session is not None
            cluster.wire.isolate(leader.store_id)
            for sequence in range(1000):
                executor.beat(sequence + 2)
            most = 0
            while executor.error is None:
                most = max(most, len(session.work))
                await asyncio.sleep(0)
            assert MAX_WORK <= most <= MAX_WORK + 1
            assert isinstance(executor.error, NoLeader)

    run(scenario())


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("gone")])
def test_a_failure_that_nobody_foresaw_ends_one_stream_and_says_so(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()

            async def incoming() -> AsyncIterator[AttachUp]:
                yield AttachUp(hello=HELLO)
                raise error

            async def ignore(_: AttachDown) -> None:
                return

            with pytest.raises(Unavailable):
                await asyncio.wait_for(leader.sessions.serve(incoming(), ignore), 10)
            assert leader.sessions.session("n1") is None
            assert not leader.fatal
        assert str(error) in caplog.text

    run(scenario())


# --- what it is told ----------------------------------------------------------------------------------------------


def test_an_executor_that_takes_nothing_does_not_hold_its_stream() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            never = asyncio.Event()

            async def incoming() -> AsyncIterator[AttachUp]:
                yield AttachUp(hello=HELLO)
                await never.wait()

            async def deaf(_: AttachDown) -> None:
                await never.wait()

            serving = asyncio.create_task(leader.sessions.serve(incoming(), deaf))
            await eventually(lambda: leader.sessions.session("n1"), 10, "the session")
            leader.sessions.end_all(NoLeader("this node leads no more"))
            with pytest.raises(NoLeader):
                await asyncio.wait_for(serving, 5)

    run(scenario())


def test_what_waits_for_a_deaf_executor_is_bounded() -> None:
    async def scenario() -> None:
        session = Session(HELLO)
        for sequence in range(MAX_UNTOLD):
            session.push(AttachDown(renewal=Renewal(sequence)))
        assert session.error is None
        session.push(AttachDown(renewal=Renewal(0)))
        assert isinstance(await session.ended(), Unavailable)

    run(scenario())


def test_large_assignments_travel_in_messages_that_arrive() -> None:
    """40 payloads of 256 KiB are more than one message may hold, and are placed in one go."""

    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            first = await attached(leader, "n1", 1, slots=40)
            sizes: list[int] = []
            payload = b"p" * (200 * 1024)
            for number in range(40):
                await leader.node.propose([a_submit(f"t{number}", payload=payload)], timeout=10)
            await eventually(lambda: len(first.started) == 40, 10, "the assignments")
            await first.detach()

            again = FakeExecutor("n1", 1, slots=40)
            tokens = sorted(first.started)
            again.hello = replace(again.hello, running=tuple(tokens[:20]))
            again.on_told = lambda message: sizes.append(message_bytes(message))
            again.attach(leader)
            await eventually(lambda: len(again.started) == 40, 10, "all assignments")
            assert {assignment.token for assignment in again.desired} >= set(tokens[:20]), (
                "none of it is killed"
            )
            payloads = {token: len(again.started[token].payload) for token in tokens}
            assert [payloads[token] for token in tokens[20:]] == [len(payload)] * 20
            assert max(sizes) <= MESSAGE_BYTES
            await again.detach()

    run(scenario())


def test_messages_are_joined_without_changing_what_they_mean() -> None:
    async def scenario() -> None:
        def task(number: int, size: int = 0) -> Assignment:
            return Assignment(number, 1, FencingToken(1, number), 0, "noop", (), b"p" * size)

        session = Session(HELLO)
        welcome = AttachDown(welcome=Welcome(6000, 2000, (), "n1"))
        stop = AttachDown(stop=(Stop(FencingToken(1, 1), StopReason.CANCELLED),))
        for message in (
            welcome,
            AttachDown(renewal=Renewal(1)),
            AttachDown(start=(task(1),)),
            stop,
            AttachDown(start=(task(2),)),
            AttachDown(renewal=Renewal(2)),
            AttachDown(renewal=Renewal(3)),
            AttachDown(start=(task(3, 600_000),)),
            AttachDown(start=(task(4, 600_000),)),
            AttachDown(start=(task(5, 2 * MESSAGE_BYTES),)),
            AttachDown(recorded=(FencingToken(1, 9),)),
        ):
            session.push(message)
        told = [down for _ in range(6) if (down := await session.next()) is not None]
        shape = [
            (
                m.welcome is not None,
                m.renewal and m.renewal.sequence,
                [a.task_id for a in m.start],
                len(m.stop),
            )
            for m in told
        ]
        assert shape == [
            (True, 1, [1], 1),  # a start that follows a stop must not overtake it
            (False, 2, [2], 0),
            (False, 3, [3], 0),
            (False, None, [4], 0),
            (False, None, [5], 0),
            (False, None, [], 0),
        ]
        assert told[-1].recorded == (FencingToken(1, 9),)

    run(scenario())
