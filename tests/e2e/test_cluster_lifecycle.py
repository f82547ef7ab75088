"""Clusters come up, stop, start and go down, node by node and as a whole, and say what they did with an exit code."""

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys

from raftctl.cluster.process import ProcessIdentity, identify, is_alive
from tests.e2e.conftest import Cluster, ClusterFactory
from tests.support import free_port, wait_until


def identities(cluster: Cluster) -> dict[str, ProcessIdentity]:
    found = {}
    for path in cluster.directory.glob("*/pid.json"):
        read = json.loads(path.read_text())
        found[path.parent.name] = ProcessIdentity(read["pid"], read["started"])
    return found


def test_up_is_ready_for_work_and_down_leaves_nothing(cluster: ClusterFactory) -> None:
    made = cluster(0)
    up = made.json("cluster", "up", "-n", "3")
    assert up["created"]
    assert up["leader"] in {"n1", "n2", "n3"}
    assert [node["state"] for node in up["nodes"]] == ["running"] * 3
    status = made.status()
    assert status["leader"] == up["leader"]
    assert status["quorum"] == {"voters": 3, "up": 3, "ok": True}
    assert len(status["free_nodes"]) == 3, "every slot is registered when up returns"
    processes = identities(made)
    made.run("cluster", "down")
    assert not any(map(is_alive, processes.values()))
    assert not made.directory.exists()
    assert made.run("cluster", "down").stdout.startswith("nothing to delete")


def test_up_again_is_already_running_and_another_size_is_refused(cluster: ClusterFactory) -> None:
    made = cluster(3)
    before = identities(made)
    again = made.run("cluster", "up", "-n", "3")
    assert "already running" in again.stdout
    assert identities(made) == before
    refused = made.run("cluster", "up", "-n", "5", code=6)
    assert "3 nodes, not 5" in refused.stderr
    assert "try:" in refused.stderr
    assert identities(made) == before


def test_the_state_is_private(cluster: ClusterFactory) -> None:
    made = cluster(1)
    assert stat.S_IMODE((made.directory / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700


def test_stop_and_start_keep_what_was_done(cluster: ClusterFactory) -> None:
    made = cluster(3)
    task = made.json("submit", "noop", "--wait")
    stopped = made.run("cluster", "stop")
    assert "n1, n2, n3" in stopped.stdout
    assert "already stopped" in made.run("cluster", "stop").stdout
    assert [row["state"] for row in made.json("cluster", "list")] == ["stopped"]
    made.run("cluster", "start")
    assert "already running" in made.run("cluster", "start").stdout
    assert made.json("task", "info", task["task_id"])["state"] == "succeeded"


def test_a_killed_node_stays_down_until_it_is_started(cluster: ClusterFactory) -> None:
    made = cluster(3)
    victim = made.leader()
    pid = made.pid(victim)
    killed = made.run("kill", "leader")
    assert victim in killed.stdout
    assert "already down" in made.run("kill", victim).stdout
    successor = made.leader()
    assert successor != victim
    assert made.nodes()[victim]["process"] == "down"
    made.run("node", "start", victim)
    assert made.pid(victim) != pid
    wait_until(lambda: made.nodes()[victim]["raft_role"] == "follower", 20, f"{victim} to follow again")
    assert "already running" in made.run("node", "start", victim).stdout


def test_all_killed_at_once_come_back(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("kill", "n1,n2,n3")
    assert made.run("status", "--timeout", "1s", code=None).code in (0, 4)
    started = made.json("cluster", "start")
    assert started["started"] == ["n1", "n2", "n3"]
    assert made.leader()


def test_a_paused_leader_is_replaced_and_follows_when_resumed(cluster: ClusterFactory) -> None:
    made = cluster(3)
    paused = "n1"  # the first that a client asks
    made.run("raft", "transfer-leader", paused)
    made.run("node", "pause", "leader")
    assert "already paused" in made.run("node", "pause", paused).stdout
    wait_until(lambda: made.leader() != paused, 20, "another leader")
    assert made.nodes()[paused]["process"] == "paused"
    made.run("node", "resume", paused)
    wait_until(lambda: made.nodes()[paused]["raft_role"] == "follower", 20, f"{paused} to follow")


def test_a_stopped_node_is_not_paused_but_refused(cluster: ClusterFactory) -> None:
    made = cluster(1)
    made.run("node", "stop", "n1")
    refused = made.run("node", "pause", "n1", code=4)
    assert "raftctl node start n1" in refused.stderr


def test_unknown_names_list_the_known_ones(cluster: ClusterFactory) -> None:
    made = cluster(1)
    assert "n1" in made.run("kill", "n7", code=3).stderr
    assert "n1" in made.run("node", "info", "n7", code=3).stderr
    assert "there is no local cluster 'other'" in made.run("node", "list", "-c", "other", code=3).stderr


def test_a_port_in_use_is_said(cluster: ClusterFactory) -> None:
    made = cluster(1)
    port = int(made.nodes()["n1"]["address"].rpartition(":")[2])
    made.run("node", "stop", "n1")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        refused = made.run("node", "start", "n1", code=1)
    assert f"port {port} of n1 is in use" in refused.stderr
    made.run("node", "start", "n1")


def test_a_second_raftd_on_the_same_directory_is_refused(cluster: ClusterFactory) -> None:
    made = cluster(1)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "raftd",
            "run",
            "--data-dir",
            str(made.directory / "n1" / "data"),
            "--listen",
            f"127.0.0.1:{free_port()}",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=made.environment,
    )
    assert ended.returncode == 3, ended.stderr
    assert "error:" in ended.stderr
    assert made.status()["leader"] == "n1"


def test_the_directory_of_another_node_is_refused(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("cluster", "stop")
    data, other = made.directory / "n1" / "data", made.directory / "n2" / "data"
    data.rename(made.directory / "n1" / "kept")
    other.rename(data)
    (made.directory / "n1" / "kept").rename(other)
    refused = made.run("node", "start", "n1", code=1)
    assert "n1 ended as it started (exit code 3)" in refused.stderr
    assert "belongs to node n2" in refused.stderr
    assert made.nodes()["n1"]["process"] == "down"


def test_the_directory_of_another_cluster_is_refused(cluster: ClusterFactory) -> None:
    made, other = cluster(1), cluster(1, name="other")
    made.run("cluster", "stop")
    data = made.directory / "n1" / "data"
    data.rename(made.directory / "n1" / "kept")
    other.run("cluster", "stop")
    (other.directory / "n1" / "data").rename(data)
    refused = made.run("node", "start", "n1", code=1)
    assert "n1 ended as it started (exit code 3)" in refused.stderr
    assert f"not to cluster {made.json('cluster', 'info')['cluster_id']}" in refused.stderr
    data.rename(other.directory / "n1" / "data")
    other.run("cluster", "start")
    assert other.leader() == "n1", "it was not touched"


def test_a_directory_that_was_wiped_is_refused(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("node", "stop", "n3")
    (made.directory / "n3" / "data").rename(made.directory / "n3" / "kept")
    refused = made.run("node", "start", "n3", code=1)
    assert "n3 ended as it started (exit code 3)" in refused.stderr
    assert "n3 said last:" in refused.stderr


def test_a_pid_of_another_process_is_never_signalled(cluster: ClusterFactory) -> None:
    made = cluster(1)
    made.run("node", "stop", "n1")
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) as bystander:
        identity = identify(bystander.pid)
        assert identity is not None
        earlier = dataclasses.replace(identity, started=identity.started + "0")
        found = {**dataclasses.asdict(earlier), "started_at": "2026-01-01T00:00:00.000000Z"}
        (made.directory / "n1" / "pid.json").write_text(json.dumps(found))
        assert "already down" in made.run("kill", "n1").stdout
        assert "already down" in made.run("node", "stop", "n1").stdout
        made.run("cluster", "down")
        assert bystander.poll() is None
        bystander.kill()


def test_partitions_are_made_shown_and_healed(cluster: ClusterFactory) -> None:
    made = cluster(3)
    leader = made.leader()
    others = sorted({"n1", "n2", "n3"} - {leader})
    assert "no cuts" in made.run("chaos", "status").stdout
    made.run("isolate", leader)
    found = made.json("chaos", "status")
    assert sorted(map(sorted, found["groups"])) == sorted([[leader], others])
    assert wait_until(lambda: made.leader() in others, 30, "a leader on the majority's side")
    made.run("heal")
    assert made.json("chaos", "status")["cuts"] == []
    wait_until(lambda: made.nodes()[leader]["raft_role"] == "follower", 30, f"{leader} to follow")


def test_a_cut_is_one_way_and_survives_a_restart(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("chaos", "cut", "n2", "n3")
    assert made.json("chaos", "status")["cuts"] == [{"from": "n2", "to": "n3"}]
    made.run("kill", "n2")
    made.run("kill", "n3")
    made.run("node", "start", "n2", "n3")
    assert made.json("chaos", "status")["cuts"] == [{"from": "n2", "to": "n3"}]


def test_a_node_that_is_down_hears_of_a_heal_when_it_starts(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("partition", "n3", "n1,n2")
    made.run("kill", "n3")
    healed = made.run("heal")
    assert "n3" in healed.stderr
    made.run("node", "start", "n3")
    assert made.json("chaos", "status")["cuts"] == []


def test_faults_are_refused_where_they_were_not_asked_for(cluster: ClusterFactory) -> None:
    made = cluster(1, "--no-fault-injection")
    refused = made.run("isolate", "n1", code=1)
    assert "without fault injection" in refused.stderr


def test_words_that_are_no_partition(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("partition", "n1,n2", "n2,n3", code=2)
    made.run("partition", "n1,n2,n3", code=2)
    made.run("partition", "n1", "n9", code=3)
    made.run("chaos", "cut", "n1", "n1", code=2)


def test_a_failed_up_shows_why_and_leaves_nothing(cluster: ClusterFactory) -> None:
    made = cluster(0)
    config = made.home / "bad.toml"
    config.write_text("no_such_setting = 1\n")
    failed = made.run("cluster", "up", "-n", "2", "--config", str(config), code=1)
    assert "no_such_setting" in failed.stderr
    assert not made.directory.exists()
    made.run("cluster", "up", "-n", "2", "--config", str(config), "--keep-on-failure", code=1)
    assert made.directory.exists()


def test_clusters_live_side_by_side(cluster: ClusterFactory) -> None:
    one, other = cluster(1, name="one"), cluster(1, name="other")
    assert [row["name"] for row in one.json("cluster", "list")] == ["one", "other"]
    assert one.json("cluster", "info")["cluster_id"] != other.json("cluster", "info")["cluster_id"]
    one.run("cluster", "down")
    assert other.status()["leader"] == "n1"
    assert "export RAFTCTL_CLUSTER=other" in other.run("cluster", "env").stdout


def test_use_names_the_cluster_that_is_meant(cluster: ClusterFactory) -> None:
    made = cluster(1, name="chosen")
    made.run("cluster", "use", "nowhere", code=3)
    made.run("cluster", "use", "chosen")
    bare = Cluster("", made.home)
    assert bare.json("cluster", "info")["cluster"] == "chosen"


def test_waiting_for_a_cluster(cluster: ClusterFactory) -> None:
    made = cluster(3)
    for condition in ("leader", "healthy", "idle"):
        assert made.json("cluster", "wait", "--for", condition)["condition"] == condition
    made.run("cluster", "wait", "--for", "rain", code=2)
    made.run("kill", "n1")
    late = made.run("cluster", "wait", "--for", "healthy", "--timeout", "1s", code=124)
    assert "n1" in late.stderr
    made.run("cluster", "wait", "--for", "leader")


def test_logs_of_a_node_are_shown_and_followed(cluster: ClusterFactory) -> None:
    made = cluster(1)
    assert made.run("node", "logs", "n1").stdout
    with made.start("node", "logs", "-f", "n1") as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130


def test_a_node_has_a_session_of_its_own(cluster: ClusterFactory) -> None:
    """So no signal of the terminal that it was started from ever reaches it."""
    made = cluster(1)
    assert os.getsid(made.pid("n1")) == made.pid("n1")
