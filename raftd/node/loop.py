"""The one loop that obeys Ready: messages, ticks, proposals and reads go in; writes, sends and applies come out.

What may live here: the loop and its inbox. What callers ask of it is ``node``'s; what the effects mean is elsewhere
(``applier``, ``leadership``, ``sessions``); in which order they happen is ``raftd.raft.ready``'s, and this is the only
place that carries it out.

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
from typing import TypeVar

from raftd.config import TICKS_AT_ONCE
from raftd.errors import (
    RaftdError,
    ShuttingDown,
)
from raftd.node.applier import Applier
from raftd.node.backlog import Backlog
from raftd.node.clock import Clock, ClusterClock
from raftd.node.handover import Handover
from raftd.node.ports import (
    DurableView,
    LeaderReads,
    Leading,
    Peers,
    Received,
    Snapshots,
    Storage,
)
from raftd.node.proposals import Proposal
from raftd.node.proposer import Proposer
from raftd.node.reads import Reads
from raftd.node.tenure import Tenure
from raftd.node.writes import Writes
from raftd.raft import types as raft
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Ready, Status
from raftd.scheduler.commands import Command
from raftd.scheduler.replies import Reply

log = logging.getLogger(__name__)

T = TypeVar("T")

APPLY_MS_PER_TURN = 20
"""So long a turn applies, and at most one entry longer; what is committed beyond that waits for the next."""

READIES_PER_TURN = 8
"""After so many the loop lets others run, however much there is to apply."""

TICKS_PER_TURN = TICKS_AT_ONCE
"""The rest of a stall is not time in which peers could be heard: counting it would start elections for our own
lateness (docs/decisions/0006)."""


class Loop:
    """Drives one consensus core; ``raftd.node.node.Node`` adds what callers ask of it.

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
        leader_reads: how a follower asks for a read index; without it, it serves no linearizable reads.
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
        leader_reads: LeaderReads | None = None,
    ) -> None:
        self._raw = raw
        self._peers = peers
        self._applier = applier
        self._clock = clock
        self._tick_ms = tick_ms
        self._on_fatal = on_fatal
        self._leader_reads = leader_reads
        self._tenure = Tenure(raw.state.id)
        self._proposer = Proposer(
            raw, applier.machine, cluster_clock, random_u64, self._tenure.not_leader, self._ride
        )
        self._backlog = Backlog(raw, applier, self._proposer, clock)
        self._handover = Handover(raw)
        self._snapshots: Snapshots | None = None
        self._disk_full = False
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._messages: deque[Message | Received] = deque()
        self._arrived: list[Received] = []
        self._unreachable: set[raft.NodeId] = set()
        self._heard_ms: dict[raft.NodeId, int] = {}
        self._reads = Reads()
        self._writes = Writes(storage, view, self._send, clock.monotonic_ms)
        self._last_tick_ms = clock.monotonic_ms()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        applier.bind(raw)

    # --- for others on the loop ---------------------------------------------------------------------------------

    def start(self, leading: Leading, snapshots: Snapshots | None = None) -> None:
        """Start the loop; without ``snapshots`` none is taken, sent or installed."""
        self._tenure.leading = leading
        self._snapshots = snapshots
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

    def storage_full(self, full: bool) -> None:
        """Called by the storage thread: the disk has no room for the next segment, or has again."""
        self._loop.call_soon_threadsafe(self._on_storage_full, full)

    def wake(self) -> None:
        """Something that planning looks at has changed."""
        self._wake.set()

    @property
    def leader(self) -> raft.NodeId:
        """Who leads, as far as this node knows; 0 for nobody."""
        return self._tenure.leader

    @property
    def leader_known(self) -> bool:
        """Whether anybody is known to lead."""
        return self._tenure.leader != raft.NO_NODE

    @property
    def leads(self) -> bool:
        """Whether this node leads and has applied its own term's first entry: it may serve and plan."""
        return self._tenure.serves

    def status(self) -> Status:
        """What the core knows."""
        return self._raw.status()

    @property
    def disk_full(self) -> bool:
        """Whether this node takes no submissions because its disk is full."""
        return self._disk_full

    @property
    def configuration(self) -> raft.Configuration:
        """The configuration in force."""
        return self._raw.state.configuration

    def members_changed(self) -> None:
        """The leader's name or address may be known only now: let those who wait for it look again."""
        self._tenure.announce()

    async def leader_changed(self) -> None:
        """Return when the leader, what is known of it, or whether this node serves as one, has changed."""
        await self._tenure.changed()

    # --- for the snapshots --------------------------------------------------------------------------------------

    def receive(self, received: Received) -> None:
        """A snapshot has arrived whole."""
        self._messages.append(received)
        self._wake.set()

    def report_snapshot(self, receiver: raft.NodeId, ok: bool) -> None:
        """The stream of a snapshot to that node has ended."""
        self._raw.report_snapshot(receiver, ok)
        self._wake.set()

    def halt(self, error: BaseException) -> None:
        """The node must not go on: its process ends."""
        self._on_fatal(error)

    def snapshot_taken(self, snapshot: raft.Snapshot, kept_entries: int) -> None:
        """There is a complete snapshot: it is the one to be sent, and the log behind it may go."""
        self._raw.snapshot_taken(snapshot)
        self._writes.compact(snapshot.index - kept_entries)
        self._wake.set()

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
            elif self._backlog:
                self._apply(applied_until_ms)
            elif self._proposer.waiting:
                break
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

    def _on_storage_full(self, full: bool) -> None:
        if full != self._disk_full:
            log.warning("the disk is full: no submissions are taken" if full else "the disk has room again")
            self._disk_full = full

    def _take_durable(self) -> None:
        reached, installed = self._writes.take_durable()
        if reached:
            self._raw.persisted(reached)
            self._backlog.add(installed)

    def _take_messages(self) -> None:
        for peer in self._unreachable:
            self._raw.report_unreachable(peer)
        self._unreachable.clear()
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, Received):
                self._arrived.append(message)
                message = message.announcement
            self._raw.step(message)

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
        self._handover.check(disk_full=self._disk_full, stalled_ms=self._writes.oldest_ms)
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
        self._send(ready.messages)
        self._writes.hand_over(ready, self._wanted(ready.snapshot))
        self._take_durable()
        self._backlog.add(ready.committed_entries)
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
        applied = self._backlog.apply(until_ms)
        if applied.index:
            self._settle_leadership()
            self._reads.applied(applied.index)
            if self._snapshots is not None:
                self._snapshots.applied(applied.entries, applied.size_bytes)

    def _send(self, messages: Sequence[Message]) -> None:
        """A snapshot has a way of its own: bulk must never delay what keeps the cluster together."""
        if any(isinstance(message, InstallSnapshot) for message in messages):
            for message in messages:
                if isinstance(message, InstallSnapshot):
                    self._send_snapshot(message)
            messages = [message for message in messages if not isinstance(message, InstallSnapshot)]
        self._peers.send(messages)

    def _send_snapshot(self, announcement: InstallSnapshot) -> None:
        if self._snapshots is None:
            self._raw.report_snapshot(announcement.receiver, False)
        else:
            self._snapshots.send(announcement)

    def _wanted(self, snapshot: raft.Snapshot | None) -> Received | None:
        """What has arrived, if the core wants it; this is the Ready that says so, so everything else can go."""
        wanted = None
        for received in self._arrived:
            if wanted is None and snapshot is not None and received.announcement.snapshot == snapshot:
                wanted = received
            elif self._snapshots is not None:
                self._snapshots.discard(received.file)
        self._arrived.clear()
        if snapshot is not None and wanted is None:
            raise raft.InvariantViolation(f"the core installs a snapshot that has not arrived: {snapshot}")
        return wanted

    def _plan(self) -> None:
        leading = self._tenure.leading
        if not self._tenure.serves or leading is None:
            return
        commands = tuple(leading.plan(self._last_tick_ms))
        if commands:
            self._proposer.add(self._planned(leading, commands))
            self._wake.set()

    def _ride(self, batch: Sequence[Command]) -> Proposal | None:
        leading = self._tenure.leading
        if not self._tenure.serves or leading is None:
            return None
        commands = tuple(leading.ride(batch))
        return self._planned(leading, commands) if commands else None

    def _planned(self, leading: Leading, commands: tuple[Command, ...]) -> Proposal:
        done: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()

        def settle(future: asyncio.Future[tuple[Reply, ...]]) -> None:
            error = future.exception()
            leading.planned(commands, error if isinstance(error, RaftdError) else None)
            self._wake.set()

        done.add_done_callback(settle)
        return Proposal(commands, 128 * len(commands), self._loop.time() + 3600, done)

    def _settle_leadership(self) -> None:
        self._tenure.settle(self._raw.state.term, self._applier.last_applied_term)

    def _check_leads(self) -> None:
        if self._stopping:
            raise ShuttingDown("this node is shutting down")
        if not self.leads:
            raise self._tenure.not_leader()
