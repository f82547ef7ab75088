"""Between the error tree and gRPC: the status and the metadata that a failure travels as, and the time that is left.

What may live here: the table of status codes, and the wrapper that every handler of every service wears. The status
code is for clients that know nothing of us; ours read the code of ``raftd.errors`` in ``raftd-error``.

``OutcomeUnknown`` is ABORTED and not UNAVAILABLE on purpose: generic clients repeat UNAVAILABLE by themselves, and this
one may only be repeated under the same request id.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Never, TypeAlias, TypeVar

import grpc

from raftd import errors
from raftd.scheduler.replies import Refused
from raftd.storage.errors import StorageFull
from raftd.transport.base import Metadata, RemoteNode
from raftd.transport.caller import ERROR_KEY, LEADER_KEY, TRY_KEY, CallFailed, call_failed

log = logging.getLogger(__name__)

_MISUSE = (grpc.aio.UsageError, grpc.aio.InternalError)
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])

DEFAULT_DEADLINE_S = 10.0
"""For a caller that names none."""

ANSWER_MARGIN_S = 0.25
"""Work ends this much before the caller's deadline (or a tenth, if that is less), so that our answer still arrives.
Another hundredth goes for gRPC, which rounds the timeouts that it sends upwards."""

MAX_TEXT = 1024
"""Of each text in a status: HTTP/2 headers are limited to a few KiB in all."""

STATUS_CODES: dict[type[errors.RaftdError], grpc.StatusCode] = {
    errors.RaftdError: grpc.StatusCode.UNKNOWN,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.OutcomeUnknown: grpc.StatusCode.ABORTED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,  # not at once: generic clients repeat UNAVAILABLE
    errors.Rejected: grpc.StatusCode.FAILED_PRECONDITION,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyUncommitted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RequestIdConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.Refused: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.StorageError: grpc.StatusCode.INTERNAL,
    errors.UnknownFormat: grpc.StatusCode.UNIMPLEMENTED,
}
"""By class; a class that is not named has the status of its nearest ancestor."""


def status_code(error: errors.RaftdError) -> grpc.StatusCode:
    """The gRPC status that an error travels as."""
    return next(STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES)


def leader_pair(leader: RemoteNode) -> tuple[str, str]:
    """The trailing metadata that names the leader."""
    return LEADER_KEY, _header_text(f"{leader.name}={leader.address}")


def trailing_metadata(error: errors.RaftdError, leader: RemoteNode | None = None) -> Metadata:
    """What goes with the status: the error's code, what to try, and who leads where that is known."""
    pairs = [(ERROR_KEY, error.code)]
    if error.try_:
        pairs.append((TRY_KEY, _header_text(error.try_)))
    if leader is None and isinstance(error, errors.NotLeader) and error.address:
        leader = RemoteNode(error.leader, 0, error.address)
    if leader is not None:
        pairs.append(leader_pair(leader))
    return tuple(pairs)


async def abort_with(
    context: Context, error: errors.RaftdError, leader: RemoteNode | None = None, *, more: Metadata = ()
) -> Never:
    """End a call with the status of ``error``, and ``more`` of our trailing metadata; never returns."""
    if isinstance(error, StorageFull):
        error = errors.DiskFull(error.message, try_=error.try_)  # which every client knows
    details = error.message if len(error.message) <= MAX_TEXT else error.message[: MAX_TEXT - 3] + "..."
    await context.abort(status_code(error), details, (*trailing_metadata(error, leader), *more))


def served(handler: Handler) -> Handler:
    """Wrap a handler, unary or streaming, so that every failure leaves it as a status.

    A ``RaftdError`` gets its own status; a call to another node that failed passes as it came; anything else is a bug
    of ours: it is logged with its traceback here, and the client is told no more than that.
    """
    wrapped: Callable[..., Any]
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def wrapped(self: Any, request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in handler(self, request, context):
                    yield response
            except Exception as error:
                await _end(context, error)

    else:

        @functools.wraps(handler)
        async def wrapped(self: Any, request: Any, context: Context) -> Any:
            try:
                return await handler(self, request, context)
            except Exception as error:
                await _end(context, error)

    return wrapped  # type: ignore[return-value]  # the same signature, by functools.wraps


async def _end(context: Context, error: Exception) -> Never:
    if isinstance(error, grpc.aio.BaseError) and not isinstance(error, _MISUSE):
        # It has ended already: by its handler, or because the server has stopped meanwhile, for which gRPC has an error
        # of its own.
        raise error
    if isinstance(error, grpc.aio.AioRpcError):
        error = call_failed(error)
    if isinstance(error, CallFailed):
        await context.abort(error.code, error.details, error.trailing)
    if isinstance(error, errors.RaftdError):
        await abort_with(context, error)
    log.error("a handler failed", exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, "this node failed in a way that is not foreseen; its log says more"
    )


def refuse(error: errors.RaftdError) -> Refused:
    """The same refusal as one item of a batch that is answered item by item."""
    return Refused(error.code, error.message, error.try_, error.retryable)


class OwnCall:
    """The context of a call that this node makes for itself: what passing calls on needs of one."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s

    def time_remaining(self) -> float:
        """Seconds until nobody waits any more."""
        return self._ends - time.monotonic()

    def invocation_metadata(self) -> None:
        """It came from nobody."""

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Nobody reads who leads."""


def remaining_s(context: Context, default_s: float = DEFAULT_DEADLINE_S) -> float:
    """Seconds that work for this call may take: less than the caller waits, so that the answer still arrives.

    Args:
        context: of the call.
        default_s: for a caller that named no deadline.

    Raises:
        DeadlinePassed: nobody waits for the answer any more.
    """
    # None where the caller set no deadline, whatever the stubs say.
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return default_s
    if remaining <= 0:
        raise errors.DeadlinePassed("the deadline passed before this node could begin")
    return remaining - min(ANSWER_MARGIN_S + remaining / 100, remaining / 10)


def _header_text(text: str) -> str:
    """Text that may stand in a header: printable ASCII, not too long."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return plain[:MAX_TEXT]
