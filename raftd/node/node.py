"""The one loop that obeys Ready: messages, ticks, proposals and reads go in; writes, sends and applies come out.

What may live here: the loop and its inbox. What the effects mean is elsewhere (``applier``, ``leadership``,
``sessions``); in which order they happen is ``raftd.raft.ready``'s, and this is the only place that carries it out.

Everything runs on the event loop's thread but for the storage thread, which reports back through
``call_soon_threadsafe``. One turn of the loop takes whatever has come in, so that under load one entry carries many
commands, one write many entries and one message many of both.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence

from raftd.errors import DeadlinePassed, OutcomeUnknown, RaftdError, ShuttingDown
from raftd.node.applier import Applier
from raftd.node.clock import Clock, ClusterClock
from raftd.node.ports import DurableView, Leading, Peers, Storage
from raftd.node.proposals import Proposal
from raftd.node.proposer import Proposer
from raftd.node.reads import Reads
from raftd.node.tenure import Tenure
from raftd.node.writes import Writes
from raftd.raft import types as raft
from raftd.raft.messages import Message
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Ready, Status
from raftd.scheduler.commands import Command
from raftd.scheduler.replies import Reply

log = logging.getLogger(__name__)

APPLY_MS_PER_TURN = 20
"""So long a turn applies, and at most one entry longer; what is committed beyond that waits for the next."""

READIES_PER_TURN = 8
"""After so many the loop lets others run, however much there is to apply."""

TICKS_PER_TURN = 2
"""Ticks that one late turn makes up at most. The rest of a stall is not time in which peers could be heard: counting
it would start elections for our own lateness (docs/decisions/0006)."""


class Node:
    """Drives one consensus core.

    Args:
        raw: the core.
        storage: where Readys are written.
        view: the durable log in memory, that the core reads.
        peers: where messages go.
        applier: what committed entries are applied to.
        clock: time.
        cluster_clock: the time that entries are stamped with.
        tick_ms: the length of a tick.
        on_fatal: called once if the loop cannot go on; the process must end.
        random_u64: the chance that is stamped on entries; a simulator brings its own.
    """

    def __init__(
        self,
        raw: RawNode,
        storage: Storage,
        view: DurableView,
        peers: Peers,
        applier: Applier,
        clock: Clock,
        cluster_clock: ClusterClock,
        tick_ms: int,
        on_fatal: Callable[[BaseException], None],
        random_u64: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._raw = raw
        self._peers = peers
        self._applier = applier
        self._clock = clock
        self._tick_ms = tick_ms
        self._on_fatal = on_fatal
        self._tenure = Tenure(raw.state.id)
        self._proposer = Proposer(raw, cluster_clock, random_u64, self._tenure.not_leader)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._messages: deque[Message] = deque()
        self._unreachable: set[raft.NodeId] = set()
        self._heard_ms: dict[raft.NodeId, int] = {}
        self._reads = Reads()
        self._writes = Writes(storage, view, peers)
        self._committed: deque[raft.Entry] = deque()
        self._last_tick_ms = clock.monotonic_ms()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    # --- for others on the loop ---------------------------------------------------------------------------------

    def start(self, leading: Leading) -> None:
        """Start the loop."""
        self._tenure.leading = leading
        self._task = asyncio.create_task(self._run(), name="node loop")
        self._schedule_tick()

    async def stop(self) -> None:
        """End the loop; whoever still waits gets ``ShuttingDown``."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        error = ShuttingDown("this node is shutting down")
        self._proposer.close(error)
        self._reads.fail_all(error)
        self._tenure.end()

    def deliver(self, messages: Sequence[Message]) -> None:
        """Messages of a peer have come in."""
        self._messages.extend(messages)
        if messages:
            self._heard_ms[messages[-1].sender] = self._clock.monotonic_ms()
        self._wake.set()

    def silence_ms(self, store_id: raft.NodeId) -> int | None:
        """How long ago this peer was last heard; None where it never was."""
        heard_ms = self._heard_ms.get(store_id)
        return None if heard_ms is None else self._clock.monotonic_ms() - heard_ms

    def unreachable(self, store_id: raft.NodeId) -> None:
        """Messages to this peer may have been lost."""
        self._unreachable.add(store_id)
        self._wake.set()

    def durable(self, number: int) -> None:
        """Called by the storage thread: every Ready up to this one is durable."""
        self._loop.call_soon_threadsafe(self._on_durable, number)

    def wake(self) -> None:
        """Something that planning looks at has changed."""
        self._wake.set()

    @property
    def leader(self) -> raft.NodeId:
        """Who leads, as far as this node knows; 0 for nobody."""
        return self._tenure.leader

    @property
    def leads(self) -> bool:
        """Whether this node leads and has applied its own term's first entry: it may serve and plan."""
        return self._tenure.serves

    def status(self) -> Status:
        """What the core knows."""
        return self._raw.status()

    async def leader_changed(self) -> None:
        """Return when the leader, or whether this node serves as one, has changed."""
        await self._tenure.changed()

    async def propose(
        self, commands: Sequence[Command], *, timeout: float, size_bytes: int = 512
    ) -> tuple[Reply, ...]:
        """Have commands committed and applied; one reply each.

        Args:
            commands: applied in order, in one entry.
            timeout: seconds.
            size_bytes: about their encoded size.

        Raises:
            NotLeader: this node does not lead (yet); nothing was appended.
            TooManyUncommitted: nothing was appended.
            OutcomeUnknown: it was appended, and then leadership was lost or time ran out.
            DeadlinePassed: time ran out before it was appended.
        """
        self._check_leads()
        done: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()
        proposal = Proposal(tuple(commands), size_bytes, self._loop.time() + timeout, done)
        self._proposer.add(proposal)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            if not proposal.appended:
                raise DeadlinePassed("the deadline passed before it was proposed") from None
            raise OutcomeUnknown(
                "not committed in time: a majority of the voters did not confirm it"
            ) from None

    async def read_barrier(self, *, timeout: float) -> int:
        """Return once this node's applied state is fresh: it holds everything committed before the call.

        Raises:
            NotLeader: this node does not lead, or lost leadership before a quorum confirmed it.
            DeadlinePassed: no quorum confirmed it in time.
        """
        self._check_leads()
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._reads.add(waiter)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            raise DeadlinePassed("a majority of the voters did not confirm the read in time") from None

    # --- the loop -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._stopping:
                await self._wake.wait()
                self._wake.clear()
                self._turn()
                # Lets everything that waits for this loop run before the next turn: it takes all of it at once.
                await asyncio.sleep(0)
        except BaseException as error:
            self._on_fatal(error)
            raise

    def _turn(self) -> None:
        self._take_durable()
        self._take_messages()
        self._take_ticks()
        applied_until_ms = self._clock.monotonic_ms() + APPLY_MS_PER_TURN
        for _ in range(READIES_PER_TURN):
            self._proposer.append_queued(self._loop.time())
            self._take_reads()
            if self._raw.has_ready():
                self._carry_out(self._raw.ready(), applied_until_ms)
            elif self._committed:
                self._apply(applied_until_ms)
            else:
                return
            self._plan()
            if self._clock.monotonic_ms() >= applied_until_ms:
                break
        self._wake.set()

    def _schedule_tick(self) -> None:
        if not self._stopping:
            self._wake.set()
            self._loop.call_later(self._tick_ms / 1000, self._schedule_tick)

    def _on_durable(self, number: int) -> None:
        self._writes.durable(number)
        self._wake.set()

    def _take_durable(self) -> None:
        if reached := self._writes.take_durable():
            self._raw.persisted(reached)

    def _take_messages(self) -> None:
        for peer in self._unreachable:
            self._raw.report_unreachable(peer)
        self._unreachable.clear()
        while self._messages:
            self._raw.step(self._messages.popleft())

    def _take_ticks(self) -> None:
        """After the messages, so that a late loop first hears what came in while it was late."""
        now = self._clock.monotonic_ms()
        due = (now - self._last_tick_ms) // self._tick_ms
        if due <= 0:
            return
        if due > TICKS_PER_TURN and self._tenure.leading is not None:
            self._tenure.leading.stalled((due - TICKS_PER_TURN) * self._tick_ms)
        for _ in range(min(due, TICKS_PER_TURN)):
            self._raw.tick()
        self._last_tick_ms += due * self._tick_ms
        self._writes.flush_commit()
        self._plan()

    def _take_reads(self) -> None:
        if not self._reads.queued:
            return
        if not self.leads:
            self._reads.fail_queued(self._tenure.not_leader())
            return
        context = self._reads.start_round()
        try:
            self._raw.read_index(context)
        except raft.NotLeader:
            # The core stepped down in this very turn; the Ready that says so is yet to come.
            self._reads.dropped((context,), self._tenure.not_leader())

    def _carry_out(self, ready: Ready, applied_until_ms: int) -> None:
        """The steps of ``raftd.raft.ready``, in its order; applying goes on in later turns where it takes long."""
        self._peers.send(ready.messages)
        self._writes.hand_over(ready)
        self._take_durable()
        self._committed.extend(ready.committed_entries)
        self._apply(applied_until_ms)
        if ready.soft_state is not None:
            if self._tenure.become(ready.soft_state):
                self._proposer.leadership_lost()
            self._settle_leadership()
        if ready.reads_dropped:
            self._reads.dropped(ready.reads_dropped, self._tenure.not_leader())
        self._reads.confirmed(ready.read_states)
        self._reads.applied(self._applier.last_applied)

    def _apply(self, until_ms: int) -> None:
        """Apply what is committed, in order, until the time is up, but one entry at least: a small entry may be much
        work (an array of tasks), and peers and ticks must not wait for many of those."""
        index = 0
        while self._committed and (not index or self._clock.monotonic_ms() < until_ms):
            entry = self._committed.popleft()
            replies = self._applier.apply(entry)
            self._proposer.applied(entry, replies)
            index = entry.index
        if index:
            self._raw.applied(index)
            self._settle_leadership()
            self._reads.applied(index)

    def _plan(self) -> None:
        leading = self._tenure.leading
        if not self._tenure.serves or leading is None:
            return
        commands = tuple(leading.plan(self._last_tick_ms))
        if commands:
            done: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()

            def settle(future: asyncio.Future[tuple[Reply, ...]]) -> None:
                error = future.exception()
                leading.planned(commands, error if isinstance(error, RaftdError) else None)
                self._wake.set()

            done.add_done_callback(settle)
            self._proposer.add(Proposal(commands, 128 * len(commands), self._loop.time() + 3600, done))
            self._wake.set()

    def _settle_leadership(self) -> None:
        self._tenure.settle(self._raw.state.term, self._applier.last_applied_term)

    def _check_leads(self) -> None:
        if self._stopping:
            raise ShuttingDown("this node is shutting down")
        if not self.leads:
            raise self._tenure.not_leader()
