"""The executor, as the node sees it: start, stop, what runs, whose output is where.

What may live here: putting the supervisor's client, the slots, the lease and the Attach loop together, in order.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from raftd.errors import NameTaken, OldCopy, RaftdError, StoreRemoved
from raftd.executor.attach import AttachLoop
from raftd.executor.attempts import RunningAttempt
from raftd.executor.config import ExecutorConfig
from raftd.executor.kernel import SystemClock
from raftd.executor.logs import AttemptLogs, LogStore
from raftd.executor.protocols import (
    AttachTransport,
    BlobStore,
    Clock,
    LeaderWatch,
    NextIncarnation,
    ResultStore,
)
from raftd.executor.results import Results
from raftd.executor.slots import SlotPool
from raftd.executor.supervisor_client import SupervisorClient
from raftd.scheduler.attach import AttemptEnded
from raftd.scheduler.model import FencingToken

log = logging.getLogger(__name__)

_END_RESERVE_MS = 1_000
"""Of the time to stop in: for the last reports, and for the supervisor's end."""


class Executor:
    """Runs what the leader says, and nothing else.

    Args:
        config: who this is and how it runs attempts.
        incarnation: this life's number, raised and durable already.
        next_incarnation: called when the lease is lost, before the executor registers again.
        leaders: who leads.
        transport: how to reach a leader.
        results: where large results go.
        blobs: where tasks get blobs from, and put some.
        fatal: called when the node must not go on: its data directory is an old copy, or a worker is never taken in.
        clock: None: the machine's.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        *,
        incarnation: int,
        next_incarnation: NextIncarnation,
        leaders: LeaderWatch,
        transport: AttachTransport,
        results: ResultStore,
        blobs: BlobStore,
        fatal: Callable[[BaseException], None],
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._config = config
        self._fatal = fatal
        self._logs = LogStore(
            config.data_dir / "attempts", config.output_limit_bytes, config.logs_kept, config.logs_kept_bytes
        )
        self._slots_changed = asyncio.Event()
        self._pool = SlotPool(
            config,
            clock,
            Results(results, blobs),
            self._logs,
            on_ended=self._on_ended,
            on_progress=self._on_progress,
            on_slots=self._slots_changed.set,
        )
        self._supervisor = SupervisorClient(config, self._pool)
        self._pool.killer = self._supervisor
        self._attach = AttachLoop(
            config,
            incarnation,
            next_incarnation,
            leaders,
            transport,
            self._pool,
            clock,
            self._supervisor.set_lease,
        )
        self._attaching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the supervisor and the slots, and begins to attach; does not wait for a leader.

        Returns when nothing that an earlier life of this node started runs any more.

        Raises:
            RaftdError: the supervisor cannot be started, or an earlier one does not die.
        """
        self._logs.load()
        await self._supervisor.start()
        await asyncio.to_thread(_clear_work, self._config.data_dir / "work", self._supervisor.pid)
        self._attaching = asyncio.create_task(self._attach.run(), name="attach")
        self._attaching.add_done_callback(self._on_end)

    async def stop(self, grace_ms: int) -> None:
        """Ends every attempt, reports what it can, ends the supervisor; takes about ``grace_ms`` at most.

        Attempts get TERM, and KILL when what is left of ``grace_ms`` is only enough for the reports.
        """
        try:
            async with asyncio.timeout(grace_ms / 1000):
                # First: the leader would send back here what this gives back.
                self._attach.leave()
                kill_after_ms = min(self._config.stop_grace_ms, max(0, grace_ms - _END_RESERVE_MS))
                self._pool.stop_all(f"node {self._config.name} is shutting down", kill_after_ms)
                await self._pool.empty()
                await self._attach.all_recorded()
        except TimeoutError:
            log.warning("node %s stops with attempts that it could not report", self._config.name)
        if self._attaching is not None:
            self._attaching.cancel()
            await asyncio.gather(self._attaching, return_exceptions=True)
        await self._supervisor.stop(_END_RESERVE_MS / 1000)
        self._pool.close()

    def _on_end(self, attaching: asyncio.Task[None]) -> None:
        if attaching.cancelled() or (error := attaching.exception()) is None:
            return
        if isinstance(error, OldCopy | NameTaken | StoreRemoved):
            self._fatal(error)
        else:
            log.critical("the executor can run nothing any more: %s", error, exc_info=error)

    # --- what the node asks -----------------------------------------------------------------------------------------

    @property
    def slots_ready(self) -> int:
        """Slots whose process is there, idle or at work."""
        return self._pool.slots_ready

    async def wait_slots_ready(self) -> None:
        """Waits until every slot has its process."""
        while self.slots_ready < self._config.slots:
            self._slots_changed.clear()
            await self._slots_changed.wait()

    @property
    def attached_to(self) -> str:
        """The leader that has welcomed this executor; empty while there is none."""
        return self._attach.attached_to

    @property
    def last_error(self) -> RaftdError | None:
        """Why the last try to attach failed; None after one that worked."""
        return self._attach.last_error

    @property
    def incarnation(self) -> int:
        """The present life's number."""
        return self._attach.incarnation

    @property
    def supervisor_pid(self) -> int:
        """Of the supervisor's process."""
        return self._supervisor.pid

    def running(self) -> tuple[RunningAttempt, ...]:
        """Every attempt that has not ended, with its progress."""
        return self._pool.running()

    def find_running(self, token: FencingToken) -> RunningAttempt | None:
        """One of them, by its token."""
        return next((attempt for attempt in self.running() if attempt.token == token), None)

    def open_logs(self, task_id: int, attempt: int) -> AttemptLogs:
        """The captured output of an attempt that ran, or runs, here.

        Raises:
            LogsGone: nothing is kept of it.
        """
        return self._logs.open(task_id, attempt)

    def _on_ended(self, ended: AttemptEnded) -> None:
        self._attach.on_ended(ended)

    def _on_progress(self) -> None:
        self._attach.on_progress()


def _clear_work(work: Path, supervisor_pid: int) -> None:
    """Removes the working directories of slots that an earlier supervisor had."""
    for entry in work.iterdir():
        if not entry.name.startswith(f"{supervisor_pid}-"):
            shutil.rmtree(entry, ignore_errors=True)
