"""A stand-in for an executor on the other end of an in-process Attach stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from raftd.errors import RaftdError
from raftd.scheduler.attach import Assignment, AttachDown, AttachUp, AttemptEnded, Heartbeat, Hello
from raftd.scheduler.model import AttemptOutcome, FencingToken
from tests.node.cluster import CLUSTER_ID, Member


class FakeExecutor:
    """Says what a test tells it to say and remembers what it was told."""

    def __init__(self, name: str, store_id: int, *, incarnation: int = 1, slots: int = 1) -> None:
        self.hello = Hello(
            CLUSTER_ID,
            store_id,
            name,
            incarnation,
            "voter",
            slots,
            {},
            ("noop", "sleep"),
            "127.0.0.1:1",
            (),
            1,
        )
        self.desired: tuple[Assignment, ...] = ()
        self.started: dict[FencingToken, Assignment] = {}
        self.stopped: list[FencingToken] = []
        self.recorded: set[FencingToken] = set()
        self.renewals: list[int] = []
        self.keeps_beating = False
        self.welcomed = False
        self.error: RaftdError | None = None
        self.on_told: Callable[[AttachDown], None] = lambda _: None
        self._said: asyncio.Queue[AttachUp | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def attach(self, member: Member, *, silent: bool = False) -> FakeExecutor:
        """Open a stream to a member; ``silent``: say nothing after the Hello."""
        self._said = asyncio.Queue()
        self.error = None
        self.welcomed = False
        self._said.put_nowait(AttachUp(hello=self.hello))
        if not silent:
            self.beat(1)
        self._task = asyncio.create_task(self._run(member))
        return self

    async def detach(self) -> None:
        """Close the stream and wait for its end."""
        self._said.put_nowait(None)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def say(self, message: AttachUp) -> None:
        """Say anything."""
        self._said.put_nowait(message)

    def beat(self, sequence: int) -> None:
        """Ask for renewal."""
        self._said.put_nowait(AttachUp(heartbeat=Heartbeat(sequence)))

    def leave(self) -> None:
        """Say that it shuts down."""
        self._said.put_nowait(AttachUp(leaving=True))

    def end(self, assignment: Assignment, outcome: AttemptOutcome, result: bytes | None = None) -> None:
        """Report the end of an attempt."""
        ended = AttemptEnded(
            assignment.task_id, assignment.attempt, assignment.token, outcome, "", result, (), 1, 2
        )
        self._said.put_nowait(AttachUp(ended=(ended,)))

    async def _incoming(self) -> AsyncIterator[AttachUp]:
        while (message := await self._said.get()) is not None:
            yield message

    async def _told(self, message: AttachDown) -> None:
        self.on_told(message)
        if message.welcome is not None:
            self.welcomed = True
            self.desired = message.welcome.desired
            self.started.update({a.token: a for a in message.welcome.desired})
        if message.renewal is not None:
            self.renewals.append(message.renewal.sequence)
            if self.keeps_beating:
                asyncio.get_running_loop().call_later(0.02, self.beat, message.renewal.sequence + 1)
        self.started.update({a.token: a for a in message.start})
        self.stopped.extend(stop.token for stop in message.stop)
        self.recorded.update(message.recorded)

    async def _run(self, member: Member) -> None:
        try:
            await member.sessions.serve(self._incoming(), self._told)
        except RaftdError as error:
            self.error = error
