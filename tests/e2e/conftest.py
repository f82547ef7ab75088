"""Real clusters for tests: raftctl and raftd as processes, in a state directory of the test's own.

A test asks the `cluster` fixture for a running cluster and speaks to it as a user does, by command line. However the
test ends, its clusters are taken down, and it fails if any process of theirs is left.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftctl.cluster.process import ProcessIdentity, marked_with, send_signal, wait_gone
from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
COMMAND_TIMEOUT_S = 90.0
LOG_LINES = 25

_failed = pytest.StashKey[bool]()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """stdout, which must be one JSON value."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"raftctl {' '.join(self.arguments)}: exit code {self.code}\n{self.stdout}\n{self.stderr}"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A local cluster as its user has it: by command line.

    Attributes:
        extra_path: where its nodes find task kinds beside raftd's own.
    """

    name: str
    home: Path
    extra_path: tuple[Path, ...] = ()

    @property
    def directory(self) -> Path:
        """Its files."""
        return self.home / "raftctl" / self.name

    @property
    def environment(self) -> dict[str, str]:
        """What the command line runs in."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAFTCTL_", "RAFTD_"))}
        return {
            **kept,
            "XDG_STATE_HOME": str(self.home),
            "RAFTCTL_CLUSTER": self.name,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *self.extra_path))),
            "NO_COLOR": "1",
        }

    def run(self, *arguments: str, code: int | None = 0, stdin: str = "") -> Outcome:
        """Runs a command line to its end and asserts its exit code (None: any)."""
        ended = subprocess.run(
            [sys.executable, "-m", "raftctl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            cwd=self.home,
            env=self.environment,
        )
        outcome = Outcome(arguments, ended.returncode, ended.stdout, ended.stderr)
        assert code is None or outcome.code == code, f"expected exit code {code}\n{outcome}"
        assert "Traceback" not in outcome.stderr, outcome
        return outcome

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begins a command line, for those that go on; the caller ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "raftctl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env=self.environment,
        )

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """The value that a command line prints with ``-o json``."""
        return self.run(*arguments, "-o", "json", code=code).json()

    def status(self, *arguments: str) -> dict[str, Any]:
        """``status -o json``."""
        found: dict[str, Any] = self.json("status", *arguments)
        return found

    def nodes(self) -> dict[str, dict[str, Any]]:
        """``node list -o json`` by name."""
        return {row["id"]: row for row in self.json("node", "list")}

    def task(self, task_id: str, *options: str) -> dict[str, Any]:
        """``task info -o json``."""
        found: dict[str, Any] = self.json("task", "info", task_id, *options)
        return found

    def tasks(self, *options: str) -> list[dict[str, Any]]:
        """``task list -o json``."""
        found: list[dict[str, Any]] = self.json("task", "list", *options)
        return found

    def submit(self, *words: str) -> str:
        """Submits, and returns the id of the task or job."""
        return self.run("submit", "-q", *words).stdout.strip()

    def wait_running(self, task_id: str) -> dict[str, Any]:
        """The attempt that a task runs in, as soon as it does."""

        def running() -> dict[str, Any] | None:
            task = self.task(task_id)
            attempt: dict[str, Any] | None = task["attempts"][-1] if task["state"] == "running" else None
            return attempt

        return wait_until(running, 30, f"{task_id} runs") or {}

    def leader(self, timeout_s: float = 30.0) -> str:
        """The leader's name, as soon as there is one that a majority follows."""

        def known() -> str | None:
            found = self.status("--timeout", "1s")
            leader: str | None = None if found["stale"] else found["leader"]
            return leader

        return wait_until(known, timeout_s, "a leader") or ""

    def pid(self, node: str) -> int:
        """The pid of a node that is up."""
        pid: int = json.loads((self.directory / node / "pid.json").read_text())["pid"]
        return pid

    def process(self, node: str) -> ProcessIdentity | None:
        """The process last started for a node, which may be gone by now; None where it was stopped."""
        file = self.directory / node / "pid.json"
        found = json.loads(file.read_text()) if file.exists() else None
        return None if found is None else ProcessIdentity(found["pid"], found["started"])

    def processes(self) -> tuple[ProcessIdentity, ...]:
        """Every living process that descends from one of its nodes (Linux)."""
        return marked_with("XDG_STATE_HOME", [str(self.home)])


ClusterFactory = Callable[..., Cluster]


def shell(body: str) -> tuple[str, ...]:
    """The words that submit lines of shell, after all options."""
    return ("shell", "--", "sh", "-c", body)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state directory of a test, which no other test shares."""
    made = tmp_path / "state"
    made.mkdir()
    return made


@pytest.fixture
def cluster(request: pytest.FixtureRequest, home: Path) -> Iterator[ClusterFactory]:
    """Makes clusters: ``cluster()`` has three nodes, ``cluster(5, "--slots", "2")`` five, ``cluster(0)`` none yet."""

    def make(size: int = 3, *options: str, name: str = "test", extra_path: tuple[Path, ...] = ()) -> Cluster:
        made = Cluster(name, home, extra_path)
        if size:
            made.run("cluster", "up", "-n", str(size), *options)
        return made

    yield make
    if request.node.stash.get(_failed, False):
        show_logs(home)
    take_down(home)


@pytest.fixture(scope="session")
def shared_five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five nodes for every test that leaves them as they were; others get them through `five`."""
    home = tmp_path_factory.mktemp("five") / "state"
    home.mkdir()
    made = Cluster("test", home)
    made.run("cluster", "up", "-n", "5", "--allow", "shell")
    yield made
    take_down(home)


@pytest.fixture
def five(request: pytest.FixtureRequest, shared_five: Cluster) -> Iterator[Cluster]:
    """The five nodes, whole and idle at the start; and again after the test, whatever it did to them."""
    yield shared_five
    if request.node.stash.get(_failed, False):
        show_logs(shared_five.home)
    if any(node["process"] == "paused" for node in shared_five.nodes().values()):
        shared_five.run("node", "resume", *(f"n{n}" for n in range(1, 6)), code=None)
    if shared_five.json("chaos", "status")["cuts"]:
        shared_five.run("heal")
    if any(node["process"] != "running" for node in shared_five.nodes().values()):
        shared_five.run("cluster", "start")
    left = shared_five.tasks("--state", "pending", "--state", "running")
    if left:
        shared_five.run("task", "cancel", *(task["task_id"] for task in left), code=None)
    shared_five.run("cluster", "wait", "--for", "healthy", "--timeout", "60s")
    if left:
        shared_five.run("cluster", "wait", "--for", "idle", "--timeout", "60s")


def take_down(home: Path) -> None:
    """Ends every cluster of a state directory; fails if a process of theirs is left."""
    any_cluster = Cluster("test", home)
    down = any_cluster.run("cluster", "down", "--all", "--purge", code=None)
    left = wait_gone(any_cluster.processes(), 5)
    for identity in left:
        send_signal(identity, signal.SIGKILL)
    assert down.code == 0, down
    assert not left, f"processes outlived their cluster: {[_named(one) for one in left]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers that a test failed, so that its nodes' logs are shown before they go."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_failed] = True
    return report


def _named(identity: ProcessIdentity) -> str:
    command = Path(f"/proc/{identity.pid}/cmdline")
    return f"{identity.pid} {command.read_bytes() if command.exists() else b''!r}"


def show_logs(home: Path) -> None:
    """Prints the end of every log, for the report of a failure."""
    for log in sorted(home.glob("raftctl/*/*/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        print(f"--- {log.relative_to(home)}", *lines, sep="\n")
