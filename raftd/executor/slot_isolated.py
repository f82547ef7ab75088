"""Attempts that get a process of their own under the slot: programs, and kinds that are declared isolated.

What may live here: starting that process, standing between it and raftd while it runs, and ending it with all that it
started. The slot does nothing else meanwhile, so that it can react at once, also to the death of the supervisor.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from raftd.executor import kernel
from raftd.executor.frames import Decoder, EndReport, RunRequest, encode, end_report
from raftd.executor.limits import Limits
from raftd.executor.process_tree import descendants, process_table, send
from raftd.executor.slot import Slot, attempt_env, end_descendants, use_stdio, wall_ms
from raftd.executor.slot_report import reason_of
from raftd.executor.status import describe_status

if TYPE_CHECKING:
    from raftd.executor.usage import Watch

_LOOK_EVERY_MS = 1_000
"""How often the slot looks whether its supervisor still lives, should no signal have said so (macOS sends none)."""

_WATCH_EVERY_MS = 200
"""How often it looks what its attempt uses, where the node sets limits."""


def run_isolated(slot: Slot, kind: Any, request: RunRequest, payload: bytes) -> tuple[EndReport, bytes]:
    """Runs an attempt in a process of its own; returns the report of its end and the bytes of a small result."""
    started_at_ms = wall_ms()
    workdir = slot.make_workdir()
    env = dict(os.environ) | attempt_env(request)
    try:
        if kind.program is not None:
            report, body = _Child(slot, request).program(kind.program(request.args), payload, workdir, env)
        else:
            report, body = _Child(slot, request).callable(payload, workdir, env)
    except (
        Exception
    ) as error:  # no such program, no memory, a broken kind: the attempt's failure, not the slot's
        report, body = EndReport(request.token, "failed", reason=_start_failure(error)), b""
    end_descendants()
    slot.remove_workdir()
    if slot.stopped:
        report, body = EndReport(request.token, "stopped", reason=report.reason), b""
    return replace(report, started_at_ms=started_at_ms, ended_at_ms=wall_ms(), mode=kind.result), body


class _Child:
    """The process of one attempt, and the slot that watches it."""

    def __init__(self, slot: Slot, request: RunRequest) -> None:
        self._slot = slot
        self._request = request
        self._relay: socket.socket | None = None  # to a slot-like child; a program has none
        self._from_child = Decoder()
        self._ended: tuple[EndReport, bytes] | None = None
        self._usage = _watch(request.limits)
        self._look_at = 0.0
        self._over = ""  # the limit that it is dying of

    def program(
        self, argv: Sequence[str], payload: bytes, workdir: Path, env: dict[str, str]
    ) -> tuple[EndReport, bytes]:
        """Executes argv; its result is the end of what it printed."""
        limits = self._request.limits
        with _stdin(payload) as stdin, _inherited(limits):
            child = subprocess.Popen(argv, stdin=stdin, cwd=workdir, env=env, process_group=0)
        status = self._watch(child)
        reason = self._over or describe_status(status, limits)
        if reason:
            return EndReport(self._request.token, "failed", reason=reason), b""
        return EndReport(self._request.token, "succeeded", result="stdout"), b""

    def callable(self, payload: bytes, workdir: Path, env: dict[str, str]) -> tuple[EndReport, bytes]:
        """Runs a Python kind in a fresh interpreter that talks to this slot as this slot talks to raftd."""
        ours, theirs = socket.socketpair()
        argv = [
            sys.executable,
            "-m",
            __name__,
            str(theirs.fileno()),
            str(os.getpid()),
            str(self._slot.run_dir),
        ]
        with ours, _stdin(payload) as stdin:
            with theirs:
                child = subprocess.Popen(
                    argv, stdin=stdin, cwd=workdir, env=env, process_group=0, pass_fds=[theirs.fileno()]
                )
            self._relay = ours
            ours.sendall(encode(self._request.head(), payload))
            status = self._watch(child)
            ours.setblocking(False)  # what it started may still hold the other end: no reason to wait
            while self._hear_child():
                continue
        if self._ended is not None:
            return self._ended
        reason = self._over or describe_status(status, self._request.limits) or "ended without a word"
        return EndReport(self._request.token, "failed", reason=reason), b""

    def _watch(self, child: subprocess.Popen[bytes]) -> int:
        """Waits for the process's end; returns its wait status."""
        reader, writer = os.pipe()
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        handlers = {
            number: signal.signal(number, lambda *_: None) for number in (signal.SIGCHLD, signal.SIGTERM)
        }
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # While a task runs in a slot, only SIGKILL is sure to end it. Here the slot itself is in control: it kills the
        # task with everything below it, and ends, which also covers daemons, whom the kernel would not tell.
        kernel.die_with_parent(signal.SIGTERM)
        try:
            status = self._wait_for(child.pid, reader)
            child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, not by Popen
            return status
        finally:
            kernel.die_with_parent(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)
            self._exit_if_orphaned()

    def _wait_for(self, pid: int, wake: int) -> int:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._slot.sock, select.POLLIN)
        if self._relay is not None:
            poll.register(self._relay, select.POLLIN)
        self._obey_raftd()  # the stop may have come together with the attempt
        while True:
            self._exit_if_orphaned()
            if (status := _reap(pid)) is not None:
                return status
            self._look_at_usage()
            for fd, _ in poll.poll(_LOOK_EVERY_MS if self._usage is None else _WATCH_EVERY_MS):
                if fd == wake:
                    os.read(fd, 4096)
                elif fd == self._slot.sock.fileno():
                    self._hear_raftd()
                elif not self._hear_child():
                    poll.unregister(fd)

    def _look_at_usage(self) -> None:
        if self._usage is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _WATCH_EVERY_MS / 1000
        self._over = self._over or self._usage.over()
        if self._over:  # again each time, until nothing is left: it may be forking
            send(descendants((os.getpid(),), process_table()), signal.SIGKILL)

    def _exit_if_orphaned(self) -> None:
        if os.getppid() != self._slot.parent:
            end_descendants()
            os._exit(1)

    def _hear_raftd(self) -> None:
        if not self._slot.receive():
            end_descendants()
            os._exit(0)
        self._obey_raftd()

    def _obey_raftd(self) -> None:
        if self._slot.take_stop():
            if self._relay is not None:
                self._tell_child({"t": "stop", "token": self._request.token})
            below = descendants((os.getpid(),), process_table())
            send(below, signal.SIGTERM)
            send(below, signal.SIGCONT)  # one that was stopped could not end
        while (answer := self._slot.take("blob")) is not None:
            self._tell_child(answer[0])

    def _tell_child(self, head: dict[str, Any]) -> None:
        if self._relay is not None:
            try:
                self._relay.sendall(encode(head))
            except ConnectionError:
                return  # it has ended, and will be reaped

    def _hear_child(self) -> bool:
        """Passes on what an isolated Python kind says; False when it has closed its end."""
        assert self._relay is not None
        try:
            data = self._relay.recv(262_144)
        except (ConnectionError, BlockingIOError):
            data = b""
        for head, body in self._from_child.feed(data):
            if head["t"] == "ended":
                self._ended = (end_report(head), body)
            else:
                self._slot.send(head, body)
        return bool(data)


def _stdin(payload: bytes) -> IO[bytes]:
    """The payload as a file to read from: not a pipe, which somebody would have to fill while the task runs."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("stdin"), "w+b")
    else:
        from tempfile import mkstemp  # macOS; not small

        fd, path = mkstemp()
        os.unlink(path)
        file = os.fdopen(fd, "w+b")
    file.write(payload)
    file.seek(0)
    return file


def _reap(wanted: int) -> int | None:
    """Reaps what has ended, adopted orphans included; the wait status of the wanted process, once it is there."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = status


def _watch(limits: Limits) -> Watch | None:
    if not (limits.cpu_ms or limits.memory_bytes or limits.processes):
        return None
    from raftd.executor.usage import Watch  # few nodes set limits

    return Watch(limits)


@contextmanager
def _inherited(limits: Limits) -> Iterator[None]:
    """What is started meanwhile is held to the limits that the system keeps for each process."""
    if not limits.file_bytes:
        yield
        return
    from raftd.executor.slot_fence import Fence  # few nodes set limits

    fence = Fence(Limits(file_bytes=limits.file_bytes), lambda *_: None)
    fence.close()
    try:
        yield
    finally:
        fence.open()


def _start_failure(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"no program {os.fsdecode(error.filename)!r} on this node"
    if isinstance(error, PermissionError) and error.filename:
        return f"{os.fsdecode(error.filename)!r} may not be executed on this node"
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"{os.fsdecode(error.filename)!r} is nothing that this system can execute"
    return reason_of(error)


def main(arguments: list[str]) -> int:
    """Runs one attempt of an isolated Python kind: ``SOCKET_FD SLOT_PID RUN_DIR``."""
    fd, parent, run_dir = arguments
    use_stdio()
    slot = Slot(socket.socket(fileno=int(fd)), Path(run_dir), int(parent))
    slot.sock.set_inheritable(False)
    slot.serve_isolated()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
