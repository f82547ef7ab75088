"""One run: a cluster, its clients and its faults, from a plan; then calm, in which it must heal.

What may live here: putting a run together, its phases, and what came of it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from raftd.scheduler import invariants as state_invariants
from raftd.scheduler.model import FencingToken, TaskState
from tests.sim.books import Broken
from tests.sim.checks import Checks, Violation
from tests.sim.clients import Client
from tests.sim.executor import Running
from tests.sim.faults import Faults
from tests.sim.loop import NOBODY, Livelock, Process, SimulatedLoop, sleep
from tests.sim.machine import Life, Machine
from tests.sim.network import Network
from tests.sim.operator import Operator
from tests.sim.plan import Plan
from tests.sim.steward import Steward
from tests.sim.trace import Trace

HEAL_ELECTION_TIMEOUTS = 10
ANSWERS_S = 180.0
STUCK_S = 45.0
"""A lease, a backoff and the longest task, several times over."""
BURIAL_S = 1.0
_LOOK_S = 0.05


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        failure: the invariant that did not hold, or None.
        digest: of the trace.
    """

    plan: Plan
    failure: Violation | None
    digest: str
    simulated_s: float
    event_count: int
    fault_count: int
    acknowledged_count: int
    counters: Counter[str]

    def check(self) -> None:
        """Raise what did not hold."""
        if self.failure is not None:
            raise self.failure


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.loop = SimulatedLoop()
        self.trace = Trace(self.loop.time, tell)
        self.checks = Checks(plan, self.trace)
        self.network = Network(self.loop, Random(f"{plan.seed}/network"), self.trace)
        self.running = Running(self._one_at_a_time)
        self.machines = [Machine(self, store_id) for store_id in plan.voters]
        self.operator = Operator(self)
        self.steward = Steward(self)
        self.fault_count = 0
        self.over_faults = False
        """Nothing is broken on purpose any more."""
        self.over = False
        """No client asks any more."""
        self.buried = False
        """Nothing starts any more."""
        for machine in self.machines:
            self.checks.installed(machine)

    def later(self, after_s: float, work: Callable[[], None]) -> None:
        """Do this after simulated seconds, in nobody's name."""
        self.loop.call_at(self.loop.time() + after_s, work, context=NOBODY)

    def add_machine(self) -> Machine:
        """One more, whose store is to join."""
        machine = Machine(self, len(self.machines) + 1, joins=True)
        self.machines.append(machine)
        self.checks.installed(machine)
        return machine

    @property
    def store_ids(self) -> list[int]:
        """Of the machines that may run."""
        return [machine.store_id for machine in self.machines if not machine.retired]

    def by_name(self, name: str) -> Machine:
        """The machine of a node."""
        return next(machine for machine in self.machines if machine.name == name)

    @property
    def lives(self) -> list[Life]:
        """The nodes that run."""
        return [machine.life for machine in self.machines if machine.life is not None]

    def _one_at_a_time(self, task_id: int, first: FencingToken, second: FencingToken) -> None:
        self.checks.fail("AtMostOneRuns", f"t{task_id} runs as {second}, and still as {first}")

    # The phases.

    def run(self) -> Outcome:
        """From the first start to the healed end."""
        checks = self.checks
        self.loop.after_event = checks.after_event
        self.loop.callback_failed = lambda error: checks.fail("NodeGoesOn", repr(error), error)
        try:
            self.loop.run_until_complete(self._phases())
        except Violation as violation:
            checks.failure = violation
        except Livelock as livelock:
            checks.fail("TimePasses", str(livelock), livelock)
        finally:
            self._bury()
        return Outcome(
            self.plan,
            checks.failure,
            self.trace.digest(),
            self.loop.time(),
            self.loop.event_count,
            self.fault_count,
            checks.ledger.acknowledged_count,
            self.trace.counters,
        )

    async def _phases(self) -> None:
        plan = self.plan
        for machine in self.machines:
            machine.start()
        await self._until(lambda: bool(self._settled_leader()), 30, "HealsInTime", "a first leader")
        until_s = self.loop.time() + plan.fault_s
        clients = [asyncio.ensure_future(Client(self, number).run(until_s)) for number in range(plan.clients)]
        steward = asyncio.ensure_future(self.steward.run(until_s))
        faults = Faults(self)
        await faults.run(until_s)
        await sleep(max(0.0, until_s - self.loop.time()))
        self.trace.say("calm")
        faults.calm()
        self.over_faults = True
        release = asyncio.ensure_future(self.steward.release())
        await self._heals(clients)
        self.over = True
        await steward
        await release
        for client in clients:
            client.cancel()

    async def _heals(self, clients: list[asyncio.Task[None]]) -> None:
        # A node that has just been told to stop, or whose disk refused a moment ago, comes back first.
        await sleep(3.0)
        for machine in self.machines:
            machine.start()
        self.operator.retire_strangers()
        limit_s = HEAL_ELECTION_TIMEOUTS * self.plan.election_timeout_s
        await self._until(lambda: bool(self._settled_leader()), limit_s, "HealsInTime", "a leader")
        await self._until(
            lambda: all(client.done() for client in clients), ANSWERS_S, "HealsInTime", "answers"
        )
        for client in clients:
            client.result()
        await self._drains()
        await self._until(self._agreed, 20, "HealsInTime", "equal nodes")
        for life in self.lives:
            self.checks.same_state(life)
            self._kept(life)

    def _settled_leader(self) -> Life | None:
        """The node that serves as leader, if every other node that runs follows it."""
        if self.over_faults:
            self.operator.retire_strangers()
        leaders = [life for life in self.lives if life.node.leads]
        away = [machine for machine in self.machines if not (machine.up or machine.gone or machine.retired)]
        if len(leaders) != 1 or away:
            return None
        leader = leaders[0]
        return leader if all(life.node.leader == leader.store_id for life in self.lives) else None

    async def _drains(self) -> None:
        """Every task ends: as long as there are some, one does now and then."""
        while not self._drained():
            ended = self._ended_count()
            await self._until(
                partial(self._drained_or_more_than, ended),
                STUCK_S,
                "HealsInTime",
                "a task to end",
            )

    def _drained_or_more_than(self, ended: int) -> bool:
        return self._drained() or self._ended_count() > ended

    def _ended_count(self) -> int:
        ended = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
        return max(sum(life.state.indexes.count(state) for state in ended) for life in self.lives)

    def _drained(self) -> bool:
        leader = self._settled_leader()
        if leader is None:
            return False
        indexes = leader.state.indexes
        open_states = (TaskState.PENDING, TaskState.RESERVED, TaskState.RUNNING)
        return not any(indexes.count(state) for state in open_states)

    def _agreed(self) -> bool:
        # A replacement that was under way may take its last step even now; whoever left with it hears no more.
        self.operator.retire_strangers()
        return len({(life.raw.state.log.last_index, life.applier.last_applied) for life in self.lives}) == 1

    def _kept(self, life: Life) -> None:
        try:
            self.checks.ledger.kept(life.state)
            state_invariants.check(life.state)
        except Broken as error:
            self.checks.fail(error.invariant, f"{life.name}: {error}", error)
        except state_invariants.InvariantBroken as error:
            self.checks.fail("StateInvariants", f"{life.name}: {error}", error)

    async def _until(self, holds: Callable[[], bool], limit_s: float, invariant: str, what: str) -> None:
        give_up_s = self.loop.time() + limit_s
        while not holds():
            if self.loop.time() > give_up_s:
                self.checks.fail(invariant, f"{limit_s} s were not enough for {what}: {self._situation()}")
            await sleep(_LOOK_S)

    def _situation(self) -> str:
        nodes = [
            f"{life.name} {life.raw.state.role} t{life.raw.state.term} leads {life.node.leads} "
            f"last {life.raw.state.log.last_index} commit {life.raw.state.log.commit} "
            f"applied {life.applier.last_applied} attached {life.attach.attached_to or '-'}"
            for life in self.lives
        ]
        counts = [
            f"{state.name.lower()} {self.lives[0].state.indexes.count(state)}"
            for state in TaskState
            if self.lives
        ]
        return "; ".join((*nodes, *counts))

    def _bury(self) -> None:
        """End everything that still runs, so that nothing of this run is left."""
        self.over = self.buried = True
        self.loop.after_event = lambda _: None
        self.loop.callback_failed = lambda _: None
        for life in self.lives:
            life.process.kill()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=BURIAL_S))
        self.loop.close()


def run(plan: Plan, tell: Callable[[str], None] | None = None) -> Outcome:
    """Run a plan; the same plan is the same run, in every process.

    Args:
        tell: called with each line of the trace.
    """
    state = random.getstate()
    collects = gc.isenabled()
    level = logging.getLogger("raftd").level
    # Collection ends what is unreachable, at moments that are none of the simulation.
    gc.disable()
    logging.getLogger("raftd").setLevel(logging.CRITICAL + 1)
    random.seed(f"{plan.seed}/global")  # the executor's pauses draw from there
    try:
        return World(plan, tell).run()
    finally:
        random.setstate(state)
        logging.getLogger("raftd").setLevel(level)
        if collects:
            gc.enable()


__all__ = ["Outcome", "Process", "World", "run"]
