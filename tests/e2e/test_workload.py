"""The workload under faults, for as long as a build can wait; ``scripts/workload`` runs it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import ClusterFactory
from tests.e2e.workload.job import Sizes, run_job
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


@pytest.mark.timeout(600)
def test_what_is_said_of_a_job_and_a_graph_is_true_while_a_leader_is_killed(
    cluster: ClusterFactory, tmp_path: Path
) -> None:
    made = cluster(5, "--slots", "2", "--timeout", "80s", extra_path=(PLUGIN,))
    report = run_job(Sizes(job_count=500, graph_count=60, kills_at=(0.3,)), made, tmp_path / "run")
    print(report)
    assert not report.failures, str(report)
    assert any(one.waits_for for one in report.explained), (
        "somebody was asked about while it waited for others"
    )
