"""The workload's command line; ``scripts/workload`` runs it.

What may live here: words and exit codes. 0: everything holds; 1: something does not; 2: wrong words.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.e2e.conftest import Cluster, show_logs, take_down
from tests.e2e.workload.job import JobReport, Sizes, run_job
from tests.e2e.workload.run import PLUGIN, Plan, Report, again, run

R = TypeVar("R", Report, JobReport)


def main(words: list[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(
        prog="scripts/workload",
        description="Clients on a real cluster of five while its nodes are killed, paused, cut off and restarted.",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="which choices; a random one is taken and told")
    parser.add_argument("--for-s", metavar="S", type=float, default=120.0, help="how long (default: 120)")
    parser.add_argument("--clients", metavar="N", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="where history and ledger go")
    parser.add_argument("--audit", metavar="DIR", type=Path, help="only look again at what was kept there")
    parser.add_argument(
        "--job", action="store_true", help="instead: a large job and a graph, and what is said of them"
    )
    options = parser.parse_args(words)
    if options.job:
        directory = (options.keep or Path(tempfile.mkdtemp(prefix="workload-"))).resolve()
        report: Report | JobReport = _on_a_new_cluster(lambda cluster: run_job(Sizes(), cluster, directory))
    elif options.audit is not None:
        report = again(options.audit)
    else:
        seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
        directory = options.keep or Path(tempfile.mkdtemp(prefix="workload-"))
        print(f"seed {seed}; history and ledger: {directory}", flush=True)
        plan = Plan(seed, options.for_s, options.clients)
        report = _on_a_new_cluster(lambda cluster: run(plan, cluster, directory.resolve()))
    print(report)
    return 1 if report.failures else 0


def _on_a_new_cluster(work: Callable[[Cluster], R]) -> R:
    with tempfile.TemporaryDirectory(prefix="wl-") as scratch:
        home = Path(scratch)
        cluster = Cluster("workload", home, (PLUGIN,))
        held = False
        try:
            cluster.run("cluster", "up", "-n", "5", "--slots", "2", "--timeout", "80s")
            report = work(cluster)
            held = not report.failures
            return report
        finally:
            if not held:
                show_logs(home)
            take_down(home)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
