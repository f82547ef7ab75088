"""The SDK on real clusters: the programs of its document, and calls that outlive nodes."""

from __future__ import annotations

import ast
import concurrent.futures
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftctl import Client, RaftExecutor
from raftctl.client import errors, pickling
from tests.e2e.conftest import ROOT, Cluster, ClusterFactory, take_down
from tests.support import wait_until

DEADLINE_S = 120
DOCUMENT = ROOT / "docs" / "sdk.md"
EXAMPLES = ROOT / "docs" / "examples"
_PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n```output\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of the document, for tests that leave it as it was."""
    home = tmp_path_factory.mktemp("sdk") / "state"
    home.mkdir()
    made = Cluster("test", home)
    made.run("cluster", "up", "-n", "3", "--slots", "2", "--allow", "shell", "--allow", "python")
    yield made
    take_down(home)


@pytest.fixture
def client(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client that finds the cluster as a program does."""
    monkeypatch.setenv("XDG_STATE_HOME", str(shared.home))
    monkeypatch.setenv("RAFTCTL_CLUSTER", shared.name)
    with Client() as made:
        yield made


def python(cluster: Cluster, *arguments: str) -> str:
    """Runs Python as a user of the cluster; what it wrote to stdout. Warnings are errors."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=cluster.home,
        env=cluster.environment,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def programs() -> list[tuple[str, str]]:
    """The programs of the document, with what they print."""
    return _PROGRAM.findall(DOCUMENT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(programs())))
def test_the_programs_of_the_document_do_what_it_says(shared: Cluster, number: int) -> None:
    program, output = programs()[number]
    assert python(shared, "-c", program) == output


def test_every_program_of_the_document_says_what_it_prints() -> None:
    assert len(programs()) == DOCUMENT.read_text(encoding="utf-8").count("```python\n") >= 6


def test_joblib_runs_on_the_cluster(shared: Cluster) -> None:
    assert ast.literal_eval(python(shared, str(EXAMPLES / "joblib_backend.py"))) == list(
        map(float, range(10))
    )


def test_an_exception_comes_back_as_it_was_raised(client: Client) -> None:
    class Refused(Exception):
        """Known to this program alone."""

    def refuse(what: str) -> None:
        raise Refused(what, 3)

    with pytest.raises(Refused) as caught:
        client.call(refuse, "tea").result(DEADLINE_S)
    assert caught.value.args == ("tea", 3)
    assert isinstance(caught.value.__cause__, pickling.RemoteTraceback)
    assert "raise Refused(what, 3)" in str(caught.value.__cause__) or "in refuse" in str(
        caught.value.__cause__
    )


def test_what_is_large_travels_through_the_blob_store(client: Client) -> None:
    large = os.urandom(2_000_000)
    future = client.call(lambda data: data[::-1], large)
    assert future.result(DEADLINE_S) == large[::-1]
    task = client.task(str(future.task_id))
    assert task.result is not None
    assert task.result.blob is not None


def test_a_call_that_runs_is_ended_by_the_client(client: Client) -> None:
    future = client.call(time.sleep, 600)
    wait_until(future.running, DEADLINE_S, "it runs")
    assert not future.cancel()
    client.cancel(future)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(DEADLINE_S)


def test_a_call_that_kills_its_slot_time_and_again_fails(client: Client) -> None:
    with pytest.raises(errors.TaskFailed, match="died under it"):
        client.call(os._exit, 3).result(DEADLINE_S)
    assert client.call(abs, -1).result(DEADLINE_S) == 1


def test_a_thousand_calls_share_log_entries(client: Client) -> None:
    before = client.status().commit_index
    assert sum(client.gather(client.map(lambda x: x, range(300)), timeout_s=DEADLINE_S)) == 44_850
    submitted_and_ended = client.status().commit_index - before
    assert submitted_and_ended < 700, "an entry for each occupy and vacate at most, and few for submitting"


def test_a_sweep_goes_on_while_its_leader_dies(cluster: ClusterFactory) -> None:
    made = cluster(3, "--allow", "python")
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "sweep.py"), "--size", "6", "--steps", "200000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=made.environment,
    )
    with program:
        watchdog = threading.Timer(DEADLINE_S, program.kill)
        watchdog.start()
        assert program.stdout is not None
        assert program.stderr is not None
        lines = list(itertools.islice(program.stdout, 4))
        made.run("kill", "leader")
        lines += program.stdout
        watchdog.cancel()
        assert program.stderr.read() == ""
    assert program.wait() == 0
    assert [line.strip() for line in lines[:36]] == [f"{n} of 36" for n in range(1, 37)]
    sweep = load(EXAMPLES / "sweep.py")
    assert lines[37].split()[:3] == ["i=0.20", *(f"{sweep.peak(0.2, r, 200_000):.1%}" for r in (0.05, 0.07))]


def test_an_executor_finds_the_cluster_and_breaks_when_it_is_gone(
    cluster: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cluster(1, "--allow", "python")
    monkeypatch.setenv("XDG_STATE_HOME", str(made.home))
    with RaftExecutor(cluster=made.name, patience_s=1.0) as executor:
        assert executor.submit(abs, -1).result(DEADLINE_S) == 1
        made.run("cluster", "stop")
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(abs, -1).result(DEADLINE_S)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(abs, -1)


def load(path: Path) -> Any:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
