"""The life of tasks as their users see it: submitted once, run, stopped, failed, refused."""

import json
from pathlib import Path
from typing import Any

import grpc_requests
import pytest

from raftctl import Client, Submission
from tests.e2e.conftest import Cluster, shell
from tests.support import wait_until


def test_the_same_request_submitted_twenty_times_at_once_is_one_task(five: Cluster) -> None:
    begun = [five.start("submit", "noop", "--request-id", "twenty", "-o", "json") for _ in range(20)]
    answers = [json.loads(one.communicate(timeout=60)[0]) for one in begun]
    assert [one.returncode for one in begun] == [0] * 20
    assert len({answer["task_id"] for answer in answers}) == 1
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 19
    assert len([task for task in five.tasks() if task["request_id"] == "twenty"]) == 1
    conflict = five.run("submit", "sleep", "1", "--request-id", "twenty", code=6)
    assert "twenty" in conflict.stderr


def test_a_task_from_submission_to_its_output_and_result(five: Cluster, tmp_path: Path) -> None:
    words = ("--stdin", "-", "--wait", "--env", "A=1", "-o", "json")
    body = "echo out; echo err >&2; cat; printenv A"
    task = five.run("submit", *words, *shell(body), stdin="typed\n").json()["task_id"]
    found = five.task(task)
    assert found["state"] == "succeeded"
    assert found["env"] == {"A": "1"}
    [attempt] = found["attempts"]
    assert attempt["outcome"] == "succeeded"
    logged = five.run("task", "logs", task)
    assert {"out", "err", "typed", "1"} <= set((logged.stdout + logged.stderr).split())
    frame = ("--", "3", "--width", "64", "--height", "64", "--samples", "1")
    tile = five.run("submit", "--wait", "-o", "json", "render-tile", *frame).json()["task_id"]
    five.run("task", "result", tile, "-o", str(tmp_path / "tile"))
    assert (tmp_path / "tile").stat().st_size == five.task(tile)["result"]["size_bytes"]


def test_failures_are_told_and_retried_as_asked(five: Cluster, tmp_path: Path) -> None:
    failed = five.run("submit", "--wait", *shell("exit 3"), code=5)
    assert "exit status 3" in failed.stdout + failed.stderr
    words = ("--retries", "2", "--backoff", "exp:10ms..20ms", "--wait", "-o", "json")
    body = f"echo $RAFTD_ATTEMPT >> {tmp_path}/runs; [ $RAFTD_ATTEMPT = 3 ]"
    task = five.run("submit", *words, *shell(body)).json()["task_id"]
    assert [one["outcome"] for one in five.task(task)["attempts"]] == ["failed", "failed", "succeeded"]
    assert (tmp_path / "runs").read_text().split() == ["1", "2", "3"]
    late = five.run("submit", "sleep", "60", "--run-timeout", "300ms", "--wait", code=5)
    assert "time" in late.stdout + late.stderr


def test_cancel_reaches_what_is_pending_and_what_runs(five: Cluster) -> None:
    job = five.submit("sleep", "60", "--array", "0-9")
    wait_until(lambda: five.status()["running"] == 5, 20, "every slot is taken")
    five.run("task", "cancel", *[task["task_id"] for task in five.tasks("--job", job)])
    five.run("cluster", "wait", "--for", "idle", "--timeout", "30s")
    assert {task["state"] for task in five.tasks("--job", job)} == {"cancelled"}


def test_priority_comes_before_the_order_of_submission(five: Cluster) -> None:
    hold = five.submit("sleep", "60", "--array", "0-4")
    wait_until(lambda: five.status()["running"] == 5, 20, "every slot is taken")
    ids = [five.submit("noop", "--priority", str(priority)) for priority in (0, 5, -5, 5)]
    # One slot frees, and everything else goes through it, one after the other.
    five.run("task", "cancel", five.tasks("--job", hold)[0]["task_id"])
    for task in ids:
        five.run("task", "wait", task, "--timeout", "30s")
    begun = sorted(ids, key=lambda task: five.task(task)["attempts"][0]["occupied_at"])
    assert begun == [ids[1], ids[3], ids[0], ids[2]]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "juggle"), 2, "juggle"),
        (("submit", "render-tile", "64"), 2, "64"),
        (("submit", "render-tile", "x"), 2, "x"),
        (("submit", "sleep", "soon"), 2, "soon"),
        (("submit", "sleep"), 2, "sleep"),
        (("task", "info", "t999999"), 3, "t999999"),
        (("task", "info", "nonsense"), 2, "nonsense"),
        (("task", "cancel", "t999999"), 3, "t999999"),
        (("node", "logs", "n9"), 3, "n9"),
        (("--cluster", "nowhere", "status"), 3, "nowhere"),
    ],
)
def test_bad_input_is_told_with_its_exit_code(
    shared_five: Cluster, words: tuple[str, ...], code: int, said: str
) -> None:
    refused = shared_five.run(*words, code=code)
    assert refused.stderr.startswith("error: ")
    assert said in refused.stderr
    assert refused.stdout == ""


def test_a_payload_over_the_limit_is_refused_and_nothing_suffers(five: Cluster) -> None:
    before = five.status()["commit_index"]
    refused = five.run("submit", "noop", "--stdin", "-", code=2, stdin="x" * (9 * 1024 * 1024))
    assert "takes no message of this size" in refused.stderr
    refused = five.run("submit", "noop", "--stdin", "-", code=2, stdin="x" * (2 * 1024 * 1024))
    assert "payload" in refused.stderr
    five.run("submit", "noop", "--wait")
    assert five.status()["commit_index"] > before


def test_a_program_has_the_whole_task_that_it_waited_for(
    five: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(five.home))
    with Client(five.name) as client:
        body = '[ $RAFTD_ATTEMPT = 2 ] && printf "made by attempt $RAFTD_ATTEMPT"'
        words = tuple(shell(body)[2:])
        submission = Submission(
            "shell", words, env={"A": "1"}, retries=1, backoff_first_ms=1, backoff_max_ms=1
        )
        accepted = client.submit(submission)
        [task] = client.wait([accepted.task_id], timeout_s=30)
        assert [str(one.outcome) for one in task.attempts] == ["failed", "succeeded"]
        assert dict(task.env) == {"A": "1"}
        assert client.result(task) == b"made by attempt 2"
        assert client.result(accepted.task_id) == b"made by attempt 2"


def test_a_generic_client_finds_its_way_by_reflection(five: Cluster) -> None:
    leader = five.leader()
    follower = next(node for name, node in five.nodes().items() if name != leader)
    token = (five.directory / "token").read_text().strip()
    client: Any = grpc_requests.Client.get_by_endpoint(follower["address"])
    signed = [("authorization", f"Bearer {token}")]
    submitted = client.request(
        "raftd.v1.Scheduler",
        "Submit",
        {"submissions": [{"kind": "noop", "request_id": "generic"}]},
        metadata=signed,
    )
    task = submitted["replies"][0]["accepted"]["task_id"]
    five.run("task", "wait", task, "--timeout", "30s")
    status = client.request("raftd.v1.Scheduler", "Status", {}, metadata=signed)
    assert status["leader"] == leader
    assert status["quorum"]["ok"] is True
    health = client.request("grpc.health.v1.Health", "Check", {"service": "raftd.v1.Scheduler"})
    assert health["status"] == "SERVING"
    with pytest.raises(Exception, match="token"):
        client.request("raftd.v1.Scheduler", "Status", {})


def test_the_output_of_an_attempt_that_was_superseded_is_kept_and_marked_so(five: Cluster) -> None:
    words = ("--retries", "1", "--backoff", "exp:10ms..10ms", "--wait", "-o", "json")
    body = "echo attempt $RAFTD_ATTEMPT; test $RAFTD_ATTEMPT = 2"
    task_id = five.run("submit", *words, *shell(body)).json()["task_id"]
    last = five.run("logs", task_id)
    assert (last.stdout, last.stderr) == ("attempt 2\n", "")
    first = five.run("logs", task_id, "--attempt", "1")
    assert first.stdout == "attempt 1\n"
    assert "attempt 1 was superseded" in first.stderr
