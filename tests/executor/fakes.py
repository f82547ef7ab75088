"""A leader, a network and a blob store in memory, and clocks that tests turn: what an executor needs around it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from raftd.errors import BlobNotFound, PeerUnreachable, RaftdError
from raftd.executor.attempts import RunningAttempt
from raftd.executor.config import ExecutorConfig
from raftd.executor.executor import Executor
from raftd.scheduler.attach import (
    Assignment,
    AttachDown,
    AttachUp,
    AttemptEnded,
    Heartbeat,
    Hello,
    Renewal,
    Stop,
    Welcome,
)
from raftd.scheduler.model import BlobRef, FencingToken, StopReason
from tests.support import eventually

WAIT_S = 30.0


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def boottime_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms


class FakeLeaders:
    """Who leads is what the test says."""

    def __init__(self, leader: tuple[str, str] | None = None) -> None:
        self._leader = leader
        self._moved = asyncio.Event()
        self.judged: list[tuple[str, tuple[str, str]]] = []

    def set(self, leader: tuple[str, str] | None) -> None:
        self._leader = leader
        self._moved.set()
        self._moved = asyncio.Event()

    def leader(self) -> tuple[str, str] | None:
        return self._leader

    async def changed(self, seen: tuple[str, str] | None, /) -> tuple[str, str] | None:
        while self._leader == seen:
            await self._moved.wait()
        return self._leader

    def failed(self, leader: tuple[str, str], /) -> None:
        self.judged.append(("failed", leader))

    def worked(self, leader: tuple[str, str], /) -> None:
        self.judged.append(("worked", leader))


class FakeStream:
    """One stream; both ends of it."""

    def __init__(self, leader: FakeLeader) -> None:
        self._leader = leader
        self._down: asyncio.Queue[AttachDown | RaftdError | None] = asyncio.Queue()
        self.closed = False

    async def send(self, message: AttachUp) -> None:
        if self.closed:
            raise PeerUnreachable("the stream is closed")
        self._leader.hear(self, message)

    async def receive(self) -> AttachDown | None:
        item = await self._down.get()
        if isinstance(item, RaftdError):
            raise item
        return item

    async def close(self) -> None:
        self.closed = True

    def say(self, item: AttachDown | RaftdError | None) -> None:
        self._down.put_nowait(item)


class FakeLeader:
    """The leader's end of Attach, with a record that is only what the test puts there.

    It welcomes with `desired`, renews every heartbeat while `renewing`, and records every end while `recording`.
    """

    def __init__(self, name: str = "n1", lease_ms: int = 6_000, heartbeat_ms: int = 200) -> None:
        self.name = name
        self.lease_ms = lease_ms
        self.heartbeat_ms = heartbeat_ms
        self.desired: dict[FencingToken, Assignment] = {}
        self.renewing = True
        self.recording = True
        self.welcoming = True
        self.patience_s = WAIT_S
        self.refusal: Callable[[Hello], RaftdError | None] = lambda hello: None
        self.hellos: list[Hello] = []
        self.heartbeats: list[Heartbeat] = []
        self.ended: list[AttemptEnded] = []
        self.heard: list[AttachUp] = []
        self.streams: list[FakeStream] = []
        self.stream: FakeStream | None = None

    def hear(self, stream: FakeStream, message: AttachUp) -> None:
        self.heard.append(message)
        if message.hello is not None:
            self._welcome(stream, message.hello)
            return
        if message.heartbeat is not None:
            self.heartbeats.append(message.heartbeat)
            if self.renewing:
                stream.say(AttachDown(renewal=Renewal(message.heartbeat.sequence)))
        if message.ended:
            self.ended.extend(message.ended)
            if self.recording:
                for end in message.ended:
                    self.desired.pop(end.token, None)
                stream.say(AttachDown(recorded=tuple(end.token for end in message.ended)))

    def _welcome(self, stream: FakeStream, hello: Hello) -> None:
        self.hellos.append(hello)
        self.stream = stream
        refusal = self.refusal(hello)
        if refusal is not None:
            stream.say(refusal)
        elif self.welcoming:
            welcome = Welcome(self.lease_ms, self.heartbeat_ms, tuple(self.desired.values()), self.name)
            stream.say(AttachDown(welcome=welcome))

    def say(self, message: AttachDown) -> None:
        assert self.stream is not None
        self.stream.say(message)

    def start(self, *assignments: Assignment) -> None:
        self.desired.update({assignment.token: assignment for assignment in assignments})
        if self.stream is not None:
            self.say(AttachDown(start=assignments))

    def stop(self, token: FencingToken, reason: StopReason = StopReason.CANCELLED) -> None:
        self.say(AttachDown(stop=(Stop(token, reason),)))

    async def end_of(self, token: FencingToken) -> AttemptEnded:
        """Waits for the end of an attempt to be told."""

        def told() -> AttemptEnded | None:
            return next((end for end in self.ended if end.token == token), None)

        end = await eventually(told, self.patience_s, f"the end of {token}")
        assert end is not None
        return end


class FakeNetwork:
    """Dials fake leaders by name."""

    def __init__(self, *leaders: FakeLeader) -> None:
        self._leaders = {leader.name: leader for leader in leaders}
        self.dials = 0

    async def connect(self, leader_name: str, address: str, /) -> FakeStream:
        self.dials += 1
        leader = self._leaders.get(leader_name)
        if leader is None:
            raise PeerUnreachable(f"nobody at {address}")
        stream = FakeStream(leader)
        leader.streams.append(stream)
        return stream


class FakeStore:
    """Keeps results, and serves blobs, in memory; refuses as long as `refusals` has something to raise."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self.kept: dict[str, bytes] = {}
        self.refusals: list[RaftdError] = []
        self.puts = 0

    async def put(self, data: bytes) -> tuple[BlobRef, tuple[str, ...]]:
        self.puts += 1
        if self.refusals:
            raise self.refusals.pop(0)
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return BlobRef(digest, len(data)), ("n1", "n2")

    async def put_file(self, path: Path) -> BlobRef:
        ref, _ = await self.put(await asyncio.to_thread(path.read_bytes))
        return ref

    async def fetch(self, digest: str) -> Path:
        if digest not in self.kept or self._directory is None:
            raise BlobNotFound(f"no blob {digest}")
        path = self._directory / digest
        path.write_bytes(self.kept[digest])
        return path


class Incarnations:
    """Counts lives."""

    def __init__(self) -> None:
        self.value = 1

    async def next(self) -> int:
        self.value += 1
        return self.value


class FakeAttempts:
    """A pool without processes: what was asked of it, in order."""

    def __init__(self) -> None:
        self.present: dict[FencingToken, Assignment] = {}
        self.asked: list[tuple[str, object]] = []
        self.deadlines: list[int] = []
        self.newest: FencingToken | None = None
        self.dead = asyncio.Event()
        self.dead.set()

    def running(self) -> tuple[RunningAttempt, ...]:
        return ()

    def tokens(self) -> frozenset[FencingToken]:
        return frozenset(self.present)

    def is_stale(self, assignment: Assignment) -> bool:
        return self.newest is not None and assignment.token <= self.newest

    def set_deadline(self, deadline_ms: int) -> None:
        self.deadlines.append(deadline_ms)

    def start(self, assignment: Assignment) -> None:
        self.asked.append(("start", assignment.token))
        self.present[assignment.token] = assignment
        self.newest = assignment.token

    def stop(self, token: FencingToken, reason: StopReason) -> None:
        self.asked.append(("stop", token))

    def discard(self, token: FencingToken) -> None:
        self.asked.append(("discard", token))
        self.present.pop(token, None)

    def discard_all(self) -> None:
        self.asked.append(("discard_all", None))
        self.present.clear()

    async def quiet(self) -> None:
        await self.dead.wait()


def token(counter: int) -> FencingToken:
    return FencingToken(1, counter)


def assignment(
    counter: int, kind: str = "noop", *args: str, slot: int = 0, run_timeout_ms: int = 0, payload: bytes = b"",
    env: dict[str, str] | None = None, stop: StopReason | None = None, array_index: int | None = None,
) -> Assignment:  # fmt: skip
    return Assignment(
        task_id=counter,
        attempt=1,
        token=token(counter),
        slot=slot,
        kind=kind,
        args=args,
        payload=payload,
        env=env or {},
        run_timeout_ms=run_timeout_ms,
        array_index=array_index,
        stop=stop,
    )


KINDS = ("noop", "sleep", "shell", "render-tile")


class Rig(AbstractAsyncContextManager["Rig"]):
    """An executor with real processes under a fake leader; everything ends with the block."""

    def __init__(self, directory: Path, *, lease_ms: int = 20_000, **settings: object) -> None:
        self.leader = FakeLeader(lease_ms=lease_ms)
        self.leaders = FakeLeaders((self.leader.name, "nowhere:1"))
        self.network = FakeNetwork(self.leader)
        self.store = FakeStore(directory)
        self.incarnations = Incarnations()
        self.fatal: list[BaseException] = []
        values: dict[str, object] = {
            "data_dir": directory,
            "cluster_id": 7,
            "store_id": int.from_bytes(hashlib.sha256(str(directory).encode()).digest()[:8], "big"),
            "name": "n1",
            "kinds": KINDS,
            "nice": 0,
            "stop_grace_ms": 5_000,
        }
        self.config = ExecutorConfig(**(values | settings))  # type: ignore[arg-type]  # tests override any of them
        self.executor = Executor(
            self.config,
            incarnation=1,
            next_incarnation=self.incarnations.next,
            leaders=self.leaders,
            transport=self.network,
            results=self.store,
            blobs=self.store,
            fatal=self.fatal.append,
        )

    async def __aenter__(self) -> Self:
        await self.executor.start()
        await self.executor.wait_slots_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.executor.stop(2_000)

    async def run(self, assignment: Assignment) -> AttemptEnded:
        """Starts an attempt and waits for its end."""
        self.leader.start(assignment)
        return await self.leader.end_of(assignment.token)

    def output(self, counter: int, stream: str = "stdout") -> bytes:
        """What an attempt has written so far."""
        return self.executor.open_logs(counter, 1).read(stream, 0, 1 << 24)
