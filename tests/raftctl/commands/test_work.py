"""submit, task, job and render, typed against a cluster that does what the test tells it."""

from __future__ import annotations

import re
import struct
import threading
from pathlib import Path

import grpc
import pytest

from raftctl.errors import ExitCode
from raftctl.render import tiles
from raftd.pb import scheduler_pb2 as pb
from tests.raftctl.commands.conftest import Ran, Shell
from tests.raftctl.fake_server import Failure, FakeCluster
from tests.support import wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_submit_prints_what_it_became(shell: Shell, cluster: FakeCluster) -> None:
    assert shell("submit", "noop").out == "submitted t1\n"
    assert shell("-q", "submit", "noop").out == "t2\n"
    assert shell("submit", "noop", "-o", "name").out == "t3\n"
    assert shell("submit", "noop", "-o", "json").value["task_id"] == "t4"
    ran = shell("submit", "render-tile", "{}", "--array", "2-4", "-o", "json")
    assert (ran.value["job_id"], ran.value["task_ids"]) == ("j1", ["t5", "t6", "t7"])
    assert [list(cluster.tasks[f"t{n}"].args) for n in (5, 6, 7)] == [["2"], ["3"], ["4"]]


def test_every_option_of_submit_arrives(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"bytes")
    ran = shell(
        *("submit", "--priority", "7", "sleep", "--retries", "3", "1", "--name", "nap", "--env", "A=1=2"),
        *(
            "--run-timeout",
            "5m",
            "--env",
            "B=",
            "--stdin",
            str(tmp_path / "input"),
            "--backoff",
            "exp:1s..60s",
        ),
        *("--", "--not-an-option"),
    )
    assert ran.code == 0, ran.err
    task = cluster.tasks["t1"]
    assert list(task.args) == ["1", "--not-an-option"]
    assert dict(task.env) == {"A": "1=2", "B": ""}
    assert (task.name, task.priority, task.retries, task.run_timeout_ms) == ("nap", 7, 3, 300_000)


def test_one_request_id_is_one_task(shell: Shell, cluster: FakeCluster) -> None:
    ids = {shell("-q", "submit", "noop", "--request-id", "once").out for _ in range(3)}
    assert ids == {"t1\n"}
    assert len(cluster.tasks) == 1
    assert "known already" in shell("submit", "noop", "--request-id", "once").out


def test_an_unknown_kind_is_refused_at_once(shell: Shell) -> None:
    ran = shell("submit", "juggle")
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert ran.err == "error: no node offers 'juggle'\n"


def test_a_full_queue_is_a_rejection(shell: Shell, cluster: FakeCluster) -> None:
    full = Failure("queue_full", "the queue holds 100000 tasks", grpc.StatusCode.RESOURCE_EXHAUSTED)
    cluster.nodes["n1"].failures["Submit"] = [full]
    assert shell("submit", "noop").code == ExitCode.REJECTED


@pytest.mark.usefixtures("_impatient")
def test_without_a_quorum_submit_says_so_and_how_to_be_sure(shell5: Shell, five: FakeCluster) -> None:
    for name in ("n3", "n4", "n5"):
        five.stop(name)
    five.no_leader("n1", "n2")
    ran = shell5("submit", "noop", "--timeout", "500ms", "--request-id", "mine")
    assert (ran.code, ran.out) == (ExitCode.UNAVAILABLE, "")
    assert ran.err == (
        "error: no quorum: 2 of 5 voters are up\ntry: raftctl node start n3, then again with --request-id mine\n"
    )


class Later:
    """Types a command in a thread, so that the test can act while it runs."""

    def __init__(self, shell: Shell, *words: str) -> None:
        self._ran: list[Ran] = []
        self._thread = threading.Thread(target=lambda: self._ran.append(shell(*words)), daemon=True)
        self._thread.start()

    def result(self) -> Ran:
        self._thread.join(20)
        return self._ran[0]


def test_submit_waits_and_tells_how_it_ended(shell: Shell, cluster: FakeCluster) -> None:
    waiting = Later(shell, "submit", "noop", "--wait")
    wait_until(lambda: "t1" in cluster.tasks, 10, "the task is accepted")
    cluster.end("t1")
    ran = waiting.result()
    assert (ran.code, ran.out) == (0, "submitted t1\nt1 succeeded on n2 in 1.0s\n")

    waiting = Later(shell, "submit", "noop", "--wait", "-o", "json")
    wait_until(lambda: "t2" in cluster.tasks, 10, "the task is accepted")
    cluster.end("t2", pb.TASK_STATE_FAILED, reason="boom")
    ran = waiting.result()
    assert ran.code == ExitCode.TASK_FAILED
    assert (ran.value["task_id"], ran.value["state"], ran.value["reason"]) == ("t2", "failed", "boom")


def test_a_wait_that_runs_out_prints_the_id_all_the_same(shell: Shell, cluster: FakeCluster) -> None:
    ran = shell("submit", "noop", "--wait", "--timeout", "300ms")
    assert (ran.code, ran.out) == (ExitCode.WAIT_TIMED_OUT, "submitted t1\n")
    assert ran.err == "error: t1 did not end within 0.3 s\ntry: raftctl task wait t1\n"
    ran = shell("submit", "noop", "--wait", "--timeout", "300ms", "-o", "json")
    assert (ran.code, ran.value["task_id"]) == (ExitCode.WAIT_TIMED_OUT, "t2")
    ran = shell("submit", "noop", "--array", "0-1", "--wait", "--timeout", "300ms", "-q")
    assert (ran.code, ran.out) == (ExitCode.WAIT_TIMED_OUT, "j1\n")


def test_task_info_has_what_the_contract_names(shell: Shell, cluster: FakeCluster) -> None:
    shell("submit", "sleep", "1")
    cluster.end("t1", inline=b"slept")
    value = shell("task", "info", "t1", "-o", "json").value
    assert (value["task_id"], value["kind"], value["args"], value["state"]) == (
        "t1",
        "sleep",
        ["1"],
        "succeeded",
    )
    [attempt] = value["attempts"]
    assert (attempt["number"], attempt["node"], attempt["outcome"]) == (1, "n2", "succeeded")
    assert re.fullmatch(r"1\.\d+", attempt["fencing_token"])
    assert TIME.fullmatch(attempt["started_at"])
    assert TIME.fullmatch(attempt["ended_at"])
    assert value["result"] == {"text": "slept", "size_bytes": 5}
    assert "succeeded" in shell("task", "info", "t1").out
    missing = shell("task", "info", "t99")
    assert (missing.code, missing.out) == (ExitCode.NOT_FOUND, "")


def test_task_list_streams(shell: Shell, cluster: FakeCluster) -> None:
    assert shell("task", "list", "-o", "json").value == []
    assert shell("task", "list").out == ""
    shell("submit", "noop", "--array", "0-4")
    cluster.end("t2")
    assert [task["task_id"] for task in shell("task", "list", "-o", "json").value] == [
        "t1",
        "t2",
        "t3",
        "t4",
        "t5",
    ]
    assert shell("task", "list", "--state", "succeeded", "-o", "name").out == "t2\n"
    assert len(shell("task", "list", "--limit", "2", "-o", "json").value) == 2
    lines = shell("task", "list", "--job", "j1").out.splitlines()
    assert lines[0].split()[:2] == ["ID", "STATE"]
    assert [line.split()[0] for line in lines[1:]] == ["t1", "t2", "t3", "t4", "t5"]
    assert shell("task", "list", "--state", "asleep").code == ExitCode.USAGE


def test_task_result_is_bytes(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    shell("submit", "noop", "--array", "0-2")
    cluster.end("t1", blob=b"\x00\xff" * 3000)
    file = tmp_path / "result.bin"
    assert shell("task", "result", "t1", "-o", str(file)).code == 0
    assert file.read_bytes() == b"\x00\xff" * 3000
    running = shell("task", "result", "t2")
    assert (running.code, running.err) == (
        ExitCode.ERROR,
        "error: t2 is pending: it has no result yet\ntry: raftctl task wait t2\n",
    )


def test_cancel_does_what_it_can_and_names_what_it_cannot(shell: Shell, cluster: FakeCluster) -> None:
    shell("submit", "noop", "--array", "0-2")
    ran = shell("task", "cancel", "t1", "t77")
    assert ran.code == ExitCode.NOT_FOUND
    assert ran.out == "t1 cancelled\n"
    assert "t77" in ran.err
    assert shell("job", "cancel", "j1").out == "j1: 2 tasks cancelled\n"
    assert shell("task", "cancel", "t1").out == "t1 is cancelled already\n"
    assert shell("job", "info", "j1", "-o", "json").value["cancelled"] == 3
    assert shell("job", "wait", "j1").code == ExitCode.TASK_FAILED
    assert shell("task", "wait", "t1", "t2").code == ExitCode.TASK_FAILED


@pytest.mark.parametrize(
    ("words", "named"),
    [(["noop"], "KIND"), (["--priority", "3"], "--priority"), (["--follow"], "--follow")],
)
def test_nothing_that_is_typed_beside_a_file_is_passed_over(
    shell: Shell, cluster: FakeCluster, tmp_path: Path, words: list[str], named: str
) -> None:
    file = tmp_path / "work.json"
    file.write_text('{"kind": "noop"}', encoding="utf-8")
    ran = shell("submit", "--file", str(file), *words)
    assert ran.code == 2
    assert named in ran.err
    assert not cluster.tasks
    assert shell("submit", "-q", "--file", str(file)).out.strip() == "t1"


def test_logs_go_to_their_streams(shell: Shell, cluster: FakeCluster) -> None:
    cluster.logs["t1"] = [(False, b"out\n"), (True, b"err\n")]
    shell("submit", "noop")
    cluster.end("t1")
    for words in (("logs", "t1"), ("task", "logs", "t1", "-f")):
        ran = shell(*words)
        assert (ran.code, ran.out, ran.err) == (0, "out\n", "err\n")


def _tile(number: int) -> bytes:
    """Tile `number` of a frame of 4x2 pixels in two tiles of 2x2."""
    header = tiles.HEADER.pack(
        tiles.MAGIC, tiles.FORMAT_VERSION, 4, 2, 2, number, number * 2, 0, 2, 2, b"\x07" * 32
    )
    return header + struct.pack("<12f", *[0.1 * (number + 1)] * 12)


def test_render_collects_its_tiles_through_a_change_of_leader(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    file = tmp_path / "picture.exr"
    words = ("render", "--tiles", "2x1", "-o", str(file), "-o", "json", "--request-id", "frame")
    rendering = Later(shell, *words)
    wait_until(lambda: "t2" in cluster.tasks, 10, "the task is accepted")
    cluster.end("t2", blob=_tile(1))
    cluster.lead("n2")
    cluster.stop("n1")
    cluster.end("t1", blob=_tile(0))
    ran = rendering.result()
    assert ran.code == 0, ran.err
    assert (ran.value["width"], ran.value["height"], ran.value["tiles"]) == (4, 2, 2)
    assert ran.value["job_id"] == "j1"
    first = file.read_bytes()
    assert len(first) > 0

    again = shell(*words)
    assert (again.code, again.value["sha256"]) == (0, ran.value["sha256"])
    assert len(cluster.tasks) == 2, "taken up, not rendered again"


def test_a_tile_that_fails_ends_the_rendering(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    rendering = Later(shell, "render", "--tiles", "2x1", "-o", str(file))
    wait_until(cluster.all_watched, 10, "the watch is open")
    cluster.end("t1", pb.TASK_STATE_FAILED, reason="no light")
    ran = rendering.result()
    assert ran.code == ExitCode.TASK_FAILED
    assert "error: tile 0 (t1) failed: no light" in ran.err
    assert cluster.tasks["t2"].state == pb.TASK_STATE_CANCELLED
    assert not file.exists()
