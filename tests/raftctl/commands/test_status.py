"""status and raft status: whose view is shown, and what a program reads."""

from __future__ import annotations

import json

import pytest

from raftctl.errors import ExitCode
from tests.raftctl.commands.conftest import Shell
from tests.raftctl.fake_server import FakeCluster

KEYS = {
    *("cluster", "leader", "term", "commit_index", "quorum", "stale", "executing", "free_nodes", "nodes"),
    *("pending", "running", "succeeded", "failed", "cancelled"),
}


def test_status_has_what_the_contract_names(shell: Shell, cluster: FakeCluster) -> None:
    shell("submit", "noop", "--array", "0-2")
    cluster.end("t1")
    value = shell("status", "-o", "json").value
    assert value.keys() >= KEYS
    assert (value["leader"], value["stale"], value["pending"], value["succeeded"]) == ("n1", False, 2, 1)
    assert value["quorum"] == {"voters": 3, "up": 3, "ok": True}
    assert [node["id"] for node in value["nodes"]] == ["n1", "n2", "n3"]
    assert [node["raft_role"] for node in value["nodes"]] == ["leader", "follower", "follower"]
    assert [node["pid"] for node in value["nodes"]] == [9001, 9002, 9003]
    assert value["nodes"][0]["address"] == cluster.nodes["n1"].address
    assert value["free_nodes"][0].keys() >= {"node", "role", "slots_free", "slots"}
    assert shell("status", "--check").code == 0


def test_status_for_people_says_it_all_in_its_first_line(shell: Shell) -> None:
    first = shell("status").out.splitlines()[0]
    for part in ("leader n1", "term 1", "quorum 3/3", "commit 1", "queue 0 pending 0 running"):
        assert part in first


@pytest.mark.usefixtures("_impatient")
def test_without_a_quorum_status_is_stale_and_says_so(shell5: Shell, five: FakeCluster) -> None:
    for name in ("n3", "n4", "n5"):
        five.stop(name)
    five.no_leader("n1", "n2")
    ran = shell5("status", "-o", "json", "--timeout", "500ms")
    assert ran.code == 0
    assert (ran.value["stale"], ran.value["leader"]) == (True, None)
    assert ran.value["quorum"] == {"voters": 5, "up": 2, "ok": False}
    assert [node["pid"] for node in ran.value["nodes"]] == [9001, 9002, None, None, None]
    assert shell5("status", "--check", "--timeout", "500ms").code == ExitCode.DEGRADED
    for words in (("--timeout", "500ms"), ("--stale",)):
        assert "STALE" in shell5("status", *words).out


@pytest.mark.usefixtures("_impatient")
def test_the_view_of_an_isolated_node_never_wins(shell5: Shell, five: FakeCluster) -> None:
    """n5 is cut off: it has the highest term and the longest log, and still speaks for itself alone."""
    five.no_leader("n1", "n2", "n3", "n4", "n5")
    five.nodes["n5"].term = 9
    five.nodes["n5"].believes_in = "n5"
    five.nodes["n5"].applied = 10_000
    five.nodes["n3"].applied = 7
    five.nodes["n2"].applied = 6
    value = shell5("status", "--stale", "-o", "json").value
    assert (value["answered_by"], value["applied_index"], value["term"]) == ("n3", 7, 1)


@pytest.mark.usefixtures("_impatient")
def test_a_leader_that_is_gone_is_not_named(shell: Shell, cluster: FakeCluster) -> None:
    cluster.stop("n1")
    value = shell("status", "--stale", "-o", "json").value
    assert (value["leader"], value["stale"]) == (None, True)


def test_a_cluster_that_is_down_is_unreachable(shell: Shell, cluster: FakeCluster) -> None:
    for name in cluster.nodes:
        cluster.stop(name)
    ran = shell("status", "--timeout", "300ms")
    assert (ran.code, ran.out) == (ExitCode.UNAVAILABLE, "")
    assert ran.err.splitlines()[1] == "try: raftctl cluster start"


@pytest.mark.usefixtures("_impatient")
def test_raft_status_asks_each_node(shell: Shell, cluster: FakeCluster) -> None:
    cluster.stop("n3")
    value = shell("raft", "status", "-o", "json").value
    assert (value["leader"], value["term"]) == ("n1", 1)
    assert [node["id"] for node in value["nodes"]] == ["n1", "n2"]
    assert value["nodes"][0]["peers"][0].keys() >= {"id", "match_index", "next_index", "progress"}
    assert value["silent"] == ["n3"]
    text = shell("raft", "status").out
    assert "Replication" in text
    assert "silent" in text


def test_one_address_is_enough_to_learn_the_others(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raftctl.app import run

    monkeypatch.setenv("RAFTCTL_TOKEN", cluster.token)
    assert run(["status", "-o", "json", "--address", cluster.nodes["n2"].address]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [node["pid"] for node in value["nodes"]] == [9001, 9002, 9003]


def test_yaml_says_the_same(shell: Shell) -> None:
    text = shell("status", "-o", "yaml").out
    assert 'leader: "n1"\n' in text
    assert "quorum:\n  voters: 3\n  up: 3\n  ok: true\n" in text
    assert 'nodes:\n  - id: "n1"\n    store_id: ' in text
