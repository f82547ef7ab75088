"""A slot: the warm child process that runs attempts, one after the other.

Run as ``python -m raftd.executor.slot`` by the supervisor. What may live here: the conversation with raftd and attempts
that run in this process; those that get a process of their own are in ``slot_isolated``. Kinds come from
``raftd.tasks.registry``, loaded by name: the executor does not depend on the tasks.

stdout and stderr are pipes whose other ends raftd reads. So output is captured at the level of descriptors, whoever
writes it, it is bounded by raftd without a task noticing, and whatever was written before ``ended`` was sent can be
read by raftd when it gets ``ended``.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import os
import signal
import socket
import sys
import time
import traceback
from _thread import get_ident
from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftd.executor import kernel
from raftd.executor.frames import Decoder, EndReport, Head, RunRequest, encode, run_request
from raftd.executor.limits import Limits
from raftd.executor.process_tree import descendants, process_table, send
from raftd.executor.slot_report import MAX_REASON, Ending, line, reason_of, report_of
from raftd.executor.supervisor import LOCK_FD, SOCKET_FD

if TYPE_CHECKING:
    from raftd.executor.slot_fence import Fence

_PROGRESS_EVERY_S = 0.1
_AUTOGROUP_PATIENCE_S = 3.0
_AUTOGROUP_RETRY_S = 0.03


class Slot:
    """Serves one socket until its other end closes."""

    def __init__(self, sock: socket.socket, run_dir: Path, parent: int) -> None:
        self.sock = sock
        self.run_dir = run_dir
        self.parent = parent
        self.stopped = False  # a stop has reached the current attempt
        self._decoder = Decoder()
        self._frames: deque[tuple[Head, bytes]] = deque()
        self._registry: Any = importlib.import_module("raftd.tasks.registry")
        self._tasks: Any = importlib.import_module("raftd.tasks.context")
        self._registry.find("noop")
        self._kinds: dict[str, Any] = {}
        self._token = ""
        self._context: Any = None
        self._workdir: Path | None = None
        self._interruptible = False
        self._term_pending = False
        self._progress_at = 0.0
        self._main = get_ident()
        self._asked = 0  # questions about blobs, in the life of this process
        self._fence: Fence | None = None  # of the current attempt, if its node sets limits
        self._over_cpu = ""  # the current attempt has used up its CPU time, and was not told yet
        self._environ = dict(os.environ)

    # --- conversation -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Runs attempts until raftd closes the socket."""
        signal.signal(signal.SIGTERM, self._on_term)
        self.send({"t": "ready"})
        while self.serve_one():
            continue

    def serve_isolated(self) -> None:
        """Runs the one attempt that the socket brings, in the working directory that the slot has made for it."""
        signal.signal(signal.SIGTERM, self._on_term)
        frame = self.next_frame()
        if frame is not None:
            self._workdir = Path.cwd()
            request = run_request(frame[0])
            report, body = self.run_here(self._find(request.kind), request, frame[1])
            self.send(report.head(), body)

    def serve_one(self) -> bool:
        """Handles one frame; False when the socket has closed."""
        frame = self.next_frame()
        if frame is None:
            return False
        head, body = frame
        if head["t"] == "run":
            self._run(run_request(head), body)
        return True  # else a stop, for an attempt that has ended meanwhile

    def next_frame(self) -> tuple[Head, bytes] | None:
        """The next frame, waited for; None when the socket has closed."""
        while not self._frames:
            if not self.receive():
                return None
        return self._frames.popleft()

    def receive(self, flags: int = 0) -> bool:
        """Reads what there is into the queue; False when the socket has closed. Raises BlockingIOError by flags."""
        try:
            data = self.sock.recv(262_144, flags)
        except ConnectionError:
            return False
        self._frames.extend(self._decoder.feed(data))
        return bool(data)

    def take(self, kind: str) -> tuple[Head, bytes] | None:
        """Takes the first queued frame of this kind out of the queue."""
        for frame in self._frames:
            if frame[0]["t"] == kind:
                self._frames.remove(frame)
                return frame
        return None

    def send(self, head: Head, body: bytes = b"") -> None:
        """Sends one frame; a slot without raftd has nothing to live for."""
        try:
            self.sock.sendall(encode(head, body))
        except ConnectionError:
            os._exit(0)

    # --- stopping ---------------------------------------------------------------------------------------------------

    def _on_term(self, *_: object) -> None:
        """SIGTERM says: look at your socket. Only a stop that names the current attempt ends it.

        So a signal that comes late never hits the attempt after the one that it was meant for. Python runs this in the
        main thread, between two steps of the task; a task that stays in native code is killed after the grace.
        """
        if not self._interruptible:
            self._term_pending = True
            return
        self._interruptible = False
        self._term_pending = True
        while self._term_pending:  # another may come while this one is looked at
            self._term_pending = False
            self._receive_rest()
        self._interruptible = True
        if self.take_stop():
            raise self._tasks.TaskCancelled("the attempt was stopped")

    def _receive_rest(self) -> None:
        try:
            while self.receive(socket.MSG_DONTWAIT):
                continue
        except BlockingIOError:
            return

    def take_stop(self) -> bool:
        """Whether a stop for the current attempt has arrived; remembers that it has."""
        while (frame := self.take("stop")) is not None:
            if frame[0]["token"] == self._token:
                self.stopped = True
                if self._context is not None:
                    self._context.cancelled = True
                return True
        return False

    def _interrupt_again(self) -> None:
        self._interruptible = True
        if self._term_pending or self._frames:
            self._on_term()
        if self._over_cpu:
            raise self._tasks.LimitExceeded(self._over_cpu)

    # --- limits -----------------------------------------------------------------------------------------------------

    def _close_fence(self, limits: Limits) -> None:
        if not limits:
            return
        from raftd.executor.slot_fence import Fence  # few nodes set limits

        def on_cpu(*_: object) -> None:
            self._over_cpu = limits.cpu()
            if self._interruptible:
                raise self._tasks.LimitExceeded(self._over_cpu)

        self._fence = Fence(limits, on_cpu)
        self._fence.close()

    def _open_fence(self) -> None:
        if self._fence is not None:
            self._fence.open()
            self._fence = None

    # --- what a context asks for (raftd.tasks.context.Link) ---------------------------------------------------------

    def progress(self, fraction: float, message: str) -> None:
        """Sends progress on, unless there was some a moment ago."""
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_EVERY_S and fraction < 1:
            return
        self._progress_at = now
        head = {"t": "progress", "token": self._token, "fraction": fraction, "message": message[:MAX_REASON]}
        if get_ident() != self._main:
            self.send(head)  # no signal interrupts another thread
            return
        was, self._interruptible = self._interruptible, False  # half a frame must not be left on the socket
        self.send(head)
        if was:
            self._interrupt_again()

    def fetch_blob(self, digest: str) -> Path:
        """Has raftd fetch a blob, and waits for it."""
        return Path(self._ask({"t": "want", "digest": digest}, f"blob {digest}")["path"])

    def store_blob(self, source: bytes | Path) -> str:
        """Has raftd store a blob, and waits for it."""
        if isinstance(source, Path):
            digest: str = self._ask({"t": "keep", "path": str(source.absolute())}, f"blob {source}")["digest"]
            return digest
        path = self.run_dir / f"{self._token}.blob"
        try:
            with self._fence.own_file() if self._fence is not None else nullcontext():
                path.write_bytes(source)
            return self.store_blob(path)
        finally:
            path.unlink(missing_ok=True)

    def _ask(self, head: Head, what: str) -> Head:
        """Sends a question about a blob and waits for its answer."""
        if get_ident() != self._main:
            raise RuntimeError("a task uses blobs from its main thread")
        self._asked += 1
        was, self._interruptible = self._interruptible, False
        question = f"{self._token}/{self._asked}"
        self.send(head | {"question": question})
        while True:
            answer = self.take("blob")
            if answer is not None and answer[0]["question"] == question:  # else nobody waits for it any more
                break
            if answer is None:
                if self.take_stop():
                    raise self._tasks.TaskCancelled("the attempt was stopped")
                if not self.receive():
                    os._exit(0)
        if was:
            self._interrupt_again()
        if answer[0]["error"]:
            raise OSError(f"{what}: {answer[0]['error']}")
        return answer[0]

    def make_workdir(self) -> Path:
        """The attempt's private directory."""
        if self._workdir is None:
            self._workdir = self.run_dir / self._token
            self._workdir.mkdir(0o700)
        return self._workdir

    # --- attempts ---------------------------------------------------------------------------------------------------

    def _run(self, request: RunRequest, payload: bytes) -> None:
        self._token = request.token
        self._context = None
        self.stopped = False
        self._progress_at = 0.0
        try:
            kind = self._find(request.kind)
        except Exception as error:  # a foreign kind may raise anything when it is imported
            self.send(EndReport(request.token, "not_started", reason=reason_of(error)).head())
            return
        if kernel.boottime_ms() >= request.deadline_ms:
            late = "the lease had run out before the attempt reached its slot"
            self.send(EndReport(request.token, "not_started", reason=late).head())
            return
        if kind.isolated:
            from raftd.executor.slot_isolated import run_isolated

            report, body = run_isolated(self, kind, request, payload)
        else:
            report, body = self.run_here(kind, request, payload)
        self.send(report.head(), body)

    def _find(self, name: str) -> Any:
        if name not in self._kinds:
            self._kinds[name] = self._registry.find(name)
        return self._kinds[name]

    def run_here(self, kind: Any, request: RunRequest, payload: bytes) -> tuple[EndReport, bytes]:
        """Runs an attempt in this process; returns the report of its end and the bytes of a small result."""
        self._token = request.token
        variables = attempt_env(request)
        context = self._context = self._tasks.TaskContext(
            self,
            task_id=f"t{request.task_id}",
            attempt=request.attempt,
            fencing_token=request.token,
            array_index=request.array_index,
            payload=payload,
        )
        result: Any = None
        failure, brings, over = "", b"", ""
        self._over_cpu = ""
        started_at_ms = wall_ms()
        try:
            try:
                os.environ.update(variables)
                if kind.workdir:
                    os.chdir(self.make_workdir())
                self._tasks.set_current_context(context)
                self._close_fence(request.limits)
                self._interrupt_again()
                result = kind.run(context, request.args)
            finally:
                self._interruptible = False
                self._open_fence()
                self._tasks.set_current_context(None)
        except self._tasks.TaskCancelled as error:
            failure = reason_of(error)
        except self._tasks.LimitExceeded as error:
            failure = over = line(str(error))
            print(failure, file=sys.stderr)
        except BaseException as error:  # SystemExit, too: a task must not end its slot
            over = request.limits.of_error(error)
            failure = reason_of(error, over)
            if isinstance(error, self._tasks.TaskFailed):
                failure, brings = line(str(error), over), error.result
            else:
                steps = error.__traceback__  # the first of them is this function
                traceback.print_exception(type(error), error, steps.tb_next if steps else None)
        self._context = None
        # What was out of memory, or ended in the middle of anything, is no place to start the next in.
        spent = self._tidy(kind, variables) or bool(over)
        ending = Ending(result, failure, brings, self.stopped)
        report, body = report_of(ending, kind.result, request, self.run_dir)
        return replace(report, started_at_ms=started_at_ms, ended_at_ms=wall_ms(), spent=spent), body

    def _tidy(self, kind: Any, variables: dict[str, str]) -> bool:
        """Leaves nothing of an attempt behind; True if a thread is left, which only the process's end removes."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        end_descendants()
        signal.signal(signal.SIGTERM, self._on_term)
        if kind.workdir:
            if os.environ != self._environ:
                os.environ.clear()
                os.environ.update(self._environ)
        else:
            for name in variables:
                if name in self._environ:
                    os.environ[name] = self._environ[name]
                else:
                    os.environ.pop(name, None)
        self.remove_workdir()
        threading = sys.modules.get("threading")
        return threading is not None and threading.active_count() > 1

    def remove_workdir(self) -> None:
        """Removes the attempt's private directory, if it got one."""
        if self._workdir is not None:
            import shutil  # needed by few attempts, and not small

            os.chdir(self.run_dir)
            shutil.rmtree(self._workdir, ignore_errors=True)
            self._workdir = None


def attempt_env(request: RunRequest) -> dict[str, str]:
    """What an attempt's environment has beyond the slot's: the submitter's choice, then who it is."""
    env = dict(request.env)
    env["RAFTD_TASK_ID"] = f"t{request.task_id}"
    env["RAFTD_ATTEMPT"] = str(request.attempt)
    env["RAFTD_FENCING_TOKEN"] = request.token
    if request.array_index is not None:
        env["RAFTD_ARRAY_INDEX"] = str(request.array_index)
    return env


def end_descendants() -> None:
    """Kills whatever is below this process until nothing is: this process adopts orphans, so daemons are, too."""
    refused: set[int] = set()
    while True:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return  # the usual case, and cheap: without a child there is no descendant
        doomed = descendants((os.getpid(),), process_table()) - refused
        refused |= send(doomed, signal.SIGKILL)
        if refused:
            return  # another user's process: beyond our power, and waiting for it would take the slot with it
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def wall_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def enter_session(nice: int) -> None:
    """Leaves raftd's session and priority; the autogroup may need some tries, for the kernel limits their rate."""
    os.setsid()
    kernel.lower_priority(nice)
    patience_ends = time.monotonic() + _AUTOGROUP_PATIENCE_S
    while not kernel.lower_autogroup(nice) and time.monotonic() < patience_ends:
        time.sleep(_AUTOGROUP_RETRY_S)


def use_stdio() -> None:
    """Output is seen as it comes, and never fails for its characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()


def main(arguments: list[str]) -> int:
    """Runs a slot: ``INDEX SERIAL NICE SUPERVISOR_PID WORK_DIR``; its socket and the lock are at fixed numbers."""
    _index, serial, nice, supervisor, work = arguments
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(supervisor):
        return 1
    enter_session(int(nice))
    kernel.adopt_orphans()
    os.set_inheritable(
        LOCK_FD, False
    )  # held by slots, not by what tasks start, which may live a moment longer
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    use_stdio()
    run_dir = Path(work) / f"{supervisor}-{serial}"
    run_dir.mkdir(0o700, parents=True, exist_ok=True)
    os.chdir(run_dir)
    slot = Slot(socket.socket(fileno=SOCKET_FD), run_dir, int(supervisor))
    slot.sock.set_inheritable(False)
    gc.collect()
    gc.freeze()
    slot.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
