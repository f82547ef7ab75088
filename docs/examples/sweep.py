"""A parameter sweep: how high an epidemic peaks, for every pair of two rates.

This is a program for ``concurrent.futures`` with one line changed: the import of the executor. It runs on the
cluster that ``raftctl`` means (RAFTCTL_CLUSTER, what ``raftctl cluster use`` said, or ``default``), on nodes that
were started with ``--allow python``, and goes on when one of them dies.
"""

import argparse
import itertools
from concurrent.futures import as_completed

from raftctl import (
    RaftExecutor as ProcessPoolExecutor,
)  # was: from concurrent.futures import ProcessPoolExecutor


def peak(infection: float, recovery: float, steps: int) -> float:
    """The largest share of a population that is ill at a time, by Kermack and McKendrick's equations."""
    dt = 100.0 / steps
    healthy, ill = 0.999, 0.001
    highest = ill
    for _ in range(steps):
        infected = infection * healthy * ill * dt
        healthy -= infected
        ill += infected - recovery * ill * dt
        highest = max(highest, ill)
    return highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8, help="so many values of each of the two rates")
    parser.add_argument(
        "--steps", type=int, default=200_000, help="steps of one simulation: its precision and its cost"
    )
    options = parser.parse_args()

    infections = [0.2 + 0.1 * n for n in range(options.size)]
    recoveries = [0.05 + 0.02 * n for n in range(options.size)]
    table = {}
    with ProcessPoolExecutor() as executor:
        futures = {
            executor.submit(peak, *rates, options.steps): rates
            for rates in itertools.product(infections, recoveries)
        }
        for done, future in enumerate(as_completed(futures), 1):
            table[futures[future]] = future.result()
            print(f"{done} of {len(futures)}", flush=True)

    print("peak     " + "  ".join(f"r={recovery:.2f}" for recovery in recoveries))
    for infection in infections:
        shares = "   ".join(f"{table[infection, recovery]:5.1%}" for recovery in recoveries)
        print(f"i={infection:.2f}   {shares}")


if __name__ == "__main__":
    main()
