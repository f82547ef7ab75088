"""What attempts wrote to stdout and stderr: kept in bounded files, read back while they grow.

What may live here: files below ``<data>/attempts`` and the bookkeeping of what is kept. Nothing is created for an
attempt that writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from raftd.errors import LogsGone

log = logging.getLogger(__name__)

STDOUT = "stdout"
STDERR = "stderr"
STREAMS = (STDOUT, STDERR)

_TAIL_BYTES = 4_096
_CUT = ".cut"
"""Suffix of an empty file that says: more was written than was kept."""

Key = tuple[int, int]
"""Task id and attempt number."""


class AttemptOutput:
    """The output of one attempt while it runs; made by ``LogStore.begin``."""

    __slots__ = (
        "_fds", "_limit", "_on_over", "_room", "_store", "_tail", "_woken", "ended", "key", "sizes", "truncated",
    )  # fmt: skip

    def __init__(self, store: LogStore, key: Key, limit_bytes: int) -> None:
        self.key = key
        self.ended = False
        self.sizes = {STDOUT: 0, STDERR: 0}
        self.truncated = {STDOUT: False, STDERR: False}
        self._store = store
        self._limit = limit_bytes
        self._fds: dict[str, int] = {}
        self._tail = b""
        self._woken: asyncio.Event | None = None
        self._room = 0  # until it is too much
        self._on_over: Callable[[], None] | None = None

    def on_over(self, limit_bytes: int, told: Callable[[], None]) -> None:
        """Has ``told`` called once when more than this was written to both streams together, kept or not."""
        self._room, self._on_over = limit_bytes, told

    def write(self, stream: str, data: bytes) -> None:
        """Keeps what fits under the limit, drops the rest."""
        if stream == STDOUT:
            self._tail = (
                data[-_TAIL_BYTES:] if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]
            )
        room = self._limit - self.sizes[stream]
        if room > 0:
            kept = data[:room]
            try:
                # Short only when the disk is full: then the rest is lost, and the task goes on.
                self.sizes[stream] += os.write(self._open(stream), kept)
            except OSError as error:
                log.warning("output of t%d, attempt %d, is dropped: %s", *self.key, error)
                room = 0
        if len(data) > room and not self.truncated[stream]:
            self.truncated[stream] = True
            self._store.mark_cut(self.key, stream)
        if self._woken is not None:
            self._woken.set()
        self._room -= len(data)
        if self._room < 0 and self._on_over is not None:
            told, self._on_over = self._on_over, None
            told()

    def over(self, stream: str) -> bool:
        """Whether nothing more of this stream is kept."""
        return self.truncated[stream]

    def stdout_tail(self) -> bytes:
        """The last bytes of stdout, those over the limit included."""
        return self._tail

    def end(self) -> None:
        """Nothing more will be written."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self.ended = True
        if self._woken is not None:
            self._woken.set()
        self._store.on_ended(self)

    async def changed(self) -> None:
        """Waits until more was written, or the attempt has ended."""
        if self.ended:
            return
        if self._woken is None or self._woken.is_set():
            self._woken = asyncio.Event()
        await self._woken.wait()

    def _open(self, stream: str) -> int:
        fd = self._fds.get(stream)
        if fd is None:
            path = self._store.path(self.key, stream)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._fds[stream] = fd
        return fd


class AttemptLogs:
    """Reads the output of one attempt, also while it runs; made by ``LogStore.open``."""

    def __init__(self, store: LogStore, key: Key, output: AttemptOutput | None) -> None:
        self._store = store
        self._key = key
        self._output = output

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._output is None or self._output.ended

    def truncated(self, stream: str) -> bool:
        """Whether more was written to this stream than was kept."""
        if self._output is not None:
            return self._output.truncated[stream]
        return self._store.is_cut(self._key, stream)

    def read(self, stream: str, offset: int, limit_bytes: int = 65_536) -> bytes:
        """What was kept of ``stdout`` or ``stderr`` from this offset on; empty at its present end.

        Raises:
            LogsGone: it has been removed meanwhile.
        """
        try:
            with self._store.path(self._key, stream).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), limit_bytes, offset)
        except FileNotFoundError:
            if offset:
                raise LogsGone(
                    f"the output of t{self._key[0]}, attempt {self._key[1]}, has been removed"
                ) from None
            return b""

    async def changed(self) -> None:
        """Waits until there is more to read, or the attempt has ended.

        Read after it was called and before it is awaited, or something may be missed until the next change: so read
        until there is nothing more, look at ``ended``, and wait only then. All that happens without another await.
        """
        if self._output is not None:
            await self._output.changed()


class LogStore:
    """The kept output of this node's attempts.

    Args:
        directory: where the files are.
        limit_bytes: of one stream of one attempt.
        kept_count, kept_bytes: attempts and bytes that are kept at most; the oldest go first, running ones never.
    """

    def __init__(self, directory: Path, limit_bytes: int, kept_count: int, kept_bytes: int) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._kept_count = kept_count
        self._kept_bytes = kept_bytes
        self._running: dict[Key, AttemptOutput] = {}
        self._ended: OrderedDict[Key, int] = OrderedDict()  # bytes on disk; 0: it wrote nothing
        self._total_bytes = 0

    def load(self) -> None:
        """Finds what earlier lives of this node have kept."""
        self._directory.mkdir(0o700, parents=True, exist_ok=True)
        found: dict[Key, tuple[float, int]] = {}
        for entry in os.scandir(self._directory):
            key = _key_of(entry.name)
            if key is not None:
                stat = entry.stat(follow_symlinks=False)
                when, size = found.get(key, (0.0, 0))
                found[key] = (max(when, stat.st_mtime), size + stat.st_size)
        for key, (_, size) in sorted(found.items(), key=lambda item: item[1][0]):
            self._ended[key] = size
            self._total_bytes += size
        self._forget_old()

    def begin(self, task_id: int, attempt: int) -> AttemptOutput:
        """Opens the books for an attempt that is about to run."""
        key = (task_id, attempt)
        output = AttemptOutput(self, key, self._limit)
        self._running[key] = output
        return output

    def open(self, task_id: int, attempt: int) -> AttemptLogs:
        """The output of an attempt that ran, or runs, on this node.

        Raises:
            LogsGone: nothing is known of it here.
        """
        key = (task_id, attempt)
        if key not in self._running and key not in self._ended:
            raise LogsGone(f"this node has kept no output of t{task_id}, attempt {attempt}")
        return AttemptLogs(self, key, self._running.get(key))

    def on_ended(self, output: AttemptOutput) -> None:
        """Called by the output itself."""
        self._running.pop(output.key, None)
        size = sum(output.sizes.values())
        self._total_bytes += size - self._ended.pop(output.key, 0)
        self._ended[output.key] = size
        if len(self._ended) > self._kept_count or self._total_bytes > self._kept_bytes:
            self._forget_old()

    def path(self, key: Key, stream: str) -> Path:
        """Where the output of an attempt is kept."""
        return self._directory / f"t{key[0]}.{key[1]}.{stream}"

    def mark_cut(self, key: Key, stream: str) -> None:
        """Remembers that more was written than was kept."""
        self.path(key, stream + _CUT).touch(0o600)

    def is_cut(self, key: Key, stream: str) -> bool:
        """Whether more was written than was kept."""
        return self.path(key, stream + _CUT).exists()

    def _forget_old(self) -> None:
        while self._ended and (len(self._ended) > self._kept_count or self._total_bytes > self._kept_bytes):
            key, size = self._ended.popitem(last=False)
            self._total_bytes -= size
            if size and key not in self._running:
                for stream in STREAMS:
                    self.path(key, stream).unlink(missing_ok=True)
                    self.path(key, stream + _CUT).unlink(missing_ok=True)


def _key_of(name: str) -> Key | None:
    """The attempt that a file of this name belongs to: ``t17.2.stdout``."""
    task, _, rest = name.partition(".")
    attempt, _, stream = rest.partition(".")
    if stream.removesuffix(_CUT) not in STREAMS or not (
        task[:1] == "t" and task[1:].isdecimal() and attempt.isdecimal()
    ):
        return None
    return int(task[1:]), int(attempt)
