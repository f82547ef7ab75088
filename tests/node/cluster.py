"""An in-memory cluster of real loops over real cores: only the network, the disk and the executors are stand-ins.

Ticks are short and real; tests wait on conditions, never on time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from raftd.codec.genesis import encode_genesis
from raftd.codec.snapshot import decode_snapshot
from raftd.errors import PeerUnreachable
from raftd.node.applier import Applier
from raftd.node.clock import ClusterClock, SystemClock
from raftd.node.history import History
from raftd.node.leadership import Leadership
from raftd.node.members import Members
from raftd.node.membership import Membership
from raftd.node.node import Node
from raftd.node.ports import LeaderReads
from raftd.node.sessions import Sessions
from raftd.node.snapshots import Intake, Policy, Snapshots
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.raw_node import RawNode
from raftd.raft.types import Config, Configuration, Entry, EntryType, HardState
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.model import Genesis
from raftd.scheduler.model import Member as GenesisMember
from raftd.scheduler.state import State
from raftd.storage.identity import Identity
from raftd.storage.log_store import LogStore
from raftd.storage.memory import MemoryDirectory
from raftd.storage.thread import StorageThread
from tests.node.snapshot_files import MemoryFiles, Streams
from tests.support import eventually

CLUSTER_ID = 0xC1
TICK_MS = 10


class ShiftedClock(SystemClock):
    """The machine's clock, moved by what a test says."""

    def __init__(self) -> None:
        self.shift_ms = 0
        self.wall_shift_ms = 0

    def monotonic_ms(self) -> int:
        """See ``Clock``."""
        return super().monotonic_ms() + self.shift_ms

    def wall_ms(self) -> int:
        """See ``Clock``."""
        return super().wall_ms() + self.shift_ms + self.wall_shift_ms


@dataclass
class Wire:
    """Delivers messages between members; ``cut`` holds directed pairs that lose theirs."""

    members: dict[int, Member] = field(default_factory=dict)
    cut: set[tuple[int, int]] = field(default_factory=set)
    reads: dict[int, LeaderReads] = field(default_factory=dict)
    """By asker: another way to the leader's read index than this wire."""
    streams: Streams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = Streams(self._intake)

    def _intake(self, sender: int, receiver: int) -> Callable[[InstallSnapshot], Intake] | None:
        member = self.members.get(receiver)
        return None if member is None or (sender, receiver) in self.cut else member.snapshots.begin

    def send(self, messages: Sequence[Message]) -> None:
        """Deliver on the next turn of the event loop."""
        for message in messages:
            if (message.sender, message.receiver) not in self.cut:
                asyncio.get_running_loop().call_soon(self._deliver, message)

    def _deliver(self, message: Message) -> None:
        member = self.members.get(message.receiver)
        if member is not None and (message.sender, message.receiver) not in self.cut:
            member.node.deliver([message])

    def isolate(self, store_id: int) -> None:
        """Cut one member from all others, both ways."""
        for other in range(1, 10):
            self.cut |= {(store_id, other), (other, store_id)}

    def heal(self) -> None:
        """Lift every cut."""
        self.cut.clear()


class WireReads:
    """Asks another member for a read index, unless it is cut off (``raftd.node.ports.LeaderReads``)."""

    def __init__(self, wire: Wire, asker: int) -> None:
        self._wire = wire
        self._asker = asker

    async def read_index(self, leader: int, timeout_s: float) -> int:
        """See ``LeaderReads``."""
        if self._asker in self._wire.reads:
            return await self._wire.reads[self._asker].read_index(leader, timeout_s)
        member = self._wire.members.get(leader)
        if member is None or {(self._asker, leader), (leader, self._asker)} & self._wire.cut:
            raise PeerUnreachable(f"store {leader} is out of reach")
        return await member.node.read_index(timeout=timeout_s)


class Member:
    """One life of one member."""

    def __init__(
        self,
        wire: Wire,
        directory: MemoryDirectory,
        files: MemoryFiles,
        voters: Sequence[int],
        tick_ms: int,
        policy: Policy,
        lease_ms: int = 0,
    ) -> None:
        self.wire = wire
        self.files = files
        self.directory = directory
        self.store_id = directory.identity.store_id
        self.name = directory.identity.name
        self.fatal: list[BaseException] = []
        recovered = directory.log.recovered()
        self.clock = clock = ShiftedClock()
        self.cluster_clock = cluster_clock = ClusterClock(clock)
        newest = files.newest
        state, applied, configuration = State(), (0, 0), Configuration(tuple(voters))
        if newest is not None:
            state, applied = decode_snapshot([files.published[newest]]), (newest.index, newest.term)
            configuration = newest.configuration
        self.machine = StateMachine(state)
        self.applier = Applier(self.machine, cluster_clock, applied)
        view = LogStore(recovered.entries, base_index=recovered.base_index, base_term=recovered.base_term)
        self.view = view
        self.storage = StorageThread(
            directory.log, self._on_durable, self.fatal.append, on_full=self._on_full, full_retry_s=0.01
        )
        self.lease_now_ms = 0
        """What the core counts a leader's lease by: it stands still, so that no slow machine ends one."""
        self.raw = RawNode(
            Config(
                id=self.store_id,
                jitter=random.randrange,
                election_ticks=8,
                heartbeat_ticks=2,
                lease_ms=lease_ms,
                clock_ms=lambda: self.lease_now_ms,
            ),
            configuration,
            recovered.hard_state,
            view,
            applied=applied[0],
            snapshot=newest,
        )
        self.node = Node(
            raw=self.raw,
            storage=self.storage,
            view=view,
            peers=wire,
            applier=self.applier,
            clock=clock,
            cluster_clock=cluster_clock,
            tick_ms=tick_ms,
            on_fatal=self.fatal.append,
            leader_reads=WireReads(wire, self.store_id),
        )
        self.leadership = Leadership(self.applier, clock, cluster_clock)
        self.sessions = Sessions(CLUSTER_ID, self.name, self.node, self.leadership, lambda: self.state, clock)
        self.leadership.bind(self.sessions)
        self.history = History()
        self.applier.on_effects(self.history.on_effects)
        self.applier.on_restored(lambda: self.history.restart(self.applier.last_applied))
        if applied[0]:
            self.history.restart(applied[0])
        self.snapshots = Snapshots(files, wire.streams, self.applier, self.node, policy)
        self.membership = Membership(self.node, Members(lambda: self.state))
        self._promoting: asyncio.Task[None] | None = None

    def _on_full(self, full: bool) -> None:
        self.node.storage_full(full)

    def _on_durable(self, number: int) -> None:
        self.node.durable(number)

    @property
    def state(self) -> State:
        """The applied state."""
        return self.machine.state

    def start(self) -> None:
        """Begin to run."""
        self.storage.start()
        self.node.start(self.leadership, self.snapshots)
        self._promoting = asyncio.create_task(self.membership.run())
        self.wire.members[self.store_id] = self

    async def stop(self) -> None:
        """End this life; what was durable stays."""
        self.wire.members.pop(self.store_id, None)
        if self._promoting is not None:
            self._promoting.cancel()
            await asyncio.gather(self._promoting, return_exceptions=True)
        await self.snapshots.close()
        await self.node.stop()
        self.storage.close()
        assert not self.fatal, self.fatal


class Cluster:
    """Members that are made, stopped and started again; an async context manager."""

    def __init__(
        self, size: int, *, tick_ms: int = TICK_MS, policy: Policy | None = None, lease_ms: int = 0
    ) -> None:
        self.wire = Wire()
        self.policy = policy or Policy()
        self.tick_ms = tick_ms
        self.lease_ms = lease_ms
        self.voters = tuple(range(1, size + 1))
        genesis = Genesis(
            CLUSTER_ID, 1, tuple(GenesisMember(f"n{i}", i, f"127.0.0.1:{7000 + i}") for i in self.voters)
        )
        entry = Entry(1, 1, EntryType.CONFIGURATION, encode_genesis(genesis))
        self.directories = {
            i: MemoryDirectory(Identity(CLUSTER_ID, i, f"n{i}"), HardState(1, 0, 1), [entry])
            for i in self.voters
        }
        self.files = {i: MemoryFiles() for i in self.voters}

    def join(self, store_id: int) -> Member:
        """A member with an empty log begins to run: it waits to be added."""
        self.directories[store_id] = MemoryDirectory(
            Identity(CLUSTER_ID, store_id, f"n{store_id}"), HardState(0, 0, 0), ()
        )
        self.files[store_id] = MemoryFiles()
        return self.start(store_id)

    async def __aenter__(self) -> Self:
        for store_id in self.voters:
            self.start(store_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in tuple(self.wire.members.values()):
            await member.stop()

    def start(self, store_id: int) -> Member:
        """A new life of a member."""
        voters = self.voters if store_id in self.voters else ()
        member = Member(
            self.wire,
            self.directories[store_id],
            self.files[store_id],
            voters,
            self.tick_ms,
            self.policy,
            self.lease_ms,
        )
        member.start()
        return member

    @property
    def members(self) -> tuple[Member, ...]:
        """Those that run."""
        return tuple(self.wire.members.values())

    async def leader(self, *, but: int = 0) -> Member:
        """The member that leads and serves, once there is one (other than ``but``)."""

        def leading() -> Member | None:
            found = [member for member in self.members if member.node.leads and member.store_id != but]
            return max(found, key=lambda member: member.node.status().term, default=None)

        found = await eventually(leading, 20, "a leader")
        assert found is not None
        return found

    async def agree(self) -> None:
        """Every running member has applied the same, and all of it."""

        def equal() -> bool:
            last = {member.node.status().last_index for member in self.members}
            return len(last) == 1 and all(member.applier.last_applied in last for member in self.members)

        await eventually(equal, 20, "equal logs")
