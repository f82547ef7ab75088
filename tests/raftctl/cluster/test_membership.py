"""Nodes that come and go on this machine: real processes that only look like nodes, a membership that is a few values.

What a step leaves behind when it fails is looked at here; what the cluster does with a change is another test's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from raftctl.app import run
from raftctl.client.errors import ClientError, InvalidChange, NodeNotFound, NoLeader, OutcomeUnknown
from raftctl.client.nodes import Member, Membership
from raftctl.cluster.launcher import Launcher
from raftctl.cluster.layout import ClusterDirectory, NodeRecord
from raftctl.cluster.process import ProcessIdentity
from raftctl.cluster.readiness import NodeView
from raftctl.cluster.spawn import RaftdCommand
from raftctl.commands import _membership, local
from raftctl.errors import ExitCode
from tests.raftctl.cluster.conftest import FAKE
from tests.raftctl.cluster.test_command_line import FakeNodes

Started = Callable[[], dict[str, ProcessIdentity]]


class FakeAdmin:
    """The membership as the cluster would tell it; a learner gets its vote when it has been looked at three times."""

    def __init__(self, directory: ClusterDirectory) -> None:
        record = directory.require()
        self.members_: dict[str, Member] = {
            node.name: Member(node.name, node.store_id, node.address, True) for node in record.members
        }
        self.leader = "n1"
        self.looks = 0
        self.never = False  # catches up
        self.failures: dict[str, ClientError] = {}
        self.down: set[str] = set()
        self.behind: set[str] = set()

    def _fail(self, method: str) -> None:
        if method in self.failures:
            raise self.failures.pop(method)

    def members(self, *, timeout_s: float) -> Membership:
        self._fail("members")
        self.looks += 1
        for member in list(self.members_.values()):
            if member.promote and self.looks >= 3 and not self.never:
                if member.replaces is not None:
                    del self.members_[member.replaces]
                    self.leader = next(iter(self.members_)) if self.leader == member.replaces else self.leader
                self.members_[member.name] = replace(member, voter=True, promote=False, replaces=None)
        return Membership(tuple(self.members_.values()), answered_by=self.leader, leads=bool(self.leader))

    def add_member(
        self, name: str, store_id: str, address: str, *, learner: bool, replaces: str, timeout_s: float
    ) -> int:
        self.looks = 0
        lost = isinstance(self.failures.get("add_member"), OutcomeUnknown)
        if not lost:
            self._fail("add_member")
        self.members_[name] = Member(
            name, store_id, address, False, promote=not learner, replaces=replaces or None
        )
        self._fail("add_member")
        return 17

    def remove_member(self, name: str, *, timeout_s: float) -> int:
        self._fail("remove_member")
        if name not in self.members_:
            raise NodeNotFound(f"there is no member {name}")
        del self.members_[name]
        if name == self.leader:
            self.leader = next(iter(self.members_))
        return 18

    def node_info(self, node: str, *, timeout_s: float) -> Any:
        last_applied = 8 if node in self.behind else 9
        return type("Info", (), {"peers": (), "last_index": 9, "last_applied": last_applied})

    def everybody(self, *, timeout_s: float = 1.0) -> tuple[dict[str, Any], tuple[str, ...]]:
        up = [name for name in self.members_ if name not in self.down]
        return {name: self.node_info(name, timeout_s=timeout_s) for name in up}, tuple(self.down)


class CommandLine:
    """Runs command lines on cluster `c`; `admin` is what its nodes would say of the membership."""

    def __init__(self, launcher: Launcher, capture: pytest.CaptureFixture[str]) -> None:
        self.launcher = launcher
        self.admin: FakeAdmin | None = None
        self._capture = capture

    def __call__(self, *words: str, code: ExitCode = ExitCode.OK) -> str:
        if self.admin is None and words[0] == "node":
            self.admin = FakeAdmin(self.launcher.directory)
        ended = run(words)
        said = self._capture.readouterr()
        assert ended == code, said
        return said.out if code is ExitCode.OK else said.err

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes in the cluster's record."""
        return self.launcher.directory.require().names


@pytest.fixture
def raftctl(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """A cluster `c` of three, and its command line."""
    made = CommandLine(launcher, capsys)

    class Nodes(FakeNodes):
        def client(self) -> FakeAdmin:
            return admin(made)

        def view(self, node: NodeRecord, timeout_s: float) -> NodeView | None:
            self.leader = made.admin.leader if made.admin is not None else "n1"
            return super().view(node, timeout_s)

    nodes = type("Nodes", (Nodes,), {"cuts": {}, "deaf": set()})
    monkeypatch.setattr(local, "LocalNodes", nodes)
    monkeypatch.setattr(local, "Launcher", functools.partial(Launcher, command=RaftdCommand(FAKE)))
    monkeypatch.setattr(_membership, "POLL_S", 0.01)
    monkeypatch.setenv("RAFTCTL_CLUSTER", launcher.name)
    made("cluster", "up", "-n", "3")
    made.admin = FakeAdmin(launcher.directory)
    yield made
    run(["cluster", "down", "--all", "--purge"])


def admin(raftctl: CommandLine) -> FakeAdmin:
    """The membership that the test plays with."""
    assert raftctl.admin is not None
    return raftctl.admin


def test_a_node_is_added_and_the_cluster_is_of_its_new_size(raftctl: CommandLine, started: Started) -> None:
    value = json.loads(raftctl("node", "add", "-o", "json"))
    assert value.keys() >= {
        "cluster",
        "node",
        "store_id",
        "address",
        "role",
        "replaced",
        "voters",
        "elapsed_ms",
    }
    assert (value["node"], value["role"], value["index"]) == ("n4", "voter", 17)
    assert value["voters"] == ["n1", "n2", "n3", "n4"]
    assert set(started()) == {"n1", "n2", "n3", "n4"}
    identity = json.loads((raftctl.launcher.directory.data("n4") / "identity.json").read_text())
    assert identity == {"name": "n4", "members": [], "config": ""}
    assert "already running, 4 nodes" in raftctl("cluster", "up", "-n", "4")
    assert "4 nodes, not 3" in raftctl("cluster", "up", "-n", "3", code=ExitCode.REJECTED)
    raftctl("cluster", "stop")
    assert "started n1, n2, n3, n4" in raftctl("cluster", "start")


def test_a_learner_stays_one(raftctl: CommandLine) -> None:
    said = raftctl("node", "add", "blue", "--learner")
    assert said.startswith("added blue: a learner after ")
    assert admin(raftctl).members_["blue"].voter is False


def test_a_node_is_removed_with_its_files(raftctl: CommandLine, started: Started) -> None:
    assert raftctl("node", "remove", "n2") == "removed n2; voters: n1, n3\n"
    assert set(started()) == {"n1", "n3"}
    assert not raftctl.launcher.directory.node("n2").exists()
    assert "already running, 2 nodes" in raftctl("cluster", "up", "-n", "2")
    assert raftctl("node", "add", "-q") == "n4\n"


def test_a_member_that_is_no_node_of_the_local_cluster_is_removed_by_address(raftctl: CommandLine) -> None:
    elsewhere = Member("far", "00000000000000ff", "far:1", True)
    admin(raftctl).members_["far"] = elsewhere
    said = raftctl("node", "remove", "far", code=ExitCode.NOT_FOUND)
    leader = admin(raftctl).members_["n1"].address
    assert said == (
        "error: far is a member, but no node of the local cluster 'c'\n"
        f"try: end it where it runs, then raftctl node remove far --address {leader}\n"
    )
    assert "cluster 'c' has no node 'fat'" in raftctl("node", "remove", "fat", code=ExitCode.NOT_FOUND)
    assert "far" in admin(raftctl).members_


def test_the_leader_can_be_removed(raftctl: CommandLine) -> None:
    value = json.loads(raftctl("node", "remove", "leader", "-o", "json"))
    assert value == {"cluster": "c", "removed": ["n1"], "data_dir": None, "voters": ["n2", "n3"]}
    assert raftctl.names == ("n2", "n3")


def test_a_removed_node_runs_on_until_most_of_the_others_know_it(
    raftctl: CommandLine, started: Started
) -> None:
    """It may be the only one that could tell them."""
    admin(raftctl).behind = {"n3"}
    said = raftctl("node", "remove", "n1", "--timeout", "0.5s", code=ExitCode.WAIT_TIMED_OUT)
    assert "1 of 2 voters know that n1 is out" in said
    said = raftctl("node", "remove", "n1", "--timeout", "0.5s", code=ExitCode.WAIT_TIMED_OUT)
    assert "1 of 2 voters know that n1 is out" in said
    assert "n1" in started()
    admin(raftctl).behind = set()
    assert raftctl("node", "remove", "n1") == "removed n1; voters: n2, n3\n"
    assert "n1" not in started()


def test_the_files_of_a_removed_node_can_be_kept(raftctl: CommandLine) -> None:
    value = json.loads(raftctl("node", "remove", "n3", "--keep-data", "-o", "json"))
    assert value["data_dir"] == str(raftctl.launcher.directory.node("n3"))
    assert raftctl.launcher.directory.data("n3").exists()
    assert "files of a former n3" in raftctl("node", "add", "n3", code=ExitCode.REJECTED)
    raftctl("cluster", "stop")
    raftctl("cluster", "down")
    assert not raftctl.launcher.directory.exists()


def test_a_node_is_replaced_in_one_step(raftctl: CommandLine, started: Started) -> None:
    value = json.loads(raftctl("node", "replace", "leader", "-o", "json"))
    assert (value["node"], value["replaced"], value["voters"]) == ("n4", "n1", ["n2", "n3", "n4"])
    assert set(started()) == {"n2", "n3", "n4"}
    assert raftctl("node", "add", "n9", "--replace", "n2").startswith(
        "added n9 in place of n2: a voter after "
    )
    assert raftctl.names == ("n3", "n4", "n9")


def test_a_node_that_is_refused_leaves_nothing(raftctl: CommandLine, started: Started) -> None:
    for failure in (InvalidChange("no"), NoLeader("nobody leads")):
        admin(raftctl).failures["add_member"] = failure
        assert failure.message in raftctl("node", "add", code=failure.exit_code)
        assert raftctl.names == ("n1", "n2", "n3")
        assert set(started()) == {"n1", "n2", "n3"}
        assert not raftctl.launcher.directory.node("n4").exists()
    assert "added n4" in raftctl("node", "add")


def test_a_node_that_does_not_start_leaves_nothing(raftctl: CommandLine) -> None:
    crash = raftctl.launcher.directory.path.parent / "crash"
    crash.touch()
    assert "crashed, as the test wants it" in raftctl("node", "add", code=ExitCode.ERROR)
    crash.unlink()
    assert raftctl.names == ("n1", "n2", "n3")
    assert "n4" not in admin(raftctl).members_


def test_a_node_that_may_have_been_let_in_is_kept_and_taken_up_again(
    raftctl: CommandLine, started: Started
) -> None:
    admin(raftctl).failures["add_member"] = OutcomeUnknown("whether this was done is not known: n1 was lost")
    said = raftctl("node", "add", "--learner", code=ExitCode.UNAVAILABLE)
    assert "try: raftctl node add n4 --learner" in said
    before = started()["n4"]
    store_id = raftctl.launcher.directory.require().node("n4").store_id
    raftctl("node", "kill", "n4")
    assert "already running, 3 nodes" in raftctl("cluster", "up")  # which starts and awaits members alone
    assert "n4" not in started()
    assert "added n4" in raftctl("node", "add", "n4", "--learner")
    assert started()["n4"] != before
    assert admin(raftctl).members_["n4"].store_id == store_id
    assert "already running, 4 nodes" in raftctl("cluster", "up")


def test_a_node_that_was_never_let_in_can_be_cleared_away(raftctl: CommandLine) -> None:
    admin(raftctl).failures["add_member"] = OutcomeUnknown("not known")
    raftctl("node", "add", code=ExitCode.UNAVAILABLE)
    del admin(raftctl).members_["n4"]
    assert raftctl("node", "remove", "n4") == "removed n4; voters: n1, n2, n3\n"
    assert raftctl.names == ("n1", "n2", "n3")


def test_a_node_that_does_not_catch_up_is_not_waited_for_for_ever(raftctl: CommandLine) -> None:
    admin(raftctl).never = True
    said = raftctl("node", "add", "--timeout", "2s", code=ExitCode.WAIT_TIMED_OUT)
    assert "waited for n4 in vain, but it goes on: n4 is a learner" in said
    assert raftctl.names == ("n1", "n2", "n3", "n4")


def test_a_removal_that_was_interrupted_is_finished(raftctl: CommandLine) -> None:
    del admin(raftctl).members_["n3"]
    assert raftctl("node", "remove", "n3") == "removed n3; voters: n1, n2\n"
    assert raftctl.names == ("n1", "n2")


def test_a_removal_of_which_nobody_knows_stops_nothing(raftctl: CommandLine, started: Started) -> None:
    admin(raftctl).failures["remove_member"] = OutcomeUnknown(
        "whether this was done is not known: n1 was lost"
    )
    assert "try: raftctl node remove n3" in raftctl("node", "remove", "n3", code=ExitCode.UNAVAILABLE)
    admin(raftctl).leader = ""
    del admin(raftctl).members_["n3"]
    assert "no node leads" in raftctl("node", "remove", "n3", code=ExitCode.UNAVAILABLE)
    assert set(started()) == {"n1", "n2", "n3"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("add", "n2"), ExitCode.REJECTED),
        (("add", "leader"), ExitCode.USAGE),
        (("add", "token"), ExitCode.USAGE),
        (("add", "../n4"), ExitCode.USAGE),
        (("add", "--replace", "n9"), ExitCode.NOT_FOUND),
        (("add", "--address", "127.0.0.1:1"), ExitCode.USAGE),
        (("remove", "n9"), ExitCode.NOT_FOUND),
        (("replace", "n9"), ExitCode.NOT_FOUND),
    ],
)
def test_what_cannot_be_meant(raftctl: CommandLine, words: tuple[str, ...], code: ExitCode) -> None:
    said = raftctl("node", *words, code=code)
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 3
    assert raftctl.names == ("n1", "n2", "n3")
