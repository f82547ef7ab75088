"""The simulator's command line; ``scripts/simulate`` runs it.

What may live here: words and exit codes. 0: nothing failed; 1: an invariant was broken; 2: wrong words.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterable
from itertools import count

from tests.sim.campaign import Sums, as_test, run_seeds, shrink
from tests.sim.plan import plan_of
from tests.sim.world import run

SHRUNK_AT_MOST = 3


def main(words: list[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Whole clusters in one thread, by seed, under faults; every invariant after every event.",
    )
    parser.add_argument(
        "--seeds", metavar="A:B", type=_seeds, help="run the seeds A to B-1; without B, until --for-s"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="share them between N processes")
    parser.add_argument("--for-s", metavar="S", type=float, help="begin nothing more after so many seconds")
    parser.add_argument("--seed", metavar="N", type=int, help="run one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every line of its trace")
    options = parser.parse_args(words)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    if options.seeds is None or (options.seeds[1] is None and options.for_s is None):
        parser.error("say which seeds: --seeds A:B, --seeds A: --for-s S, or --seed N")
    first, end = options.seeds
    seeds: Iterable[int] = count(first) if end is None else range(first, end)
    return _many(seeds, options.jobs, options.for_s)


def _seeds(text: str) -> tuple[int, int | None]:
    first, colon, end = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("seeds are given as A:B")
    return int(first), int(end) if end else None


def _one(seed: int, *, trace: bool) -> int:
    outcome = run(plan_of(seed), tell=print if trace else None)
    print(outcome.plan)
    sums = Sums()
    sums.add_run(seed, outcome)
    for line in sums.lines():
        print(line)
    print(f"trace hash {outcome.digest}")
    if outcome.failure is None:
        return 0
    print(f"seed {seed}: {outcome.failure}")
    traceback.print_exception(outcome.failure)
    print(_shrunk(seed))
    return 1


def _many(seeds: Iterable[int], jobs: int, for_s: float | None) -> int:
    def said(part: Sums, so_far: Sums) -> None:
        for seed, failure in part.failures.items():
            print(f"seed {seed}: {failure}")
        if so_far.seed_count % 200 < part.seed_count:
            print(f"{so_far.seed_count} seeds, {so_far.simulated_s / 3600:.2f} simulated hours", flush=True)

    sums = run_seeds(seeds, jobs, for_s, said)
    for line in sums.lines():
        print(line)
    for seed in sorted(sums.failures)[:SHRUNK_AT_MOST]:
        print(f"seed {seed}: {sums.failures[seed]}")
        print(_shrunk(seed))
    return 1 if sums.failures else 0


def _shrunk(seed: int) -> str:
    plan = plan_of(seed)
    failure = run(plan).failure
    if failure is None:
        return f"seed {seed} does not fail here any more"
    smallest = shrink(plan, failure.invariant)
    return as_test(smallest, str(failure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
