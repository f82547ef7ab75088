"""Calls that only the leader can answer, asked of any node: answered here, or taken to the leader, one hop.

What may live here: where a call goes, for how long it is tried, and when it may be tried again. The rule: another try
is made only where it is certain that nothing has happened yet. The leader was never reached, or it says itself that it
does not lead. A connection that broke, or an answer that did not come, after the request had left says nothing of the
kind: that is ``OutcomeUnknown`` for the caller, who asks again under the same request id. Reads may always be repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from typing import Protocol, TypeVar, cast

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from raftd.errors import (
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    PeerUnreachable,
    RaftdError,
    ShuttingDown,
)
from raftd.services.status import Context, leader_pair, remaining_s
from raftd.transport.base import RemoteNode
from raftd.transport.caller import ERROR_KEY, FORWARDED_KEY, Caller, CallFailed, Purpose

log = logging.getLogger(__name__)

Response = TypeVar("Response", bound=Message)

LEADER_WAIT_S = 5.0
"""A call waits at most so long for a leader to be known and to take it."""

RETRY_PAUSE_S = 0.1
"""Between tries at a leader that is not ready, unless the leader changes before."""

NOTHING_HAPPENED = frozenset({NoLeader.code, NotLeader.code, ShuttingDown.code})
"""A leader that answers with one of these has not appended anything."""

_NO_ANSWER = frozenset({
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
})  # fmt: skip
"""Statuses that gRPC makes up where the other end did not speak."""


class Leadership(Protocol):
    """Who leads, as the node's loop knows it."""

    @property
    def leads(self) -> bool:
        """Whether this node leads and may serve."""

    @property
    def leader(self) -> int:
        """The leader's store id, 0 for nobody."""

    async def leader_changed(self) -> None:
        """Return when either has changed."""


class _TryAgainError(Exception):
    """Nothing has happened, so it may be tried again; carries why."""

    def __init__(self, error: RaftdError) -> None:
        super().__init__(error.message)
        self.error = error


class Forwarder:
    """Takes calls to the leader.

    Args:
        node: who leads.
        remote: the node of a store id; None for this node itself and for a store that is not known.
        caller: the way to other nodes.
    """

    def __init__(self, node: Leadership, remote: Callable[[int], RemoteNode | None], caller: Caller) -> None:
        self._node = node
        self._remote = remote
        self._caller = caller

    def leader(self) -> RemoteNode | None:
        """The other node that leads; None while nobody is known to, or while this node does."""
        return self._remote(self._node.leader) if self._node.leader else None

    async def leader_or_forward(
        self,
        method: str,
        request: Message,
        context: Context,
        local: Callable[[], Awaitable[Response]],
        *,
        repeatable: bool = False,
        unknown_try: str = "retry under the same request id",
    ) -> Response:
        """Answer a call here if this node leads, else have the leader answer it.

        Args:
            method: full name, ``/raftd.v1.Scheduler/Submit``.
            request: as it came, or completed.
            context: of the call; its deadline holds for all of it.
            local: answers it on the leader.
            repeatable: it may be asked again even if it may have been answered already (reads).
            unknown_try: what a caller should do who is told that the outcome is unknown.

        Raises:
            NotLeader: the call was forwarded to this node already, and it does not lead; carries the leader.
            NoLeader: no leader was known in time.
            OutcomeUnknown: the leader was lost after it had been asked.
            Unavailable: the leader takes no calls from this node, which is not of its cluster any more.
            DeadlinePassed: the caller's deadline has passed.
            CallFailed: the leader's own answer, passed on as it is.
            RaftdError: whatever ``local`` raises.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(remaining_s(context), LEADER_WAIT_S)
        forwarded = was_forwarded(context)
        failure: RaftdError = NoLeader(
            "no leader is known to this node", try_="wait for an election, or start more nodes"
        )
        while True:
            try:
                if self._node.leads:
                    return await self._local(local)
                leader = self.leader()
                if leader is not None and forwarded:
                    raise _not_leader(self._caller.local.name, leader)
                if leader is not None:
                    try:
                        # What the method answers with is what ``local`` answers with: both serve the same rpc.
                        return cast("Response", await self._forward(method, request, context, leader))
                    except CallFailed as failed:
                        self._judge(failed, leader, repeatable, unknown_try)
                        raise
            except _TryAgainError as again:
                failure = again.error
                if forwarded:
                    raise failure from None
                pause = min(RETRY_PAUSE_S, give_up - loop.time())
            else:
                pause = give_up - loop.time()
            if pause <= 0:
                raise failure
            await self._leader_changed(pause)

    async def stream_from_leader(
        self, method: str, request: Message, purpose: Purpose, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Have the leader answer a call that is answered by a stream; tried once.

        Raises:
            NoLeader: no other node is known to lead.
            PeerUnreachable: the leader was not reached.
            CallFailed: its own answer.
        """
        leader = self.leader()
        if leader is None:
            raise NoLeader(
                "no leader is known to this node", try_="wait for an election, or start more nodes"
            )
        stream = self._caller.stream(leader, method, request.SerializeToString(), purpose, timeout_s)
        async with aclosing(stream) as responses:
            async for response in responses:
                yield response

    async def _local(self, local: Callable[[], Awaitable[Response]]) -> Response:
        try:
            return await local()
        except (NotLeader, NoLeader) as error:
            raise _TryAgainError(error) from None

    async def _forward(self, method: str, request: Message, context: Context, leader: RemoteNode) -> Message:
        try:
            answer = await self._caller.unary(
                leader, method, request.SerializeToString(), remaining_s(context)
            )
        except PeerUnreachable as error:
            raise _TryAgainError(error) from None
        # The next call of this client can go straight to the leader.
        context.set_trailing_metadata((leader_pair(leader),))
        return _response_type(method).FromString(answer)

    def _judge(self, failed: CallFailed, leader: RemoteNode, repeatable: bool, unknown_try: str) -> None:
        """Return where the failure is the leader's own answer; raise what it means where it is not."""
        if failed.refused_us:
            raise failed.error_here(self._caller.local.name, leader.name) from None
        code = dict(failed.trailing).get(ERROR_KEY)
        if code in NOTHING_HAPPENED:
            raise _TryAgainError(failed.error()) from None
        lost = code == PeerUnreachable.code or (code is None and failed.code in _NO_ANSWER)
        if lost and repeatable:
            raise _TryAgainError(failed.error()) from None
        if lost:
            raise OutcomeUnknown(
                f"the leader {leader.name} was lost before it answered: {failed.details}",
                try_=unknown_try,
            ) from None

    async def read_here(self, context: Context, read: Callable[[float], Awaitable[Response]]) -> Response:
        """Have this node answer a read, leader or not; where no leader can be asked for an index yet, wait for one.

        Args:
            context: of the call; its deadline holds for all of it.
            read: answers it, given the seconds that are left; it raises what ``Node.read`` raises.

        Raises:
            NoLeader, NotLeader, PeerUnreachable: no leader confirmed it in time.
            Unavailable: the leader takes no calls from this node.
            RaftdError: whatever ``read`` raises.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(remaining_s(context), LEADER_WAIT_S)
        while True:
            try:
                return await self._read_under_one_leader(read, remaining_s(context))
            except (NoLeader, NotLeader, PeerUnreachable, ShuttingDown):
                if was_forwarded(context) or (pause := min(RETRY_PAUSE_S, give_up - loop.time())) <= 0:
                    raise
            await self._leader_changed(pause)

    async def _read_under_one_leader(
        self, read: Callable[[float], Awaitable[Response]], timeout_s: float
    ) -> Response:
        """A leader that was asked for an index and stands still would be waited for until the caller gives up, though
        another leads by now: the read is given up when that is known, and may be tried again."""
        if self._node.leads:
            return await read(timeout_s)
        changed = asyncio.ensure_future(self._node.leader_changed())
        reading = asyncio.ensure_future(read(timeout_s))
        try:
            await asyncio.wait((changed, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
        finally:
            changed.cancel()
            reading.cancel()
        raise NotLeader("the leader changed before it confirmed the read", try_="try again")

    async def _leader_changed(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._node.leader_changed()
        except TimeoutError:
            return


def was_forwarded(context: Context) -> bool:
    """Whether another node has passed this call on: it must not be passed on again."""
    return any(key == FORWARDED_KEY for key, _ in context.invocation_metadata() or ())


def _not_leader(local: str, leader: RemoteNode) -> NotLeader:
    return NotLeader(
        f"{local} does not lead; {leader.name} does",
        try_=f"ask {leader.name} at {leader.address}",
        leader=leader.name,
        address=leader.address,
    )


@cache
def _response_type(method: str) -> type[Message]:
    """The message that a method answers with."""
    name = method.removeprefix("/").replace("/", ".")
    descriptor = descriptor_pool.Default().FindMethodByName(name)
    answer: type[Message] = message_factory.GetMessageClass(descriptor.output_type)
    return answer
