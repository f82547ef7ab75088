"""The slots of this node: attempts go in, ends come out.

What may live here: queueing attempts for slot processes, timeouts, stops, crashes. What becomes of results is in
``results``. The pool starts nothing without a valid lease, and it reports the end of an attempt only when nothing of it
runs any more: after the slot's own report, or after the supervisor's word that the whole tree is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from raftd.executor.attempts import STOPPED_AS, Attempt, Phase, RunningAttempt
from raftd.executor.config import ExecutorConfig
from raftd.executor.frames import EndReport, Head, RunRequest, end_report
from raftd.executor.limits import over
from raftd.executor.logs import LogStore
from raftd.executor.protocols import Clock
from raftd.executor.records import Cause
from raftd.executor.results import Results
from raftd.executor.slot_link import SlotLink
from raftd.executor.status import describe_status
from raftd.executor.supervisor_client import SlotPipes
from raftd.scheduler.attach import Assignment, AttemptEnded
from raftd.scheduler.model import AttemptOutcome, BlobRef, FencingToken, StopReason

log = logging.getLogger(__name__)

_TERM_PATIENCE_MS = 250
"""Added to the grace, for a slot that ends its task with the grace's last moment."""


class SlotKiller(Protocol):
    """The supervisor, as far as the slots need it."""

    def term(self, serial: int) -> None:
        """Has a slot look at its socket, in the middle of a task."""

    def kill(self, serial: int) -> None:
        """Kills a slot with its tree; another takes its place."""


class _Slot:
    """One slot: the process that serves it now, and what is to run on it."""

    __slots__ = ("current", "index", "link", "newest", "queue")

    def __init__(self, index: int) -> None:
        self.index = index
        self.link: SlotLink | None = None
        self.queue: deque[Attempt] = deque()
        self.current: Attempt | None = None  # on the slot's process
        self.newest: FencingToken | None = None  # the greatest token that was accepted


class SlotPool:
    """Runs attempts.

    Args:
        config: of the executor.
        clock: for the lease.
        results: what becomes of results, and blobs for tasks.
        logs: where output goes.
        on_ended: told the end of every attempt that was not discarded.
        on_progress: told that some attempt has made progress.
        on_slots: told that the number of ready slots may have changed.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        clock: Clock,
        results: Results,
        logs: LogStore,
        on_ended: Callable[[AttemptEnded], None],
        on_progress: Callable[[], None],
        on_slots: Callable[[], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._results = results
        self._logs = logs
        self._on_ended = on_ended
        self._on_progress = on_progress
        self._on_slots = on_slots
        self._slots = [_Slot(index) for index in range(config.slots)]
        self._attempts: dict[FencingToken, Attempt] = {}
        self._kinds = frozenset(config.kinds)
        self._deadline_ms = 0
        self._closed = False
        self._changed = asyncio.Event()  # an attempt is over
        self.killer: SlotKiller | None = None

    # --- what others see --------------------------------------------------------------------------------------------

    @property
    def slots_ready(self) -> int:
        """Slots whose process is there, and idle or at work."""
        return sum(slot.link is not None and slot.link.ready for slot in self._slots)

    def running(self) -> tuple[RunningAttempt, ...]:
        """Every attempt that has not ended, in the order of acceptance."""
        return tuple(attempt.seen() for attempt in self._attempts.values() if not attempt.discarded)

    def tokens(self) -> frozenset[FencingToken]:
        """The tokens of ``running``."""
        return frozenset(token for token, attempt in self._attempts.items() if not attempt.discarded)

    def is_stale(self, assignment: Assignment) -> bool:
        """Whether its slot has accepted this token, or a greater one, before."""
        if not 0 <= assignment.slot < len(self._slots):
            return False
        newest = self._slots[assignment.slot].newest
        return newest is not None and assignment.token <= newest

    # --- what the Attach loop wants ---------------------------------------------------------------------------------

    def set_deadline(self, deadline_ms: int) -> None:
        """The lease is valid until this boot time, in ms."""
        self._deadline_ms = deadline_ms
        for slot in self._slots:
            self._dispatch(slot)

    def start(self, assignment: Assignment) -> None:
        """Accepts an attempt; it starts as soon as its slot is free and the lease is valid.

        A stale or repeated one (see ``is_stale``) is passed over. One that this node cannot run ends as not started.
        """
        if self.is_stale(assignment):
            log.info("attempt %s of t%d is stale: passed over", assignment.token, assignment.task_id)
            return
        refusal = self._refusal(assignment)
        if refusal:
            self._tell(assignment, AttemptOutcome.NOT_STARTED, refusal)
            return
        slot = self._slots[assignment.slot]
        slot.newest = assignment.token
        attempt = Attempt(assignment)
        self._attempts[assignment.token] = attempt
        slot.queue.append(attempt)
        if assignment.stop is not None:
            self.stop(assignment.token, assignment.stop)
        else:
            self._dispatch(slot)

    def stop(self, token: FencingToken, reason: StopReason) -> None:
        """Ends an attempt: TERM, then KILL after the grace. Unknown tokens and repeated stops are passed over.

        One that is withdrawn ends only if it waits still: once begun, it goes on.
        """
        attempt = self._attempts.get(token)
        if attempt is None or (reason is StopReason.WITHDRAWN and attempt.phase is not Phase.WAITING):
            return
        if attempt.stop_outcome is None:
            attempt.stopping = reason
            why = ""
            if reason is StopReason.TIMED_OUT:
                why = f"ran longer than its timeout of {attempt.assignment.run_timeout_ms} ms"
            self._end(attempt, STOPPED_AS[reason], self._config.stop_grace_ms, why)

    def stop_all(self, why: str, grace_ms: int) -> None:
        """Gives everything back, and accepts nothing more: this node shuts down."""
        self._closed = True
        for attempt in list(self._attempts.values()):
            if attempt.stop_outcome is None:
                # Without an intent in the record this gives the attempt back, at no cost for the task.
                self._end(attempt, AttemptOutcome.CANCELLED, grace_ms, why)

    def discard(self, token: FencingToken) -> None:
        """Kills an attempt at once, and forgets it: the cluster has given it up."""
        attempt = self._attempts.get(token)
        if attempt is None or attempt.discarded:
            return
        attempt.discarded = True
        slot = self._slots[attempt.assignment.slot]
        if attempt.phase is Phase.ON_SLOT:
            self._kill(slot)  # the end comes with the supervisor's word
        else:
            self._finish(attempt, AttemptOutcome.LOST)

    def discard_all(self) -> None:
        """Discards everything: the lease is lost, or this incarnation is."""
        for token in list(self._attempts):
            self.discard(token)

    async def empty(self) -> None:
        """Waits until no attempt is left, discarded or not."""
        while self._attempts:
            self._changed.clear()
            await self._changed.wait()

    async def quiet(self) -> None:
        """Waits until nothing that was discarded runs any more."""
        while any(attempt.discarded for attempt in self._attempts.values()):
            self._changed.clear()
            await self._changed.wait()

    # --- what the supervisor says (SlotListener) --------------------------------------------------------------------

    def on_ready(self) -> None:
        """Another supervisor: whatever ran under the one before is gone."""
        for slot in self._slots:
            if slot.link is not None:
                self._lose_process(slot, "the supervisor died", AttemptOutcome.CRASHED)

    def on_spawned(self, pipes: SlotPipes) -> None:
        """A slot has a process again; it is ready when it says so."""
        slot = self._slots[pipes.slot]
        if slot.link is not None:
            self._lose_process(slot, "its slot was replaced", AttemptOutcome.CRASHED)
        slot.link = SlotLink(pipes, self._on_frame, self._on_stray)

    def on_exited(self, slot: int, serial: int, status: int, cause: Cause) -> None:
        """A slot's process has ended, with everything below it."""
        state = self._slots[slot]
        if state.link is None or state.link.serial != serial:
            return
        if cause is Cause.LAPSED:
            self._lose_process(state, "the lease ran out", AttemptOutcome.LOST)
        else:
            words = describe_status(status, self._config.limits) or "exit status 0"
            self._lose_process(state, f"its slot's process ended: {words}", AttemptOutcome.CRASHED)

    def close(self) -> None:
        """Closes what is open; the supervisor must have ended."""
        for slot in self._slots:
            if slot.link is not None:
                self._lose_process(slot, "the executor stopped", AttemptOutcome.CRASHED)

    # --- an attempt's way -------------------------------------------------------------------------------------------

    def _refusal(self, assignment: Assignment) -> str:
        if self._closed:
            return f"node {self._config.name} is shutting down"
        if not 0 <= assignment.slot < len(self._slots):
            return f"node {self._config.name} has no slot {assignment.slot}"
        if assignment.kind not in self._kinds:
            return f"node {self._config.name} does not offer the kind {assignment.kind!r}"
        return ""

    def _dispatch(self, slot: _Slot) -> None:
        link = slot.link
        if link is None or not link.ready or slot.current is not None or not slot.queue:
            return
        if self._clock.boottime_ms() >= self._deadline_ms:
            return
        attempt = slot.current = slot.queue.popleft()
        attempt.phase = Phase.ON_SLOT
        attempt.started_at_ms = self._clock.wall_ms()
        assignment = attempt.assignment
        attempt.output = link.output = self._logs.begin(assignment.task_id, assignment.attempt)
        request = RunRequest(
            task_id=assignment.task_id,
            attempt=assignment.attempt,
            token=attempt.token_text,
            kind=assignment.kind,
            args=assignment.args,
            env=dict(assignment.env),
            array_index=assignment.array_index,
            deadline_ms=self._deadline_ms,
            inline_bytes=self._config.inline_result_bytes,
            result_limit_bytes=self._config.result_limit_bytes,
            limits=self._config.limits,
        )
        if self._config.output_over_bytes:
            attempt.output.on_over(self._config.output_over_bytes, lambda: self._end_noisy(attempt))
        link.send(request.head(), assignment.payload)
        if assignment.run_timeout_ms:
            self._after(
                attempt, assignment.run_timeout_ms, lambda: self.stop(assignment.token, StopReason.TIMED_OUT)
            )

    def _end(self, attempt: Attempt, outcome: AttemptOutcome, grace_ms: int, why: str) -> None:
        attempt.stop_outcome = outcome
        attempt.stop_why = why
        slot = self._slots[attempt.assignment.slot]
        if attempt.phase is not Phase.ON_SLOT or slot.link is None:
            self._finish(attempt, outcome, why)
            return
        slot.link.send({"t": "stop", "token": attempt.token_text})
        if self.killer is not None:
            self.killer.term(slot.link.serial)
        self._after(attempt, grace_ms + _TERM_PATIENCE_MS, lambda: self._kill(slot))

    def _end_noisy(self, attempt: Attempt) -> None:
        if attempt.stop_outcome is None:
            why = over(self._config.output_over_bytes, "bytes of output", "task_output_bytes")
            self._end(attempt, AttemptOutcome.FAILED, self._config.stop_grace_ms, why)

    def _kill(self, slot: _Slot) -> None:
        if slot.link is not None and self.killer is not None:
            slot.link.ready = False
            self.killer.kill(slot.link.serial)

    def _after(self, attempt: Attempt, delay_ms: int, action: Callable[[], None]) -> None:
        attempt.stop_timer()
        attempt.timer = asyncio.get_running_loop().call_later(delay_ms / 1000, action)

    def _finish(
        self,
        attempt: Attempt,
        outcome: AttemptOutcome,
        reason: str = "",
        result: bytes | BlobRef | None = None,
        holders: tuple[str, ...] = (),
        times: tuple[int, int] | None = None,
    ) -> None:
        """Ends an attempt of which nothing runs any more."""
        attempt.stop_timer()
        if attempt.storing is not None:
            attempt.storing.cancel()
        if self._attempts.pop(attempt.assignment.token, None) is None:
            return
        if attempt.output is not None and not attempt.output.ended:
            attempt.output.end()
        slot = self._slots[attempt.assignment.slot]
        if attempt.phase is Phase.WAITING:
            slot.queue.remove(attempt)
        if slot.current is attempt:
            slot.current = None
        if not attempt.discarded:
            started = attempt.started_at_ms
            times = times or (started, self._clock.wall_ms() if started else 0)
            self._tell(attempt.assignment, outcome, reason, result, holders, times)
        self._changed.set()
        self._dispatch(slot)

    def _tell(
        self,
        assignment: Assignment,
        outcome: AttemptOutcome,
        reason: str,
        result: bytes | BlobRef | None = None,
        holders: tuple[str, ...] = (),
        times: tuple[int, int] = (0, 0),
    ) -> None:
        self._on_ended(
            AttemptEnded(
                task_id=assignment.task_id,
                attempt=assignment.attempt,
                token=assignment.token,
                outcome=outcome,
                reason=reason,
                result=result,
                blob_holders=holders,
                started_at_ms=times[0],
                ended_at_ms=times[1],
            )
        )

    # --- what slots say ---------------------------------------------------------------------------------------------

    def _on_frame(self, link: SlotLink, head: Head, body: bytes) -> None:
        what = head["t"]
        slot = self._slots[link.slot]
        if what == "ended":
            self._on_report(slot, link, end_report(head), body)
        elif what == "progress":
            if slot.current is not None and slot.current.token_text == head["token"]:
                slot.current.fraction, slot.current.message = head["fraction"], head["message"]
                self._on_progress()
        elif what == "want":
            self._results.fetch(link, head["question"], head["digest"])
        elif what == "keep":
            self._results.keep(link, head["question"], head["path"])
        elif what == "ready":
            link.ready = True
            self._on_slots()
            self._dispatch(slot)

    def _on_report(self, slot: _Slot, link: SlotLink, report: EndReport, body: bytes) -> None:
        attempt = slot.current
        if attempt is None or attempt.token_text != report.token:
            log.error("slot %d reports the end of %s, which it was not given", slot.index, report.token)
            return
        link.drain_output()
        link.output = None
        self._results.forget(link)
        attempt.stop_timer()
        if report.spent:
            self._kill(slot)
        times = (report.started_at_ms, report.ended_at_ms)
        wrote_too_much = attempt.stop_outcome is AttemptOutcome.FAILED
        if report.outcome == "succeeded" and not wrote_too_much:
            self._keep_result(slot, attempt, report, body, AttemptOutcome.SUCCEEDED)
        elif wrote_too_much or (report.outcome == "stopped" and attempt.stop_outcome is not None):
            assert attempt.stop_outcome is not None
            self._results.drop(report.path)
            self._finish(attempt, attempt.stop_outcome, attempt.stop_why or report.reason, times=times)
        elif report.outcome == "not_started":
            self._finish(attempt, AttemptOutcome.NOT_STARTED, report.reason)
        else:
            self._keep_result(slot, attempt, report, body, AttemptOutcome.FAILED)

    def _keep_result(
        self, slot: _Slot, attempt: Attempt, report: EndReport, body: bytes, outcome: AttemptOutcome
    ) -> None:
        """The end of an attempt: at once if its result goes along, after it is stored otherwise."""
        times = (report.started_at_ms, report.ended_at_ms)
        if report.result == "file" and not attempt.discarded:
            assert attempt.output is not None
            attempt.output.end()
            attempt.phase = Phase.STORING
            slot.current = None
            attempt.storing = asyncio.create_task(self._store(attempt, report, outcome))
            self._dispatch(slot)
            return
        result: bytes | None = None
        if report.result == "inline":
            result = body
        elif report.result == "stdout" and attempt.output is not None:
            result = attempt.output.stdout_tail()[-self._config.inline_result_bytes :]
        self._finish(attempt, outcome, report.reason, result, times=times)

    async def _store(self, attempt: Attempt, report: EndReport, outcome: AttemptOutcome) -> None:
        times = (report.started_at_ms, report.ended_at_ms)
        try:
            stored = await self._results.store(report.path)
        except Exception as error:  # a store that breaks its promise fails the attempt, and leaves a trace
            log.exception("the result of %s", attempt.token_text)
            stored = f"the result cannot be stored: {type(error).__name__}: {error}"
        attempt.storing = None  # it is this very task: not to be cancelled by its own end
        if isinstance(stored, str):
            self._finish(attempt, AttemptOutcome.FAILED, report.reason or stored, times=times)
        else:
            self._finish(attempt, outcome, report.reason, *stored, times)

    def _lose_process(self, slot: _Slot, words: str, outcome: AttemptOutcome) -> None:
        """The process of a slot is gone with its tree: whatever it had said comes first."""
        link = slot.link
        if link is None:
            return
        link.close()
        slot.link = None
        self._on_slots()
        self._results.forget(link)
        attempt = slot.current
        if attempt is not None:
            if attempt.stop_outcome is not None and outcome is not AttemptOutcome.LOST:
                self._finish(attempt, attempt.stop_outcome, attempt.stop_why or "killed after the grace")
            else:
                self._finish(attempt, outcome, words)

    def _on_stray(self, link: SlotLink, data: bytes) -> None:
        text = data[:2000].decode("utf-8", "replace").rstrip()
        log.warning("slot %d (pid %d): %s", link.slot, link.pid, text)
