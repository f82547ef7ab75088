"""raftd's end of the supervisor: starts it, speaks to it, starts another when it dies.

What may live here: that process's life as seen from raftd, on the event loop. What happens in slots is told to a
``SlotListener``; what they say goes past this file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import site
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import raftd
from raftd.errors import Unavailable
from raftd.executor.config import ExecutorConfig
from raftd.executor.records import FDS_COUNT, RECORD_BYTES, Cause, Op, Record, decode
from raftd.executor.supervisor import MARK

log = logging.getLogger(__name__)

_RESTART_FIRST_S = 0.1
_RESTART_MAX_S = 5.0
_LONG_LIFE_S = 30.0


@dataclass(frozen=True, slots=True)
class SlotPipes:
    """raftd's ends of a slot process: the receiver owns the descriptors."""

    slot: int
    serial: int
    pid: int
    sock: socket.socket
    stdout: int
    stderr: int


class SlotListener(Protocol):
    """Who is told what happens to slot processes; called on the event loop."""

    def on_ready(self) -> None:
        """A supervisor holds the lock: of all slots known so far, and of what they started, nothing runs any more."""

    def on_spawned(self, pipes: SlotPipes) -> None:
        """A slot process was started."""

    def on_exited(self, slot: int, serial: int, status: int, cause: Cause) -> None:
        """A slot process has ended, and nothing of its tree is left."""


class SupervisorClient:
    """Keeps one supervisor running.

    Args:
        config: of the executor.
        listener: told what happens.
    """

    def __init__(self, config: ExecutorConfig, listener: SlotListener) -> None:
        self._config = config
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._inbox = b""
        self._fds: list[int] = []
        self._deadline_ms = 0
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the supervisor's process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self, timeout_s: float = 30.0) -> None:
        """Starts the supervisor; returns when it is ready: nothing that an earlier one started is left.

        Raises:
            Unavailable: it is not ready in time.
        """
        self._keeper = asyncio.create_task(self._keep(), name="supervisor")
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            await self.stop(1.0)
            raise Unavailable(
                f"the executor's supervisor was not ready within {timeout_s:.0f} s",
                try_=f"look for processes with {self._mark()} in their environment: an earlier one may not die",
            ) from None

    async def stop(self, timeout_s: float) -> None:
        """Ends the supervisor, and everything that it started with it."""
        self._stopping.set()
        self._send(Record(Op.QUIT))
        if self._keeper is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._keeper)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()  # its slots end with it
            await self._keeper

    def set_lease(self, deadline_ms: int) -> None:
        """Has everything killed at this boot time, in ms; a time that has passed kills at once."""
        self._deadline_ms = deadline_ms
        self._send(Record(Op.LEASE, value=deadline_ms))

    def term(self, serial: int) -> None:
        """Has a slot look at its socket, in the middle of a task."""
        self._send(Record(Op.TERM, serial=serial))

    def kill(self, serial: int) -> None:
        """Kills a slot with its tree; another takes its place."""
        self._send(Record(Op.KILL, serial=serial))

    # --- the process ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _RESTART_FIRST_S
        while not self._stopping.is_set():
            born = loop.time()
            self._gone.clear()
            try:
                self._launch(loop)
            except OSError as error:
                log.error("cannot start the supervisor: %s", error)
            else:
                await self._gone.wait()
                await asyncio.to_thread(self._reap)
            if self._stopping.is_set():
                return
            log.error("the supervisor has died; its slots went with it, and a new one is started")
            delay_s = (
                _RESTART_FIRST_S if loop.time() - born > _LONG_LIFE_S else min(2 * delay_s, _RESTART_MAX_S)
            )
            await asyncio.sleep(delay_s)

    def _launch(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self._config
        (config.data_dir / "work").mkdir(0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs:
            command = [
                config.python, "-m", "raftd.executor.supervisor",
                str(theirs.fileno()), str(config.data_dir.absolute()), f"{config.store_id:016x}",
                str(config.slots), str(config.nice),
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self._env(),
                cwd=config.data_dir,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._sock = ours
        self._inbox = b""
        loop.add_reader(ours, self._on_readable)
        if self._deadline_ms:
            self._send(Record(Op.LEASE, value=self._deadline_ms))

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()

    def _mark(self) -> str:
        return f"{MARK}={self._config.store_id:016x}"

    def _env(self) -> Mapping[str, str]:
        env = self._config.base_env()
        name, _, value = self._mark().partition("=")
        env[name] = value
        # A plain checkout is not where the interpreter looks by itself.
        root = str(Path(raftd.__file__).absolute().parent.parent)
        if root not in (*site.getsitepackages(), site.getusersitepackages()):
            env["PYTHONPATH"] = os.pathsep.join(part for part in (root, env.get("PYTHONPATH", "")) if part)
        return env

    # --- records ----------------------------------------------------------------------------------------------------

    def _send(self, record: Record) -> None:
        if self._sock is None:
            return
        try:
            self._sock.send(record.encode())
        except BlockingIOError:
            # Thousands of records unread: it is paused, or worse. Without it there is no deadline: end it, and all.
            log.error("the supervisor does not read; it is killed")
            if self._process is not None:
                self._process.kill()
        except OSError:
            return  # it has died: the reader is about to see that

    def _on_readable(self) -> None:
        assert self._sock is not None
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, RECORD_BYTES - len(self._inbox), FDS_COUNT)
            except BlockingIOError:
                return
            except ConnectionError:
                data, fds = b"", []
            for fd in fds:
                os.set_inheritable(fd, False)
                os.set_blocking(fd, False)
            self._fds.extend(fds)
            if not data:
                self._on_closed()
                return
            self._inbox += data
            if len(self._inbox) == RECORD_BYTES:
                record, fds = decode(self._inbox), self._fds
                self._inbox, self._fds = b"", []
                self._on_record(record, fds)

    def _on_record(self, record: Record, fds: list[int]) -> None:
        if record.op is Op.READY:
            self._ready.set()
            self._listener.on_ready()
        elif record.op is Op.SPAWNED:
            sock, stdout, stderr = fds
            pipes = SlotPipes(
                record.slot, record.serial, record.pid, socket.socket(fileno=sock), stdout, stderr
            )
            self._listener.on_spawned(pipes)
        elif record.op is Op.EXITED:
            self._listener.on_exited(record.slot, record.serial, record.value, record.cause)

    def _on_closed(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self._gone.set()
