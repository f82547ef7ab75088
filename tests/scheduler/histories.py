"""Histories of commands for the tests that try everything: sensible ones, stale ones, and garbage that can be decoded.

A history is a list of numbers and is played on a state: each step looks at the state to aim at something that is
there, or misses on purpose. Replicas that play the same entries must agree. In half of the histories the membership
changes as well, as the real core lets a leader change it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeAlias

from hypothesis import strategies as st

from raftd.codec.commands import decode_batch, encode_batch
from raftd.codec.conf_change import decode_conf_change, encode_conf_change, to_core
from raftd.raft.membership import InvalidConfChange, next_configuration
from raftd.raft.types import Configuration
from raftd.scheduler import queries
from raftd.scheduler.commands import (
    Batch,
    Cancel,
    Command,
    Expire,
    ForgetNode,
    GraphEdge,
    GraphTask,
    Header,
    MarkStopping,
    MembershipChange,
    MembershipChangeKind,
    NodeLost,
    Occupy,
    OccupyNew,
    Purge,
    RecordBlob,
    RegisterNode,
    SetEligibility,
    SetLabels,
    SetSettings,
    Submit,
    Vacate,
)
from raftd.scheduler.machine import Outcome, StateMachine
from raftd.scheduler.membership import check_change
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    BlobRef,
    Condition,
    Dependency,
    Eligibility,
    FencingToken,
    Health,
    NodeRole,
    Settings,
    Standing,
    StopReason,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.planner import InFlight, Observations, PlanningView, plan
from raftd.scheduler.state import State
from tests.scheduler.world import GENESIS, START_MS, graph, registration, resubmission, store_of, submission

SMALL = Settings(
    max_queue=10,
    max_array=8,
    request_retention_ms=20_000,
    tasks_kept=12,
    tasks_kept_ms=60_000,
    max_attempts_kept=3,
    crash_limit=3,
    max_dependencies=3,
    max_graph=5,
)
"""Limits so low that every history runs into them."""

_NAMES = ("n1", "n2", "n3", "n9")
_STORES = range(14)
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1

_ABSURD_SPECS: tuple[dict[str, Any], ...] = (
    {"kind": "unheard-of"},
    {"kind": ""},
    {"priority": -(2**31)},
    {"retries": _U32},
    {"backoff_first_ms": _U64},
    {"run_timeout_ms": _U64},
    {"payload": bytes(300_000)},
    {"queue_timeout_ms": _U64},
    {"delay_ms": _U64},
    {"slots": 0},
    {"slots": _U32},
    {"require": (("", ""),)},
)
_ABSURD_ARRAYS = (ArraySpec(5, 4), ArraySpec(0, 9), ArraySpec(0, _U64), ArraySpec(0, 1, _U64))

_SETTINGS = (
    (("ageing_ms", 0),),
    (("ageing_ms", 2_000), ("placement", 2)),
    (("reserve_depth", 0),),
    (("reserve_depth", 3), ("placement", 1)),
    (("max_queue", 6), ("max_attempts_kept", 2)),
    (("max_queue", 10), ("crash_limit", 2)),
    (("lease_ms", 5),),
    (("no-such-setting", _U64),),
    (("tasks_kept", 5), ("tasks_kept", 5)),
    (("tasks_kept", 6),),
)

seeds = st.integers(0, _U64)
lengths = st.integers(1, 60)


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that changes the membership, and the configuration that the core has after it."""

    changes: tuple[MembershipChange, ...]
    after: Configuration


Entry: TypeAlias = Batch | Change


def play(machine: StateMachine, index: int, entry: Entry) -> Outcome:
    """Apply an entry."""
    if isinstance(entry, Batch):
        return machine.apply(index, entry)
    after = entry.after
    voters, learners = frozenset(after.voters), frozenset(after.learners)
    outcome = machine.apply_conf_change(index, entry.changes, voters, learners, frozenset(after.outgoing))
    standings = {member.store_id: member.standing for member in machine.state.members}
    assert standings.keys() == set(after.members())
    assert {store for store, standing in standings.items() if standing is Standing.VOTER} == voters
    assert {store for store, standing in standings.items() if standing is Standing.LEARNER} == learners
    return outcome


def reread(entry: Entry) -> Entry:
    """The entry as its bytes have it."""
    if isinstance(entry, Batch):
        return decode_batch(encode_batch(entry))
    if not entry.changes:
        return entry
    return replace(entry, changes=decode_conf_change(encode_conf_change(entry.changes)))


class Historian:
    """Makes the entries of one history; each is to be applied before the next is made.

    Args:
        seed: equal seeds and equal states give equal entries.

    Attributes:
        refused: the codes of the changes of the membership that a leader would not have proposed.
    """

    def __init__(self, seed: int) -> None:
        self.refused: set[str] = set()
        self._members_change = seed % 2 == 0
        self._configuration = Configuration(tuple(member.store_id for member in GENESIS.members))
        self._random = Random(seed)
        self._now_ms = START_MS
        # Some histories have a leader whose clock is absurd; what comes after it is late for ever.
        self._absurd_clock = self._random.random() < 0.1

    def entry(self, state: State) -> Entry:
        """The next entry for this state."""
        random = self._random
        if self._members_change and random.random() < 0.3 and (change := self._change(state)) is not None:
            return change
        self._now_ms += random.choice((0, 1, 300, 2_000, 30_000, -1_000))
        commands = tuple(self._command(state) for _ in range(random.choice((0, 1, 1, 2, 5))))
        if random.random() < 0.3:
            commands += (self._rider(state, commands),)
        if random.random() < 0.4:
            view = PlanningView(state, InFlight())
            commands += plan(view, Observations(), max(self._now_ms, state.cluster_time_ms))
        absurd = self._absurd_clock and random.random() < 0.05
        now_ms = random.choice((0, _U64)) if absurd else self._now_ms
        return Batch(Header(now_ms, random.getrandbits(64)), commands)

    def _change(self, state: State) -> Change | None:
        """What a leader would make of a wish: None where it, or the core, refuses."""
        changes: tuple[MembershipChange, ...] = ()
        if not self._configuration.outgoing:
            changes = self._wish(state)
            refusal = check_change(state, changes)
            if refusal is not None:
                self.refused.add(refusal.code)
                return None
        try:
            self._configuration = next_configuration(self._configuration, to_core(changes))
        except InvalidConfChange:
            return None
        return Change(changes, self._configuration)

    def _wish(self, state: State) -> tuple[MembershipChange, ...]:
        random, kinds = self._random, MembershipChangeKind
        member = random.choice(state.members)
        wish = random.random()
        if wish < 0.4:
            name, port = random.choice(_STORES), random.choice(_STORES)
            replaces = random.choice((0, 0, member.store_id, random.choice(_STORES)))
            adding = random.choice((kinds.ADD_LEARNER, kinds.ADD_LEARNER, kinds.ADD_VOTER))
            store_id, address = random.choice(_STORES), f"127.0.0.1:{7000 + port}"
            return (MembershipChange(adding, store_id, f"n{name}", address, bool(wish < 0.3), replaces),)
        if wish < 0.7:
            learners = [member for member in state.members if not member.voter]
            if learners:
                member = random.choice(learners)
            promotion = MembershipChange(kinds.ADD_VOTER, member.store_id, member.name, member.address)
            if member.replaces:
                return promotion, MembershipChange(kinds.REMOVE, member.replaces)
            return (promotion,)
        if wish < 0.9:
            return (MembershipChange(kinds.REMOVE, member.store_id),)
        return tuple(
            MembershipChange(random.choice(tuple(kinds)), random.choice(_STORES), f"n{number}", "")
            for number in range(random.randrange(4))
        )

    def _name(self, state: State) -> str:
        if self._members_change and state.nodes and self._random.random() < 0.7:
            return self._random.choice(tuple(state.nodes))
        return self._random.choice(_NAMES)

    def _identity(self, state: State) -> tuple[str, int]:
        """A name and a store: of a member, of one that was, of a stranger."""
        random = self._random
        if self._members_change and random.random() < 0.7:
            member = random.choice(state.members)
            return member.name, member.store_id
        name = random.choice(_NAMES)
        if self._members_change and random.random() < 0.2:
            return name, random.choice(_STORES)
        return name, store_of(name)

    def _command(self, state: State) -> Command:
        steps = (
            self._submit,
            self._submit,
            self._graph,
            self._retry,
            self._purge,
            self._expire,
            self._vacate,
            self._vacate,
            self._vacate,
            self._occupy,
            self._reserve,
            self._reserve,
            self._cancel,
            self._mark,
            self._register,
            self._register,
            self._lose,
            self._record,
            self._operate,
        )
        return self._random.choice(steps)(state)

    def _submit(self, state: State) -> Command:
        random = self._random
        # A plain id from a small pool collides; an SDK id may be fresh, old, or of the future.
        created_ms = max(0, self._now_ms - random.choice((0, 5_000, 25_000, -50_000)))
        request_id = random.choice((f"r{random.randrange(12)}", f"{created_ms:012x}-{random.randrange(30)}"))
        if random.random() < 0.3:
            request_id = f"r{random.getrandbits(64)}"
        spec = TaskSpec(
            kind=random.choice(("noop", "sleep", "render-tile")),
            args=("{}",) * random.randrange(3),
            priority=random.choice((0, 0, 5, -5, 2**31 - 1)),
            retries=random.choice((0, 1, 3)),
            backoff_first_ms=random.choice((0, 1_000)),
            run_timeout_ms=random.choice((0, 1_000)),
            require=random.choice(((), (), (), (("zone", "a"),), (("gpu", ""), ("zone", "a")))),
            slots=random.choice((1, 1, 1, 2)),
            queue_timeout_ms=random.choice((0, 0, 1_000)),
            delay_ms=random.choice((0, 0, 500, 40_000)),
        )
        array = None
        if random.random() < 0.3:
            array = ArraySpec(3, 3 + random.choice((0, 2, 5)), random.choice((0, 1, 2)))
        if random.random() < 0.15:
            spec = replace(spec, **random.choice(_ABSURD_SPECS))
        elif random.random() < 0.1:
            array = random.choice(_ABSURD_ARRAYS)
        return submission(request_id, spec, array, self._dependencies(state))

    def _graph(self, state: State) -> Command:
        """Mostly one that can be: each comes after earlier ones; now and then after itself, or after nobody."""
        random = self._random
        tasks = []
        for position in range(random.choice((0, 1, 2, 3, 4, 4, 6))):
            count = random.choice((0, 1, 1, 2)) if position else 0
            targets = [random.randrange(position) for _ in range(count)]
            if random.random() < 0.05:
                targets.append(random.choice((position, position + 1, _U32)))
            edges = tuple(GraphEdge(target, random.choice(tuple(Condition))) for target in targets)
            spec = TaskSpec(random.choice(("noop", "sleep")), retries=random.choice((0, 1)))
            if random.random() < 0.03:
                spec = replace(spec, **random.choice(_ABSURD_SPECS))
            tasks.append(GraphTask(spec, edges, self._dependencies(state)))
        return graph(f"g{random.randrange(12)}", *tasks, max_failures=random.choice((0, 0, 1, _U64)))

    def _dependencies(self, state: State) -> tuple[Dependency, ...]:
        random = self._random
        found = []
        for _ in range(random.choice((0, 0, 0, 1, 2, 4))):
            condition, job = random.choice(tuple(Condition)), random.random() < 0.3
            if job:
                target = random.choice((max(state.next_job_id - 1, 0), 1, 2, state.next_job_id))
            else:
                target = self._task_id(state)
            found.append(Dependency(target, job, condition))
        return tuple(found)

    def _retry(self, state: State) -> Command:
        return resubmission(f"r{self._random.randrange(20)}", self._task_id(state))

    def _purge(self, state: State) -> Command:
        random = self._random
        if random.random() < 0.5:
            ids = tuple(self._task_id(state) for _ in range(random.choice((0, 1, 3))))
            return Purge(ids, random.choice(((), (1,), (max(state.next_job_id - 1, 0), _U64))))
        before_ms = random.choice((0, self._now_ms - 30_000, self._now_ms, _U64))
        return Purge(
            (), (), max(before_ms, 0), random.choice(((), (TaskState.FAILED,), (TaskState.PENDING,)))
        )

    def _expire(self, state: State) -> Command:
        return Expire(self._task_id(state))

    def _vacate(self, state: State) -> Command:
        random = self._random
        task_id, attempt, token = self._attempt(state)
        result = random.choice(
            (None, b"", b"r", b"x" * 5_000, BlobRef("ab" * 32, 7), BlobRef("cd" * 32, _U64), BlobRef("no", 1))
        )
        return Vacate(
            task_id,
            attempt,
            token,
            random.choice(tuple(AttemptOutcome)),
            random.choice(("", "boom", "\x00" * 2_000)),
            result,
            random.choice(((), ("n1",), ("n2", "n9", ""))),
            random.choice((0, self._now_ms, _U64)),
            random.choice((0, self._now_ms, _U64)),
        )

    def _occupy(self, state: State) -> Command:
        random = self._random
        name = self._name(state)
        node = state.nodes.get(name)
        incarnation = random.choice((0 if node is None else node.incarnation, random.randrange(4)))
        slot, reserve = random.choice((0, 1, _U32)), random.random() < 0.3
        extra = random.choice(((), (), (1,), (0,), (1, 2), (_U32,)))
        return Occupy(self._task_id(state), name, incarnation, slot, extra, reserve)

    def _reserve(self, state: State) -> Command:
        """Something that is pending, behind something that runs."""
        waiting, busy = queries.next_pending(state, 5), queries.executing(state)
        if not waiting or not busy:
            return self._submit(state)
        row = self._random.choice(busy)
        incarnation = state.nodes[row.node].incarnation
        return Occupy(self._random.choice(waiting).id, row.node, incarnation, row.slot, reserve=True)

    def _rider(self, state: State, commands: tuple[Command, ...]) -> Command:
        """For an entry of these commands."""
        random = self._random
        free = queries.free_nodes(state)
        name = random.choice(free).node if free and random.random() < 0.8 else self._name(state)
        node = state.nodes.get(name)
        incarnation = 1 if node is None else node.incarnation
        made = [at for at, command in enumerate(commands) if isinstance(command, Submit)] or [len(commands)]
        position = random.choice((*made * 9, _U32))
        return OccupyNew(
            position, random.choice((0, 0, 0, 1, _U32)), name, incarnation, random.choice((0, 1))
        )

    def _cancel(self, state: State) -> Command:
        random = self._random
        if random.random() < 0.3:
            return Cancel(job_id=random.choice((1, 2, 3, _U64, max(state.next_job_id - 1, 0))))
        if random.random() < 0.1:
            return Cancel(reason="r" * 5_000)
        return Cancel(task_id=self._task_id(state))

    def _mark(self, state: State) -> Command:
        task_id, attempt, token = self._attempt(state)
        return MarkStopping(task_id, attempt, token, self._random.choice(tuple(StopReason)))

    def _register(self, state: State) -> Command:
        random = self._random
        name, store_id = self._identity(state)
        node = state.nodes.get(name)
        incarnation = (1 if node is None else node.incarnation) + random.choice((0, 0, 0, 1, 1, -1))
        if random.random() < 0.1:
            return RegisterNode(
                random.choice((name, name, "x" * 70)),
                random.choice((0, 1, 77)),
                random.choice((0, 5, _U64)),
                random.choice(tuple(NodeRole)),
                random.choice((0, 1, _U32)),
                (("zone", "a"), ("zone", "b")),
                ("noop", "noop", "sleep"),
                "",
            )
        kinds = random.choice((("noop", "sleep", "render-tile"), ("noop",), ("sleep", "noop")))
        known = registration(name, min(max(incarnation, 0), _U64), random.choice((1, 2, 2, 0)), kinds)
        return replace(known, store_id=store_id)

    def _lose(self, state: State) -> Command:
        name = self._name(state)
        node = state.nodes.get(name)
        return NodeLost(name, self._random.choice((0 if node is None else node.incarnation, 1)))

    def _record(self, state: State) -> Command:
        digest = self._random.choice(("ab" * 32, "cd" * 32, "", "xy" * 32))
        holders = self._random.choice(((), ("n1", "n3"), ("nobody",)))
        return RecordBlob(BlobRef(digest, self._random.choice((7, 8, _U64))), holders)

    def _operate(self, state: State) -> Command:
        """What an operator says of nodes and settings."""
        random, name = self._random, self._name(state)
        match random.randrange(5):
            case 0 | 1:
                deadline_ms = random.choice((0, self._now_ms - 1, self._now_ms + 10_000, _U64))
                return SetEligibility(name, random.choice((Eligibility.READY, *Eligibility)), deadline_ms)
            case 2:
                labels = random.choice(((), (("zone", "a"),), (("gpu", ""), ("zone", "b")), (("", "x"),)))
                return SetLabels(name, labels, random.choice(((), ("zone",), ("gpu", "unheard-of"))))
            case 3:
                lost = [node.name for node in state.nodes.values() if node.health is Health.LOST]
                return ForgetNode(random.choice((name, *lost)))
            case _:
                return SetSettings(random.choice(_SETTINGS))

    def _task_id(self, state: State) -> int:
        known = [task.id for task in state.tasks.values()]
        if known and self._random.random() < 0.8:
            return self._random.choice(known)
        return self._random.choice((self._random.randrange(state.next_task_id + 1), 0, _U64))

    def _attempt(self, state: State) -> tuple[int, int, FencingToken]:
        random = self._random
        current = [
            state.tasks[task_id] for node in state.nodes.values() for task_id in queries.assigned(node)
        ]
        if current and random.random() < 0.8:
            chosen = random.choice(current)
            attempt, wrong = chosen.attempts[-1], random.random() < 0.1
            return chosen.id, attempt.number + wrong, attempt.token
        task = state.tasks.get(self._task_id(state))
        if task is not None and task.attempts:
            old = random.choice(task.attempts)
            return task.id, old.number, old.token
        return (
            self._task_id(state),
            random.choice((0, 1, _U32)),
            FencingToken(random.choice((0, 1, _U64)), _U64),
        )
