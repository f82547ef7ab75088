"""Who may call: the cluster's token for everybody, and for other nodes their identity and the injected cuts.

What may live here: interceptors that look at a call's metadata before its handler does. A call from another node is
one that carries ``raftd-from``; a client carries none, is not asked for more than the token, and is never cut off.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import grpc

from raftd.errors import PeerUnreachable, RaftdError, StoreRemoved, Unauthenticated, WrongIdentity
from raftd.services.identity import Identity, Stores
from raftd.services.status import Context, abort_with
from raftd.transport.base import LocalNode, caller_identity
from raftd.transport.caller import PEER_REFUSED_KEY
from raftd.transport.faults import FaultTable

PeerHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[PeerHandler]]"

OPEN_SERVICES = ("/grpc.health.v1.", "/grpc.reflection.")
"""Served without a token: they tell nothing but whether this node serves, and which methods there are."""

RAFT_STREAM = "/raftd.v1.Consensus/Stream"
"""Its handler drops what is cut, message by message: Raft repeats, and a stream that stays needs no redialling."""


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Asks every call for the cluster's token.

    Args:
        token: what calls must carry as ``authorization: Bearer ...``; empty: nothing is asked for.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode() if token else b""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> PeerHandler:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None or not self._expected or handler_call_details.method.startswith(OPEN_SERVICES):
            return handler
        given = _authorization(handler_call_details.invocation_metadata)
        # Takes the same time wherever the first difference is.
        if hmac.compare_digest(given, self._expected):
            return handler
        what = "a wrong token" if given else "no token"
        try_ = "give the client this cluster's token (raftd run --token-file)"
        return _refusing(handler, Unauthenticated(f"the call carries {what}", try_=try_))


class PeerInterceptor(grpc.aio.ServerInterceptor):
    """Refuses other nodes that are not meant for this one, or that an injected cut keeps from it.

    Args:
        local: this node.
        faults: the cuts in force.
        stores: the members and the stores that were removed.
    """

    def __init__(self, local: LocalNode, faults: FaultTable, stores: Stores) -> None:
        self._local = local
        self._faults = faults
        self._identity = Identity(local, stores)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> PeerHandler:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        sender = caller_identity(handler_call_details.invocation_metadata)
        if handler is None or not sender.name:
            return handler
        try:
            self._identity.check(sender, means_store=False)
        except (WrongIdentity, StoreRemoved) as error:
            # Of the node that calls, not of what it asks for: a client whose call it passes on must see the difference.
            return _refusing(handler, error, (PEER_REFUSED_KEY, "1"))
        if handler_call_details.method == RAFT_STREAM:
            return handler
        if self._faults.drops_from(sender.name):
            return _refusing(handler, self._cut(sender.name))
        return self._guarded(handler, sender.name)

    def _cut(self, peer: str) -> PeerUnreachable:
        return PeerUnreachable(f"{self._local.name} cannot reach {peer}: the network between them is cut")

    def _guarded(self, handler: grpc.RpcMethodHandler[Any, Any], peer: str) -> PeerHandler:
        """What is lost on the way back over a cut. A stream in both directions has a StreamGuard in its handler."""

        async def frames(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async for request in requests:
                if self._faults.drops_from(peer):
                    await abort_with(context, self._cut(peer))
                yield request

        async def unary(request: Any, context: Context) -> Any:
            if handler.request_streaming:
                request = frames(request, context)
            response = await _behaviour(handler)(request, context)
            if self._faults.drops_to(peer):
                await abort_with(context, self._cut(peer))
            return response

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async for response in _behaviour(handler)(request, context):
                if self._faults.drops_to(peer):
                    await abort_with(context, self._cut(peer))
                yield response

        if not handler.response_streaming:
            return _like(handler, unary)
        return handler if handler.request_streaming else _like(handler, stream)


def _authorization(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    for key, value in metadata:
        if key == "authorization":
            return value if isinstance(value, bytes) else value.encode()
    return b""


def _behaviour(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[..., Any]:
    behaviour: Callable[..., Any] | None = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    assert behaviour is not None, "gRPC sets the one that the two flags name"
    return behaviour


def _like(
    handler: grpc.RpcMethodHandler[Any, Any], behaviour: Callable[..., Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same shape that behaves like this."""
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _refusing(
    handler: grpc.RpcMethodHandler[Any, Any], error: RaftdError, *more: tuple[str, str]
) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: Any, context: Context) -> None:
        await abort_with(context, error, more=more)

    return _like(handler, refuse)
