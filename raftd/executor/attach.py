"""The Attach loop: one stream to whoever leads, the lease that it renews, and what the leader wants done.

What may live here: the conversation, described in docs/attach.md. What runs is the pool's business; when everything
must be dead is the supervisor's, who is told every new deadline before anything relies on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from raftd.errors import IncarnationLost, NameTaken, OldCopy, RaftdError, StoreRemoved, Unavailable
from raftd.executor.attempts import RunningAttempt
from raftd.executor.config import ExecutorConfig
from raftd.executor.leases import Lease
from raftd.executor.protocols import (
    AttachStream,
    AttachTransport,
    Clock,
    Leader,
    LeaderWatch,
    NextIncarnation,
)
from raftd.executor.reconcile import reconcile
from raftd.scheduler.attach import (
    Assignment,
    AttachDown,
    AttachUp,
    AttemptEnded,
    AttemptProgress,
    Heartbeat,
    Hello,
    Welcome,
)
from raftd.scheduler.model import FencingToken, StopReason

log = logging.getLogger(__name__)

MAX_ENDED_PER_MESSAGE = 256
_FIRST_PAUSE_MS = 20
_MIN_SILENCE_MS = 500
_SEND_AGAIN_MS = 5_000
_LEASE_POLL_MS = 500


class Attempts(Protocol):
    """The slots, as the loop uses them (see ``slots.SlotPool``)."""

    def running(self) -> tuple[RunningAttempt, ...]:
        """Every attempt that has not ended."""
        ...

    def tokens(self) -> frozenset[FencingToken]:
        """Their tokens."""
        ...

    def is_stale(self, assignment: Assignment) -> bool:
        """Whether its slot has accepted this token, or a greater one, before."""
        ...

    def set_deadline(self, deadline_ms: int) -> None:
        """The lease is valid until this boot time."""

    def start(self, assignment: Assignment) -> None:
        """Accepts an attempt."""

    def stop(self, token: FencingToken, reason: StopReason) -> None:
        """TERM, then KILL after the grace."""

    def discard(self, token: FencingToken) -> None:
        """Kills an attempt and forgets it."""

    def discard_all(self) -> None:
        """Kills every attempt and forgets it."""

    async def quiet(self) -> None:
        """Waits until nothing that was discarded runs any more."""


class AttachLoop:
    """Keeps one stream to the leader.

    Args:
        config: of the executor.
        incarnation: this life's number.
        next_incarnation: raises it, durably.
        leaders: who leads.
        transport: how to reach a leader.
        attempts: the slots.
        clock: for the lease.
        set_lease: tells the supervisor a deadline, in boot time ms.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        incarnation: int,
        next_incarnation: NextIncarnation,
        leaders: LeaderWatch,
        transport: AttachTransport,
        attempts: Attempts,
        clock: Clock,
        set_lease: Callable[[int], None],
    ) -> None:
        self.incarnation = incarnation
        self.attached_to: str = ""
        self.last_error: RaftdError | None = None
        self._config = config
        self._next_incarnation = next_incarnation
        self._leaders = leaders
        self._transport = transport
        self._attempts = attempts
        self._clock = clock
        self._set_lease = set_lease
        self._lease = Lease(clock, config.lease_ms)
        self._heartbeat_ms = config.heartbeat_ms
        self._unrecorded: dict[FencingToken, AttemptEnded] = {}
        self._sent_at_ms: dict[FencingToken, int] = {}  # on the present stream
        self._progressed = False
        self._leaving = False
        self._wake = asyncio.Event()
        self._all_recorded = asyncio.Event()
        self._all_recorded.set()

    @property
    def lease_valid(self) -> bool:
        """Whether attempts may start and run."""
        return self._lease.valid

    # --- what the slots say -----------------------------------------------------------------------------------------

    def on_ended(self, ended: AttemptEnded) -> None:
        """An attempt has ended: it is told the leader until it is recorded."""
        self._unrecorded[ended.token] = ended
        self._all_recorded.clear()
        self._wake.set()

    def on_progress(self) -> None:
        """Some attempt has made progress: it is told before long."""
        if not self._progressed:
            self._progressed = True
            self._wake.set()

    def leave(self) -> None:
        """This node shuts down: every leader is told to place nothing more here."""
        self._leaving = True
        self._wake.set()

    async def all_recorded(self) -> None:
        """Waits until the leader has recorded everything that has ended."""
        await self._all_recorded.wait()

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until it is cancelled.

        Raises:
            OldCopy: this data directory is an old copy of the store's.
            NameTaken, StoreRemoved: of a worker: the cluster will never take it in. (A member's name is free once the
                lease of who had it before has run out, and of its removal the record tells it.)
            RaftdError: the incarnation cannot be raised: without that, nothing may ever run here again.
        """
        while True:
            try:
                await _first(self._attach(), self._lapse())
                why = "the lease has run out"
            except (NameTaken, StoreRemoved):
                raise
            except OldCopy:
                raise  # a new incarnation would hide it, and may be one that the store has had
            except IncarnationLost as error:
                why = error.message
            await self._begin_anew(why)

    async def _begin_anew(self, why: str) -> None:
        """Everything is dead before the cluster hears of a new incarnation, for that frees what the old one ran."""
        log.warning("node %s, incarnation %d, begins anew: %s", self._config.name, self.incarnation, why)
        self._lease.drop()
        self._attempts.set_deadline(0)
        self._attempts.discard_all()
        await self._attempts.quiet()
        self.incarnation = await self._next_incarnation()

    async def _lapse(self) -> None:
        """Returns when the lease has run out. Looks twice a second, for a sleeping machine stops timers, not leases."""
        while not self._lease.lapsed:
            left_ms = (
                self._lease.deadline_ms - self._clock.boottime_ms() if self._lease.held else _LEASE_POLL_MS
            )
            await asyncio.sleep(min(max(left_ms, 1), _LEASE_POLL_MS) / 1000)

    async def _attach(self) -> None:
        """Dials whoever leads, again and again; ends only by what no other leader would answer differently."""
        pause_ms = _FIRST_PAUSE_MS
        while True:
            leader = self._leaders.leader() or await self._leaders.changed(None)
            if leader is None:
                continue
            began_ms = self._clock.boottime_ms()
            try:
                await _first(self._session(leader), self._leaders.changed(leader))
                self.last_error = None
            except IncarnationLost:
                raise
            except RaftdError as error:
                if self._config.role == "worker" and isinstance(error, NameTaken | StoreRemoved):
                    raise
                self._note(leader, error)
                self._leaders.failed(leader)
            except (
                Exception
            ):  # a bug in one conversation must not end all others; it leaves a trace and a pause
                log.exception("attach to %s", leader[0])
            if self._leaders.leader() != leader:
                pause_ms = _FIRST_PAUSE_MS
                continue
            if self._clock.boottime_ms() - began_ms > 10 * self._config.reconnect_max_ms:
                pause_ms = _FIRST_PAUSE_MS
            jittered_ms = pause_ms * random.uniform(0.5, 1.0)
            pause_ms = min(2 * pause_ms, self._config.reconnect_max_ms)
            await _first(asyncio.sleep(jittered_ms / 1000), self._leaders.changed(leader))

    def _note(self, leader: Leader, error: RaftdError) -> None:
        before, self.last_error = self.last_error, error
        if before is None or before.message != error.message:
            level = logging.INFO if isinstance(error, Unavailable) else logging.ERROR
            log.log(level, "attach to %s at %s: %s", leader[0], leader[1], error.message)

    # --- one session ------------------------------------------------------------------------------------------------

    @property
    def _silence_ms(self) -> int:
        """A leader that does not answer for so long is tried anew."""
        return max(_MIN_SILENCE_MS, self._heartbeat_ms)

    async def _session(self, leader: Leader) -> None:
        try:
            async with asyncio.timeout(self._silence_ms / 1000):
                stream = await self._transport.connect(*leader)
        except TimeoutError:
            raise Unavailable(f"{leader[0]} at {leader[1]} cannot be reached") from None
        try:
            await self._greet(stream, leader)
            self.attached_to = leader[0]
            await _first(self._receive(stream, leader), self._send(stream), self._silence(leader))
        finally:
            self.attached_to = ""
            self._lease.forget_sent()
            self._sent_at_ms.clear()
            await stream.close()

    async def _greet(self, stream: AttachStream, leader: Leader) -> None:
        """Hello, then the Welcome. Only what comes after the Welcome counts for the leader: both ways work then."""
        config = self._config
        hello = Hello(
            cluster_id=config.cluster_id,
            store_id=config.store_id,
            name=config.name,
            incarnation=self.incarnation,
            role=config.role,
            slots=config.slots,
            labels=dict(config.labels),
            kinds=config.kinds,
            address=config.address,
            running=tuple(sorted(self._attempts.tokens())),
            pid=os.getpid(),
        )
        try:
            async with asyncio.timeout(self._silence_ms / 1000):
                await stream.send(AttachUp(hello=hello))
                answer = await stream.receive()
        except TimeoutError:
            raise Unavailable(f"{leader[0]} at {leader[1]} does not answer") from None
        if answer is None or answer.welcome is None:
            raise Unavailable(f"{leader[0]} has ended the stream without a welcome")
        self._on_down(answer)

    async def _receive(self, stream: AttachStream, leader: Leader) -> None:
        while (message := await stream.receive()) is not None:
            self._on_down(message)
            if message.renewal is not None:
                self._leaders.worked(leader)
        self._leaders.failed(leader)

    async def _send(self, stream: AttachStream) -> None:
        """Sends ends as soon as they are there, many at a time, and heartbeats in time."""
        loop = asyncio.get_running_loop()
        beat_at = last_beat = loop.time() - self._config.progress_ms / 1000
        told_leaving = False
        while True:
            self._wake.clear()
            now = loop.time()
            if self._progressed:
                beat_at = min(beat_at, last_beat + self._config.progress_ms / 1000)
            heartbeat = None
            if now >= beat_at:
                heartbeat = Heartbeat(self._lease.heartbeat(), self._progress())
                last_beat, beat_at = now, now + self._heartbeat_ms / 1000
            ended = self._unsent()
            leaving = self._leaving
            if heartbeat is not None or ended or leaving != told_leaving:
                await stream.send(AttachUp(heartbeat=heartbeat, ended=ended, leaving=leaving))
                told_leaving = leaving
                continue
            try:
                async with asyncio.timeout(max(beat_at - loop.time(), 0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _progress(self) -> tuple[AttemptProgress, ...]:
        self._progressed = False
        return tuple(
            AttemptProgress(attempt.token, attempt.fraction, attempt.message)
            for attempt in self._attempts.running()
            if attempt.fraction >= 0 or attempt.message
        )

    def _unsent(self) -> tuple[AttemptEnded, ...]:
        """Ends that are not on this stream yet, or so long ago that the leader may have lost them."""
        if not self._unrecorded:
            return ()
        now_ms = self._clock.boottime_ms()
        ended = []
        for token, end in self._unrecorded.items():
            sent_ms = self._sent_at_ms.get(token)
            if sent_ms is None or now_ms - sent_ms > _SEND_AGAIN_MS:
                self._sent_at_ms[token] = now_ms
                ended.append(end)
                if len(ended) == MAX_ENDED_PER_MESSAGE:
                    break
        return tuple(ended)

    async def _silence(self, leader: Leader) -> None:
        """Ends the session when a heartbeat stays unanswered: a cut swallows words without ending the stream."""
        while True:
            await asyncio.sleep(self._silence_ms / 4000)
            oldest_ms = self._lease.oldest_unanswered_ms()
            if oldest_ms is not None and self._clock.boottime_ms() - oldest_ms > self._silence_ms:
                raise Unavailable(f"{leader[0]} at {leader[1]} has renewed nothing for {self._silence_ms} ms")

    # --- what the leader says ---------------------------------------------------------------------------------------

    def _on_down(self, message: AttachDown) -> None:
        """Acts on the parts in the order of the fields."""
        if message.welcome is not None:
            self._on_welcome(message.welcome)
        if message.renewal is not None and self._lease.renewed(message.renewal.sequence):
            # First the one who kills at the deadline, then those who rely on it.
            self._set_lease(self._lease.deadline_ms)
            self._attempts.set_deadline(self._lease.deadline_ms)
        for assignment in message.start:
            self._attempts.start(assignment)
        for stop in message.stop:
            self._attempts.stop(stop.token, stop.reason)
        for token in message.recorded:
            self._unrecorded.pop(token, None)
            self._sent_at_ms.pop(token, None)
        if not self._unrecorded:
            self._all_recorded.set()

    def _on_welcome(self, welcome: Welcome) -> None:
        self._lease.lease_ms = welcome.lease_ms
        self._heartbeat_ms = welcome.heartbeat_ms
        plan = reconcile(
            welcome.desired, self._attempts.tokens(), self._unrecorded.keys(), self._attempts.is_stale
        )
        for token in plan.kill:
            log.info("attempt %s runs here, but not in the record: it is killed", token)
            self._attempts.discard(token)
        for token, reason in plan.stop:
            self._attempts.stop(token, reason)
        for assignment in plan.start:
            self._attempts.start(assignment)


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Runs all until one has ended; its error is raised, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
