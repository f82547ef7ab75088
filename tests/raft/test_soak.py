"""Random faults under the oracle. That it sees what is broken is shown by ``tests.mutants``."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.raft.soak import soak

RUNS = 200


def test_no_invariant_breaks_and_every_cluster_heals() -> None:
    happened: Counter[str] = Counter()
    for seed in range(RUNS):
        happened.update(soak(seed))
    never = [what for what, count in happened.items() if not count]
    assert not never, f"these never happened, so they were not tested: {never}"


TRACE = """
import hashlib
from tests.raft.soak import Soak
run = Soak(7)
run.run()
print(hashlib.sha256(repr(run.cluster).encode() + repr(sorted(run.happened.items())).encode()).hexdigest())
"""


def test_a_seed_is_the_same_run_under_any_hash_seed() -> None:
    traces = {
        subprocess.run(
            [sys.executable, "-c", TRACE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("0", "1", "2")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 2 * hashlib.sha256().digest_size
