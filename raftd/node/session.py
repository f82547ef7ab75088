"""One executor's stream as the leader keeps it: what it has not been told yet, what it last said, and why it ended.

What may live here: the state of one session and its bounds. Whatever an executor says or leaves unread, a session holds
no more than its slots warrant.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable

from raftd.errors import RaftdError, Unavailable
from raftd.scheduler.attach import Assignment, AttachDown, AttemptProgress, Hello
from raftd.scheduler.model import FencingToken

MAX_PER_MESSAGE = 256
MESSAGE_BYTES = 1024 * 1024
"""A message is cut here, unless a single assignment is larger: gRPC's own limit would end the stream, and every next
one in the same way."""

MAX_UNTOLD = 4096
"""Messages that wait for an executor; one that takes nothing any more is better off with a new stream."""

MAX_WORK = 64
"""Heartbeats and ends of one executor that are being dealt with; until then no more is read from its stream."""

MAX_PROGRESS_CHARS = 200


class Session:
    """One executor's stream.

    Attributes:
        hello: how it introduced itself.
        registered: its incarnation is in the state and up.
        confirmed: it has answered the Welcome, so both directions work.
        leaving: its node shuts down: it still reports, and refuses whatever it is told to run.
        error: why the stream ends; None while it lasts.
        progress: of the attempts that it runs, as it last said.
        last_heard_ms: monotonic.
        work: what is being done about what it said.
    """

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.registered = False
        self.confirmed = False
        self.leaving = False
        self.error: RaftdError | None = None
        self.progress: dict[FencingToken, AttemptProgress] = {}
        self.last_heard_ms = 0
        self.work: set[asyncio.Task[None]] = set()
        self._untold: deque[AttachDown] = deque()
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def attached(self) -> bool:
        """Whether it can be told what to run, will hear it, and will run it."""
        return self.registered and self.confirmed and not self.leaving and self.error is None

    def push(self, message: AttachDown) -> None:
        """Tell the executor."""
        if len(self._untold) >= MAX_UNTOLD:
            self.end(Unavailable(f"{self.hello.name} does not take what it is told"))
            return
        self._untold.append(message)
        self._wake.set()

    async def next(self) -> AttachDown | None:
        """What is to be told next, as one message as far as that keeps its meaning; waits for it. None at the end."""
        while not self._untold and self.error is None:
            self._wake.clear()
            await self._wake.wait()
        return self._take() if self.error is None else None

    def end(self, error: RaftdError) -> None:
        """End the stream with this error; the first one counts."""
        if self.error is None:
            self.error = error
            self._ended.set()
            self._wake.set()

    async def ended(self) -> RaftdError:
        """Wait for the end, and say why."""
        await self._ended.wait()
        assert self.error is not None, "set before the event"
        return self.error

    async def room(self) -> None:
        """Return when what the executor said before is dealt with so far that more may be read."""
        while len(self.work) >= MAX_WORK:
            await asyncio.wait(tuple(self.work), return_when=asyncio.FIRST_COMPLETED)

    def progressed(self, current: Collection[FencingToken], progress: Iterable[AttemptProgress]) -> None:
        """Take the progress of the attempts that are current; what was said before is replaced."""
        self.progress = {
            said.token: AttemptProgress(
                said.token, _fraction(said.fraction), said.message[:MAX_PROGRESS_CHARS]
            )
            for said in progress
            if said.token in current
        }

    def _take(self) -> AttachDown:
        message = self._untold.popleft()
        size = message_bytes(message)
        while self._untold and len(message.start) + len(message.recorded) < MAX_PER_MESSAGE:
            following = self._untold[0]
            size += message_bytes(following)
            if size > MESSAGE_BYTES or message.stop or following.welcome is not None:
                break
            if message.renewal and following.renewal:
                break
            self._untold.popleft()
            message = AttachDown(
                welcome=message.welcome,
                renewal=following.renewal or message.renewal,
                start=message.start + following.start,
                stop=following.stop,
                recorded=message.recorded + following.recorded,
            )
        return message


def assignment_bytes(assignment: Assignment) -> int:
    """About how much an assignment adds to a message."""
    texts = (*assignment.args, *assignment.env.keys(), *assignment.env.values())
    return 128 + len(assignment.payload) + sum(4 + 4 * len(text) for text in texts)


def message_bytes(message: AttachDown) -> int:
    """About how large a message is."""
    assignments = message.start if message.welcome is None else (*message.welcome.desired, *message.start)
    return 64 + sum(map(assignment_bytes, assignments)) + 32 * (len(message.recorded) + len(message.stop))


def _fraction(said: float) -> float:
    """0 to 1, or -1 for what is not known; no comparison holds for NaN."""
    if said > 1:
        return 1.0
    return said if said >= 0 else -1.0
