"""Snapshots and the log that is compacted behind them, on real disks, while a client writes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, ClusterFactory
from tests.e2e.test_quorum import of_raft
from tests.e2e.writes import writing
from tests.support import wait_until

SETTINGS = """
snapshot_entries = 100
kept_entries = 0
segment_bytes = 65536
"""
NAMES = ("n1", "n2", "n3")


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file of settings for nodes that often take a snapshot, and keep nothing of the log behind it."""
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS)
    return str(file)


def wait_level(cluster: Cluster) -> None:
    """Waits until all nodes have applied the same."""

    def level() -> bool:
        nodes = of_raft(cluster).values()
        return len({node["last_applied"] for node in nodes}) == 1 and len(nodes) == len(NAMES)

    wait_until(level, 30, "all have applied the same")


def test_a_follower_killed_across_a_compaction_is_sent_a_snapshot_and_nobody_waits_for_it(
    cluster: ClusterFactory, settings: str
) -> None:
    made = cluster(3, "--config", settings)
    with writing(made) as writer:
        leader = made.leader()
        victim = next(name for name in NAMES if name != leader)
        before = of_raft(made)[victim]
        made.run("kill", victim)

        def compacted() -> bool:
            return bool(of_raft(made)[leader]["first_index"] > before["last_index"] + 100)

        wait_until(compacted, 60, "what the victim lacks is compacted")
        made.run("node", "start", victim)
        writer.go_on(5)

        def caught_up() -> bool:
            nodes = of_raft(made)
            peer: dict[str, Any] = next((one for one in nodes[leader]["peers"] if one["id"] == victim), {})
            return (nodes[victim]["snapshot_index"] or 0) > before["last_index"] and (
                peer.get("progress") == "replicate"
            )

        wait_until(caught_up, 60, "it has a snapshot that it did not take, and follows")
        writer.go_on(5)
        assert made.leader() == leader
        # What it has now is good to lead with.
        assert made.json("raft", "transfer-leader", victim)["leader"] == victim
        writer.go_on(5)
    writer.check_kept()
    wait_level(made)


def test_all_killed_right_after_snapshots_lose_nothing(cluster: ClusterFactory, settings: str) -> None:
    made = cluster(3, "--config", settings)
    with writing(made) as writer:
        for _ in range(2):
            seen = {name: node["snapshot_index"] or 0 for name, node in of_raft(made).items()}

            def newer(seen: dict[str, int] = seen) -> bool:
                return all((node["snapshot_index"] or 0) > seen[name] for name, node in of_raft(made).items())

            wait_until(newer, 60, "everybody has taken a snapshot")
            for node in NAMES:
                os.kill(made.pid(node), signal.SIGKILL)
            made.run("cluster", "start")
            writer.go_on(5)
            assert all(node["first_index"] > 1 for node in of_raft(made).values())
    writer.check_kept()
    wait_level(made)
    first = "write-0-0"
    again = made.json("submit", "noop", "--request-id", first)
    assert (again["duplicate"], again["task_id"]) == (True, writer.acknowledged[first])


def test_a_snapshot_is_taken_when_it_is_asked_for(cluster: ClusterFactory, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("kept_entries = 0\n")
    made = cluster(3, "--config", str(settings))
    made.run("submit", "noop", "--array", "0-9", "--wait")
    leader = made.leader()
    other = next(name for name in NAMES if name != leader)
    for words, node in ((), leader), ((other,), other):
        before = of_raft(made)[node]
        assert before["snapshot_index"] is None
        taken = made.json("raft", "snapshot", *words)
        assert taken["node"] == node
        assert taken["index"] >= before["last_applied"]
        assert taken["first_index"] == taken["index"] + 1
        assert taken["size_bytes"] > 0
        after = of_raft(made)[node]
        assert (after["snapshot_index"], after["first_index"]) == (taken["index"], taken["first_index"])
    made.run("kill", other)
    made.run("raft", "snapshot", other, code=4)
    made.run("node", "restart", leader)  # which begins with what it has written
    made.run("submit", "noop", "--wait")
