"""Calls to other nodes besides Raft: forwarding, blobs and logs, each purpose on a connection of its own.

What may live here: the pool of channels, the fault checks of outgoing calls, and the translation of a failed call
into the error tree. Messages pass as bytes where this node only hands them on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

import grpc

from raftd.errors import PeerUnreachable, RaftdError, from_code
from raftd.transport.base import LocalNode, Metadata, RemoteNode, call_metadata, open_channel
from raftd.transport.faults import FaultTable

ERROR_KEY = "raftd-error"
TRY_KEY = "raftd-try"
LEADER_KEY = "raftd-leader"
FORWARDED_KEY = "raftd-forwarded"


class Purpose(StrEnum):
    """What a connection is for; bulk of one never delays another."""

    FORWARD = "forward"
    BLOBS = "blobs"
    LOGS = "logs"
    ATTACH = "attach"


@dataclass(frozen=True, slots=True)
class CallFailed(Exception):
    """A call to another node failed with this status; it can be passed on as it is."""

    code: grpc.StatusCode
    details: str
    trailing: Metadata

    def error(self) -> RaftdError:
        """The typed error that the other node meant."""
        pairs = dict(self.trailing)
        if ERROR_KEY in pairs:
            return from_code(pairs[ERROR_KEY], self.details, pairs.get(TRY_KEY, ""))
        return PeerUnreachable(self.details or self.code.name)


def call_failed(error: grpc.aio.AioRpcError) -> CallFailed:
    """The same failure as plain data, with only our own trailing metadata."""
    trailing = tuple(
        (str(key), str(value)) for key, value in error.trailing_metadata() if str(key).startswith("raftd-")
    )
    return CallFailed(error.code(), error.details() or "", trailing)


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
            raise PeerUnreachable(f"{self._local.name} cannot reach {remote.name}: the network between them is cut")

    async def unary(self, remote: RemoteNode, method: str, request: bytes, timeout: float) -> bytes:
        """Forward one call.

        Args:
            remote: the node to ask.
            method: the full method name, ``/raftd.v1.Scheduler/Submit``.
            request: the serialized request.
            timeout: seconds.

        Raises:
            PeerUnreachable: an injected cut stands between.
            CallFailed: the other node refused, or was not reached in time.
        """
        self.check(remote)
        call = self.channel(Purpose.FORWARD, remote.address).unary_unary(method)
        try:
            response: bytes = await call(
                request, timeout=timeout, metadata=self.metadata(remote, (FORWARDED_KEY, self._local.name))
            )
        except grpc.aio.AioRpcError as error:
            raise call_failed(error) from None
        self.check(remote)
        return response

    async def stream(
        self, remote: RemoteNode, method: str, request: bytes, purpose: Purpose, timeout: float | None
    ) -> AsyncIterator[bytes]:
        """Forward one call that is answered by a stream; raises as ``unary`` does."""
        self.check(remote)
        call = self.channel(purpose, remote.address).unary_stream(method)(
            request, timeout=timeout, metadata=self.metadata(remote, (FORWARDED_KEY, self._local.name))
        )
        try:
            async for response in call:
                self.check(remote)
                yield response
        except grpc.aio.AioRpcError as error:
            raise call_failed(error) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close every channel."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()
