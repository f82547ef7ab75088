"""The workload under faults, for as long as a build can wait; ``scripts/workload`` runs it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import ClusterFactory
from tests.e2e.workload.run import PLUGIN, Plan, run

SEED = 22
"""Its choices: kill, cut, pause, cut, stop, part; as many of them as there is time for."""


@pytest.mark.timeout(600)
def test_what_clients_were_told_holds_whatever_happens_to_the_nodes(
    cluster: ClusterFactory, tmp_path: Path
) -> None:
    made = cluster(5, "--slots", "2", "--timeout", "80s", extra_path=(PLUGIN,))
    report = run(Plan(SEED, for_s=25), made, tmp_path / "run")
    print(report)
    assert not report.failures, str(report)
