"""Local clusters brought up, stopped, started again and taken down.

What may live here: the order of the steps and what happens when one fails. Every call converges: it looks at what is
there, does what is missing, and says when there was nothing to do. One change at a time, under the cluster's lock.
"""

import hashlib
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from raftctl.cluster import ports
from raftctl.cluster.layout import (
    BrokenState,
    ClusterDirectory,
    ClusterOptions,
    ClusterRecord,
    NodeRecord,
    mint_id,
    utc_now,
)
from raftctl.cluster.lock import exclusive
from raftctl.cluster.process import (
    ProcessIdentity,
    identify,
    is_alive,
    marked_with,
    send_signal,
    stop_all,
    wait_gone,
)
from raftctl.cluster.readiness import POLL_S, ClusterView, NodeProbe, is_listening, wait_for, wait_ready
from raftctl.cluster.spawn import MARK_VARIABLE, RaftdCommand, StartedNode, StartFailed, last_words, mark_of
from raftctl.errors import CliError, ExitCode

DEFAULT_SIZE = 3
MAX_SIZE = 99
MAX_WORKERS = 500
WORKERS_AT_ONCE = 4
CREATE_ATTEMPTS = 3
STOP_GRACE_S = 15.0
LEFTOVER_GRACE_S = 5.0
PORT_PATIENCE_S = 1.0
PROBE_TIMEOUT_S = 1.0


class Conflict(CliError):
    """A cluster of that name is there, and is another one than was asked for. Exit code 6."""

    def __init__(self, name: str, differences: Sequence[str]) -> None:
        super().__init__(
            f"cluster {name!r} is there already, with {' and '.join(differences)}",
            f"another NAME; or raftctl cluster down {name}; for its size, raftctl node add or remove",
            ExitCode.REJECTED,
        )


@dataclass(frozen=True, slots=True)
class UpRequest:
    """What `cluster up` asks for. None is "whatever it has", and the default for a new cluster."""

    size: int | None = None
    slots: int | None = None
    allow: tuple[str, ...] | None = None
    fault_injection: bool | None = None
    config: Path | None = None
    workers: int | None = None

    def options(self) -> ClusterOptions:
        """The options of a new cluster. Raises OSError when the settings file cannot be read."""
        default = ClusterOptions()
        return ClusterOptions(
            slots=default.slots if self.slots is None else self.slots,
            allow=default.allow if self.allow is None else tuple(sorted(set(self.allow))),
            fault_injection=default.fault_injection if self.fault_injection is None else self.fault_injection,
            config=None if self.config is None else hashlib.sha256(self.config.read_bytes()).hexdigest(),
        )

    def differences(self, record: ClusterRecord) -> list[str]:
        """What an existing cluster has that is not what was asked for, in words."""
        wanted, has = self.options(), record.options
        found = []
        if self.size is not None and self.size != len(record.members):
            found.append(f"{len(record.members)} nodes, not {self.size}")
        if self.workers is not None and self.workers != len(record.workers):
            found.append(f"{len(record.workers)} workers, not {self.workers}")
        if self.slots is not None and wanted.slots != has.slots:
            found.append(f"{has.slots} slots a node, not {wanted.slots}")
        if self.allow is not None and wanted.allow != has.allow:
            found.append(f"{', '.join(has.allow) or 'nothing'} allowed, not {', '.join(wanted.allow)}")
        if self.fault_injection is not None and wanted.fault_injection != has.fault_injection:
            found.append(f"fault injection {'on' if has.fault_injection else 'off'}")
        if self.config is not None and wanted.config != has.config:
            found.append("another settings file")
        return found


@dataclass(frozen=True, slots=True)
class UpOutcome:
    """What `up` or `start` found and did. `seen` is None when it was not to wait."""

    record: ClusterRecord
    created: bool
    started: tuple[str, ...]
    seen: ClusterView | None


def say_nothing(_: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """The local cluster of one name, whether it exists or not."""

    name: str
    probe: NodeProbe
    command: RaftdCommand = field(default_factory=RaftdCommand)
    progress: Callable[[str], None] = say_nothing
    lock_timeout_s: float = 10.0

    @property
    def directory(self) -> ClusterDirectory:
        """Its files."""
        return ClusterDirectory(self.name)

    def running(self, record: ClusterRecord) -> dict[str, ProcessIdentity]:
        """The living processes of its nodes, paused ones included."""
        found = {name: self.directory.process(name) for name in record.names}
        return {
            name: one.identity for name, one in found.items() if one is not None and is_alive(one.identity)
        }

    def _running_or_found(self, record: ClusterRecord) -> dict[str, ProcessIdentity]:
        """As `running`, and nodes that answer although nobody wrote down their process: an `up` may be killed between
        starting one and writing."""
        running = self.running(record)
        for node in record.nodes:
            if node.name in running or not ports.is_taken(node.port):
                continue
            view = self.probe.view(node, PROBE_TIMEOUT_S)
            found = identify(view.pid) if view is not None else None
            if found is not None:
                self.directory.write_process(node.name, found)
                running[node.name] = found
        return running

    # --- up and start -------------------------------------------------------------------------------------------------

    def up(
        self, request: UpRequest, *, wait: bool, timeout_s: float, keep_on_failure: bool = False
    ) -> UpOutcome:
        """Makes sure that the cluster exists and runs as it was asked for.

        Raises Conflict, StartFailed, NotReady and BrokenState; unless `keep_on_failure`, what this call had begun is
        then undone.
        """
        deadline = time.monotonic() + timeout_s
        with exclusive(self.name, timeout_s):
            record = self.directory.read()
            if record is not None and not record.complete:
                self._discard(
                    record
                )  # left by an `up` that was killed half way: nobody was ever served from it
                record = None
            if record is None:
                self._discard(None)
                return self._create(request, wait, deadline, keep_on_failure)
            if differences := request.differences(record):
                raise Conflict(self.name, differences)
            return self._converge(record, wait, deadline, keep_on_failure)

    def preview(self, request: UpRequest) -> ClusterRecord:
        """The cluster that `up` would make, were it made now: its ports and ids are examples."""
        size = DEFAULT_SIZE if request.size is None else request.size
        return self._new_record(size, request)

    def start(self, *, wait: bool, timeout_s: float) -> UpOutcome:
        """Starts every node that is down. Raises CliError (exit code 3) when there is no such cluster, and as `up`."""
        deadline = time.monotonic() + timeout_s
        with exclusive(self.name, timeout_s):
            return self._converge(self.directory.require(), wait, deadline, keep_on_failure=True)

    def start_nodes(self, names: Sequence[str], timeout_s: float) -> tuple[str, ...]:
        """Starts some nodes and waits until they serve; the names of those that had been down.

        It does not wait for a leader: there may be none before these nodes are up. Raises StartFailed and NotReady; a
        node that is slow is left running.
        """
        deadline = time.monotonic() + timeout_s
        with exclusive(self.name, self.lock_timeout_s):
            record = self.directory.require()
            running = self._running_or_found(record)
            down = [record.node(name) for name in names if name not in running]
            started = self._start(down, record, init=False)
            try:
                wait_for(
                    down, self.probe, deadline, _serving, self.progress, lambda: self._check_alive(started)
                )
            finally:
                for one in started:
                    one.release()
            return tuple(node.name for node in down)

    def _create(self, request: UpRequest, wait: bool, deadline: float, keep_on_failure: bool) -> UpOutcome:
        size = DEFAULT_SIZE if request.size is None else request.size
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            record = self._new_record(size, request)
            started: list[StartedNode] = []
            try:
                self.directory.create(record)
                if request.config is not None:
                    shutil.copyfile(request.config, self.directory.config_file)
                self.progress(f"starting {size} nodes")
                started = self._start(record.members, record, init=True)
                record = record.completed()
                self.directory.write(record)
                started += self._start_workers(record.workers, record, deadline)
                seen = self._wait(record, started, deadline) if wait else None
            except BaseException as failure:
                port_lost = isinstance(failure, StartFailed) and self._lost_its_port(record, failure.node)
                if port_lost or not keep_on_failure:
                    self._discard(record)
                    if isinstance(failure, StartFailed):  # its log is gone with it
                        failure.try_ = "again with --keep-on-failure, to look at what is left"
                if not port_lost or attempt == CREATE_ATTEMPTS:
                    raise
                self.progress("another program took a port meanwhile: once more, with others")
            else:
                return UpOutcome(record, True, record.names, seen)
            finally:
                for one in started:
                    one.release()
        raise AssertionError("the last attempt returns or raises")

    def _converge(
        self, record: ClusterRecord, wait: bool, deadline: float, keep_on_failure: bool
    ) -> UpOutcome:
        running = self._running_or_found(record)
        # Whoever was never let in is started by `node add` alone: it would not become ready by itself.
        down = [node for node in record.expected if node.name not in running]
        started: list[StartedNode] = []
        try:
            if down:
                self.progress(f"starting {', '.join(node.name for node in down)}")
                started = self._start([node for node in down if not node.worker], record, init=False)
                started += self._start_workers([node for node in down if node.worker], record, deadline)
            seen = self._wait(record, started, deadline) if wait else None
        except BaseException:
            if not keep_on_failure:
                stop_all([one.identity for one in started], STOP_GRACE_S)
            raise
        finally:
            for one in started:
                one.release()
        return UpOutcome(record, False, tuple(node.name for node in down), seen)

    def _new_record(self, size: int, request: UpRequest) -> ClusterRecord:
        workers = request.workers or 0
        chosen = ports.free_ports(size + workers)
        nodes = (
            *(
                NodeRecord(f"n{number}", mint_id(), port)
                for number, port in enumerate(chosen[:size], start=1)
            ),
            *(
                NodeRecord(f"w{number}", mint_id(), port, worker=True)
                for number, port in enumerate(chosen[size:], start=1)
            ),
        )
        return ClusterRecord(
            self.name,
            mint_id(),
            utc_now(),
            request.options(),
            nodes,
            numbers_given=size,
            worker_numbers_given=workers,
        )

    def _start_workers(
        self, nodes: Sequence[NodeRecord], record: ClusterRecord, deadline: float
    ) -> list[StartedNode]:
        """Starts workers, some at a time: dozens that import at once would keep the members from electing a leader."""
        started: list[StartedNode] = []

        def stop() -> None:
            stop_all([one.identity for one in started], STOP_GRACE_S)
            for one in started:
                one.release()

        with ExitStack() as undo:
            undo.callback(stop)
            for begin in range(0, len(nodes), WORKERS_AT_ONCE):
                wave = nodes[begin : begin + WORKERS_AT_ONCE]
                self.progress(f"starting workers {wave[0].name} to {nodes[-1].name}")
                started += self._start(wave, record, init=False)
                while not all(is_listening(node.port) for node in wave):
                    self._check_alive(started)
                    if time.monotonic() >= deadline:
                        break  # whoever waits for them will say what they lack
                    time.sleep(POLL_S)
            undo.pop_all()
        return started

    def _start(self, nodes: Iterable[NodeRecord], record: ClusterRecord, *, init: bool) -> list[StartedNode]:
        """Starts nodes side by side, each initialised first if it is new. If one fails, those started are stopped."""
        directory, command = self.directory, self.command

        def one(node: NodeRecord) -> StartedNode | StartFailed:
            try:
                if init:
                    command.init(directory, record, node)
                self._check_port(node)
                return command.start(directory, record, node)
            except StartFailed as failure:
                return failure

        chosen = tuple(nodes)
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:
            outcomes = list(pool.map(one, chosen))
        started = [outcome for outcome in outcomes if isinstance(outcome, StartedNode)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, StartFailed)]
        if failures:
            stop_all([one.identity for one in started], STOP_GRACE_S)
            for one_started in started:
                one_started.release()
            raise failures[0]
        return started

    def _check_port(self, node: NodeRecord) -> None:
        deadline = time.monotonic() + PORT_PATIENCE_S
        while ports.is_taken(node.port):  # the socket of a node that was just killed may take a moment to go
            if time.monotonic() >= deadline:
                raise StartFailed(
                    node.name,
                    f"port {node.port} of {node.name} is in use by another program",
                    (),
                    f"end that program (lsof -i :{node.port}), then raftctl node start {node.name}",
                )
            time.sleep(0.05)

    def _lost_its_port(self, record: ClusterRecord, node_name: str) -> bool:
        process = self.directory.process(node_name)
        alive = process is not None and is_alive(process.identity)
        return not alive and ports.is_taken(record.node(node_name).port)

    def _wait(self, record: ClusterRecord, started: Sequence[StartedNode], deadline: float) -> ClusterView:
        return wait_ready(
            record.expected, self.probe, deadline, lambda: self._check_alive(started), self.progress
        )

    def _check_alive(self, started: Sequence[StartedNode]) -> None:
        for one in started:
            code = one.exit_code()
            if code is not None:
                said = last_words(self.directory, one.name)
                raise StartFailed(one.name, f"{one.name} ended as it started ({_ending(code)})", said)

    # --- stop and down ------------------------------------------------------------------------------------------------

    def stop(self) -> tuple[str, ...]:
        """Stops every node and keeps what they wrote; the names of those that ran. Raises CliError (exit code 3)."""
        with exclusive(self.name, self.lock_timeout_s):
            record = self.directory.require()
            running = self._running_or_found(record)
            self._end(record, running, signal_number=signal.SIGQUIT)
            return tuple(running)

    def stop_nodes(self, names: Sequence[str], grace_s: float = STOP_GRACE_S) -> tuple[str, ...]:
        """Stops some nodes, as `stop`; the names of those that ran."""
        with exclusive(self.name, self.lock_timeout_s):
            record = self.directory.require()
            running = self._running_or_found(record)
            ending = {name: running[name] for name in names if name in running}
            self._end(record, ending, grace_s, signal.SIGQUIT if ending == running else signal.SIGTERM)
            return tuple(ending)

    def down(self, *, purge: bool = False) -> bool:
        """Stops the cluster and deletes everything of it; False when there was nothing.

        With `purge` also when its files cannot be read any more. Raises BrokenState without.
        """
        if not self.directory.exists():
            return False
        with exclusive(self.name, self.lock_timeout_s):
            try:
                record = self.directory.read()
            except BrokenState:
                if not purge:
                    raise
                record = None
            self._discard(record)
            return True

    def _discard(self, record: ClusterRecord | None) -> None:
        """Ends whatever runs and removes the files; `record` is None when it cannot be read."""
        if self.directory.exists():
            self._end(record, self.directory.processes(), signal_number=signal.SIGQUIT)
            self.directory.remove()

    def _end(
        self,
        record: ClusterRecord | None,
        processes: dict[str, ProcessIdentity],
        grace_s: float = STOP_GRACE_S,
        signal_number: int = signal.SIGTERM,
    ) -> None:
        """Stops these nodes, waits for what they had started, and forgets them.

        On TERM a leader has another take over before it ends. On QUIT it does not: where all stop, whoever took over
        would be the next to stop.
        """
        if processes:
            self.progress(f"stopping {', '.join(processes)}")
        stop_all(processes.values(), grace_s, signal_number)
        for name in processes:
            self.directory.forget_process(name)
        if record is not None:
            self._end_leftovers(record)

    def _end_leftovers(self, record: ClusterRecord) -> None:
        """A node's supervisor and slots end with it by themselves; what has not after a while is killed."""
        running = self.running(record)
        stopped = [mark_of(record, name) for name in record.names if name not in running]
        left = wait_gone(marked_with(MARK_VARIABLE, stopped), LEFTOVER_GRACE_S)
        for identity in left:
            send_signal(identity, signal.SIGKILL)
        wait_gone(left, LEFTOVER_GRACE_S)


def _serving(seen: ClusterView) -> str:
    silent = [name for name, view in seen.views.items() if view is None]
    return f"no answer yet from {', '.join(silent)}" if silent else ""


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
