"""Telling futures what became of their calls, on a thread of their own.

What may live here: that thread, and the steps that it takes. All changes of a future but its own ``cancel()`` happen
here, one after the other.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from raftctl.client import errors, pickling
from raftctl.client.futures import Future
from raftctl.client.models import Task, TaskState

log = logging.getLogger(__name__)

JOIN_S = 5.0  # a callback that never returns must not hold up who closes a client


class Teller:
    """The thread; it begins with the first step."""

    def __init__(self) -> None:
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell(self, step: Callable[[], None]) -> None:
        """Takes a step after all that were given before."""
        if self._thread is None:
            # A daemon: the process may end while a callback hangs. Whoever must not miss anything waits for futures.
            self._thread = threading.Thread(target=self._run, name="raftctl-futures", daemon=True)
            self._thread.start()
        self._steps.put(step)

    def close(self) -> None:
        """Ends the thread after the last step."""
        self._steps.put(None)

    def join(self) -> None:
        """Waits until it has ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
            except BaseException:  # the SystemExit of a callback: the other futures must hear
                log.exception("a future could not be told how its call ended")
            del step  # nothing of a result stays here until the next one comes


def begin(future: Future[Any]) -> None:
    """The call has begun."""
    _claim(future)


def notify_cancelled(future: Future[Any]) -> None:
    """It was cancelled here: whoever waits for several futures is told, once."""
    if future.cancelled() and not future.cancel_was_told:
        future.cancel_was_told = True
        future.set_running_or_notify_cancel()


def fail(future: Future[Any], error: BaseException) -> None:
    """There is no result, for this reason."""
    if _claim(future):
        future.set_exception(error)


def end(future: Future[Any], task: Task, data: bytes | None) -> None:
    """The task has ended; `data` is what it brought."""
    if task.state is TaskState.CANCELLED and future.cancel():
        notify_cancelled(future)
        return
    if not _claim(future):
        return
    try:
        if task.state is TaskState.SUCCEEDED:
            future.set_result(pickling.load_value(task.task_id, data or b""))
            return
        error = _error_of(task, data)
    except errors.ResultUnreadable as unreadable:
        error = unreadable
    future.set_exception(error)


def _claim(future: Future[Any]) -> bool:
    """Whether the future waits, and cannot be cancelled from here on."""
    if future.running():
        return True
    if future.done():
        notify_cancelled(future)
        return False
    if future.set_running_or_notify_cancel():
        return True
    future.cancel_was_told = True  # cancelled between the two lines above
    return False


def _error_of(task: Task, data: bytes | None) -> BaseException:
    because = f": {task.reason}" if task.reason else ""
    message, try_ = f"{task.task_id} {task.state}{because}", f"raftctl logs {task.task_id}"
    if task.state is TaskState.CANCELLED:
        return errors.TaskCancelled(message, try_)
    return pickling.load_error(task.task_id, data) if data else errors.TaskFailed(message, try_)
