"""Attempts and the life of their nodes: kept where the node lives on, stopped in time where it may be given up."""

import os
import signal
from pathlib import Path
from typing import Any

from raftctl.cluster.process import ProcessIdentity, is_alive, marked_with
from tests.e2e.conftest import Cluster, shell
from tests.support import wait_until


def says_its_process(directory: Path) -> tuple[str, ...]:
    """A task that leaves the id of its process, and that only a KILL or its node's lease ends."""
    return shell(f"echo $$ > {directory}/$RAFTD_ATTEMPT; trap '' TERM; while :; do sleep 0.05; done")


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def attempt_pid(directory: Path, attempt: int) -> int:
    """The process of an attempt, as soon as it has said which."""
    file = directory / str(attempt)
    return int(
        wait_until(lambda: file.exists() and file.read_text().strip(), 20, f"attempt {attempt} runs") or 0
    )


def slots_of(cluster: Cluster, node: str) -> tuple[ProcessIdentity, ...]:
    """The processes of a node's slots; their supervisor bears the same mark."""
    infos = {info["id"]: info for info in cluster.json("raft", "status")["nodes"]}
    marked = marked_with("RAFTD_SLOT_OF", [infos[node]["store_id"]])
    return tuple(
        one for one in marked if b"raftd.executor.slot\0" in Path(f"/proc/{one.pid}/cmdline").read_bytes()
    )


def token(attempt: dict[str, Any]) -> tuple[int, int]:
    """Its fencing token: the epoch, and what is counted in it."""
    epoch, counter = map(int, attempt["fencing_token"].split("."))
    return epoch, counter


def test_a_paused_node_s_attempt_is_dead_before_the_task_runs_elsewhere(
    five: Cluster, tmp_path: Path
) -> None:
    """One attempt in a process of its own, whose successor looks for it; and one in a slot of another node."""
    look = f"kill -0 $(cat {tmp_path}/1) 2>/dev/null && echo alive || echo dead"
    body = f"[ $RAFTD_ATTEMPT = 1 ] && echo $$ > {tmp_path}/1 && exec sleep 60; ({look}) > {tmp_path}/verdict"
    own, in_slot = five.submit(*shell(body)), five.submit("sleep", "60")
    nodes = {task: five.wait_running(task)["node"] for task in (own, in_slot)}
    first = attempt_pid(tmp_path, 1)
    slots = slots_of(five, nodes[in_slot])
    assert slots
    five.run("node", "pause", *nodes.values())

    def moved() -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = five.task(in_slot, "--timeout", "20s")["attempts"]
        return attempts if len(attempts) > 1 else []

    attempts = {in_slot: wait_until(moved, 40, "the other task runs again")}
    assert not any(is_alive(slot) for slot in slots)
    five.run("task", "wait", own, "--timeout", "40s")
    assert (tmp_path / "verdict").read_text().strip() == "dead"
    assert not alive(first)
    five.run("task", "cancel", in_slot)
    attempts[own] = five.task(own)["attempts"]
    for task, last in ((own, "succeeded"), (in_slot, "running")):
        one, other = attempts[task]
        assert (one["node"], one["outcome"]) == (nodes[task], "lost")
        assert (other["node"] in nodes.values(), other["outcome"]) == (False, last)
        assert token(one) < token(other)
    five.run("node", "resume", *nodes.values())
    five.run("cluster", "wait", "--for", "healthy", "--timeout", "30s")


def test_a_new_leader_keeps_what_runs(five: Cluster, tmp_path: Path) -> None:
    leader = five.leader()
    body = f"echo $$ >> {tmp_path}/$RAFTD_ARRAY_INDEX; exec sleep 5"
    job = five.submit("--array", "0-4", *shell(body))
    wait_until(lambda: len(list(tmp_path.iterdir())) == 5, 20, "one task runs on each node")
    before = {task["task_id"]: task["attempts"][-1] for task in five.tasks("--job", job)}
    five.run("kill", leader)
    assert five.leader() != leader
    five.run("cluster", "wait", "--for", "idle", "--timeout", "60s")
    for task in five.tasks("--job", job):
        first = before[task["task_id"]]
        assert task["state"] == "succeeded"
        if first["node"] != leader:
            [attempt] = task["attempts"]
            assert attempt["fencing_token"] == first["fencing_token"]
            pids = (tmp_path / str(task["array_index"])).read_text().split()
            assert len(pids) == 1, "what ran on a node that lives was not started anew"


def test_cancel_kills_the_whole_tree_of_a_task_that_does_not_listen(five: Cluster, tmp_path: Path) -> None:
    child_body = f'trap "" TERM; echo $$ > {tmp_path}/1; sleep 60'
    task = five.submit(*shell(f"trap '' TERM; sh -c '{child_body}' & wait; sleep 60"))
    five.wait_running(task)
    child = attempt_pid(tmp_path, 1)
    five.run("task", "cancel", task)
    five.run("task", "wait", task, "--timeout", "30s", code=5)
    assert five.task(task)["state"] == "cancelled"
    wait_until(lambda: not alive(child), 5, "its child is gone")


def test_a_killed_node_s_attempt_ends_with_its_lease_and_runs_once_more(
    five: Cluster, tmp_path: Path
) -> None:
    task = five.submit(*says_its_process(tmp_path))
    node = five.wait_running(task)["node"]
    first = attempt_pid(tmp_path, 1)
    os.kill(five.pid(node), signal.SIGKILL)
    second = attempt_pid(tmp_path, 2)
    assert not alive(first), "it was dead before it ran anew"
    assert alive(second)
    five.run("task", "cancel", task)
    five.run("task", "wait", task, "--timeout", "30s", code=5)
