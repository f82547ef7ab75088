"""An in-memory cluster of real loops over real cores: only the network, the disk and the executors are stand-ins.

Ticks are short and real; tests wait on conditions, never on time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from raftd.codec.genesis import encode_genesis
from raftd.node.applier import Applier
from raftd.node.clock import ClusterClock, SystemClock
from raftd.node.history import History
from raftd.node.leadership import Leadership
from raftd.node.node import Node
from raftd.node.sessions import Sessions
from raftd.raft.messages import Message
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


class Member:
    """One life of one member."""

    def __init__(self, wire: Wire, directory: MemoryDirectory, voters: Sequence[int], tick_ms: int) -> None:
        self.wire = wire
        self.directory = directory
        self.store_id = directory.identity.store_id
        self.name = directory.identity.name
        self.fatal: list[BaseException] = []
        recovered = directory.log.recovered()
        self.clock = clock = ShiftedClock()
        self.cluster_clock = cluster_clock = ClusterClock(clock)
        self.machine = StateMachine()
        self.applier = Applier(self.machine, cluster_clock)
        view = LogStore(recovered.entries)
        self.storage = StorageThread(directory.log, self._on_durable, self.fatal.append)
        self.node = Node(
            raw=RawNode(
                Config(id=self.store_id, jitter=random.randrange, election_ticks=8, heartbeat_ticks=2),
                Configuration(tuple(voters)),
                recovered.hard_state,
                view,
            ),
            storage=self.storage,
            view=view,
            peers=wire,
            applier=self.applier,
            clock=clock,
            cluster_clock=cluster_clock,
            tick_ms=tick_ms,
            on_fatal=self.fatal.append,
        )
        self.leadership = Leadership(self.applier, clock, cluster_clock)
        self.sessions = Sessions(CLUSTER_ID, self.name, self.node, self.leadership, lambda: self.state, clock)
        self.leadership.bind(self.sessions)
        self.history = History()
        self.applier.on_effects(self.history.on_effects)

    def _on_durable(self, number: int) -> None:
        self.node.durable(number)

    @property
    def state(self) -> State:
        """The applied state."""
        return self.machine.state

    def start(self) -> None:
        """Begin to run."""
        self.storage.start()
        self.node.start(self.leadership)
        self.wire.members[self.store_id] = self

    async def stop(self) -> None:
        """End this life; what was durable stays."""
        self.wire.members.pop(self.store_id, None)
        await self.node.stop()
        self.storage.close()
        assert not self.fatal, self.fatal


class Cluster:
    """Members that are made, stopped and started again; an async context manager."""

    def __init__(self, size: int, *, tick_ms: int = TICK_MS) -> None:
        self.wire = Wire()
        self.tick_ms = tick_ms
        self.voters = tuple(range(1, size + 1))
        genesis = Genesis(
            CLUSTER_ID, 1, tuple(GenesisMember(f"n{i}", i, f"127.0.0.1:{7000 + i}") for i in self.voters)
        )
        entry = Entry(1, 1, EntryType.CONFIGURATION, encode_genesis(genesis))
        self.directories = {
            i: MemoryDirectory(Identity(CLUSTER_ID, i, f"n{i}"), HardState(1, 0, 1), [entry])
            for i in self.voters
        }

    async def __aenter__(self) -> Self:
        for store_id in self.voters:
            self.start(store_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in tuple(self.wire.members.values()):
            await member.stop()

    def start(self, store_id: int) -> Member:
        """A new life of a member."""
        member = Member(self.wire, self.directories[store_id], self.voters, self.tick_ms)
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
