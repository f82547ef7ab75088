"""One machine of the cluster: its disk, its clocks, its supervisor, and one life of a node after the other.

What may live here: putting the real parts of a node together as ``raftd.wiring`` does, over simulated surroundings, and
the ways in which a life begins and ends.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from raftd.errors import RaftdError, ShuttingDown, StorageError, Unavailable
from raftd.executor.attach import AttachLoop
from raftd.executor.config import ExecutorConfig
from raftd.node.applier import Applier
from raftd.node.boot import start_of
from raftd.node.clock import ClusterClock
from raftd.node.history import History
from raftd.node.leaders import Leaders
from raftd.node.leadership import Leadership
from raftd.node.members import Members, MemberView
from raftd.node.membership import Membership
from raftd.node.node import Node
from raftd.node.roster import Roster
from raftd.node.sessions import Sessions
from raftd.node.snapshots import Intake, Policy, Snapshots
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Transition
from raftd.raft.types import Configuration, Entry, HardState, Snapshot
from raftd.scheduler.attach import AttemptEnded
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.errors import DamagedLog, StorageFailed
from raftd.storage.identity import Identity
from raftd.storage.log_store import LogStore
from raftd.storage.recovery import Recovered
from raftd.storage.segment import parse_segment_name
from raftd.storage.snapshots import SnapshotReader, SnapshotWriter
from raftd.storage.snapshots import SnapshotStore as Store
from raftd.storage.thread import Installable
from tests.sim.clock import MachineClock
from tests.sim.disk import SimulatedDisk
from tests.sim.executor import KINDS, Slots, Supervisor
from tests.sim.loop import Process, sleep
from tests.sim.network import AttachPipe, Host
from tests.sim.plan import CLUSTER_ID, DATA, Plan, genesis_entry, name_of
from tests.sim.steward import own_labels
from tests.sim.storage import Durable, NotOnTheMedium, SteppedStorage, WatchedLog

if TYPE_CHECKING:
    from tests.sim.world import World


class WatchedApplier(Applier):
    """Tells the checks what every applied entry did."""

    def __init__(
        self, life: Life, machine: StateMachine, clock: ClusterClock, applied: tuple[int, int]
    ) -> None:
        super().__init__(machine, clock, applied)
        self._life = life
        self._effects: tuple[object, ...] = ()
        self.on_effects(self._keep)

    def _keep(self, _index: int, effects: Sequence[object]) -> None:
        self._effects = tuple(effects)

    def apply(self, entry: Entry) -> tuple[Reply, ...]:
        self._effects = ()
        replies = super().apply(entry)
        self._life.world.checks.applied(self._life, entry, replies, self._effects)
        return replies

    def restore(self, state: State, index: int, term: int) -> None:
        super().restore(state, index, term)
        self._life.world.checks.restored(self._life)


class WatchedFiles:
    """Tells the checks of the snapshots that a node takes and names (``raftd.node.snapshots.SnapshotFiles``)."""

    def __init__(self, life: Life, store: Store) -> None:
        self._life = life
        self._store = store

    @property
    def newest(self) -> Snapshot | None:
        return self._store.newest

    def begin(self, index: int, term: int, configuration: Configuration, *, received: bool) -> SnapshotWriter:
        return self._store.begin(index, term, configuration, received=received)

    def publish(self, file: SnapshotWriter, /) -> Snapshot:
        snapshot = self._store.publish(file)
        reader = file.open()
        body = b"".join(iter(lambda: reader.read(1 << 20), b""))
        reader.close()
        self._life.world.checks.same_snapshot(self._life.name, snapshot.index, body)
        self._life.machine.durable.snapshot_named(snapshot.index)
        self._life.world.trace.count("snapshot taken")
        return snapshot

    def open(self, snapshot: Snapshot) -> SnapshotReader:
        return self._store.open(snapshot)


class WatchedStorage(SteppedStorage):
    """Tells the checks what a node takes into its log."""

    life: Life

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        must_sync: bool,
        install: Installable | None = None,
    ) -> None:
        if not self.life.process.fenced:
            if install is not None:
                place = cast("SnapshotWriter", install).snapshot
                self.life.world.checks.installs(self.life, place.index)
            if entries:
                self.life.world.checks.taken(self.life, entries)
        super().submit(number, hard_state, entries, must_sync, install)

    def _write(self, group: Any) -> None:
        if not isinstance(group, list) or group[0].install is None:
            super()._write(group)
            return
        place = group[0].install.snapshot
        self.life.machine.durable.installing = (place.index, place.term)
        super()._write(group)


class SnapshotStream:
    """Carries snapshots to other nodes, a chunk a call (``raftd.node.snapshots.SnapshotTransport``)."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def send(self, announcement: InstallSnapshot, chunks: AsyncIterator[bytes]) -> None:
        network, receiver = self._life.world.network, announcement.receiver

        async def begin(host: Host) -> tuple[Life, Intake]:
            return cast("Life", host), cast("Life", host).snapshots.begin(announcement)

        other, intake = await network.between(self._life, receiver, begin)

        # As in the real stream, whose receiver gives up only when what it was doing is done.
        one_at_a_time = asyncio.Lock()

        async def abort() -> None:
            async with one_at_a_time:
                await intake.abort()

        def same(work: Callable[[], Awaitable[None]]) -> Callable[[Host], Awaitable[None]]:
            async def step(host: Host) -> None:
                if host is not other:
                    raise Unavailable("that life is over")
                async with one_at_a_time:
                    await work()

            return step

        try:
            async for chunk in chunks:
                await network.between(self._life, receiver, same(partial(intake.write, chunk)))
            await network.between(self._life, receiver, same(intake.finish))
        finally:
            if not other.process.fenced:
                other.process.start(abort)


class Reads:
    """Asks another node for a read index (``raftd.node.ports.LeaderReads``)."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def read_index(self, leader: int, timeout_s: float) -> int:
        async def ask(host: Host) -> int:
            return await cast("Life", host).node.read_index(timeout=timeout_s)

        index = await self._life.world.network.between(self._life, leader, ask)
        self._life.world.trace.count("follower read")
        return index


class Life:
    """One life of a node, from its start to its end (``tests.sim.network.Host``)."""

    def __init__(self, machine: Machine, process: Process, directory: DataDirectory) -> None:
        self.machine = machine
        self.world = world = machine.world
        self.process = process
        self.directory = directory
        self.chain: list[bytes] = []
        """By index: the hash of the log up to there; kept by the checks."""
        self.first_segment = directory.log.segment_sequence
        self.seen: object = None
        self.seen_commit = 0
        plan = world.plan
        self.seen_configuration = Configuration(())
        recovered = directory.recovered
        cluster_clock = ClusterClock(machine.clock)
        begin = start_of(directory)
        if begin.snapshot is None:
            begin = replace(begin, state=State(plan.settings))
        self.state_machine = StateMachine(begin.state)
        self.members = Members(lambda: self.state)
        self.applier = WatchedApplier(self, self.state_machine, cluster_clock, begin.applied)
        view = LogStore(recovered.entries, base_index=recovered.base_index, base_term=recovered.base_term)
        log = WatchedLog(directory.log, machine.disk, machine.durable)
        self.storage = WatchedStorage(
            log,
            self._on_durable,
            self._fatal,
            process=process,
            latency_s=machine.disk_latency_s,
            on_full=self._on_full,
        )
        self.storage.life = self
        self.raw = RawNode(
            plan.raft_config(machine.store_id, machine.random.randrange, machine.clock.boottime_ms),
            begin.configuration,
            recovered.hard_state,
            view,
            applied=begin.applied[0],
            on_transition=self._transition,
            snapshot=begin.snapshot,
        )
        self.node = Node(
            raw=self.raw,
            storage=self.storage,
            view=view,
            peers=self,
            applier=self.applier,
            clock=machine.clock,
            cluster_clock=cluster_clock,
            tick_ms=plan.tick_ms,
            on_fatal=self._fatal,
            random_u64=lambda: machine.random.getrandbits(64),
            leader_reads=Reads(self),
        )
        self._make_membership(plan)
        self.leadership = Leadership(self.applier, machine.clock, cluster_clock)
        self.sessions = Sessions(
            CLUSTER_ID, machine.name, self.node, self.leadership, lambda: self.state, machine.clock
        )
        self.leadership.bind(self.sessions)
        self.history = History(plan.changes_kept)
        self.applier.on_effects(self.history.on_effects)
        self.applier.on_restored(lambda: self.history.restart(self.applier.last_applied))
        self._make_executor(plan)

    def _make_membership(self, plan: Plan) -> None:
        machine, directory = self.machine, self.directory
        self.snapshots = Snapshots(
            WatchedFiles(self, directory.snapshots),
            SnapshotStream(self),
            self.applier,
            self.node,
            Policy(plan.snapshot_entries, 1 << 40, plan.kept_entries),
            self._elsewhere,
            chunk_bytes=plan.chunk_bytes,
        )
        self.membership = Membership(self.node, self.members)
        self.roster = Roster(
            machine.name,
            machine.store_id,
            lambda: directory.incarnation,
            lambda: self.state,
            self.members,
            self._set_peers,
            self._fatal,
        )
        self.applier.on_effects(self.roster.on_effects)
        self.applier.on_restored(self.roster.on_restored)

    def _make_executor(self, plan: Plan) -> None:
        machine = self.machine
        self.slots = Slots(
            plan.slots,
            self.process,
            machine.supervisor,
            machine.clock,
            machine.random,
            self._ended,
            self.world.trace,
        )
        self.attach = AttachLoop(
            ExecutorConfig(
                data_dir=Path(DATA),
                cluster_id=CLUSTER_ID,
                store_id=machine.store_id,
                name=machine.name,
                address=f"{machine.name}:1",
                slots=plan.slots,
                kinds=KINDS,
                labels=own_labels(plan.seed, machine.store_id),
                lease_ms=plan.settings.lease_ms,
                heartbeat_ms=plan.settings.lease_ms // 3,
            ),
            self.directory.incarnation,
            self._next_incarnation,
            Leaders(self.node, self.members),
            self,
            self.slots,
            machine.clock,
            machine.supervisor.set_lease,
        )

    @property
    def store_id(self) -> int:
        return self.machine.store_id

    @property
    def name(self) -> str:
        """Of the node."""
        return self.machine.name

    @property
    def state(self) -> State:
        """The applied state."""
        return self.state_machine.state

    def start(self) -> None:
        """Begin to run."""
        self.storage.start()
        self.node.start(self.leadership, self.snapshots)
        self.world.network.up(self)
        self.process.start(self._attach)
        self.process.start(self.roster.run)
        self.process.start(self.membership.run)

    async def stop(self) -> None:
        """End in order."""
        self.machine.supervisor.kill_all("crashed")
        if self.machine.random.random() < 0.7:
            await self.membership.hand_over(2.0)
        await self.snapshots.close()
        await self.node.stop()
        self.storage.close()
        self.directory.close()

    async def _attach(self) -> None:
        while not self.machine.supervisor.idle:
            await sleep(0.01)
        try:
            await self.attach.run()
        except StorageError as error:
            self._fatal(error)

    # ``raftd.node.ports.Peers``

    def send(self, messages: Sequence[Message]) -> None:
        if not self.process.fenced:
            self.world.checks.said(self, messages)
            self.world.network.send(self, messages)

    # ``tests.sim.network.Host``

    def hear(self, message: Message) -> None:
        self.node.deliver((message,))

    def unreachable(self, store_id: int) -> None:
        self.node.unreachable(store_id)

    async def serve_attach(self, stream: AttachPipe) -> None:
        try:
            await self.sessions.serve(stream, stream.write)
        except RaftdError as error:
            stream.refuse(error)

    # ``raftd.executor.protocols.AttachTransport``

    async def connect(self, _leader_name: str, address: str, /) -> AttachPipe:
        network, server_id = self.world.network, self.world.by_name(address.partition(":")[0]).store_id
        await sleep(network.delay_s())
        if network.drops(self.store_id, server_id) or network.drops(server_id, self.store_id):
            await sleep(30)
        if self.process.fenced:
            raise Unavailable("this life is over")
        return network.open_pipe(self, server_id)

    async def _elsewhere(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Where a node waits for its disk (``raftd.node.snapshots.Blocking``)."""
        await sleep(self.machine.random.random() * 0.003)
        if self.process.fenced:
            raise ShuttingDown("this life is over")
        return work(*args, **named)

    async def _set_peers(self, _members: Sequence[MemberView]) -> None:
        self.node.members_changed()

    def _on_full(self, full: bool) -> None:
        self.world.trace.count("disk without room" if full else "room again")
        if not self.process.fenced:
            self.node.storage_full(full)

    def segment_count(self) -> int:
        """Segments that have their name."""
        names = self.machine.disk.listdir(f"{DATA}/log")
        return sum(parse_segment_name(name) is not None for name in names)

    def _ended(self, ended: AttemptEnded) -> None:
        self.attach.on_ended(ended)

    async def _next_incarnation(self) -> int:
        if self.process.fenced:
            raise ShuttingDown("this life is over")
        self.world.trace.count("incarnation given up")
        return self.directory.next_incarnation()

    def _on_durable(self, number: int) -> None:
        if not self.process.fenced:
            self.node.durable(number)

    def _transition(self, transition: Transition) -> None:
        if not self.process.fenced:
            self.world.checks.transition(self, transition)

    def _fatal(self, error: BaseException) -> None:
        if not self.process.fenced:
            self.machine.fatal(self, error)


class Machine:
    """A machine: what is kept while lives come and go."""

    def __init__(self, world: World, store_id: int, *, joins: bool = False) -> None:
        self.world = world
        self.store_id = store_id
        self.name = name_of(store_id)
        self.random = Random(f"{world.plan.seed}/machine/{store_id}")
        self.disk = SimulatedDisk()
        self.clock = MachineClock(
            world.loop.time, self.random.randrange(1, 10**9), self.random.randrange(-300, 300)
        )
        self.supervisor = Supervisor(world.loop, self.clock, world.running, world.trace)
        self.life: Life | None = None
        self.life_count = 0
        self.damaged = False
        """Its disk has changed on its own, so that it may refuse to start."""
        self.gone = False
        """It refused."""
        self.retired = False
        """It was removed from the cluster."""
        self.slow_ms = (1, 4)
        self.strike: Callable[[], None] | None = None
        """What happens in the middle of the next write."""
        self.disk_errno: dict[str, int] = {}
        hard_state = HardState(0, 0, 0) if joins else HardState(1, 0, 1)
        entries = [] if joins else [genesis_entry(world.plan)]
        init_directory(
            DATA,
            Identity(CLUSTER_ID, store_id, self.name),
            hard_state,
            entries,
            fs=self.disk,
            segment_bytes=world.plan.segment_bytes,
        )
        self.durable = Durable(Recovered(hard_state, entries, None))

    @property
    def up(self) -> bool:
        """Whether a life runs."""
        return self.life is not None

    def disk_latency_s(self) -> float:
        """How long the next write takes."""
        least, most = self.slow_ms
        takes_s = (least + self.random.random() * (most - least)) / 1000
        if self.strike is not None:
            strike, self.strike = self.strike, None
            self.world.later(takes_s * self.random.random(), strike)
        return takes_s

    def set_disk_errno(self, errno_by_step: dict[str, int]) -> None:
        """From now on the disk refuses these steps."""
        self.disk_errno = errno_by_step
        self.disk.fail_on = self._refuse if errno_by_step else None

    def _refuse(self, what: str, _path: str) -> int:
        code = self.disk_errno.get(what, 0)
        if code and self.random.randrange(3) == 0:
            self.world.trace.count("disk full" if code == errno.ENOSPC else "fsync failed")
            return code
        return 0

    # A life begins.

    def start(self) -> None:
        """Start the node, unless it runs or cannot."""
        if self.life is None and not (self.gone or self.retired or self.world.buried):
            self.life_count += 1
            process = Process(self.world.loop, f"{self.name}.{self.life_count}")
            process.call_soon(self._boot, process)

    def _boot(self, process: Process) -> None:
        if self.life is not None or self.gone or self.retired or self.world.buried:
            return
        world = self.world
        if self._has_unfinished_snapshot():
            world.trace.count("interrupted snapshot")
        self.disk.fail_on = self._refuse if self.disk_errno else None
        try:
            directory = DataDirectory.open(DATA, fs=self.disk, segment_bytes=world.plan.segment_bytes)
        except DamagedLog as error:
            self._refused(error)
            return
        except StorageFailed:
            world.trace.say(f"{self.name} cannot start: its disk refuses")
            self.disk.kill_process()
            world.later(1.0, self.start)
            return
        recovered = directory.recovered
        world.trace.say(
            f"{self.name} starts, incarnation {directory.incarnation}, {recovered.hard_state}, "
            f"{len(recovered.entries)} entries, torn {recovered.torn_tail is not None}"
        )
        newest = directory.snapshots.newest
        world.checks.recovered(self, recovered, 0 if newest is None else newest.index)
        if recovered.base_index:
            world.trace.count("started from a compacted log")
        if self.damaged and self.world.checks.failure is None:
            world.trace.count("damage went unnoticed")
        self.life = Life(self, process, directory)
        world.checks.begins(self.life, recovered)
        self.life.start()

    def _has_unfinished_snapshot(self) -> bool:
        directory = f"{DATA}/snapshots"
        return self.disk.exists(directory) and any(
            name.endswith(".tmp") for name in self.disk.listdir(directory)
        )

    def retire(self) -> None:
        """It was removed from the cluster, and never starts again."""
        self.retired = True
        if self.life is not None:
            self.kill(power=False)

    def _refused(self, error: DamagedLog) -> None:
        self.world.trace.say(f"{self.name} refuses to start: {error.found}")
        self.gone = True
        if self.damaged:
            self.world.trace.count("damage refused")
        else:
            self.world.checks.fail("DamageIsDamage", f"no crash may look like damage: {error.message}")

    # A life ends.

    def kill(self, *, power: bool, silently: bool = False) -> None:
        """The process is killed, or the machine loses its power."""
        life = self.life
        if life is None:
            return
        self._end(life, silently=silently or power)
        if life.storage.writes:
            self.world.trace.count("write under way at a crash")
        segments = life.segment_count()
        life.storage.crash(self.disk, self.random)
        if life.segment_count() > max(segments, life.directory.log.segment_sequence):
            self.world.trace.count("interrupted roll")
        if power:
            self._power_off()
        else:
            self.disk.kill_process()
        self.world.later(self.random.random() * 0.02, lambda: self.supervisor.kill_all("crashed"))

    def _power_off(self) -> None:
        kept = self.random.choice((0, 500, 900, 1000))
        pending = self.disk.pending_sectors()
        survived = 0

        def choose(_: int) -> bool:
            nonlocal survived
            reached = self.random.randrange(1000) < kept
            survived += reached
            return reached

        self.disk.power_off(choose, lambda count: self.random.randrange(count + 1))
        if pending and survived:
            self.world.trace.count("unsynced write survived")

    def stop(self) -> None:
        """The node is told to stop."""
        life = self.life
        if life is not None:
            life.process.start(lambda: self._stop(life))

    async def _stop(self, life: Life) -> None:
        await life.stop()
        if not life.process.fenced:
            self.world.trace.count("stopped in order")
            self._end(life, silently=False)
            self.disk.kill_process()

    def fatal(self, life: Life, error: BaseException) -> None:
        """The node has ended itself."""
        self.world.trace.say(f"{self.name} ends itself: {type(error).__name__}")
        if isinstance(error, NotOnTheMedium):
            self.world.checks.fail("DurableBeforeSay", f"{self.name}: {error}", error)
        elif not isinstance(error, StorageFailed):
            self.world.checks.fail("NodeGoesOn", f"{self.name} ended itself: {error!r}", error)
        self._end(life, silently=False)
        self.disk.kill_process()
        self.supervisor.kill_all("crashed")
        self.world.later(0.5, self.start)

    def _end(self, life: Life, *, silently: bool) -> None:
        self.life = None
        rolled = life.directory.log.segment_sequence - life.first_segment
        self.world.trace.count("segment rolled", rolled)
        life.process.kill()
        self.world.network.down(life, silently=silently)
        self.world.checks.ends(life)
