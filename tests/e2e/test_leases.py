"""Attempts and the life of their nodes: kept where the node lives on, stopped in time where it may be given up."""

import os
import signal
from pathlib import Path

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


def test_a_paused_node_s_attempt_is_dead_before_the_task_runs_elsewhere(
    five: Cluster, tmp_path: Path
) -> None:
    # What the second attempt finds: the first one's process, if it lived still.
    look = f"kill -0 $(cat {tmp_path}/1) 2>/dev/null && echo alive || echo dead"
    body = f"[ $RAFTD_ATTEMPT = 1 ] && echo $$ > {tmp_path}/1 && exec sleep 60; ({look}) > {tmp_path}/verdict"
    task = five.submit(*shell(body))
    node = five.wait_running(task)["node"]
    first = attempt_pid(tmp_path, 1)
    five.run("node", "pause", node)
    ended = five.json("task", "wait", task, "--timeout", "40s")
    assert (tmp_path / "verdict").read_text().strip() == "dead"
    assert not alive(first)
    [found] = ended if isinstance(ended, list) else [ended]
    assert [(one["node"] == node, one["outcome"]) for one in found["attempts"]] == [
        (True, "lost"),
        (False, "succeeded"),
    ]
    tokens = [tuple(map(int, one["fencing_token"].split("."))) for one in found["attempts"]]
    assert tokens[0] < tokens[1]
    five.run("node", "resume", node)
    five.run("cluster", "wait", "--for", "healthy", "--timeout", "30s")


def test_a_new_leader_keeps_what_runs(five: Cluster, tmp_path: Path) -> None:
    leader = five.leader()
    body = f"echo $$ > {tmp_path}/$RAFTD_ARRAY_INDEX; exec sleep 5"
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
            assert len(task["attempts"]) == 1, "what ran on a node that lives was not touched"
            assert task["attempts"][0]["fencing_token"] == first["fencing_token"]


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
