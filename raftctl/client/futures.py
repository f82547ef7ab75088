"""`Future`: what becomes of one call of a function on the cluster; and waiting for many.

What may live here: the future that both clients and the executor hand out, and what is built on nothing but futures.
It is a real ``concurrent.futures.Future``, so that ``concurrent.futures.wait`` and ``as_completed`` take it, and it
can be awaited.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, TypeVar

from raftctl.client.errors import WaitTimedOut

T = TypeVar("T")


class Future(concurrent.futures.Future[T]):
    """The outcome of a call that runs, or will run, on the cluster.

    ``result()`` returns what the function returned, or raises what it raised, with its traceback on the cluster as
    ``__cause__``. Where an event loop runs, ``await`` it instead. ``cancel()`` works as long as the call has not
    begun; ``client.cancel(future)`` also ends one that has.

    Attributes:
        task_id: the task that the call became; None as long as the cluster has not accepted it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.task_id: str | None = None
        self.cancel_was_told = False  # whoever waits for several futures knows; done once
        self._loop_thread = 0

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()

    def result(self, timeout: float | None = None) -> T:
        """What the call returned; waits for it, `timeout` seconds at most.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            concurrent.futures.CancelledError: it was cancelled.
            TaskFailed: it ended in another way than by returning or raising: a timeout, or slots that died.
            ResultUnreadable, ClusterLost, ClientClosed: there is no telling what it returned.
            Exception: whatever it raised.
        """
        self._refuse_to_block()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise; None if it would return."""
        self._refuse_to_block()
        return super().exception(timeout)

    def bind_to_thread(self) -> None:
        """Says that the answer comes by this thread's event loop, which must therefore not wait for it."""
        self._loop_thread = threading.get_ident()

    def _refuse_to_block(self) -> None:
        if threading.get_ident() == self._loop_thread and not self.done():
            raise RuntimeError(
                "this would block the event loop that brings the answer: await the future instead"
            )


async def completed(
    futures: Iterable[Future[T]], timeout_s: float | None = None
) -> AsyncGenerator[Future[T], None]:
    """Each of these futures once, as it ends.

    Raises:
        WaitTimedOut: not all have ended within `timeout_s`; they go on.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Queue[Future[T]] = asyncio.Queue()
    waiting = set(futures)
    count = len(waiting)

    def end(future: concurrent.futures.Future[T]) -> None:
        assert isinstance(future, Future)
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits there any more
            loop.call_soon_threadsafe(done.put_nowait, future)

    for future in waiting:
        future.add_done_callback(end)
    deadline = None if timeout_s is None else loop.time() + timeout_s
    while waiting:
        try:
            async with asyncio.timeout_at(deadline):
                future = await done.get()
        except TimeoutError:
            raise WaitTimedOut(
                f"{len(waiting)} of {count} calls did not end within {timeout_s:g} s"
            ) from None
        waiting.discard(future)
        yield future


async def gather(
    futures: Iterable[Future[Any]], *, return_exceptions: bool = False, timeout_s: float | None = None
) -> list[Any]:
    """What the calls returned, in the order of `futures`; the first that raises is raised, as soon as it does."""
    wanted = list(futures)
    async with contextlib.aclosing(completed(wanted, timeout_s)) as ended:
        async for future in ended:
            if not return_exceptions:
                future.result()
    return [_outcome(future) if return_exceptions else future.result() for future in wanted]


def _outcome(future: Future[Any]) -> Any:
    if future.cancelled():
        return concurrent.futures.CancelledError()
    error = future.exception()
    return future.result() if error is None else error
