"""Workers on real clusters: they work on when leaders, they themselves, and those whom they ask are lost."""

import pytest

from tests.e2e.conftest import Cluster, ClusterFactory, shell
from tests.support import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def drain_members(cluster: Cluster) -> list[str]:
    """Keeps the members' slots busy, so that whatever follows runs on workers; the tasks that do."""
    held: list[str] = []
    while True:
        busy = {row["node"] for row in cluster.status()["executing"] if row["task_id"] in held}
        if {"n1", "n2", "n3"} <= busy:
            break
        held.append(cluster.submit(*shell("sleep 300")))
        cluster.wait_running(held[-1])
    for task in held:
        if cluster.task(task)["attempts"][-1]["node"].startswith("w"):
            cluster.run("task", "cancel", task)
    return held


def until(cluster: Cluster, name: str) -> tuple[str, ...]:
    """The words that submit a task which lasts until the test makes a file of this name."""
    return shell(f"while [ ! -e '{cluster.home}/{name}' ]; do sleep 0.1; done; echo done")


def test_workers_work_through_a_change_of_leader_and_come_back_when_killed(cluster: ClusterFactory) -> None:
    test = cluster(3, "--workers", "2", "--allow", "shell")
    assert test.run("cluster", "up", "-n", "3", "--workers", "2").stdout.startswith("test: already running")
    conflict = test.run("cluster", "up", "-n", "3", "--workers", "1", code=6)
    assert "2 workers, not 1" in conflict.stderr
    roles = {name: row["role"] for name, row in test.nodes().items()}
    assert roles == {"n1": "voter", "n2": "voter", "n3": "voter", "w1": "worker", "w2": "worker"}

    drain_members(test)
    # The leader dies while workers run: they go on under the next one, and nothing is run again.
    running = [test.submit(*until(test, "go")) for _ in range(2)]
    attempts = {task: test.wait_running(task) for task in running}
    assert {attempt["node"] for attempt in attempts.values()} == {"w1", "w2"}
    test.run("kill", "leader")
    test.leader(60)
    (test.home / "go").touch()
    test.run("task", "wait", *running, "--timeout", "60s")
    for task in running:
        assert [one["node"] for one in test.task(task)["attempts"]] == [attempts[task]["node"]]
        assert test.run("logs", task).stdout == "done\n", "any member reads a worker's output"

    # A worker that is killed loses its attempt, which is run again; it comes back as itself.
    lost = test.submit(*until(test, "go on"))
    victim = test.wait_running(lost)["node"]
    test.run("kill", victim)
    wait_until(lambda: test.nodes()[victim]["health"] == "lost" or None, 60, "the worker is given up")
    test.run("node", "start", victim)
    wait_until(lambda: test.nodes()[victim]["health"] == "up" or None, 60, "the worker is back")
    (test.home / "go on").touch()
    test.run("task", "wait", lost, "--timeout", "60s")
    assert [one["outcome"] for one in test.task(lost)["attempts"]] == ["lost", "succeeded"]


def test_a_worker_follows_when_all_the_members_that_it_was_told_of_are_replaced(
    cluster: ClusterFactory,
) -> None:
    test = cluster(1, "--workers", "1")
    test.run("node", "add")
    test.run("node", "add")
    test.run("node", "remove", "n1")
    wait_until(lambda: test.nodes()["w1"]["leader"] in ("n2", "n3") or None, 60, "w1 follows")
    added = test.json("node", "add", "--worker")
    assert (added["node"], added["role"]) == ("w2", "worker")
    # n1, the only one of its --join, is gone for good: it starts from what it has kept.
    test.run("node", "restart", "w1")
    wait_until(lambda: test.nodes()["w1"]["slots_ready"] or None, 60, "w1 is back")
    test.run("node", "remove", "w2")
    assert "w2" not in [node["id"] for node in test.json("cluster", "info")["nodes"]]


def test_a_frame_is_rendered_by_workers_alone(cluster: ClusterFactory) -> None:
    test = cluster(3, "--workers", "2", "--allow", "shell")
    drain_members(test)
    size = ("--width", "32", "--height", "16", "--samples", "1", "--tiles", "2x2")
    made = test.json("render", *size, "--timeout", "180s")
    assert set(made["nodes"]) <= {"w1", "w2"}, made
    assert made["tiles"] == 4
    cut_off = test.run("isolate", "w1")
    assert "w1" in cut_off.stdout
    wait_until(
        lambda: test.nodes()["w1"]["health"] == "lost" or None, 60, "a worker that is cut off is given up"
    )
    test.run("heal")
    wait_until(lambda: test.nodes()["w1"]["health"] == "up" or None, 60, "it is back")
