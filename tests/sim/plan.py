"""What a seed stands for: the size and settings of a cluster, its clients, and the kinds of faults that it will meet.

What may live here: the drawing of a plan, and nothing that runs. A plan can be changed by hand, which is how a failing
one is made smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from raftd.codec.genesis import encode_genesis
from raftd.config import CLOCK_DRIFT_PERCENT, TICKS_AT_ONCE
from raftd.raft.types import Config, Entry, EntryType
from raftd.scheduler.model import Genesis, Member, Settings

CLUSTER_ID = 0xC1
DATA = "/data"

FAULTS = (
    "answers",
    "blackout",
    "clock rate",
    "cut",
    "damage",
    "disk full",
    "drop",
    "duplicate",
    "fsync",
    "isolate leader",
    "kill",
    "late",
    "members",
    "no room",
    "pause",
    "power",
    "reorder",
    "replay",
    "short reigns",
    "slot",
    "slow disk",
    "stalled disk",
    "snapshot",
    "stop",
    "transfer",
    "wall jump",
)
"""Every kind of fault there is. A seed draws some of them: what all of them do together hides what few of them do."""

LEANINGS = ("", "", "", "", "short reigns", "lonely leaders", "struck writes", "moving members")
"""Half of the seeds lean towards one kind of trouble and have little else: what needs a long chain of events to go
wrong is not met by accident."""


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        faults: the kinds that happen.
        fault_s: for how long, in simulated seconds.
        every_s: the mean time between two faults.
        outstanding: requests that a client has under way at once.
        payload_bytes: of a large task.
        longest_ms: how long a sleep may be.
        orders: whether tasks wait for others, for times, for labels and for several slots, and ended ones are submitted
            again or purged.
        words_every_s: the mean time between two words of the steward; 0: there is none.
    """

    seed: int
    faults: tuple[str, ...]
    fault_s: float
    every_s: float = 2.0
    nodes: int = 3
    slots: int = 1
    clients: int = 2
    outstanding: int = 2
    payload_bytes: int = 0
    longest_ms: int = 1_000
    orders: bool = False
    words_every_s: float = 0.0
    tick_ms: int = 50
    election_ticks: int = 8
    heartbeat_ticks: int = 2
    pre_vote: bool = True
    check_quorum: bool = True
    max_message_bytes: int = 1024 * 1024
    max_inflight_messages: int = 256
    max_uncommitted_bytes: int = 64 * 1024 * 1024
    max_committed_bytes_per_ready: int = 256 * 1024
    segment_bytes: int = 16 * 1024
    changes_kept: int = 1000
    snapshot_entries: int = 1 << 40
    kept_entries: int = 3
    chunk_bytes: int = 256 * 1024
    lease_reads: bool = False
    settings: Settings = field(default_factory=Settings)

    @property
    def voters(self) -> tuple[int, ...]:
        """Store ids."""
        return tuple(range(1, self.nodes + 1))

    @property
    def quorum(self) -> int:
        """How many are a majority."""
        return self.nodes // 2 + 1

    @property
    def election_timeout_s(self) -> float:
        """The longest one that is drawn."""
        return 2 * self.election_ticks * self.tick_ms / 1000

    @property
    def lease_ms(self) -> int:
        """Of the leader, for reads; 0 where it always asks. As ``raftd.config.lease_ms`` has it."""
        ticks = self.election_ticks - 1 - TICKS_AT_ONCE
        wanted = self.lease_reads and self.check_quorum
        return ticks * self.tick_ms * (100 - CLOCK_DRIFT_PERCENT) // 100 if wanted else 0

    def raft_config(self, store_id: int, jitter: Callable[[int], int], clock_ms: Callable[[], int]) -> Config:
        """Of one node's core."""
        return Config(
            id=store_id,
            jitter=jitter,
            election_ticks=self.election_ticks,
            heartbeat_ticks=self.heartbeat_ticks,
            max_message_bytes=self.max_message_bytes,
            max_inflight_messages=self.max_inflight_messages,
            max_uncommitted_bytes=self.max_uncommitted_bytes,
            max_committed_bytes_per_ready=self.max_committed_bytes_per_ready,
            pre_vote=self.pre_vote,
            check_quorum=self.check_quorum,
            disk_stall_ticks=max(1, 2_000 // self.tick_ms),
            lease_ms=self.lease_ms,
            clock_ms=clock_ms,
        )


def plan_of(seed: int, leaning: str | None = None) -> Plan:
    """The plan that a seed stands for.

    Args:
        leaning: one of ``LEANINGS``; drawn like the rest where it is not given.
    """
    drawn = Random(f"{seed}/leaning").choice(LEANINGS)
    return _lean(_drawn(seed), drawn if leaning is None else leaning)


def _lean(plan: Plan, leaning: str) -> Plan:
    random = Random(f"{plan.seed}/lean")
    little = tuple(fault for fault in plan.faults if random.random() < 0.1)
    if leaning not in ("short reigns", "lonely leaders"):
        # There, clients that ask for nothing else ask often enough for what is to go wrong.
        plan = _with_orders(plan)
    match leaning:
        case "short reigns":
            # One entry to a message, so that a leader can die between two.
            return replace(
                plan,
                faults=tuple(sorted({"short reigns", *little})),
                fault_s=15.0,
                every_s=1.0,
                nodes=3,
                clients=random.randrange(2),
                max_message_bytes=1,
                max_inflight_messages=1,
            )
        case "lonely leaders":
            # Without check_quorum nothing but the others' word unseats them.
            return replace(
                plan,
                faults=tuple(sorted({"isolate leader", "pause", *little})),
                fault_s=15.0,
                every_s=2.5,
                nodes=3,
                check_quorum=random.random() < 0.3,
                longest_ms=7_000,
                settings=replace(plan.settings, lease_ms=1_500),
            )
        case "struck writes":
            return replace(
                plan,
                faults=tuple(sorted({"power", "blackout", *little})),
                every_s=0.4,
                payload_bytes=6_000,
                segment_bytes=16 * 1024,
            )
        case "moving members":
            return replace(
                plan,
                faults=tuple(sorted({"members", "transfer", *(set(little) - {"damage"})})),
                fault_s=12.0,
                every_s=0.5,
                snapshot_entries=random.choice((12, 40, 100)),
                kept_entries=random.choice((0, 3)),
            )
        case _:
            return plan


def _with_orders(plan: Plan) -> Plan:
    random = Random(f"{plan.seed}/orders")
    return replace(
        plan,
        orders=random.random() < 0.8,
        words_every_s=random.choice((0.0, 0.3, 1.0, 3.0)),
        slots=random.choice((plan.slots, 2, 3)),
    )


def _drawn(seed: int) -> Plan:
    random = Random(f"{seed}/plan")
    likely = random.choice((0.15, 0.35, 0.6))
    faults = {fault for fault in FAULTS if random.random() < likely}
    if "members" in faults:
        # Which of them may be damaged without a majority being lost could not be said beforehand.
        faults.discard("damage")
    return Plan(
        seed=seed,
        faults=tuple(sorted(faults)),
        fault_s=random.choice((6.0, 10.0, 15.0)),
        every_s=random.choice((0.4, 1.0, 2.5)),
        nodes=random.choice((1, 3, 3, 3, 3, 3, 5)),
        slots=random.choice((1, 1, 2)),
        clients=random.choice((1, 2, 3)),
        outstanding=random.choice((1, 2, 5)),
        payload_bytes=random.choice((0, 1_500, 6_000)),
        longest_ms=random.choice((300, 1_000, 3_000, 7_000)),
        election_ticks=random.choice((8, 8, 8, 5)),
        heartbeat_ticks=random.choice((2, 2, 1)),
        pre_vote=random.random() < 0.85,
        check_quorum=random.random() < 0.8,
        max_message_bytes=random.choice((1, 300, 2_000, 1024 * 1024, 1024 * 1024)),
        max_inflight_messages=random.choice((1, 2, 256, 256)),
        max_uncommitted_bytes=random.choice((300, 3_000, 64 * 1024 * 1024, 64 * 1024 * 1024)),
        max_committed_bytes_per_ready=random.choice((1, 500, 256 * 1024, 256 * 1024)),
        segment_bytes=random.choice((4 * 1024, 16 * 1024, 64 * 1024)),
        snapshot_entries=random.choice((8, 40, 100, 1 << 40)),
        kept_entries=random.choice((0, 0, 3, 20)),
        chunk_bytes=random.choice((4_000, 20_000, 256 * 1024)),
        lease_reads=random.random() < 0.25,
        settings=Settings(
            lease_ms=random.choice((1_500, 3_000, 6_000)),
            max_queue=random.choice((6, 40, 1_000_000)),
            crash_limit=random.choice((2, 5, 100)),
        ),
    )


def name_of(store_id: int) -> str:
    """The name of a node."""
    return f"n{store_id}"


def genesis_entry(plan: Plan) -> Entry:
    """Entry 1, the same on every node."""
    members = tuple(Member(name_of(store), store, f"{name_of(store)}:1") for store in plan.voters)
    return Entry(1, 1, EntryType.CONFIGURATION, encode_genesis(Genesis(CLUSTER_ID, 1, members)))
