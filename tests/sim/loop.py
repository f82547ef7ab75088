"""An event loop whose time is simulated, and the processes that run on it.

What may live here: the loop, whose clock moves only when nothing is left to do, and the ``Process``: what may be paused
and killed as a whole. Both know nothing of what runs on them.

Every callback carries a context, and the context says whose callback it is. So one loop runs many processes: the
callbacks of a paused one are kept until it goes on, in their order; those of a dead one are dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)

NOBODY = contextvars.copy_context()
"""The context of what belongs to no process: messages on their way, what slots and clients do."""
NOBODY.run(OWNER.set, None)

LIVELOCK_EVENTS = 20_000
"""So many callbacks without any time passing are a loop that will not end."""

STORM_EVENTS = 60_000
"""So many callbacks in one simulated second are messages that breed messages; a busy cluster has a tenth of it."""

_BURIAL_S = 1e-6
_PRUNE_COUNT = 64


class Livelock(Exception):
    """Callbacks keep each other busy and no time passes, or hardly any."""


class Process:
    """What runs, pauses and dies as one: the callbacks and tasks of one life of a node.

    Attributes:
        fenced: it was killed. What it still does, to clean up after itself, reaches nobody.
        paused: its callbacks wait.
        context: in which its callbacks run.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.fenced = False
        self.paused = False
        self.dead = False
        self.held: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)
        self._tasks: list[asyncio.Task[Any]] = []

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have the process do this next."""
        self.loop.call_soon(callback, *args, context=self.context)

    def call_later(
        self, delay_s: float, callback: Callable[[*Ts], object], *args: *Ts
    ) -> asyncio.TimerHandle:
        """Have the process do this after simulated seconds."""
        return self.loop.call_at(self.loop.time() + delay_s, callback, *args, context=self.context)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of the process."""
        return self.loop.create_task(work, context=self.context.copy())

    def start(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have the process start a task, unless it is gone by then."""
        self.call_soon(self._start, work)

    def _start(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if not self.fenced:
            self.loop.create_task(work())

    def own(self, task: asyncio.Task[Any]) -> None:
        """A task was started by the process; it is cancelled when the process dies."""
        self._tasks.append(task)
        if len(self._tasks) % _PRUNE_COUNT == 0:
            self._tasks = [task for task in self._tasks if not task.done()]

    def pause(self) -> None:
        """From now on it does nothing."""
        self.paused = True

    def resume(self) -> None:
        """It goes on with everything that has waited for it."""
        self.paused = False
        held, self.held = self.held, []
        self.loop.put_first(held)

    def kill(self) -> None:
        """It ends. Its tasks are cancelled, so that nothing of it stays behind, but nobody hears what they do."""
        self.fenced = True
        if self.paused:
            self.resume()
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self.loop.call_at(self.loop.time() + _BURIAL_S, self._bury)

    def _bury(self) -> None:
        self.dead = True


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs one callback after the other and moves its clock to the next timer when there is none.

    Attributes:
        event_count: callbacks that have run.
        after_event: called after each, with the process it belonged to.
        callback_failed: called with an exception that left a callback.
    """

    def __init__(self) -> None:
        super().__init__()
        self.event_count = 0
        self.after_event: Callable[[Process | None], None] = lambda _: None
        self.callback_failed: Callable[[BaseException], None] = lambda _: None
        self._now_s = 0.0
        self._callbacks: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_number = 0
        self._cancelled_count = 0
        self._events_now = 0
        self._second_began = 0
        self.set_exception_handler(self._on_exception)

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._callbacks.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, handle))
        return handle

    def create_task(self, coro: Any, **settings: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **settings)
        context = settings.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.own(task)
        return task

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        self._cancelled_count += 1
        if self._cancelled_count > 1000 and 2 * self._cancelled_count > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_count = 0

    def _run_once(self) -> None:
        callbacks = self._callbacks
        if not callbacks:
            self._advance()
        handle: Any = callbacks.popleft()
        if handle.cancelled():
            return
        owner: Process | None = handle._context.get(OWNER)
        if owner is not None:
            if owner.paused:
                owner.held.append(handle)
                return
            if owner.dead:
                return
        self.event_count += 1
        self._events_now += 1
        if self._events_now > LIVELOCK_EVENTS:
            raise Livelock(f"{LIVELOCK_EVENTS} callbacks at {self._now_s} s, the last one {handle}")
        handle._run()
        self.after_event(owner)

    # How it works.

    def put_first(self, handles: list[asyncio.Handle]) -> None:
        """These are the next, in their order."""
        self._callbacks.extendleft(reversed(handles))

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
            self._cancelled_count -= 1
        if not timers:
            raise Livelock("nothing is left to do, and somebody waits")
        now_s = max(self._now_s, timers[0][0])
        if int(now_s) != int(self._now_s):
            self._second_began = self.event_count
        elif self.event_count - self._second_began > STORM_EVENTS:
            raise Livelock(f"a storm: {STORM_EVENTS} callbacks in one second, at {now_s} s")
        self._now_s = now_s
        self._events_now = 0
        while timers and timers[0][0] <= self._now_s:
            self._callbacks.append(heapq.heappop(timers)[2])

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A task whose failure nobody fetched is told when it is collected, which is no moment of the simulation; its
        # owner has dealt with it. What leaves a callback is nobody's.
        if "handle" in context and "exception" in context:
            self.callback_failed(context["exception"])


async def sleep(delay_s: float) -> None:
    """Wait for simulated seconds."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(delay_s, _wake, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
