"""The supervisor: a tiny process outside raftd, parent of the slots, holder of the lease's deadline.

Run as ``python -m raftd.executor.supervisor``. What may live here: its loop, and nothing that needs a library: it must
start in milliseconds, stay small, and do its one duty when everything else has gone wrong. That duty: **nothing that it
started runs past the lease, or without raftd.** At the deadline, or when raftd's socket closes, it kills every slot
with its whole tree, busy or idle. It kills the idle ones too because that closes a race: a raftd that was paused
between looking at its lease and writing to a slot writes, when it wakes, to a socket whose other end is dead.

It holds a lock for as long as it or any slot lives. The next supervisor of the same store takes the lock, and kills
what is left of an earlier one, before it says that it is ready; raftd registers only then.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
from collections import deque

from raftd.executor import kernel
from raftd.executor.process_tree import children, descendants, marked, process_table, send
from raftd.executor.records import RECORD_BYTES, Cause, Op, Record, decode

MARK = "RAFTD_SLOT_OF"
"""Environment variable that names the store in everything that is started."""

SOCKET_FD = 3
LOCK_FD = 4
"""Where a slot finds its socket, and the lock that it keeps held."""

_FIRST_FREE_FD = 10
_KILL_PASS_MS = 10
_LOCK_POLL_MS = 20
_LOCK_PATIENCE_MS = 1_000
"""An earlier supervisor that lives clears up within milliseconds; one that is paused has to be killed."""
_LEASE_POLL_MS = 100
"""poll() does not count suspension: after one, the deadline is seen this late at most."""
_QUICK_DEATH_MS = 2_000
_RESPAWN_FIRST_MS = 100
_RESPAWN_MAX_MS = 5_000


class SlotProcess:
    """One slot's process, from its start until its tree is gone."""

    __slots__ = ("cause", "dying", "index", "pid", "serial", "spawned_at_ms", "status")

    def __init__(self, index: int, serial: int, pid: int) -> None:
        self.index = index
        self.serial = serial
        self.pid = pid
        self.spawned_at_ms = kernel.boottime_ms()
        self.status: int | None = None  # wait status, once it is reaped
        self.dying = False
        self.cause = Cause.ITSELF


class Supervisor:
    """The loop. Single-threaded; every wait is a poll with a bound.

    Args:
        control: the socket to raftd.
        directory: the node's data directory.
        store: of the node, as it stands in the mark.
        slots: how many.
        nice: for the slots.
    """

    def __init__(self, control: socket.socket, directory: str, store: str, slots: int, nice: int) -> None:
        self._control = control
        self._work = os.path.join(directory, "work")
        self._lock_path = os.path.join(directory, "supervisor.lock")
        self._lock_fd = -1
        self._mark = f"{MARK}={store}"
        self._nice = nice
        self._deadline_ms: int | None = None
        self._closing = False
        self._serial = 0
        self._slots: list[SlotProcess] = []
        self._due: dict[int, int] = dict.fromkeys(range(slots), 0)  # slot -> when to start a process for it
        self._quick_deaths = [0] * slots
        self._inbox = b""
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._wake_fd = -1
        self._poll = select.poll()

    def run(self) -> None:
        """Returns when raftd has gone or has asked for the end, and nothing is left running."""
        self._catch_signals()
        self._control.setblocking(False)
        self._poll.register(self._control, select.POLLIN)
        if self._take_lock():
            self._clear_leftovers()
            self._report(Record(Op.READY, pid=os.getpid()))
        while not self._closing or self._slots:
            self._spawn_due()
            self._wait(self._timeout_ms())
            self._hear()
            self._reap()
            self._check_lease()
            self._kill_pass()

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        reader, writer = os.pipe()
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN, which everything started from here would inherit. TERM comes to all at a shutdown of
        # the machine: raftd, too, gets it, ends what runs in good order, and then closes the socket.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._wake_fd = reader
        self._poll.register(reader, select.POLLIN)

    def _timeout_ms(self) -> int:
        now = kernel.boottime_ms()
        bounds = [60_000]
        if any(slot.dying for slot in self._slots):
            bounds.append(_KILL_PASS_MS)
        if self._deadline_ms is not None:
            bounds.append(min(self._deadline_ms - now, _LEASE_POLL_MS))
        bounds.extend(due - now for due in self._due.values())
        return max(0, min(bounds))

    def _wait(self, timeout_ms: int) -> None:
        if not self._closing:
            wanted = select.POLLIN | (select.POLLOUT if self._outbox else 0)
            self._poll.modify(self._control, wanted)
        for fd, event in self._poll.poll(timeout_ms):
            if fd == self._wake_fd:
                os.read(fd, 4096)
            elif event & select.POLLOUT:
                self._flush()

    # --- raftd ------------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        while not self._closing:
            try:
                data = self._control.recv(RECORD_BYTES - len(self._inbox))
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self._close()
                return
            self._inbox += data
            if len(self._inbox) == RECORD_BYTES:
                record = decode(self._inbox)
                self._inbox = b""
                self._obey(record)

    def _obey(self, record: Record) -> None:
        if record.op is Op.LEASE:
            self._deadline_ms = record.value
        elif record.op is Op.QUIT:
            self._close()
        else:
            for slot in self._slots:
                if slot.serial == record.serial and slot.status is None:
                    if record.op is Op.TERM:
                        send((slot.pid,), signal.SIGTERM)
                    elif record.op is Op.KILL:
                        self._doom(slot, Cause.KILLED)

    def _report(self, record: Record, fds: tuple[int, ...] = ()) -> None:
        # Never waits: a paused raftd must not stop this loop.
        self._outbox.append((record.encode(), fds))
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                sent = socket.send_fds(self._control, [data], list(fds)) if fds else self._control.send(data)
            except BlockingIOError:
                return
            except OSError:  # raftd has gone: the next look at the socket says so
                sent = len(data)
            for fd in fds:
                os.close(fd)
            if sent < len(data):
                self._outbox[0] = (data[sent:], ())
            else:
                self._outbox.popleft()

    def _close(self) -> None:
        self._closing = True
        self._due.clear()
        self._poll.unregister(self._control)
        for slot in self._slots:
            self._doom(slot, Cause.CLOSED)

    # --- the lock and what an earlier supervisor left ---------------------------------------------------------------

    def _take_lock(self) -> bool:
        """Waits for the lock; False when raftd has gone meanwhile."""
        self._lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        patience_ends = kernel.boottime_ms() + _LOCK_PATIENCE_MS
        while not self._closing:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if kernel.boottime_ms() >= patience_ends:
                    send(self._leftovers(), signal.SIGKILL)
            self._wait(_LOCK_POLL_MS)
            self._hear()
        return False

    def _clear_leftovers(self) -> None:
        """Kills what outlived an earlier supervisor that was killed itself: its grandchildren, in the worst case."""
        refused: set[int] = set()
        while left := self._leftovers() - refused:
            refused |= send(left, signal.SIGKILL)
            self._wait(_KILL_PASS_MS)
            self._hear()

    def _leftovers(self) -> set[int]:
        return marked(self._mark) - {os.getpid()}

    # --- slots ------------------------------------------------------------------------------------------------------

    def _spawn_due(self) -> None:
        now = kernel.boottime_ms()
        for index in [index for index, due in self._due.items() if due <= now]:
            del self._due[index]
            self._spawn(index)

    def _spawn(self, index: int) -> None:
        self._serial += 1
        ours, theirs = socket.socketpair()
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                self._slot_command(index),
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out_writer, 1),
                    (os.POSIX_SPAWN_DUP2, err_writer, 2),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), SOCKET_FD),
                    (os.POSIX_SPAWN_DUP2, self._lock_fd, LOCK_FD),
                ],
            )
        except OSError as error:
            print(f"raftd supervisor: cannot start slot {index}: {error}", file=sys.stderr, flush=True)
            for fd in (out_reader, err_reader, ours.detach()):
                os.close(fd)
            self._start_later(index)
        else:
            self._slots.append(SlotProcess(index, self._serial, pid))
            spawned = Record(Op.SPAWNED, index, self._serial, pid)
            self._report(spawned, (ours.detach(), out_reader, err_reader))
        finally:
            theirs.close()
            os.close(out_writer)
            os.close(err_writer)

    def _slot_command(self, index: int) -> list[str]:
        numbers = [str(number) for number in (index, self._serial, self._nice, os.getpid())]
        return [sys.executable, "-m", "raftd.executor.slot", *numbers, self._work]

    def _start_later(self, index: int) -> None:
        if not self._closing:
            delay = min(_RESPAWN_FIRST_MS << min(self._quick_deaths[index], 10), _RESPAWN_MAX_MS)
            self._quick_deaths[index] += 1
            self._due[index] = kernel.boottime_ms() + delay

    def _doom(self, slot: SlotProcess, cause: Cause) -> None:
        if not slot.dying:
            slot.dying = True
            slot.cause = cause

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.pid == pid and slot.status is None:
                    slot.status = status
                    self._doom(slot, Cause.ITSELF)

    def _check_lease(self) -> None:
        if self._deadline_ms is not None and kernel.boottime_ms() >= self._deadline_ms:
            self._deadline_ms = None
            for slot in self._slots:
                self._doom(slot, Cause.LAPSED)

    def _kill_pass(self) -> None:
        """One blow at the trees of all dying slots; those of which nothing is left are reported."""
        if not any(slot.dying for slot in self._slots):
            return
        table = process_table()
        # A dying slot's orphans are reparented to this process: whatever is a child here and no healthy slot dies.
        # Healthy slots keep their own orphans, for they adopt them just as this process does.
        healthy = {slot.pid for slot in self._slots if not slot.dying}
        roots = children(os.getpid(), table) - healthy
        doomed = roots | descendants(roots, table)
        refused = send(doomed, signal.SIGKILL)
        if not kernel.LINUX:
            self._kill_groups()
        self._reap()
        if doomed - refused or any(slot.dying and slot.status is None for slot in self._slots):
            return
        gone = [slot for slot in self._slots if slot.dying]
        self._slots = [slot for slot in self._slots if not slot.dying]
        for slot in gone:
            self._bury(slot)

    def _kill_groups(self) -> None:
        for slot in self._slots:
            if slot.dying and slot.status is None:
                try:
                    os.killpg(slot.pid, signal.SIGKILL)
                except OSError:  # it has no group of its own yet, or it has ended
                    send((slot.pid,), signal.SIGKILL)

    def _bury(self, slot: SlotProcess) -> None:
        self._report(Record(Op.EXITED, slot.index, slot.serial, slot.pid, slot.status or 0, slot.cause))
        if self._closing:
            return
        quick = kernel.boottime_ms() - slot.spawned_at_ms < _QUICK_DEATH_MS
        if slot.cause is Cause.ITSELF and quick:
            self._start_later(slot.index)
        else:
            self._quick_deaths[slot.index] = 0
            self._due[slot.index] = 0


def main(arguments: list[str]) -> int:
    """Runs the supervisor: ``CONTROL_FD DATA_DIR STORE SLOTS NICE``."""
    control_fd, directory, store, slots, nice = arguments
    control = socket.socket(fileno=fcntl.fcntl(int(control_fd), fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD))
    os.close(int(control_fd))
    # Slots find their socket and the lock under small numbers: nothing of ours may ever lie there.
    while (fd := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) < _FIRST_FREE_FD:
        continue
    os.close(fd)
    kernel.adopt_orphans()
    Supervisor(control, directory, store, int(slots), int(nice)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
