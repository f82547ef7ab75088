"""The simulator, as far as every run of the tests can afford it: a few seeds, and its determinism.

``scripts/simulate`` runs as many seeds as there is time for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.plan import plan_of
from tests.sim.world import run

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_breaks(seed: int) -> None:
    run(plan_of(seed)).check()


def test_seed_10227() -> None:
    """TimePasses: a reordering network and a wide window of small appends bred a storm of them."""
    run(plan_of(10227)).check()


def test_a_seed_is_one_history_in_any_process() -> None:
    told = set()
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "3"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        told.add(ran.stdout.splitlines()[-1])
    assert told == {f"trace hash {run(plan_of(3)).digest}"}
