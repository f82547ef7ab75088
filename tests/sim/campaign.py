"""Many seeds: run, added up, and said in a few lines; and a failing one made small.

What may live here: the sums of a campaign, the processes that share its seeds, and shrinking.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from itertools import islice

from tests.sim.plan import Plan, plan_of
from tests.sim.trace import EXPECTED
from tests.sim.world import Outcome, run

PORTION = 20
"""Seeds that a process takes at once."""

SHORTEST_S = 1.0


@dataclass
class Sums:
    """What many runs came to.

    Attributes:
        failures: seed -> what did not hold.
    """

    seed_count: int = 0
    simulated_s: float = 0.0
    event_count: int = 0
    fault_count: int = 0
    busy_s: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Add what others have run."""
        self.seed_count += other.seed_count
        self.simulated_s += other.simulated_s
        self.event_count += other.event_count
        self.fault_count += other.fault_count
        self.busy_s += other.busy_s
        self.counters += other.counters
        self.failures.update(other.failures)

    def add_run(self, seed: int, outcome: Outcome) -> None:
        """Add one run."""
        self.seed_count += 1
        self.simulated_s += outcome.simulated_s
        self.event_count += outcome.event_count
        self.fault_count += outcome.fault_count
        self.counters += outcome.counters
        if outcome.failure is not None:
            self.failures[seed] = str(outcome.failure)

    def lines(self) -> Iterator[str]:
        """The sums, for people."""
        rate = self.event_count / self.busy_s if self.busy_s else 0.0
        yield (
            f"{self.seed_count} seeds, {self.simulated_s / 3600:.2f} simulated hours, {self.fault_count} faults, "
            f"{self.event_count} events, {rate:,.0f} events/s of one processor"
        )
        for name in sorted(self.counters):
            yield f"  {self.counters[name]:>10}  {name}"
        never = [name for name in EXPECTED if not self.counters[name]]
        if never:
            yield f"never happened: {', '.join(never)}"
        yield f"{len(self.failures)} violations" if self.failures else "no violation"


def run_portion(seeds: tuple[int, ...]) -> Sums:
    """Run some seeds in this process."""
    sums = Sums()
    began_s = time.process_time()
    for seed in seeds:
        sums.add_run(seed, run(plan_of(seed)))
    gc.collect()
    sums.busy_s = time.process_time() - began_s
    return sums


def run_seeds(
    seeds: Iterable[int], jobs: int, for_s: float | None, said: Callable[[Sums, Sums], None]
) -> Sums:
    """Run seeds in several processes.

    Args:
        for_s: begin nothing more after so many real seconds; None for no limit.
        said: called after each portion, with its sums and those of all so far.
    """
    began_s = time.monotonic()
    sums = Sums()
    following = iter(seeds)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Sums]] = set()
        while True:
            in_time = for_s is None or time.monotonic() - began_s < for_s
            while in_time and len(running) < jobs and (portion := tuple(islice(following, PORTION))):
                running.add(pool.submit(run_portion, portion))
            if not running:
                return sums
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for finished in done:
                part = finished.result()
                sums.add(part)
                said(part, sums)


def shrink(plan: Plan, invariant: str) -> Plan:
    """A smaller plan that breaks the same invariant: fewer kinds of faults, a shorter run, fewer clients."""

    def still_fails(smaller: Plan) -> bool:
        failure = run(smaller).failure
        return failure is not None and failure.invariant == invariant

    smallest = plan
    for fault in plan.faults:
        smaller = replace(smallest, faults=tuple(kind for kind in smallest.faults if kind != fault))
        if still_fails(smaller):
            smallest = smaller
    for shorter_s in (1.0, 2.0, 4.0, 8.0):
        if SHORTEST_S <= shorter_s < smallest.fault_s and still_fails(replace(smallest, fault_s=shorter_s)):
            smallest = replace(smallest, fault_s=shorter_s)
            break
    for clients in range(smallest.clients):
        if still_fails(replace(smallest, clients=clients)):
            smallest = replace(smallest, clients=clients)
            break
    return smallest


def as_test(plan: Plan, failure: str) -> str:
    """A plan as a test to put beside the others."""
    drawn = plan_of(plan.seed)
    changed = [
        f"{part.name}={getattr(plan, part.name)!r}"
        for part in fields(plan)
        if getattr(plan, part.name) != getattr(drawn, part.name)
    ]
    made = f"replace(plan_of({plan.seed}), {', '.join(changed)})" if changed else f"plan_of({plan.seed})"
    return f'def test_seed_{plan.seed}() -> None:\n    """{failure[:100]}"""\n    run({made}).check()\n'
