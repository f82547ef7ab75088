"""A launcher over fake nodes: real processes, real files, no gRPC."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftctl.cluster.launcher import Launcher
from raftctl.cluster.layout import ClusterDirectory, NodeRecord, cluster_names
from raftctl.cluster.process import ProcessIdentity, is_alive, send_signal, wait_gone
from raftctl.cluster.readiness import NodeView
from raftctl.cluster.spawn import RaftdCommand

FAKE = (sys.executable, "-S", str(Path(__file__).with_name("fake_raftd.py")))


@dataclasses.dataclass
class FakeProbe:
    """Believes what the fake nodes wrote; the first of them leads unless the test says otherwise."""

    directory: ClusterDirectory
    leader: str = "n1"
    cut_off: frozenset[str] = frozenset()

    def view(self, node: NodeRecord, timeout_s: float) -> NodeView | None:
        try:
            found = json.loads((self.directory.node(node.name) / "view.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        lost = node.name in self.cut_off
        role = "leader" if node.name == self.leader else "follower"
        leader = "" if lost else self.leader
        return NodeView(node.name, "candidate" if lost else role, leader, 3, 7, 7, True, found["pid"])

    def is_cut_off(self, node: NodeRecord, timeout_s: float) -> bool:
        return node.name in self.cut_off


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """A launcher of cluster `c` in a state directory of its own; what it left running is ended by pid and beginning."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Launcher("c", FakeProbe(ClusterDirectory("c")), RaftdCommand(FAKE), lock_timeout_s=0.5)
    yield made
    left = [
        one
        for name in cluster_names()
        for one in ClusterDirectory(name).processes().values()
        if is_alive(one)
    ]
    for identity in left:
        send_signal(identity, 9)
    wait_gone(left, 10)


@pytest.fixture
def started(launcher: Launcher) -> Callable[[], dict[str, ProcessIdentity]]:
    """The living nodes of the launcher's cluster, by name."""
    return lambda: launcher.running(launcher.directory.require())
