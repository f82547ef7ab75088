"""What a cluster of five says and does while too few of its nodes are there, and what is left when they are back."""

import os
import signal
from typing import Any

from tests.e2e.conftest import Cluster
from tests.e2e.writes import isolate_amid_writes
from tests.support import wait_until


def of_raft(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """``raft status -o json``: what each node says of itself, by name."""
    return {node["id"]: node for node in cluster.json("raft", "status")["nodes"]}


def test_without_a_quorum_nothing_is_accepted_and_nothing_acknowledged_is_lost(five: Cluster) -> None:
    before = five.status()["succeeded"]
    job = five.submit("sleep", "0.2", "--array", "0-9")
    for node in ("n3", "n4", "n5"):
        five.run("kill", node)
    refused = five.run("submit", "noop", "--timeout", "3s", "--request-id", "refused", code=4)
    assert "no quorum: 2 of 5 voters are up" in refused.stderr
    assert "raftctl node start n3" in refused.stderr
    assert refused.stdout == ""
    five.run("task", "list", "--timeout", "2s", code=4)

    stale = five.status("--stale")
    assert stale["stale"] is True
    assert stale["quorum"] == {"voters": 5, "up": 2, "ok": False}
    assert stale["leader"] is None
    assert stale["pending"] + stale["running"] + stale["succeeded"] == before + 10
    five.run("status", "--check", "--timeout", "1s", code=7)

    five.run("node", "start", "n3")
    five.leader()
    five.run("cluster", "wait", "--for", "idle", "--timeout", "60s")
    tasks = five.tasks("--job", job)
    assert [task["state"] for task in tasks] == ["succeeded"] * 10


def test_all_killed_at_once_amid_a_queue_end_every_task_once(five: Cluster) -> None:
    """The record is what counts: each task ends once, whether or not an attempt of it was lost."""
    before = five.status()["succeeded"]
    job = five.submit("sleep", "0.01", "--array", "0-299")
    wait_until(lambda: five.status()["succeeded"] >= before + 20, 30, "some of them have ended")
    for node in ("n1", "n2", "n3", "n4", "n5"):
        os.kill(five.pid(node), signal.SIGKILL)
    five.run("cluster", "start")
    five.run("cluster", "wait", "--for", "idle", "--timeout", "80s")
    tasks = five.tasks("--job", job)
    assert len(tasks) == 300
    for task in tasks:
        outcomes = [attempt["outcome"] for attempt in task["attempts"]]
        assert task["state"] == "succeeded"
        assert outcomes[-1] == "succeeded", task
        # Some were in line behind others: those were lost with their node, or had been taken back to run elsewhere.
        assert set(outcomes[:-1]) <= {"lost", "withdrawn"}, task
        assert [attempt["number"] for attempt in task["attempts"]] == list(range(1, len(outcomes) + 1))


def test_an_isolated_leader_serves_nobody_and_what_it_alone_wrote_is_gone(five: Cluster) -> None:
    old = five.leader()
    alone = ("--address", five.nodes()[old]["address"], "--timeout", "2s")
    term = of_raft(five)[old]["term"]
    written = isolate_amid_writes(five, old)
    assert not written.acknowledged & written.behind_the_cut
    new = five.leader()
    assert new != old
    mine = of_raft(five)[old]
    assert mine["raft_role"] != "leader"
    assert mine["last_index"] > mine["commit_index"], "it has a suffix that never committed"
    five.run("submit", "noop", *alone, code=4)
    five.run("task", "list", *alone, code=4)
    assert five.status("--stale", *alone)["stale"] is True
    assert five.status()["leader"] == new, "an isolated node's view never wins"
    kept = five.json("submit", "noop", "--wait")["task_id"]

    five.run("heal")

    def caught_up() -> bool:
        nodes = of_raft(five)
        same = ("term", "last_index", "commit_index")
        return bool(nodes[old]["term"] > term) and all(nodes[old][one] == nodes[new][one] for one in same)

    wait_until(caught_up, 20, "the old leader follows, with the same log")
    known = [task["request_id"] for task in five.tasks() if task["request_id"].startswith("amid-")]
    assert len(known) == len(set(known))
    assert written.acknowledged <= set(known)
    assert not written.behind_the_cut & set(known)
    lost = max(written.appended_alone)
    assert five.json("submit", "noop", "--request-id", lost, "--wait")["duplicate"] is False
    assert five.task(kept)["state"] == "succeeded"


def test_cuts_in_one_direction_lose_nothing(five: Cluster) -> None:
    """First a follower that hears the leader but is not heard, then one that is heard but does not hear."""
    leader = five.leader()
    dumb, deaf = [name for name in five.nodes() if name != leader][:2]
    term = five.status()["term"]
    job = five.submit("sleep", "0.1", "--array", "0-39")
    five.run("chaos", "cut", dumb, leader)
    five.run("submit", "noop", "--wait")
    five.run("chaos", "cut", leader, deaf)
    five.run("submit", "noop", "--wait")
    assert five.status()["term"] == term, "pre-vote and the leader's lease keep either from disturbing it"
    five.run("cluster", "wait", "--for", "idle", "--timeout", "60s")
    five.run("heal")
    five.run("cluster", "wait", "--for", "healthy", "--timeout", "30s")
    assert [task["state"] for task in five.tasks("--job", job)] == ["succeeded"] * 40
    assert five.status()["leader"] == leader
