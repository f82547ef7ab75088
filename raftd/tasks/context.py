"""What a task is given while it runs: who it is, where it may write, how it reports and learns that it shall stop.

What may live here: the context object and what it needs of the slot. Light to import: every slot and server loads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class TaskCancelled(BaseException):
    """Raised in the task's main thread when its attempt shall end.

    Not an ``Exception``, so that ``except Exception`` in a task does not swallow it. Who catches it has the grace
    until KILL for tidying up.
    """


class LimitExceeded(BaseException):
    """Raised in the task's main thread when its attempt has used more than its node grants.

    Not an ``Exception`` either. Who catches it has a few seconds of CPU time left for tidying up.
    """


class TaskFailed(Exception):
    """Raised by a task that fails and has something to hand over: the attempt fails, and brings a result.

    Args:
        reason: one line, as it will be shown.
        result: the bytes of the result.
    """

    def __init__(self, reason: str, result: bytes = b"") -> None:
        super().__init__(reason)
        self.result = bytes(result)


class Link(Protocol):
    """The slot, as far as a context needs it."""

    def progress(self, fraction: float, message: str) -> None:
        """Passes progress on."""

    def fetch_blob(self, digest: str) -> Path:
        """Waits until the node has the blob; returns its file."""
        ...

    def store_blob(self, source: bytes | Path) -> str:
        """Waits until the cluster has the bytes; returns their digest."""
        ...

    def make_workdir(self) -> Path:
        """Makes the attempt's private directory, once."""
        ...


class Blobs:
    """The cluster's blobs, as a task sees them. To be used from the task's main thread."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def get(self, digest: str, /) -> Path:
        """A local file with the bytes of this SHA-256 (64 lower-case hex digits); not to be changed.

        Raises:
            OSError: nobody who can be reached has it.
        """
        return self._link.fetch_blob(digest)

    def put(self, source: bytes | Path, /) -> str:
        """Stores bytes, or those of a file; returns their digest when a majority of the voters holds them.

        Putting the same bytes again, as another attempt of the same task may, changes nothing.

        Raises:
            OSError: the file cannot be read, or the bytes can never be stored.
        """
        return self._link.store_blob(source)


class TaskContext:
    """Handed to every task.

    Attributes:
        task_id: as people see it: ``t17``.
        attempt: from 1.
        fencing_token: as people see it: ``1.57``; a store that knows the greatest it has seen can refuse a smaller one.
        array_index: of a task of an array; None otherwise.
        payload: what was submitted with ``--stdin``.
        cancelled: becomes true when the attempt shall end; ``TaskCancelled`` is raised as well.
        blobs: the cluster's blobs.
    """

    __slots__ = (
        "_link", "_workdir", "array_index", "attempt", "blobs", "cancelled", "fencing_token", "payload", "task_id",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        *,
        task_id: str,
        attempt: int,
        fencing_token: str,
        array_index: int | None = None,
        payload: bytes = b"",
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.fencing_token = fencing_token
        self.array_index = array_index
        self.payload = payload
        self.cancelled = False
        self.blobs = Blobs(link)
        self._link = link
        self._workdir: Path | None = None

    @property
    def workdir(self) -> Path:
        """A private directory that goes when the attempt ends."""
        if self._workdir is None:
            self._workdir = self._link.make_workdir()
        return self._workdir

    def progress(self, fraction: float, message: str = "") -> None:
        """Says how far the attempt is: 0 to 1, or negative when that is not known."""
        self._link.progress(max(-1.0, min(1.0, fraction)), message)

    @property
    def log(self) -> Callable[[str], None]:
        """Writes a line to the attempt's stderr."""
        return _log


_current: list[TaskContext] = []  # one at most


def current_context() -> TaskContext:
    """The context of the attempt that runs in this process, for code that was not handed it.

    A process runs one attempt at a time, so that this holds in every thread of it.

    Raises:
        RuntimeError: no attempt runs here.
    """
    if not _current:
        raise RuntimeError("no attempt of a task runs in this process")
    return _current[0]


def set_current_context(context: TaskContext | None) -> None:
    """For the slot: whose attempt begins, or None when it has ended."""
    _current[:] = [] if context is None else [context]


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
