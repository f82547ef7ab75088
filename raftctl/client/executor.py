"""`RaftExecutor`: a ``concurrent.futures.Executor`` whose workers are the slots of a cluster.

What may live here: what the standard library's executors promise beyond a future: shutting down, chunks, and waiting
for what is under way when the interpreter ends. The rest is the client's.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

from raftctl.client.calls import MAX_IN_FLIGHT, PATIENCE_S
from raftctl.client.errors import ClusterLost
from raftctl.client.futures import Future
from raftctl.client.pickling import call_each
from raftctl.client.sync_client import Client
from raftctl.endpoints import Endpoints

P = ParamSpec("P")
T = TypeVar("T")


class RaftExecutor(concurrent.futures.Executor):
    """Runs calls on a cluster, on nodes that allow the kind ``python``.

    What was written for ``ProcessPoolExecutor`` runs on it unchanged. As there, functions, arguments and results are
    pickled (with cloudpickle: lambdas work, too), an exception comes back with its remote traceback as its cause, a
    call that has begun can no more be cancelled, and the interpreter waits at its end for what is under way. Other
    than there, a call survives the process that runs it: when a node is lost, another takes over, and the
    executor is broken only when no node has answered for `patience_s`.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        max_workers: int | None = None,
        *,
        patience_s: float = PATIENCE_S,
        **options: Any,
    ) -> None:
        """Connects when the first call is submitted.

        Args:
            max_workers: how many of its calls may be in the cluster at a time; None for as many as its slots take.
            patience_s: how long nobody may answer before it is broken.
            options: fields of the `Submission` that each call becomes, such as ``priority`` and ``retries``.

        Raises:
            ValueError: `max_workers` is not positive.
            TypeError: a submission has no such field.
        """
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._pool = _Pool(endpoints, max_workers or MAX_IN_FLIGHT, patience_s, options)
        # An executor that nobody holds any more takes no more calls; those under way still end.
        weakref.finalize(self, self._pool.shut_down).atexit = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Runs ``fn(*args, **kwargs)`` on the cluster; returns its future, a `raftctl.Future`, at once.

        Raises:
            ClusterLost: no node has answered for a long time; a ``concurrent.futures.BrokenExecutor``.
            RuntimeError: the executor has been shut down, or the interpreter is ending.
        """
        return self._pool.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **further: Any,
    ) -> Iterator[T]:
        """Like ``map(fn, *iterables)``, on the cluster; what it returns comes in the order of the arguments.

        Args:
            timeout: seconds from this call until the last result must have been fetched.
            chunksize: so many calls make one task; with short ones and many, that is faster.
            further: what later versions of Python add to ``Executor.map``.

        Raises:
            TimeoutError: when fetching a result that has not come in time.
            ValueError: `chunksize` is not positive.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **further)
        chunks = _chunks(chunksize, iterables)
        lists = super().map(call_each, itertools.repeat(fn), chunks, timeout=timeout, **further)
        return _chain(lists)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls.

        Args:
            wait: returns when every call has ended; else they go on all the same, and are waited for at the
                interpreter's end.
            cancel_futures: cancels those that have not begun.
        """
        self._pool.shut_down(cancel_futures=cancel_futures)
        if wait:
            self._pool.wait()


class _Pool:
    """What an executor is, without being it: what is under way must not keep the executor from being let go."""

    def __init__(
        self, endpoints: Endpoints, max_in_flight: int, patience_s: float, options: dict[str, Any]
    ) -> None:
        self._client = Client(endpoints, patience_s=patience_s, max_in_flight=max_in_flight)
        try:
            self._caller = self._client.with_options(**options)
        except TypeError:
            self._client.close()
            raise
        self._client.calls.on_lost = self._break
        self._changed = threading.Condition()
        self._under_way: set[Future[Any]] = set()
        self._shut = False
        self._broken: ClusterLost | None = None
        self._closing: threading.Thread | None = None
        _pools.add(self)

    def submit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
        """See `RaftExecutor.submit`."""
        call = self._caller.prepare(fn, args, kwargs)
        with self._changed:
            if self._broken is not None:
                raise ClusterLost(self._broken.message, self._broken.try_)
            if _ending.is_set():
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._under_way.add(call.future)
        self._caller.send(call)
        call.future.add_done_callback(self._forget)
        future: Future[T] = call.future
        return future

    def shut_down(self, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and closes the client when the last one has ended."""
        with self._changed:
            self._shut = True
            waiting = list(self._under_way) if cancel_futures else []
        for future in waiting:
            future.cancel()
        self._close_if_done()

    def wait(self) -> None:
        """Returns when every call has ended, and, after `shut_down`, the client is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
        self._close_if_done()
        closing = self._closing
        if closing is not None and closing is not threading.current_thread():
            closing.join()

    def _break(self, error: ClusterLost) -> None:
        self._broken = error

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._changed:
            assert isinstance(future, Future)
            self._under_way.discard(future)
            self._changed.notify_all()
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Closes the client from a thread of its own: this one may be the client's, or the collector's."""
        with self._changed:
            if not self._shut or self._under_way or self._closing is not None:
                return
            self._closing = threading.Thread(target=self._client.close, name="raftctl-closing", daemon=True)
            self._closing.start()


_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()
_ending = threading.Event()


def _wait_at_exit() -> None:
    """The interpreter ends: what was submitted is waited for, as by the standard library's executors."""
    _ending.set()
    for pool in list(_pools):
        pool.shut_down()
        pool.wait()


atexit.register(_wait_at_exit)


def _chunks(size: int, iterables: Iterable[Iterable[Any]]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    rows = zip(*iterables, strict=False)
    while chunk := tuple(itertools.islice(rows, size)):
        yield chunk


def _chain(lists: Iterator[list[T]]) -> Iterator[T]:
    """Their elements; whoever was given one is the only one who keeps it."""
    for found in lists:
        found.reverse()
        while found:
            yield found.pop()
