"""Calls of Python functions on their way: submitted, followed by one watch, and told to their futures.

What may live here: what both clients and the executor share of calls. Everything but the telling happens on the
client's event loop. Futures are told by a thread of their own, for unpickling takes time and callbacks are other
people's code, which may well ask the client something.

A call is found again in the watch by its request id, which is known before it is sent; so nothing that
happens to it can come too early to be understood.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from raftctl.client import errors, telling
from raftctl.client.futures import Future
from raftctl.client.models import (
    Accepted,
    BlobRef,
    Cancelled,
    Status,
    Submission,
    Task,
    TaskState,
    WatchBatch,
)
from raftctl.client.pickling import INLINE_BYTES
from raftctl.client.telling import Teller

T = TypeVar("T")

MAX_IN_FLIGHT = 10_000
PATIENCE_S = 120.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
PROBE_PAUSE_S = 1.0
LINGER_S = 10.0  # a watch that nobody needs any more is kept so long, for the next call often comes soon
BLOBS_AT_ONCE = 8
FLUSH_S = 5.0  # how long the last cancels may hold up closing


class Cluster(Protocol):
    """What calls need of a client."""

    async def submit(self, submission: Submission, /) -> Accepted: ...
    async def cancel(self, *ids: str) -> list[Cancelled]: ...
    async def task(self, task_id: str, /) -> Task: ...
    async def status(self) -> Status: ...
    async def blob_put(self, data: bytes, /) -> BlobRef: ...
    async def blob_get(self, digest: str, /) -> bytes: ...
    def watch(self, *, from_index: int) -> AsyncGenerator[WatchBatch, None]: ...


@dataclass(slots=True, eq=False)
class Call:
    """One call: its future, and what is sent of it. `submission` has a request id of its own."""

    future: Future[Any]
    submission: Submission
    gaps: int = 0  # how many gaps the watch had had when it was sent
    sent: bool = False  # the cluster may have it
    began: bool = False

    @property
    def request_id(self) -> str:
        """What it is known by."""
        return self.submission.request_id


class Calls:
    """Every call of one client.

    Args:
        max_in_flight: so many calls may be in the cluster at a time; further ones wait here.
        patience_s: futures are given up when no node has answered for so long.
    """

    def __init__(
        self, cluster: Cluster, *, max_in_flight: int = MAX_IN_FLIGHT, patience_s: float = PATIENCE_S
    ) -> None:
        self._cluster = cluster
        self._max_in_flight = max_in_flight
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._teller = Teller()
        self._backlog: deque[Call] = deque()
        self._open: dict[str, Call] = {}  # by request id: sent, or about to be
        self._follower: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._blind = False  # the watch has lost its node, and no other has told it anything yet
        self._followed = asyncio.Event()  # the watch's first index is known: what is sent now will be seen
        self._gaps = 0
        self._heard_at_s = 0.0
        self._fetching: set[Call] = set()  # ended, with a result that is on its way
        self._errands: dict[asyncio.Task[None], Call] = {}
        self._doomed: list[str] = []  # tasks to be cancelled
        self._cancelling: asyncio.Task[None] | None = None
        self._blobs = asyncio.Semaphore(BLOBS_AT_ONCE)
        self._closed = False
        self.on_lost: Callable[[errors.ClusterLost], None] | None = None

    @property
    def under_way(self) -> int:
        """How many calls are being sent, read or fetched."""
        return len(self._errands)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Says on which loop the client lives; else it is the one that runs at the first call."""
        self._loop = loop

    def start(self, call: Call) -> None:
        """Sends a call; from any thread, returns at once."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        loop, request_id = self._loop, call.request_id
        if asyncio._get_running_loop() is loop:
            call.future.bind_to_thread()

        # Holds the id alone: a future that held itself would keep its result until the collector came.
        def drop(future: concurrent.futures.Future[Any]) -> None:
            if future.cancelled():
                assert isinstance(future, Future)
                # A loop that is closed has nothing left to drop.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._drop, request_id, future)

        call.future.add_done_callback(drop)
        loop.call_soon_threadsafe(self._enqueue, call)

    def join(self) -> None:
        """Waits until every future has been told; after `close`, and not on the loop."""
        self._teller.join()

    async def close(self) -> None:
        """Gives up what has not ended. Its tasks go on, but those that were cancelled."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):  # nobody answers: then nobody is told
            async with asyncio.timeout(FLUSH_S):
                await self._flush_cancels()
        self._give_up(_closed_before)
        for task in self._stop():
            with contextlib.suppress(asyncio.CancelledError, errors.ClientError):
                await task
        self._teller.close()

    # --- on the way out -----------------------------------------------------------------------------------------------

    def _enqueue(self, call: Call) -> None:
        if self._closed:
            self._teller.tell(partial(telling.fail, call.future, errors.ClientClosed("the client is closed")))
            return
        self._backlog.append(call)
        self._pump()

    def _pump(self) -> None:
        """Sends as much as may be in flight."""
        while self._backlog and len(self._open) < self._max_in_flight:
            call = self._backlog.popleft()
            if self._follower is None:
                self._followed.clear()
                self._follower = asyncio.create_task(self._follow())
                self._follower.add_done_callback(self._on_follower_ended)
            self._open[call.request_id] = call
            self._errand(call, self._send(call))

    def _errand(self, call: Call, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._errands[task] = call
        task.add_done_callback(self._errands.pop)

    async def _send(self, call: Call) -> None:
        await self._followed.wait()
        if call.future.cancelled():
            self._open.pop(call.request_id, None)
            self._pump()
            return
        call.gaps = self._gaps
        submission = call.submission
        try:
            if len(submission.payload) > INLINE_BYTES:
                data = submission.payload
                blob = await self._insist(lambda: self._cluster.blob_put(data))
                submission = replace(submission, payload=b"", args=(*submission.args, blob.digest))
            call.sent = True
            accepted = await self._insist(lambda: self._cluster.submit(submission))
        except errors.ClientError as error:
            if self._open.pop(call.request_id, None) is not None:
                self._teller.tell(partial(telling.fail, call.future, error))
                self._pump()
            return
        call.submission = replace(submission, payload=b"")  # it is the cluster's now
        call.future.task_id = accepted.task_id
        if call.request_id not in self._open:
            return  # it has ended already
        if call.future.cancelled():
            self._drop(call.request_id, call.future)
        elif call.gaps != self._gaps:
            await self._read(call)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until the cluster answers, for as long as anything has been heard of it within the last `patience_s`.

        Raises:
            ClusterLost: nothing has; every future that waits has been told.
            ClientError: an answer that will not change.
        """
        since_s = self._now_s()
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer = await ask()
            except (errors.QueueFull, errors.TooManyUncommitted):
                self._heard_at_s = self._now_s()  # it answers, and will have room later
            except errors.Unavailable as error:
                if self._now_s() - max(since_s, self._heard_at_s) >= self._patience_s:
                    raise self._lose(error) from error
            else:
                self._heard_at_s = self._now_s()
                return answer
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # --- cancelling ---------------------------------------------------------------------------------------------------

    def _drop(self, request_id: str, future: Future[Any]) -> None:
        """Its future was cancelled here."""
        self._teller.tell(partial(telling.notify_cancelled, future))
        if future.task_id is None:
            return  # still in the backlog, where it is passed over, or being sent: then it is dropped afterwards
        if self._open.pop(request_id, None) is None:
            return
        self._doomed.append(future.task_id)
        if self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel_doomed())
        self._pump()

    async def _cancel_doomed(self) -> None:
        try:
            while self._doomed:
                ids, self._doomed = self._doomed, []
                with contextlib.suppress(errors.ClusterLost):  # every future has been told
                    await self._insist(partial(self._cluster.cancel, *ids))
        finally:
            if self._cancelling is asyncio.current_task():
                self._cancelling = None

    # --- on the way back ----------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        status = await self._insist(self._cluster.status)
        self._followed.set()
        quiet_since_s = self._now_s()
        async with aclosing(self._cluster.watch(from_index=status.read.applied_index + 1)) as batches:
            async for batch in batches:
                self._blind = batch.interruption is not None
                if self._blind:
                    self._probe_soon()
                    continue
                self._heard_at_s = self._now_s()
                for change in batch.changes:
                    if change.task is not None:
                        self._take(change.task)
                if batch.gap:
                    self._gaps += 1
                    for call in list(self._open.values()):
                        if call.future.task_id is not None:
                            self._errand(call, self._read(call))
                if self._open or self._backlog:
                    quiet_since_s = self._now_s()
                elif self._now_s() - quiet_since_s >= LINGER_S:
                    self._follower = None
                    return

    def _on_follower_ended(self, task: asyncio.Task[None]) -> None:
        """Whatever ends the watch against its will ends what waits for it."""
        if task is self._follower:
            self._follower = None
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, errors.ClusterLost):
            self._give_up(lambda call: error)

    def _probe_soon(self) -> None:
        """The watch has lost its node: see whether anybody answers."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probe_while_blind())
            self._probe.add_done_callback(_take_note)

    async def _probe_while_blind(self) -> None:
        """Once is not enough: who answers now may be gone before the watch comes to it, which says nothing of that."""
        while self._blind:
            await self._insist(self._cluster.status)
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _read(self, call: Call) -> None:
        """Asks for a task that the watch may have missed."""
        assert call.future.task_id is not None
        try:
            self._take(await self._insist(partial(self._cluster.task, call.future.task_id)))
        except errors.ClientError as error:
            if self._open.pop(call.request_id, None) is not None:
                self._teller.tell(partial(telling.fail, call.future, error))

    def _take(self, task: Task) -> None:
        """What is known of a task now."""
        call = self._open.get(task.request_id)
        if call is None:
            return
        call.future.task_id = task.task_id
        if task.state is TaskState.RUNNING and not call.began:
            call.began = True
            self._teller.tell(partial(telling.begin, call.future))
        if not task.state.terminal:
            return
        del self._open[call.request_id]
        if task.result is not None and task.result.blob is not None:
            self._errand(call, self._fetch(call, task, task.result.blob.digest))
        else:
            inline = task.result.inline if task.result is not None else None
            self._teller.tell(partial(telling.end, call.future, task, inline))
        self._pump()

    async def _fetch(self, call: Call, task: Task, digest: str) -> None:
        self._fetching.add(call)
        try:
            async with self._blobs:
                data = await self._insist(partial(self._cluster.blob_get, digest))
        except errors.ClientError as error:
            self._teller.tell(partial(telling.fail, call.future, error))
        else:
            self._teller.tell(partial(telling.end, call.future, task, data))
        finally:
            self._fetching.discard(call)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _lose(self, why: errors.Unavailable) -> errors.ClusterLost:
        lost = errors.ClusterLost(f"no node has answered for {self._patience_s:g} s: {why.message}", why.try_)
        if self.on_lost is not None:
            self.on_lost(lost)
        self._give_up(lambda call: lost)
        self._stop()  # what is called from here on has its own time
        return lost

    def _stop(self) -> list[asyncio.Task[Any]]:
        """Has everything end that is under way, but whoever asks; returns what must still be waited for."""
        under_way = (self._follower, self._probe, self._cancelling, *self._errands)
        self._follower = self._probe = self._cancelling = None
        stopped = [
            task
            for task in under_way
            if task is not None and not task.done() and task is not asyncio.current_task()
        ]
        for task in stopped:
            task.cancel()
        return stopped

    async def _flush_cancels(self) -> None:
        """What was cancelled in this process shall not run, also what is being sent at this moment."""
        leaving = [task for task, call in self._errands.items() if call.sent and call.future.cancelled()]
        if leaving:
            await asyncio.wait(leaving)
        if self._cancelling is not None:
            await asyncio.shield(self._cancelling)

    def _give_up(self, because: Callable[[Call], BaseException]) -> None:
        calls = [*self._open.values(), *self._fetching, *self._backlog]
        self._open.clear()
        self._fetching.clear()
        self._backlog.clear()
        for call in calls:
            self._teller.tell(partial(telling.fail, call.future, because(call)))


def _closed_before(call: Call) -> errors.ClientClosed:
    return errors.ClientClosed(f"the client was closed before {call.future.task_id or 'a call'} ended")


def _take_note(probe: asyncio.Task[None]) -> None:
    """Nothing is to be done: if nobody answered, the futures have been told. But asyncio wants to see it looked at."""
    if not probe.cancelled():
        probe.exception()
