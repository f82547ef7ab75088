"""The executor's surroundings: slots that only pretend to work, and the supervisor that ends them at the deadline.

What may live here: stand-ins for processes. The conversation with the leader, the lease and what becomes of a Welcome
are the real ``raftd.executor.attach``; the rules of a slot are those of docs/attach.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from raftd.executor.attempts import STOPPED_AS, RunningAttempt
from raftd.scheduler.attach import Assignment, AttemptEnded
from raftd.scheduler.model import AttemptOutcome, FencingToken, StopReason
from tests.sim.clock import MachineClock
from tests.sim.loop import NOBODY, Process, SimulatedLoop
from tests.sim.trace import Trace

KINDS = ("fail", "noop", "sleep")
LONGEST_S = 2.0


class Running:
    """Every attempt that runs anywhere, whatever anybody believes.

    Args:
        one_at_a_time: called when a second attempt of a task starts while one runs.
    """

    def __init__(self, one_at_a_time: Callable[[int, FencingToken, FencingToken], None]) -> None:
        self._running: dict[int, list[FencingToken]] = {}
        self._one_at_a_time = one_at_a_time

    def begin(self, task_id: int, token: FencingToken) -> None:
        """It runs."""
        tokens = self._running.setdefault(task_id, [])
        if tokens:
            self._one_at_a_time(task_id, tokens[-1], token)
        tokens.append(token)

    def end(self, task_id: int, token: FencingToken) -> None:
        """It runs no more."""
        self._running[task_id].remove(token)


@dataclass(slots=True, eq=False)
class Work:
    """What a slot's process does for one attempt."""

    task_id: int
    token: FencingToken
    ended: Callable[[str], None]


class Supervisor:
    """The parent of the slots. It outlives ``raftd``, and kills what runs when the lease ends or ``raftd`` does.

    Attributes:
        late_s: how late it may be; within the lease's margin.
    """

    def __init__(self, loop: SimulatedLoop, clock: MachineClock, running: Running, trace: Trace) -> None:
        self.late_s = 0.0
        self._loop = loop
        self._clock = clock
        self._running = running
        self._trace = trace
        self._work: dict[Work, None] = {}
        self._deadline_ms = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._work

    def set_lease(self, deadline_ms: int) -> None:
        """Everything is to be killed at this time."""
        self._deadline_ms = deadline_ms
        self._arm()

    def begin(self, work: Work) -> None:
        """A slot begins to run."""
        self._work[work] = None
        self._running.begin(work.task_id, work.token)
        self._arm()

    def end(self, work: Work) -> None:
        """It runs no more; may be called again."""
        if work in self._work:
            del self._work[work]
            self._running.end(work.task_id, work.token)

    def runs(self, work: Work) -> bool:
        """Whether it has not ended."""
        return work in self._work

    def kill_all(self, why: str) -> None:
        """Everything ends now."""
        for work in tuple(self._work):
            self.end(work)
            work.ended(why)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._work:
            after_s = self._clock.until_s(self._deadline_ms) + self.late_s
            self._timer = self._loop.call_at(self._loop.time() + after_s, self._lapse, context=NOBODY)

    def _lapse(self) -> None:
        if self._clock.monotonic_ms() < self._deadline_ms:
            self._arm()
        elif self._work:
            self._trace.count("lease ran out under work")
            self.kill_all("lapsed")


@dataclass(slots=True, eq=False)
class _Attempt:
    assignment: Assignment
    work: Work | None = None
    stopping: StopReason | None = None
    discarded: bool = False
    started_at_ms: int = 0


class Slots:
    """The slots as one life of a node sees them (``raftd.executor.attach.Attempts``).

    Args:
        count: how many.
        process: of this life.
        supervisor: of its machine.
        clock: of its machine.
        random: how long things take and how they end.
        on_ended: told the end of every attempt that was not discarded.
        trace: for the counters.
    """

    def __init__(
        self,
        count: int,
        process: Process,
        supervisor: Supervisor,
        clock: MachineClock,
        random: Random,
        on_ended: Callable[[AttemptEnded], None],
        trace: Trace,
    ) -> None:
        self._process = process
        self._supervisor = supervisor
        self._clock = clock
        self._random = random
        self._on_ended = on_ended
        self._trace = trace
        self._attempts: dict[FencingToken, _Attempt] = {}
        self._newest: list[FencingToken | None] = [None] * count
        self._queues: list[deque[_Attempt]] = [deque() for _ in range(count)]
        self._current: list[_Attempt | None] = [None] * count
        self._deadline_ms = 0
        self._changed = asyncio.Event()

    # ``Attempts``.

    def running(self) -> tuple[RunningAttempt, ...]:
        return tuple(
            RunningAttempt(
                task_id=attempt.assignment.task_id,
                attempt=attempt.assignment.attempt,
                token=token,
                slot=attempt.assignment.slot,
                kind=attempt.assignment.kind,
                started_at_ms=attempt.started_at_ms,
                fraction=-1.0,
                message="",
                stopping=attempt.stopping,
            )
            for token, attempt in self._attempts.items()
            if not attempt.discarded
        )

    def tokens(self) -> frozenset[FencingToken]:
        return frozenset(token for token, attempt in self._attempts.items() if not attempt.discarded)

    def is_stale(self, assignment: Assignment) -> bool:
        newest = self._newest[assignment.slot]
        return newest is not None and assignment.token <= newest

    def set_deadline(self, deadline_ms: int) -> None:
        self._deadline_ms = deadline_ms
        for slot in range(len(self._queues)):
            self._dispatch(slot)

    def start(self, assignment: Assignment) -> None:
        if self.is_stale(assignment):
            return
        if assignment.kind not in KINDS:
            self._tell(_Attempt(assignment), AttemptOutcome.NOT_STARTED)
            return
        attempt = _Attempt(assignment)
        self._newest[assignment.slot] = assignment.token
        self._attempts[assignment.token] = attempt
        self._queues[assignment.slot].append(attempt)
        if assignment.stop is not None:
            self.stop(assignment.token, assignment.stop)
        else:
            self._dispatch(assignment.slot)

    def stop(self, token: FencingToken, reason: StopReason) -> None:
        attempt = self._attempts.get(token)
        if attempt is None or attempt.stopping is not None:
            return
        if reason is StopReason.WITHDRAWN and attempt.work is not None:
            self._trace.count("withdrawn too late")
            return
        attempt.stopping = reason
        if attempt.work is None:
            self._over(attempt, STOPPED_AS[reason])
        else:
            self._process.call_later(self._random.random() * 0.3, self._stopped, attempt)

    def discard(self, token: FencingToken) -> None:
        attempt = self._attempts.get(token)
        if attempt is None or attempt.discarded:
            return
        attempt.discarded = True
        if attempt.work is None:
            self._over(attempt, AttemptOutcome.LOST)
        else:
            # The supervisor needs a moment to kill a tree.
            self._process.call_later(0.001 + self._random.random() * 0.03, self._killed, attempt)

    def discard_all(self) -> None:
        for token in tuple(self._attempts):
            self.discard(token)

    async def quiet(self) -> None:
        while any(attempt.discarded for attempt in self._attempts.values()):
            self._changed.clear()
            await self._changed.wait()

    def crash_one(self) -> bool:
        """A slot's process dies; whether there was one at work."""
        for attempt in self._current:
            if attempt is not None and attempt.work is not None and self._supervisor.runs(attempt.work):
                self._supervisor.end(attempt.work)
                attempt.work.ended("crashed")
                return True
        return False

    # An attempt's way.

    def _dispatch(self, slot: int) -> None:
        queue = self._queues[slot]
        if self._current[slot] is not None or not queue or self._clock.boottime_ms() >= self._deadline_ms:
            return
        attempt = self._current[slot] = queue.popleft()
        attempt.started_at_ms = self._clock.wall_ms()
        assignment = attempt.assignment

        def ended(why: str) -> None:
            self._process.call_soon(self._work_ended, attempt, why)

        work = attempt.work = Work(assignment.task_id, assignment.token, ended)
        self._supervisor.begin(work)
        takes_s = LONGEST_S * self._random.random() ** 3
        if assignment.kind == "noop":
            takes_s = 0.0005
        elif assignment.kind == "sleep":
            takes_s = int(assignment.args[0]) / 1000
        self._process.loop.call_later(takes_s, self._done, work, assignment.kind, context=NOBODY)
        if assignment.run_timeout_ms:
            self._process.call_later(
                assignment.run_timeout_ms / 1000, self.stop, assignment.token, StopReason.TIMED_OUT
            )

    def _done(self, work: Work, kind: str) -> None:
        """In the slot's process: it has come to its end."""
        if self._supervisor.runs(work):
            self._supervisor.end(work)
            work.ended("failed" if kind == "fail" and self._random.random() < 0.7 else "done")

    def _work_ended(self, attempt: _Attempt, why: str) -> None:
        if attempt.assignment.token not in self._attempts:
            return
        outcome = {
            "done": AttemptOutcome.SUCCEEDED,
            "failed": AttemptOutcome.FAILED,
            "crashed": AttemptOutcome.CRASHED,
            "lapsed": AttemptOutcome.LOST,
        }[why]
        if attempt.stopping is not None:
            outcome = STOPPED_AS[attempt.stopping]
        self._over(attempt, outcome)

    def _stopped(self, attempt: _Attempt) -> None:
        if attempt.work is not None and self._supervisor.runs(attempt.work):
            self._supervisor.end(attempt.work)
            attempt.work.ended("done")

    def _killed(self, attempt: _Attempt) -> None:
        assert attempt.work is not None, "only what was started is killed"
        self._supervisor.end(attempt.work)
        self._over(attempt, AttemptOutcome.LOST)

    def _over(self, attempt: _Attempt, outcome: AttemptOutcome) -> None:
        if self._attempts.pop(attempt.assignment.token, None) is None:
            return
        slot = attempt.assignment.slot
        if self._current[slot] is attempt:
            self._current[slot] = None
        else:
            self._queues[slot].remove(attempt)
        if not attempt.discarded:
            self._tell(attempt, outcome)
        self._changed.set()
        self._dispatch(slot)

    def _tell(self, attempt: _Attempt, outcome: AttemptOutcome) -> None:
        assignment = attempt.assignment
        succeeded = outcome is AttemptOutcome.SUCCEEDED
        self._on_ended(
            AttemptEnded(
                task_id=assignment.task_id,
                attempt=assignment.attempt,
                token=assignment.token,
                outcome=outcome,
                reason="" if succeeded else outcome.name.lower(),
                result=b"%d.%d" % (assignment.token.epoch, assignment.token.counter) if succeeded else None,
                blob_holders=(),
                started_at_ms=attempt.started_at_ms,
                ended_at_ms=self._clock.wall_ms(),
            )
        )
