"""`Caller`: calling Python functions on the cluster, the same for every face.

What may live here: what a call is made of, and waiting for many. To call never waits: a call is a `Future` at once,
whether there is an event loop or not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import fields, replace
from typing import Any, ParamSpec, TypeVar

from raftctl.client import futures as waiting
from raftctl.client import pickling
from raftctl.client.calls import Call, Calls
from raftctl.client.futures import Future
from raftctl.client.models import Submission
from raftctl.client.request_ids import new_request_id

P = ParamSpec("P")
T = TypeVar("T")

_NO_OPTIONS = frozenset({"kind", "args", "payload", "array", "request_id"})
"""What a call decides itself."""

PLAIN = Submission(pickling.KIND, args=(pickling.VERSION,))


class Caller:
    """Calls functions on the cluster, on nodes that allow the kind ``python``."""

    def __init__(self, calls: Calls, template: Submission = PLAIN) -> None:
        self._calls = calls
        self._template = template

    @property
    def calls(self) -> Calls:
        """Every call of this client; for what is built on it."""
        return self._calls

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs ``fn(*args, **kwargs)`` on the cluster; returns its future at once.

        The function and its arguments are pickled here and now, with cloudpickle: lambdas, closures and what the
        main program defines travel with the call; what a module defines is imported there. The nodes need the same
        minor version of Python. A function may run more than once when its node is lost; its outcome counts once.

        An error of any kind, also one in pickling, is the future's.
        """
        call = self.prepare(fn, args, kwargs)
        self.send(call)
        return call.future

    def map(self, fn: Callable[..., T], /, *iterables: Iterable[Any]) -> list[Future[T]]:
        """`call` for every tuple of `iterables` taken side by side: a list of futures, in that order."""
        return [self.call(fn, *row) for row in zip(*iterables, strict=False)]

    def with_options(self, **options: Any) -> Caller:
        """The same cluster and client, whose calls are submitted with these fields of a `Submission`.

        For example ``client.with_options(retries=3, priority=5).map(fn, xs)``.

        Raises:
            TypeError: a submission has no such field, or a call decides it itself.
        """
        known = {field.name for field in fields(Submission)} - _NO_OPTIONS
        for name in options.keys() - known:
            raise TypeError(f"{name!r} is no option of a call; there are {', '.join(sorted(known))}")
        return Caller(self._calls, replace(self._template, **options))

    def prepare(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """A call that has not been sent; if it cannot be pickled, one that has failed."""
        if not callable(fn):
            raise TypeError(f"{fn!r} cannot be called")
        call = Call(Future[T](), replace(self._template, request_id=new_request_id()))
        try:
            payload = pickling.dump_call(fn, args, kwargs)
        except Exception as error:  # whatever the objects' own code raises
            call.future.set_exception(error)
        else:
            call.submission = replace(call.submission, payload=payload)
        return call

    def send(self, call: Call) -> None:
        """Sends what `prepare` made."""
        if not call.future.done():
            self._calls.start(call)


class AsyncCaller(Caller):
    """Waiting for calls, as coroutines. One future is awaited by itself: ``await client.call(fn)``."""

    async def gather(
        self,
        futures: Iterable[Future[Any]],
        *,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """What the calls returned, in the order of `futures`.

        Args:
            return_exceptions: puts what a call raised into its place; else the first that raises is raised, at once.

        Raises:
            WaitTimedOut: not all have ended within `timeout_s`; they go on.
        """
        return await waiting.gather(futures, return_exceptions=return_exceptions, timeout_s=timeout_s)

    def as_completed(
        self, futures: Iterable[Future[T]], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Future[T], None]:
        """Each of the futures once, as it ends.

        Raises:
            WaitTimedOut: not all have ended within `timeout_s`; they go on.
        """
        return waiting.completed(futures, timeout_s)
