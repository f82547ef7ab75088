"""The leader's end of the Attach streams: one session an executor.

What may live here: who is attached, what each of them is told, and how what they report becomes commands. Nothing is
started from here that is not in the applied state: a session only carries what the state says its node should run.
Whatever an executor sends is bounded before it reaches the log: what the log refuses it would only send again.

An executor counts as attached only when it has answered the Welcome with a heartbeat: then both directions work.
Until then it is not registered and nothing is placed on it (docs/attach.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

from raftd.errors import (
    IncarnationLost,
    InvalidRequest,
    NameTaken,
    NoLeader,
    OldCopy,
    RaftdError,
    StoreRemoved,
    Unavailable,
    WrongIdentity,
    from_code,
)
from raftd.node import reports
from raftd.node.clock import Clock
from raftd.node.session import MESSAGE_BYTES, Session, assignment_bytes
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
from raftd.scheduler.commands import Command
from raftd.scheduler.effects import (
    Assigned,
    Effect,
    MembersChanged,
    NodeChange,
    NodeChanged,
    StopRequested,
)
from raftd.scheduler.model import FencingToken, Health
from raftd.scheduler.queries import assigned, assignment, assignments
from raftd.scheduler.replies import Refused, Reply
from raftd.scheduler.state import State

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 5.0
COMMIT_TIMEOUT_S = 30.0


class Consensus(Protocol):
    """What sessions need of the node's loop."""

    async def propose(
        self, commands: Sequence[Command], *, timeout: float, size_bytes: int = ...
    ) -> tuple[Reply, ...]:
        """See ``Node.propose``."""

    async def read_index(self, *, timeout: float) -> int:
        """See ``Node.read_index``."""


class Leases(Protocol):
    """The leader's lease book, as sessions use it."""

    @property
    def active(self) -> bool:
        """Whether this node leads."""

    @property
    def lease_ms(self) -> int:
        """The executors' lease."""

    @property
    def heartbeat_ms(self) -> int:
        """How often executors ask for renewal."""

    def given_up(self, name: str, incarnation: int) -> bool:
        """Whether the loss of this incarnation has been proposed."""

    def renew(self, name: str, incarnation: int, received_ms: int) -> bool:
        """A quorum round that began after the heartbeat's arrival succeeded; may the executor be told?"""

    def attached(self, names: frozenset[str]) -> None:
        """These nodes are attached: things may be placed on them."""


class Sessions:
    """All executors that are attached to this leader.

    Args:
        cluster_id: a Hello of another cluster is refused.
        leader_name: this node, for the Welcome.
        consensus: the node's loop.
        leases: the leader's leases.
        state: the applied state, read at the moment of need.
        clock: time.
    """

    def __init__(
        self,
        cluster_id: int,
        leader_name: str,
        consensus: Consensus,
        leases: Leases,
        state: Callable[[], State],
        clock: Clock,
    ) -> None:
        self._cluster_id = cluster_id
        self._leader_name = leader_name
        self._consensus = consensus
        self._leases = leases
        self._state = state
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._heard_ms: dict[str, int] = {}

    def session(self, name: str) -> Session | None:
        """The session of a node, or None."""
        return self._sessions.get(name)

    def silence_ms(self, name: str) -> int | None:
        """How long ago an executor was last heard; None where this leader has never heard it."""
        session = self._sessions.get(name)
        heard_ms = self._heard_ms.get(name) if session is None else session.last_heard_ms
        return None if heard_ms is None else self._clock.monotonic_ms() - heard_ms

    async def serve(
        self, incoming: AsyncIterator[AttachUp], write: Callable[[AttachDown], Awaitable[None]]
    ) -> None:
        """Run one stream until it ends.

        Raises:
            NoLeader: this node does not lead, or no longer.
            WrongIdentity: the executor is of another cluster, or its name belongs to another store.
            NameTaken: its name belongs to another worker.
            StoreRemoved: it was removed from the cluster.
            IncarnationLost: the executor must come back as a higher incarnation.
            OldCopy: it has, already: this is an old copy of its data directory.
            InvalidRequest: the stream does not begin with a Hello, or the Hello is none.
        """
        session = await self._open(incoming)
        name = session.hello.name
        reader = asyncio.create_task(self._read(session, incoming), name=f"attach {name}")
        writer = asyncio.create_task(self._write(session, write), name=f"attach {name}")
        try:
            # Not where the writing is: an executor that reads nothing would hold the stream, and this node's end.
            raise await session.ended()
        finally:
            for task in (reader, writer, *session.work):
                task.cancel()
            if self._sessions.get(name) is session:
                self._forget(name, session)
            self._tell_attached()

    def on_effects(self, _index: int, effects: Sequence[Effect]) -> None:
        """Carry what an applied entry means for attached executors to them."""
        if not self._sessions:
            return
        for effect in effects:
            match effect:
                case Assigned():
                    session = self._registered(effect.node, effect.incarnation)
                    if session is not None:
                        session.push(AttachDown(start=(assignment(effect.task),)))
                case StopRequested():
                    session = self._registered(effect.node, effect.incarnation)
                    if session is not None:
                        session.push(AttachDown(stop=(Stop(effect.token, effect.reason),)))
                case NodeChanged():
                    self._on_node(effect)
                case MembersChanged():
                    self._on_removed({member.store_id for member in effect.removed})

    def _on_removed(self, stores: set[int]) -> None:
        for session in self._sessions.values():
            if session.hello.store_id in stores:
                session.end(StoreRemoved(f"{session.hello.name} was removed from the cluster"))

    def end_all(self, error: RaftdError) -> None:
        """This node leads no more."""
        self._heard_ms.clear()
        for session in self._sessions.values():
            session.end(error)

    # --- one session --------------------------------------------------------------------------------------------

    async def _open(self, incoming: AsyncIterator[AttachUp]) -> Session:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(incoming)
        except (TimeoutError, StopAsyncIteration):
            raise InvalidRequest("an Attach stream begins with a Hello") from None
        hello = first.hello
        if hello is None:
            raise InvalidRequest("an Attach stream begins with a Hello")
        if not self._leases.active:
            raise NoLeader("this node does not lead")
        reports.check_hello(hello)
        self._check_identity(hello)
        session = Session(hello)
        before = self._sessions.get(hello.name)
        if before is not None:
            before.end(Unavailable("the executor has opened another stream"))
        self._sessions[hello.name] = session
        session.registered = self._is_registered(hello)
        session.last_heard_ms = self._clock.monotonic_ms()
        self._welcome(session)
        return session

    def _welcome(self, session: Session) -> None:
        """Say what it should be running; what does not fit into one message follows, and starts a moment later.

        Only what the executor runs must be in the Welcome itself, or it would be killed; of that the name is enough.
        """
        running = frozenset(session.hello.running)
        named: list[Assignment] = []
        following: list[Assignment] = []
        size = 0
        for wanted in self._desired(session):
            if wanted.token in running:
                named.append(replace(wanted, args=(), payload=b"", env={}))
                continue
            size += assignment_bytes(wanted)
            (named if size <= MESSAGE_BYTES else following).append(wanted)
        leases = self._leases
        welcome = Welcome(leases.lease_ms, leases.heartbeat_ms, tuple(named), self._leader_name)
        session.push(AttachDown(welcome=welcome))
        for wanted in following:
            session.push(AttachDown(start=(wanted,)))

    def _forget(self, name: str, session: Session) -> None:
        """The stream is over; when its executor was last heard stays known for as long as this node leads."""
        del self._sessions[name]
        if name in self._state().nodes and not isinstance(session.error, NoLeader):
            self._heard_ms[name] = session.last_heard_ms

    def _check_identity(self, hello: Hello) -> None:
        if hello.cluster_id != self._cluster_id:
            raise WrongIdentity(
                f"executor {hello.name} is of cluster {hello.cluster_id:016x}, this is cluster {self._cluster_id:016x}"
            )
        if hello.store_id in self._state().removed_stores:
            raise StoreRemoved(f"{hello.name}, store {hello.store_id:016x}, was removed from the cluster")
        # Here, and not only when it registers: its stream takes the place of the one that bears its name.
        for member in self._state().members:
            if (member.name == hello.name) != (member.store_id == hello.store_id):
                raise WrongIdentity(
                    f"the record has {member.name} with store {member.store_id:016x}, "
                    f"not {hello.name} with store {hello.store_id:016x}"
                )
        node = self._state().nodes.get(hello.name)
        if node is not None and node.store_id != hello.store_id and not _lost(node.health):
            raise NameTaken(
                f"the name {hello.name} belongs to store {node.store_id:016x}, not {hello.store_id:016x}",
                try_="give the new node another name",
            )
        same = node is not None and node.store_id == hello.store_id
        if node is not None and same and node.incarnation > hello.incarnation:
            raise OldCopy(
                f"this data directory is an old copy: the cluster knows incarnation {node.incarnation} of "
                f"{hello.name}, store {hello.store_id:016x}, which comes as incarnation {hello.incarnation}",
                try_="what it promised since is lost: remove the node, and let it join with a new directory",
            )
        if self._leases.given_up(hello.name, hello.incarnation) or (
            node is not None and same and node.incarnation == hello.incarnation and _lost(node.health)
        ):
            raise IncarnationLost(f"incarnation {hello.incarnation} of {hello.name} has been given up")

    def _is_registered(self, hello: Hello) -> bool:
        node = self._state().nodes.get(hello.name)
        return (
            node is not None
            and node.store_id == hello.store_id
            and node.incarnation == hello.incarnation
            and node.address == hello.address
            and node.slots == hello.slots
            and not _lost(node.health)
        )

    def _desired(self, session: Session) -> tuple[Assignment, ...]:
        return assignments(self._state(), session.hello.name) if session.registered else ()

    async def _read(self, session: Session, incoming: AsyncIterator[AttachUp]) -> None:
        """Take what the executor says until its stream ends."""
        try:
            async for message in incoming:
                session.last_heard_ms = received_ms = self._clock.monotonic_ms()
                if not session.confirmed:
                    if not session.registered:
                        await self._register(session)
                    session.confirmed = True
                    session.leaving = message.leaving
                    self._tell_attached()
                elif message.leaving and not session.leaving:
                    session.leaving = True
                    self._tell_attached()
                if message.ended:
                    self._spawn(session, self._record(session, message.ended))
                if message.heartbeat is not None:
                    self._spawn(session, self._renew(session, message.heartbeat, received_ms))
                await session.room()
            session.end(Unavailable("the executor has closed its stream"))
        except Exception as error:
            self._fail(session, error)

    async def _write(self, session: Session, write: Callable[[AttachDown], Awaitable[None]]) -> None:
        """Tell the executor what there is to tell."""
        try:
            while (message := await session.next()) is not None:
                await write(message)
        except Exception as error:
            self._fail(session, error)

    def _fail(self, session: Session, error: BaseException) -> None:
        """End a session by a failure; one that nobody foresaw is logged, and no more than that ends with it."""
        if isinstance(error, RaftdError):
            session.end(error)
            return
        log.error("attach %s", session.hello.name, exc_info=error)
        session.end(Unavailable(f"the stream to {session.hello.name} failed: {type(error).__name__}"))

    async def _register(self, session: Session) -> None:
        command = reports.registration(session.hello)
        (reply,) = await self._consensus.propose((command,), timeout=COMMIT_TIMEOUT_S)
        if isinstance(reply, Refused):
            raise from_code(reply.code, reply.message, reply.try_)

    async def _record(self, session: Session, ended: tuple[AttemptEnded, ...]) -> None:
        """Put the ends of attempts into the record; an end that is refused (stale) is over as well."""
        limit = self._state().settings.max_inline_result_bytes
        for part, size in reports.entries([reports.vacate(end, limit) for end in ended]):
            replies = await self._consensus.propose(part, timeout=COMMIT_TIMEOUT_S, size_bytes=size)
            for end, reply in zip(part, replies, strict=True):
                session.progress.pop(end.token, None)
                if isinstance(reply, Refused):
                    log.info(
                        "end of t%d attempt %d (%s) refused: %s",
                        end.task_id,
                        end.attempt,
                        end.token,
                        reply.message,
                    )
            session.push(AttachDown(recorded=tuple(end.token for end in part)))

    async def _renew(self, session: Session, heartbeat: Heartbeat, received_ms: int) -> None:
        """Renew only after a quorum round that began after the heartbeat had arrived."""
        session.progressed(self._running(session.hello.name), heartbeat.progress)
        # This node's own leadership must be confirmed, and not only that somebody leads.
        await self._consensus.read_index(timeout=self._leases.lease_ms / 1000)
        if self._leases.renew(session.hello.name, session.hello.incarnation, received_ms):
            session.push(AttachDown(renewal=Renewal(heartbeat.sequence)))

    def _spawn(self, session: Session, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        session.work.add(task)

        def over(done: asyncio.Task[None]) -> None:
            session.work.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._fail(session, error)

        task.add_done_callback(over)

    # --- the state's side ---------------------------------------------------------------------------------------

    def _on_node(self, effect: NodeChanged) -> None:
        session = self._sessions.get(effect.node.name)
        if session is None:
            return
        incarnation = session.hello.incarnation
        if effect.change is NodeChange.LOST or effect.node.incarnation > incarnation:
            session.end(IncarnationLost(f"incarnation {incarnation} of {effect.node.name} has been given up"))
        elif effect.node.incarnation == incarnation:
            session.registered = True

    def _registered(self, name: str, incarnation: int) -> Session | None:
        session = self._sessions.get(name)
        if session is not None and session.registered and session.hello.incarnation == incarnation:
            return session
        return None

    def _tell_attached(self) -> None:
        self._leases.attached(frozenset(name for name, session in self._sessions.items() if session.attached))

    def _running(self, name: str) -> frozenset[FencingToken]:
        """The attempts that the record has on a node; one that waits for its turn may have begun there."""
        state = self._state()
        node = state.nodes.get(name)
        tasks = () if node is None else assigned(node)
        return frozenset(state.tasks[task].attempts[-1].token for task in tasks)


def _lost(health: Health) -> bool:
    return health is Health.LOST
