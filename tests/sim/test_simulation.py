"""The simulator, as far as every run of the tests can afford it: a few seeds, its determinism, and broken code caught.

``scripts/simulate`` runs as many seeds as there is time for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.plan import plan_of
from tests.sim.world import run

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(20)
QUICK_SEEDS = 10
"""Mutants that fall within so many seeds are tried here; the others when somebody asks: SIMULATE_MUTANTS=all."""


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_breaks(seed: int) -> None:
    run(plan_of(seed)).check()


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


def _tried() -> list[Mutant]:
    everything = os.environ.get("SIMULATE_MUTANTS") == "all"
    return [mutant for mutant in MUTANTS if everything or mutant.seeds <= QUICK_SEEDS]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", _tried(), ids=lambda mutant: str(mutant.name))
def test_code_that_is_broken_on_purpose_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.apply(monkeypatch)
    for seed in range(mutant.seeds):
        failure = run(plan_of(seed, mutant.leaning)).failure
        if failure is not None:
            assert failure.invariant in mutant.caught_by, f"seed {seed}: {failure}"
            return
    pytest.fail(f"not caught within {mutant.seeds} seeds")
