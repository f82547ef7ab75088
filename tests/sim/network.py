"""The simulated network: Raft's messages, calls of clients, and the executors' streams.

What may live here: what a network may do to what is said: delay, reorder, duplicate, repeat, lose, cut. Raft's messages
suffer all of it. Streams and calls are connections: in order and whole until they break.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Generic, Protocol, TypeVar, cast

from raftd.errors import OutcomeUnknown, RaftdError, Unavailable
from raftd.raft.messages import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raftd.scheduler.attach import AttachDown, AttachUp
from tests.sim.loop import NOBODY, Process, SimulatedLoop, sleep
from tests.sim.trace import Trace

T = TypeVar("T")

KEPT_FOR_REPLAY = 60
BETWEEN_S = 10.0
BROKEN_S = 0.5


class Host(Protocol):
    """One life of a node, as the network reaches it."""

    @property
    def store_id(self) -> int:
        """Of its node."""

    @property
    def process(self) -> Process:
        """Where it runs."""

    def hear(self, message: Message) -> None:
        """A message of Raft's came in."""

    def unreachable(self, store_id: int) -> None:
        """A message did not arrive."""

    async def serve_attach(self, stream: AttachPipe) -> None:
        """An executor has opened a stream."""


class Conditions:
    """What the network does to messages, changed by faults.

    Attributes:
        least_s: the shortest delay.
        most_s: the longest one.
        drop: how many of a thousand get lost.
        duplicate: how many of a thousand arrive twice.
        reorder: messages overtake each other.
        late: how many of a thousand are late by seconds.
        lose_answers: how many of a thousand answers to clients get lost.
    """

    def __init__(self) -> None:
        self.least_s = 0.0005
        self.most_s = 0.004
        self.calm()

    def calm(self) -> None:
        """As a healthy network is."""
        self.drop = 0
        self.duplicate = 0
        self.reorder = False
        self.late = 0
        self.lose_answers = 0


class Network:
    """Carries everything between the nodes of one cluster, and from their clients."""

    def __init__(self, loop: SimulatedLoop, random: Random, trace: Trace) -> None:
        self.loop = loop
        self.conditions = Conditions()
        self.cuts: set[tuple[int, int]] = set()
        self.hosts: dict[int, Host] = {}
        self.on_acknowledged: Callable[[Host], None] = lambda _: None
        """Called when a node hears that another has its entries."""
        self.calls: dict[_Call, None] = {}
        self._random = random
        self._trace = trace
        self._last_s: dict[tuple[int, int], float] = {}
        self._old: list[Message] = []
        self._pipes: dict[AttachPipe, None] = {}

    # Raft's messages.

    def send(self, sender: Host, messages: Sequence[Message]) -> None:
        """Take messages that leave a node."""
        if sender.process.fenced:
            return
        conditions, random = self.conditions, self._random
        for message in messages:
            self._remember(message)
            if (message.sender, message.receiver) in self.cuts:
                continue
            if conditions.drop and random.randrange(1000) < conditions.drop:
                self._trace.count("message dropped")
                continue
            self._carry(message)
            if conditions.duplicate and random.randrange(1000) < conditions.duplicate:
                self._trace.count("duplicate delivered")
                self._carry(message)

    def replay(self, count: int) -> None:
        """Old messages arrive once more."""
        for message in self._random.sample(self._old, min(count, len(self._old))):
            self._trace.count("replay delivered")
            self.loop.call_later(self._random.random() * 0.05, self._deliver, message, context=NOBODY)

    def forget_old(self) -> None:
        """Nothing that is under way for a replay is kept."""
        self._old.clear()

    def _remember(self, message: Message) -> None:
        if len(self._old) < KEPT_FOR_REPLAY:
            self._old.append(message)
        elif self._random.randrange(8) == 0:
            self._old[self._random.randrange(KEPT_FOR_REPLAY)] = message

    def _carry(self, message: Message) -> None:
        conditions = self.conditions
        when = self.loop.time() + self.delay_s()
        if conditions.late and self._random.randrange(1000) < conditions.late:
            when += self._random.random() * 3
            self._trace.count("reordered")
        else:
            way = (message.sender, message.receiver)
            last = self._last_s.get(way, 0.0)
            if when < last:
                if conditions.reorder:
                    self._trace.count("reordered")
                else:
                    when = last
            self._last_s[way] = max(last, when)
        self.loop.call_at(when, self._deliver, message, context=NOBODY)

    def _deliver(self, message: Message) -> None:
        if (message.sender, message.receiver) in self.cuts:
            return
        host = self.hosts.get(message.receiver)
        if host is None:
            sender = self.hosts.get(message.sender)
            if sender is not None and self._random.randrange(4) == 0:
                sender.process.call_soon(sender.unreachable, message.receiver)
            return
        self._trace.say(line_of(message))
        host.process.call_soon(host.hear, message)
        if isinstance(message, AppendEntriesReply) and message.success and not message.heartbeat:
            self.on_acknowledged(host)

    def delay_s(self) -> float:
        """How long the next thing takes."""
        conditions = self.conditions
        return conditions.least_s + self._random.random() * (conditions.most_s - conditions.least_s)

    # Cuts.

    def cut(self, sender: int, receiver: int) -> None:
        """From now on the one is not heard by the other."""
        self.cuts.add((sender, receiver))

    def heal(self) -> None:
        """Lift every cut; a stream that has swallowed something ends, as in ``raftd.transport.guard``."""
        self.cuts.clear()
        for pipe in tuple(self._pipes):
            if pipe.swallowed:
                pipe.fail(Unavailable("the network to this node was cut"))

    def heal_one(self, store_id: int) -> None:
        """Lift the cuts around one node."""
        self.cuts = {cut for cut in self.cuts if store_id not in cut}
        for pipe in tuple(self._pipes):
            if pipe.swallowed and store_id in (pipe.client.store_id, pipe.server.store_id):
                pipe.fail(Unavailable("the network to this node was cut"))

    def drops(self, sender: int, receiver: int) -> bool:
        """Whether that way is cut."""
        return (sender, receiver) in self.cuts

    # A node's life.

    def up(self, host: Host) -> None:
        """A node can be reached."""
        self.hosts[host.store_id] = host

    def down(self, host: Host, *, silently: bool) -> None:
        """A node cannot be reached any more.

        Args:
            silently: its machine is gone, too: nobody is told that a connection broke.
        """
        if self.hosts.get(host.store_id) is host:
            del self.hosts[host.store_id]
        for call in tuple(self.calls):
            if call.host is host:
                call.broken(self.delay_s() if not silently else 1.0)
        for pipe in tuple(self._pipes):
            if pipe.client is host or pipe.server is host:
                pipe.end_lost(silently)

    # Calls of clients.

    async def call(
        self,
        store_id: int,
        work: Callable[[Host], Awaitable[T]],
        timeout_s: float,
        *,
        breaks_after_s: float | None = None,
    ) -> T:
        """Ask a node something.

        Args:
            breaks_after_s: when a lost answer is noticed, for the connection breaks by it; None: never.

        Raises:
            Unavailable: the node was not reached; nothing has happened.
            OutcomeUnknown: it was reached, and its answer was not.
            RaftdError: its answer.
        """
        await sleep(self.delay_s())
        host = self.hosts.get(store_id)
        if host is None:
            raise Unavailable("nobody listens there")
        call = _Call(self, host, breaks_after_s)
        self.calls[call] = None
        answer: asyncio.Future[T] = self.loop.create_future()

        async def serve() -> None:
            try:
                result = await work(host)
            except RaftdError as error:
                call.answer(_setter(answer, None, error))
            else:
                call.answer(_setter(answer, result, None))

        call.on_broken = _setter(answer, None, OutcomeUnknown("the connection broke"))
        host.process.start(serve)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknown("no answer came in time") from None
        finally:
            self.calls.pop(call, None)

    async def between(self, sender: Host, store_id: int, work: Callable[[Host], Awaitable[T]]) -> T:
        """One node asks another something, over whatever cuts there are.

        Raises:
            Unavailable: it was not reached, or its answer was not.
            RaftdError: its answer.
        """
        if sender.process.fenced:
            raise Unavailable("this life is over")
        if self.drops(sender.store_id, store_id):
            await sleep(BROKEN_S)
            raise Unavailable("the network between them is cut")
        # Over TCP an answer is not lost by itself.
        result = await self.call(store_id, work, BETWEEN_S, breaks_after_s=BROKEN_S)
        if self.drops(store_id, sender.store_id):
            await sleep(BROKEN_S)
            raise Unavailable("the network between them is cut")
        return result

    def loses_answer(self) -> bool:
        """Whether the next answer to a client gets lost."""
        lost = self._random.randrange(1000) < self.conditions.lose_answers
        if lost:
            self._trace.count("answer lost")
        return lost

    # Streams of executors.

    def open_pipe(self, client: Host, server_id: int) -> AttachPipe:
        """A stream from an executor to the node that leads.

        Raises:
            Unavailable: nobody listens there.
        """
        server = self.hosts.get(server_id)
        if server is None:
            raise Unavailable("nobody listens there")
        pipe = AttachPipe(self, client, server)
        self._pipes[pipe] = None
        server.process.start(lambda: server.serve_attach(pipe))
        return pipe

    def forget_pipe(self, pipe: AttachPipe) -> None:
        """Both ends know that it is over."""
        self._pipes.pop(pipe, None)


class _Call:
    def __init__(self, network: Network, host: Host, breaks_after_s: float | None) -> None:
        self._network = network
        self._breaks_after_s = breaks_after_s
        self.host = host
        self.on_broken: Callable[[], None] = lambda: None

    def answer(self, tell: Callable[[], None]) -> None:
        if self.host.process.fenced:
            return
        if not self._network.loses_answer():
            self._network.loop.call_later(self._network.delay_s(), tell, context=NOBODY)
        elif self._breaks_after_s is not None:
            self.broken(self._breaks_after_s)

    def broken(self, after_s: float) -> None:
        self._network.loop.call_later(after_s, self.on_broken, context=NOBODY)


class AttachPipe:
    """One Attach stream: ordered, whole until it breaks; what a cut swallows silences it until the cut is lifted."""

    def __init__(self, network: Network, client: Host, server: Host) -> None:
        self.client = client
        self.server = server
        self.swallowed = False
        self._network = network
        self._up = _Inbox[AttachUp]()
        self._down = _Inbox[AttachDown]()
        self._last_s = {True: 0.0, False: 0.0}

    # The executor's end (``raftd.executor.protocols.AttachStream``).

    async def send(self, message: AttachUp) -> None:
        if self._down.over:
            raise Unavailable("the stream is over")
        self._carry(True, lambda: self._up.put(message))

    async def receive(self) -> AttachDown | None:
        return await self._down.take()

    async def close(self) -> None:
        self._down.end(None)
        self._carry(True, lambda: self._up.end(None))
        self._network.forget_pipe(self)

    # The leader's end.

    def __aiter__(self) -> AttachPipe:
        return self

    async def __anext__(self) -> AttachUp:
        message = await self._up.take()
        if message is None:
            raise StopAsyncIteration
        return message

    async def write(self, message: AttachDown) -> None:
        self._carry(False, lambda: self._down.put(message))

    def refuse(self, error: RaftdError) -> None:
        """The leader has ended the stream, with this answer."""
        self._carry(False, lambda: self._down.end(error))

    # What happens to it.

    def fail(self, error: RaftdError) -> None:
        """The connection breaks; both ends are told."""
        self._network.forget_pipe(self)
        self.client.process.call_soon(self._down.end, error)
        self.server.process.call_soon(self._up.end, None)

    def end_lost(self, silently: bool) -> None:
        """One end is gone."""
        self._network.forget_pipe(self)
        if silently or self.swallowed:
            return
        after_s = self._network.delay_s()
        error = Unavailable("the connection broke")
        self.client.process.call_later(after_s, self._down.end, error)
        self.server.process.call_later(after_s, self._up.end, None)

    def _carry(self, up: bool, deliver: Callable[[], None]) -> None:
        sender, receiver = (self.client, self.server) if up else (self.server, self.client)
        if sender.process.fenced:
            return
        self.swallowed = self.swallowed or self._network.drops(sender.store_id, receiver.store_id)
        if self.swallowed:
            return
        when = max(self._network.loop.time() + self._network.delay_s(), self._last_s[up])
        self._last_s[up] = when
        self._network.loop.call_at(when, self._arrive, receiver, deliver, context=NOBODY)

    def _arrive(self, receiver: Host, deliver: Callable[[], None]) -> None:
        if not receiver.process.fenced:
            receiver.process.call_soon(deliver)


class _Inbox(Generic[T]):
    """What has arrived at one end of a stream."""

    def __init__(self) -> None:
        self.over = False
        self._messages: deque[T] = deque()
        self._error: RaftdError | None = None
        self._arrived = asyncio.Event()

    def put(self, message: T) -> None:
        if not self.over:
            self._messages.append(message)
            self._arrived.set()

    def end(self, error: RaftdError | None) -> None:
        if not self.over:
            self.over = True
            self._error = error
            self._arrived.set()

    async def take(self) -> T | None:
        while not self._messages:
            if self.over:
                if self._error is not None:
                    raise self._error
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()


def _setter(future: asyncio.Future[T], result: T | None, error: RaftdError | None) -> Callable[[], None]:
    def tell() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    return tell


def line_of(message: Message) -> str:
    """A message in a line of the trace."""
    way = f"{message.sender}>{message.receiver} t{message.term}"
    match message:
        case AppendEntries():
            what = "beat" if message.heartbeat else f"append +{len(message.entries)}"
            return (
                f"{way} {what} after {message.prev_log_index}/{message.prev_log_term} commit {message.leader_commit} "
                f"round {message.round}"
            )
        case AppendEntriesReply():
            if message.heartbeat:
                return f"{way} beat answered round {message.round}"
            if message.success:
                return f"{way} has {message.match_index}"
            return f"{way} refuses {message.reject_index} hint {message.hint_index}/{message.hint_term}"
        case RequestVote():
            kind = "pre-vote" if message.pre_vote else "vote"
            return f"{way} asks for a {kind} with {message.last_log_index}/{message.last_log_term}"
        case RequestVoteReply():
            kind = "pre-vote" if message.pre_vote else "vote"
            return f"{way} {'gives' if message.granted else 'denies'} a {kind}"
        case _:
            return f"{way} {message}"
