"""Kinds that are not built in, functions, and limits: on nodes that were started as a user would start them."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from raftctl import Client, Submission
from raftd.tasks.context import current_context
from raftd.tasks.pickled import VERSION
from tests.e2e.conftest import Cluster, shell, take_down
from tests.support import wait_until
from tests.tasks.example import install

SETTINGS = """
slot_nice = 0
task_cpu_ms = 1500
task_memory_bytes = 600_000_000
task_file_bytes = 1_000_000
task_output_bytes = 2_000_000
task_processes = 10
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with the example package, limits, and everything allowed."""
    home = tmp_path_factory.mktemp("kinds")
    (home / "settings.toml").write_text(SETTINGS)
    made = dataclasses.replace(Cluster("test", home), extra_path=(install(home / "site"),))
    allow = ("--allow", "shell", "--allow", "python")
    made.run("cluster", "up", "-n", "3", *allow, "--config", str(home / "settings.toml"))
    yield made
    take_down(home)


def result_of(cluster: Cluster, task: str, file: Path) -> bytes:
    cluster.run("task", "result", task, "-o", str(file))
    return file.read_bytes()


def test_an_installed_package_offers_its_kinds(three: Cluster, tmp_path: Path) -> None:
    task = three.run("submit", "-q", "--wait", "count-primes", "--", "0", "3000").stdout.strip()
    assert json.loads(result_of(three, task, tmp_path / "one")) == {"from": 0, "to": 3000, "primes": 430}
    refused = three.run("submit", "count-primes", "--", "3", "2", code=2)
    assert "the smaller one first" in refused.stderr
    job = three.submit("count-primes", "--array", "1-3", "--wait", "--", "{}000", "{}999")
    assert [one["state"] for one in three.tasks("--job", job)] == ["succeeded"] * 3
    task = three.run("submit", "-q", "--wait", "list-primes", "--", "0", "100").stdout.strip()
    listed = json.loads(result_of(three, task, tmp_path / "two"))
    held = list(three.directory.glob(f"*/**/pinned/{listed['blob']}"))
    assert len(held) >= 2, "what a task puts is on a majority of the nodes"
    assert held[0].read_text().split()[-1] == "97"
    path = tmp_path / "answer"
    words = ("--wait", "--stdin", "-", "publish", "--", str(path))
    three.run("submit", *words, stdin="42")
    assert path.read_text() == "42"


def test_a_function_runs_where_that_is_allowed(three: Cluster, tmp_path: Path, monkeypatch: Any) -> None:
    def product(one: int, two: int) -> tuple[int, str]:
        context = current_context()
        context.log("multiplies")
        return one * two, context.blobs.put(b"seen")

    for key, value in three.environment.items():
        monkeypatch.setenv(key, value)
    with Client() as client:
        call = cloudpickle.dumps((product, (6,), {"two": 7}))
        task = client.submit(Submission("python", (VERSION,), payload=call)).task_id
        wrong = client.submit(Submission("python", (VERSION,), payload=b"nonsense")).task_id
    wait_until(lambda: three.task(task)["state"] == "succeeded", 60, "the function has returned")
    assert cloudpickle.loads(result_of(three, task, tmp_path / "value"))[0] == 42
    assert "multiplies" in three.run("task", "logs", task).stderr
    wait_until(lambda: three.task(wrong)["state"] == "failed", 60, "what is no function has failed")
    refused = three.run("submit", "python", "--", "2.7", code=2)
    assert "pickled by Python 2.7" in refused.stderr


@pytest.mark.parametrize(
    ("body", "setting"),
    [
        ("while :; do :; done", "task_cpu_ms"),
        ("yes", "task_output_bytes"),
        ("for n in 1 2 3 4 5 6 7 8 9 10 11; do sleep 100 & done; wait", "task_processes"),
        ("exec head -c 2000000 /dev/zero > large", "task_file_bytes"),
    ],
)
def test_a_node_ends_what_goes_over_its_limits(three: Cluster, body: str, setting: str) -> None:
    three.run("submit", "--wait", "--timeout", "80s", *shell(body), code=5)
    [newest, *_] = sorted(three.tasks(), key=lambda task: -int(task["task_id"][1:]))
    [attempt] = three.task(newest["task_id"])["attempts"]
    assert (attempt["outcome"], setting in attempt["reason"]) == ("failed", True), attempt
