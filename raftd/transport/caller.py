"""Calls to other nodes besides Raft: forwarding, blobs and logs, each purpose on a connection of its own.

What may live here: the pool of channels, the fault checks of outgoing calls, and the translation of a failed call
into the error tree. Messages pass as bytes where this node only hands them on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum

import grpc

from raftd.errors import (
    DeadlinePassed,
    NotLeader,
    PayloadTooLarge,
    PeerUnreachable,
    RaftdError,
    Unavailable,
    UnknownFormat,
    from_code,
)
from raftd.transport.base import (
    CONNECT_TIMEOUT_MS,
    LocalNode,
    Metadata,
    RemoteNode,
    call_metadata,
    open_channel,
)
from raftd.transport.faults import FaultTable

ERROR_KEY = "raftd-error"
TRY_KEY = "raftd-try"
LEADER_KEY = "raftd-leader"
FORWARDED_KEY = "raftd-forwarded"
PEER_REFUSED_KEY = "raftd-peer-refused"
"""In the trailing metadata of a refusal that is of the calling node, before anybody has looked at what it asks."""

CONNECT_TIMEOUT_S = CONNECT_TIMEOUT_MS / 1000


class Purpose(StrEnum):
    """What a connection is for; bulk of one never delays another."""

    FORWARD = "forward"
    BLOBS = "blobs"
    LOGS = "logs"
    ATTACH = "attach"


_UNSAID: dict[grpc.StatusCode, type[RaftdError]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlinePassed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: PayloadTooLarge,
    grpc.StatusCode.UNIMPLEMENTED: UnknownFormat,
}
"""What statuses mean that gRPC made up by itself; all others: the node was not reached, or was lost meanwhile."""


class CallFailed(Exception):
    """A call to another node failed with this status; it can be passed on as it is.

    Attributes:
        code: the status.
        details: its message.
        trailing: the other node's own trailing metadata; empty where the failure is gRPC's.
    """

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.trailing = trailing

    @property
    def refused_us(self) -> bool:
        """Whether the other node takes no calls of this node at all."""
        return any(key == PEER_REFUSED_KEY for key, _ in self.trailing)

    def error_here(self, local: str, asked: str) -> RaftdError:
        """The same for a client of this node: where it is this node that does not belong, not what the client asks,
        another node can answer the client."""
        if self.refused_us:
            return Unavailable(
                f"{asked} takes no calls from {local}: {self.details}", try_="ask another node"
            )
        return self.error()

    def error(self) -> RaftdError:
        """The typed error that the other node meant."""
        pairs = dict(self.trailing)
        if ERROR_KEY not in pairs:
            return _UNSAID.get(self.code, PeerUnreachable)(self.details or self.code.name)
        error = from_code(pairs[ERROR_KEY], self.details, pairs.get(TRY_KEY, ""))
        if isinstance(error, NotLeader):
            error.leader, _, error.address = pairs.get(LEADER_KEY, "").partition("=")
        return error


def call_failed(error: grpc.aio.AioRpcError) -> CallFailed:
    """The same failure as plain data, with only our own trailing metadata."""
    return CallFailed(error.code(), error.details() or "", own_metadata(error.trailing_metadata() or ()))


def own_metadata(pairs: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """What is ours in the metadata of a call."""
    return tuple((str(key), str(value)) for key, value in pairs if str(key).startswith("raftd-"))


class Caller:
    """Calls other nodes.

    Args:
        local: this node.
        faults: which nodes are out of reach by injection.
    """

    def __init__(self, local: LocalNode, faults: FaultTable) -> None:
        self._local = local
        self._faults = faults
        self._channels: dict[tuple[Purpose, str], grpc.aio.Channel] = {}

    @property
    def local(self) -> LocalNode:
        """This node."""
        return self._local

    @property
    def faults(self) -> FaultTable:
        """The injected faults that outgoing calls heed."""
        return self._faults

    def channel(self, purpose: Purpose, address: str) -> grpc.aio.Channel:
        """The pooled channel of one purpose to one address."""
        key = (purpose, address)
        if key not in self._channels:
            self._channels[key] = open_channel(address)
        return self._channels[key]

    def metadata(self, remote: RemoteNode, *more: tuple[str, str]) -> Metadata:
        """What a call to ``remote`` carries."""
        return (*call_metadata(self._local, remote), *more)

    def check(self, remote: RemoteNode) -> None:
        """Refuse a call over an injected cut.

        Raises:
            PeerUnreachable: either direction is cut: the request or its answer would be lost.
        """
        if self._faults.drops_to(remote.name) or self._faults.drops_from(remote.name):
            raise PeerUnreachable(
                f"{self._local.name} cannot reach {remote.name}: the network between them is cut"
            )

    async def connect(self, remote: RemoteNode, purpose: Purpose, timeout: float) -> grpc.aio.Channel:
        """The channel to a node, connected.

        A call on a connected channel that fails may have been carried out; one whose channel could not be connected
        was not. Without this step the two could not be told apart.

        Raises:
            PeerUnreachable: an injected cut stands between, or nobody answers there; nothing was sent.
        """
        self.check(remote)
        channel = self.channel(purpose, remote.address)
        await self._until_connected(channel, remote, timeout)
        return channel

    @asynccontextmanager
    async def connection(self, remote: RemoteNode, timeout: float) -> AsyncIterator[grpc.aio.Channel]:
        """A connection of its own to a node, closed at the end: what broke on it does not meet the next try.

        Raises:
            PeerUnreachable: as ``connect``.
        """
        self.check(remote)
        channel = open_channel(remote.address)
        try:
            await self._until_connected(channel, remote, timeout)
            yield channel
        finally:
            await channel.close()

    async def _until_connected(self, channel: grpc.aio.Channel, remote: RemoteNode, timeout: float) -> None:
        try:
            async with asyncio.timeout(min(timeout, CONNECT_TIMEOUT_S)):
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in (
                        grpc.ChannelConnectivity.TRANSIENT_FAILURE,
                        grpc.ChannelConnectivity.SHUTDOWN,
                    ):
                        raise self._unreachable(remote)
                    await channel.wait_for_state_change(state)
        except (TimeoutError, grpc.aio.UsageError):
            raise self._unreachable(remote) from None

    def _unreachable(self, remote: RemoteNode) -> PeerUnreachable:
        return PeerUnreachable(f"{self._local.name} cannot reach {remote.name} at {remote.address}")

    async def unary(self, remote: RemoteNode, method: str, request: bytes, timeout: float) -> bytes:
        """Forward one call.

        Args:
            remote: the node to ask.
            method: the full method name, ``/raftd.v1.Scheduler/Submit``.
            request: the serialized request.
            timeout: seconds.

        Raises:
            PeerUnreachable: the node was not reached; nothing was sent.
            CallFailed: the other node refused, or was lost, or did not answer in time. An injected cut that came
                meanwhile is one of these, for the request has left.
        """
        channel = await self.connect(remote, Purpose.FORWARD, timeout)
        return await self._ask(channel, remote, method, request, timeout)

    async def unary_afresh(self, remote: RemoteNode, method: str, request: bytes, timeout: float) -> bytes:
        """The same on a connection of its own: a node that has just been started is met at once, though one that was
        tried in vain a moment ago would be waited for. Raises as ``unary`` does."""
        async with self.connection(remote, timeout) as channel:
            return await self._ask(channel, remote, method, request, timeout)

    async def _ask(
        self, channel: grpc.aio.Channel, remote: RemoteNode, method: str, request: bytes, timeout: float
    ) -> bytes:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            response = await ask(
                request, timeout=timeout, metadata=self.metadata(remote, (FORWARDED_KEY, self._local.name))
            )
        except grpc.aio.AioRpcError as error:
            raise call_failed(error) from None
        except grpc.aio.UsageError as error:
            raise CallFailed(grpc.StatusCode.CANCELLED, str(error)) from None
        self._check_answer(remote)
        return response

    async def stream(
        self, remote: RemoteNode, method: str, request: bytes, purpose: Purpose, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Forward one call that is answered by a stream; raises as ``unary`` does. A cut ends it."""
        channel = await self.connect(remote, purpose, CONNECT_TIMEOUT_S if timeout is None else timeout)
        ask: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        call = ask(
            request, timeout=timeout, metadata=self.metadata(remote, (FORWARDED_KEY, self._local.name))
        )
        try:
            async for response in call:
                self._check_answer(remote)
                yield response
        except grpc.aio.AioRpcError as error:
            raise call_failed(error) from None
        finally:
            call.cancel()

    def _check_answer(self, remote: RemoteNode) -> None:
        """An answer that comes over a cut is lost, but the request was not: that is no ``PeerUnreachable``."""
        try:
            self.check(remote)
        except PeerUnreachable as error:
            raise CallFailed(
                grpc.StatusCode.UNAVAILABLE, error.message, ((ERROR_KEY, PeerUnreachable.code),)
            ) from None

    async def close(self) -> None:
        """Close every channel."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()
