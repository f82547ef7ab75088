"""The words for clusters, nodes and faults, over nodes that only look like some: what is printed, where, the exit code.

``raftctl.app.run`` in this process, so that the fake nodes can be put in.
"""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from raftctl.app import run
from raftctl.client.errors import NodeUnreachable
from raftctl.client.nodes import Cut, Faults
from raftctl.cluster.faults import FaultChange
from raftctl.cluster.launcher import Launcher
from raftctl.cluster.layout import ClusterDirectory, NodeRecord, load_endpoints
from raftctl.cluster.spawn import RaftdCommand
from raftctl.commands import local
from raftctl.errors import ExitCode
from tests.raftctl.cluster.conftest import FAKE, FakeProbe


class FakeNodes(FakeProbe):
    """Nodes that remember their cuts; those in `deaf` do not answer."""

    cuts: dict[str, frozenset[tuple[str, str]]]
    deaf: set[str]

    def __init__(self, directory: ClusterDirectory) -> None:
        super().__init__(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, node: NodeRecord, change: FaultChange, timeout_s: float) -> None:
        if node.name in self.deaf:
            raise NodeUnreachable(f"{node.name} does not answer in time")
        before = frozenset() if change.heal else self.cuts.get(node.name, frozenset()) - change.remove
        self.cuts[node.name] = before | change.add

    def faults_of(self, node: NodeRecord, timeout_s: float) -> Faults:
        return Faults(True, tuple(Cut(*pair) for pair in sorted(self.cuts.get(node.name, ()))))


CommandLine = Callable[..., str]


@pytest.fixture
def raftctl(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """Runs a command line on cluster `c` of fake nodes; returns stdout, or stderr where a failure is expected."""
    nodes = type("Nodes", (FakeNodes,), {"cuts": {}, "deaf": set()})
    monkeypatch.setattr(local, "LocalNodes", nodes)
    monkeypatch.setattr(local, "Launcher", functools.partial(Launcher, command=RaftdCommand(FAKE)))
    monkeypatch.setenv("RAFTCTL_CLUSTER", launcher.name)

    def call(*words: str, code: ExitCode = ExitCode.OK) -> str:
        ended = run(words)
        said = capsys.readouterr()
        assert ended == code, said
        assert len(said.err.splitlines()) <= 12
        return said.out if code is ExitCode.OK else said.err

    call.nodes = nodes  # type: ignore[attr-defined] # the tests that need it say so
    yield call
    run(["cluster", "down", "--all", "--purge"])


def value_of(text: str) -> Any:
    return json.loads(text)


def test_up_says_what_it_made_and_up_again_that_it_is_there(raftctl: CommandLine) -> None:
    assert "c: 3 nodes up in" in raftctl("cluster", "up", "-n", "3")
    assert "c: already running, 3 nodes, n1 leads" in raftctl("cluster", "up", "-n", "3")
    assert "3 nodes, not 5" in raftctl("cluster", "up", "-n", "5", code=ExitCode.REJECTED)


def test_workers_are_started_beside_the_nodes_and_counted_apart(
    raftctl: CommandLine, launcher: Launcher
) -> None:
    assert "c: 3 nodes and 5 workers up in" in raftctl("cluster", "up", "-n", "3", "--workers", "5")
    record = launcher.directory.require()
    assert [node.name for node in record.members] == ["n1", "n2", "n3"]
    assert [node.name for node in record.workers] == ["w1", "w2", "w3", "w4", "w5"]
    assert "already running, 3 nodes and 5 workers" in raftctl("cluster", "up", "--workers", "5")
    assert "5 workers, not 1" in raftctl("cluster", "up", "--workers", "1", code=ExitCode.REJECTED)
    assert raftctl("kill", "w2", "w5") == "killed w2, w5\n"
    assert "started w2, w5 in" in raftctl("cluster", "up")
    assert "n1 n2 n3 w2 w3 w4 w5 | w1" in raftctl("isolate", "w1")
    assert len(load_endpoints("c").addresses) == 3, "clients are not sent to workers"


def test_a_worker_is_added_under_the_next_number(raftctl: CommandLine, launcher: Launcher) -> None:
    raftctl("cluster", "up", "-n", "1", "--workers", "1")
    assert "added w2: a worker after" in raftctl("node", "add", "--worker")
    assert "added gpu: a worker after" in raftctl("node", "add", "--worker", "gpu")
    assert "there is a node gpu already" in raftctl("node", "add", "--worker", "gpu", code=ExitCode.REJECTED)
    assert "neither learns" in raftctl("node", "add", "--worker", "--learner", code=ExitCode.USAGE)
    assert [node.name for node in launcher.directory.require().workers] == ["w1", "w2", "gpu"]


def test_up_in_json_is_one_value(raftctl: CommandLine) -> None:
    found = value_of(raftctl("cluster", "up", "-n", "2", "-o", "json"))
    assert found["created"]
    assert found["leader"] == "n1"
    assert [node["id"] for node in found["nodes"]] == ["n1", "n2"]
    again = value_of(raftctl("cluster", "up", "-o", "json"))
    assert again["already_running"]
    assert again["started"] == []


def test_even_sizes_and_fault_injection_are_spoken_of_on_stderr(
    raftctl: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cluster", "up", "-n", "2"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert "warning: 2 nodes survive the loss of 0, as 1 would" in said
    assert "fault injection is on" in said
    assert run(["cluster", "up", "-q"]) == ExitCode.OK
    assert capsys.readouterr().err == ""
    assert "stopped n1, n2" in raftctl("cluster", "stop")


def test_a_dry_run_starts_nothing(raftctl: CommandLine, launcher: Launcher) -> None:
    commands = raftctl("cluster", "up", "-n", "2", "--allow", "shell", "--dry-run").splitlines()
    assert len(commands) == 4
    assert "--fault-injection" in commands[1]
    assert "--allow=shell" in commands[1]
    assert not launcher.directory.exists()


def test_down_is_done_once_and_then_nothing(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "1")
    assert raftctl("cluster", "down") == "deleted c\n"
    assert "nothing to delete" in raftctl("cluster", "down")
    assert value_of(raftctl("cluster", "down", "--all", "-o", "json")) == {"deleted": []}


def test_clusters_are_listed_with_their_state(raftctl: CommandLine) -> None:
    assert value_of(raftctl("cluster", "list", "-o", "json")) == []
    raftctl("cluster", "up", "-n", "2")
    (row,) = value_of(raftctl("cluster", "list", "-o", "json"))
    assert (row["name"], row["state"], row["nodes"], row["running"]) == ("c", "running", 2, 2)
    raftctl("kill", "n2")
    assert value_of(raftctl("cluster", "list", "-o", "json"))[0]["state"] == "degraded"
    raftctl("cluster", "stop")
    assert value_of(raftctl("cluster", "list", "-o", "json"))[0]["state"] == "stopped"
    assert raftctl("cluster", "list", "-o", "name") == "c\n"


def test_a_broken_cluster_is_listed_and_says_how_to_be_rid_of_it(
    raftctl: CommandLine, launcher: Launcher
) -> None:
    raftctl("cluster", "up", "-n", "1")
    (launcher.directory.path / "cluster.json").write_text("?")
    assert value_of(raftctl("cluster", "list", "-o", "json"))[0]["state"] == "broken"
    assert "raftctl cluster down c --purge" in raftctl("cluster", "down", code=ExitCode.ERROR)
    assert raftctl("cluster", "down", "--purge") == "deleted c\n"


def test_info_names_files_and_addresses(raftctl: CommandLine, launcher: Launcher) -> None:
    raftctl("cluster", "up", "-n", "1", "--slots", "3")
    found = value_of(raftctl("cluster", "info", "-o", "json"))
    assert found["options"]["slots"] == 3
    assert found["leader"] == "n1"
    assert found["nodes"][0]["data_dir"] == str(launcher.directory.data("n1"))
    assert found["nodes"][0]["address"] in raftctl("cluster", "info")


def test_use_and_env_name_the_cluster(raftctl: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    raftctl("cluster", "up", "-n", "1")
    assert raftctl("cluster", "env") == "export RAFTCTL_CLUSTER=c\n"
    raftctl("cluster", "use", "d", code=ExitCode.NOT_FOUND)
    raftctl("cluster", "use", "c")
    monkeypatch.delenv("RAFTCTL_CLUSTER")
    assert value_of(raftctl("cluster", "info", "-o", "json"))["cluster"] == "c"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("cluster", "up", "-n", "0"), ExitCode.USAGE),
        (("cluster", "up", "Not A Name"), ExitCode.USAGE),
        (("cluster", "up", "--allow", "render-tile"), ExitCode.USAGE),
        (("cluster", "up", "--config", "/no/such/file"), ExitCode.USAGE),
        (("cluster", "down", "c", "--all"), ExitCode.USAGE),
        (("cluster", "wait", "--for", "rain"), ExitCode.USAGE),
        (("cluster", "stop"), ExitCode.NOT_FOUND),
        (("cluster", "start"), ExitCode.NOT_FOUND),
        (("cluster", "info"), ExitCode.NOT_FOUND),
        (("node", "start", "n1"), ExitCode.NOT_FOUND),
        (("kill", "n1"), ExitCode.NOT_FOUND),
        (("kill", "n1", "--address", "127.0.0.1:1"), ExitCode.USAGE),
    ],
)
def test_what_cannot_be_meant(raftctl: CommandLine, words: tuple[str, ...], code: ExitCode) -> None:
    said = raftctl(*words, code=code)
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 3


def test_nodes_are_killed_started_paused_and_resumed(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "3")
    assert raftctl("kill", "leader") == "killed n1\n"
    assert raftctl("node", "kill", "n1") == "n1: already down\n"
    assert raftctl("node", "start", "n1") == "started n1\n"
    assert raftctl("node", "start", "n1", "n2") == "n1, n2: already running\n"
    assert raftctl("node", "pause", "n2,n3") == "paused n2, n3\n"
    assert raftctl("node", "resume", "n2", "n3") == "resumed n2, n3\n"
    assert raftctl("node", "stop", "n3") == "stopped n3\n"
    assert raftctl("node", "restart", "n2") == "restarted n2\n"
    assert "one of: n1, n2, n3, leader" in raftctl("kill", "n4", code=ExitCode.NOT_FOUND)


def test_logs_are_printed(raftctl: CommandLine, launcher: Launcher) -> None:
    raftctl("cluster", "up", "-n", "1")
    launcher.directory.log("n1").write_text("one\ntwo\nthree\n")
    assert raftctl("node", "logs", "n1") == "one\ntwo\nthree\n"
    assert raftctl("node", "logs", "n1", "-n", "1") == "three\n"


def test_partitions_are_told_to_all_and_shown(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "3")
    assert raftctl("chaos", "status") == "no cuts\n"
    assert raftctl("partition", "n1", "n2,n3") == "partitioned: n1 | n2 n3\n"
    assert raftctl("isolate", "n2") == "partitioned: n1 | n2 | n3\n"
    found = value_of(raftctl("chaos", "status", "-o", "json"))
    assert found["groups"] == [["n1"], ["n2"], ["n3"]]
    assert len(found["cuts"]) == 6
    assert raftctl("heal", "n2") == "cut: n1 -> n3, n3 -> n1\n"
    assert raftctl("heal") == "no cuts\n"
    assert raftctl("chaos", "cut", "leader", "n3") == "cut: n1 -> n3\n"


def test_a_node_that_is_down_is_told_when_it_starts(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "3")
    raftctl("isolate", "n3")
    raftctl("kill", "n3")
    raftctl("heal")
    assert raftctl.nodes.cuts["n3"]  # type: ignore[attr-defined] # see the fixture
    raftctl("node", "start", "n3")
    assert raftctl("chaos", "status") == "no cuts\n"


def test_a_node_that_cannot_be_told_is_named(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "3")
    raftctl.nodes.deaf.add("n2")  # type: ignore[attr-defined] # see the fixture
    said = raftctl("isolate", "n1", code=ExitCode.UNAVAILABLE)
    assert "n2 could not be told" in said
    assert "told: n1, n3" in said


def test_faults_need_to_have_been_asked_for(raftctl: CommandLine) -> None:
    raftctl("cluster", "up", "-n", "2", "--no-fault-injection")
    assert "without fault injection" in raftctl("isolate", "n1", code=ExitCode.ERROR)


def test_a_start_that_fails_shows_the_nodes_last_words(raftctl: CommandLine, launcher: Launcher) -> None:
    raftctl("cluster", "up", "-n", "1")
    raftctl("cluster", "stop")
    (launcher.directory.node("n1") / "crash").touch()
    said = raftctl("node", "start", "n1", code=ExitCode.ERROR)
    assert "n1 said last:" in said
    assert "crashed, as the test wants it" in said
    assert "error: n1 ended as it started (exit code 1)" in said
    assert Path(launcher.directory.path).exists()
