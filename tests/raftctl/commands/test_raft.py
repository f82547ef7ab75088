"""raft members, transfer-leader and snapshot, and node promote and remove of a cluster that is not of this machine."""

from __future__ import annotations

import pytest

from raftctl.app import run
from raftctl.errors import ExitCode
from tests.raftctl.commands.conftest import Shell
from tests.raftctl.fake_server import Failure, FakeCluster


def test_members_in_json(shell: Shell, cluster: FakeCluster) -> None:
    shell("node", "remove", "n3")
    value = shell("raft", "members", "-o", "json").value
    assert (value["leader"], value["stale"], value["joint"]) == ("n1", False, False)
    assert [(one["id"], one["role"]) for one in value["members"]] == [("n1", "voter"), ("n2", "voter")]
    assert value["members"][0].keys() >= {"id", "store_id", "address", "role", "voter", "promote", "replaces"}
    assert value["removed_stores"] == [f"{cluster.nodes['n3'].pid:016x}"]
    assert shell("raft", "members", "-o", "name").out == "n1\nn2\n"


@pytest.mark.usefixtures("_impatient")
def test_members_without_a_leader_are_labelled(shell: Shell, cluster: FakeCluster) -> None:
    cluster.no_leader()
    assert shell("raft", "members", "-o", "json").value["stale"]
    assert "STALE" in shell("raft", "members").out


def test_the_leadership_is_transferred(shell: Shell, cluster: FakeCluster) -> None:
    assert shell("raft", "transfer-leader", "n2").out == "n2 leads in term 2\n"
    value = shell("raft", "transfer-leader", "-o", "json").value
    assert value.keys() >= {"cluster", "leader", "term", "previous"}
    assert (value["leader"], value["previous"]) == ("n1", "n2")
    assert shell("raft", "transfer-leader", "leader").out == "n1 leads already\n"
    assert shell("raft", "transfer-leader", "n9").code == ExitCode.NOT_FOUND
    cluster.nodes["n1"].always["TransferLeadership"] = Failure("transfer_failed", "n2 did not take over")
    assert shell("raft", "transfer-leader", "n2").code == ExitCode.UNAVAILABLE


def test_a_snapshot_is_taken(shell: Shell, cluster: FakeCluster) -> None:
    said = "n1: snapshot of entries to 900 (term 3, 4.1 KiB); the log begins at 401\n"
    assert shell("raft", "snapshot").out == said
    value = shell("raft", "snapshot", "n3", "-o", "json").value
    assert value.keys() == {"cluster", "node", "index", "term", "size_bytes", "first_index"}
    assert value["node"] == "n3"
    assert shell("raft", "snapshot", "n9").code == ExitCode.NOT_FOUND
    assert cluster.nodes["n3"].calls["TakeSnapshot"] == 1


def test_a_learner_is_promoted_once(shell: Shell, cluster: FakeCluster) -> None:
    member = cluster.membership.members["n3"]
    member.voter = False
    assert shell("node", "promote", "n3").out == "n3 votes now; voters: n1, n2, n3\n"
    assert shell("node", "promote", "n3").out == "n3: votes already\n"
    assert shell("node", "promote", "n3", "-o", "json").value["promoted"] == []
    assert shell("node", "promote", "n9").code == ExitCode.NOT_FOUND


def test_a_node_of_another_machine_is_removed_and_stopped_by_hand(shell: Shell, cluster: FakeCluster) -> None:
    ran = shell("node", "remove", "leader")
    assert ran.out == "removed n1: it must not be started again; voters: n2, n3\n"
    assert "2 voters survive the loss of 0" in ran.err
    assert "n1" not in cluster.membership.members


@pytest.mark.usefixtures("_impatient")
def test_a_node_that_the_others_need_is_kept(shell: Shell, cluster: FakeCluster) -> None:
    cluster.stop("n3")
    ran = shell("node", "remove", "n2")
    assert ran.code == ExitCode.REJECTED
    assert "without n2 there is no quorum: 1 of 2 voters are up" in ran.err
    cluster.no_leader()
    assert "no leader: 2 of 3 voters are up" in shell("node", "remove", "n2", "--timeout", "300ms").err
    cluster.lead("n1")
    for node in cluster.nodes.values():
        node.always.clear()
    assert shell("node", "remove", "n2", "--force").code == ExitCode.OK
    assert shell("node", "remove", "n3").code == ExitCode.OK


@pytest.mark.usefixtures("_impatient")
def test_one_node_that_knows_no_leader_does_not_speak_for_the_others(
    five: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTCTL_TOKEN", five.token)
    five.no_leader("n2")
    address = five.nodes["n2"].address
    assert run(["--address", address, "--timeout", "300ms", "submit", "noop"]) == ExitCode.UNAVAILABLE
    what, try_ = capsys.readouterr().err.splitlines()
    others = ",".join(five.nodes[name].address for name in ("n1", "n3", "n4", "n5"))
    assert what == "error: n2 knows no leader; only it was asked"
    assert try_.startswith(f"try: --address {address},{others}, then again with --request-id ")
