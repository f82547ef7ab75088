"""Nodes that come and go while a client writes, who leads, and stores that are refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftctl.client import Client
from raftctl.client.errors import WrongIdentity
from raftctl.endpoints import Endpoints
from tests.e2e.conftest import COMMAND_TIMEOUT_S, ROOT, Cluster, ClusterFactory
from tests.e2e.test_quorum import of_raft
from tests.e2e.writes import writing
from tests.support import free_port, wait_until

TRACE = "trace.jsonl"
SETTINGS = f"""
trace = "{TRACE}"    # each node runs in a directory of its own
election_ticks = 20  # a busy machine holds no election that nobody wanted
"""

RunByHand = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file of settings for nodes that say what becomes of them, and whose leader is not lost to a busy machine."""
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS)
    return str(file)


@pytest.fixture
def by_hand() -> Iterator[RunByHand]:
    """Starts a raftd that raftctl knows nothing of; what it says goes to a file. It ends with the test."""
    started = []

    def run(cluster: Cluster, data: Path, said: Path, address: str) -> "subprocess.Popen[bytes]":
        words = [
            "run",
            f"--data-dir={data}",
            f"--listen={address}",
            f"--token-file={cluster.directory / 'token'}",
        ]
        with said.open("wb") as file:
            one = subprocess.Popen(
                [sys.executable, "-m", "raftd", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=cluster.home,
                env=cluster.environment,
            )
        started.append(one)
        return one

    yield run
    for one in started:
        one.terminate()
        one.wait(COMMAND_TIMEOUT_S)


def leads(cluster: Cluster) -> tuple[str, int]:
    """Who leads, and in which term, as soon as a majority follows."""

    def known() -> tuple[str, int] | None:
        found = cluster.status()
        return None if found["stale"] else (found["leader"], found["term"])

    return wait_until(known, 30, "a leader") or ("", 0)


def events(cluster: Cluster, node: str, in_term: int) -> list[str]:
    """What a node's trace says of one term."""
    lines = (cluster.directory / node / TRACE).read_text().splitlines()
    return [line["event"] for line in map(json.loads, lines) if line["term"] == in_term]


def files(cluster: Cluster, node: str) -> Path:
    """A node's data directory."""
    return cluster.directory / node / "data"


def says(file: Path, words: str) -> None:
    """Waits until a log has these words."""
    wait_until(lambda: file.exists() and words in file.read_text(), 30, f"{file.name} says {words!r}")


def test_a_cluster_grows_to_five_and_shrinks_to_one_while_a_client_writes(
    cluster: ClusterFactory, settings: str
) -> None:
    made = cluster(1, "--config", settings)
    leader, term = leads(made)
    with writing(made) as writer:
        for number in range(2, 6):
            added = made.json("node", "add")
            assert (added["node"], added["role"], len(added["voters"])) == (f"n{number}", "voter", number)
            writer.go_on(5)
        assert leads(made) == (leader, term), "whoever comes in unseats nobody"
        for word, left in ("leader", 4), ("n3", 3), ("leader", 2), ("leader", 1):
            done = made.json("node", "remove", word if word != leader else "n4")
            writer.go_on(5)
            assert len(done["voters"]) == left
            before, (leader, term) = (leader, term), leads(made)
            if word == "leader":
                assert done["removed"] == [before[0]]
                assert term == before[1] + 1, "a leader that leaves has its heir stand at once"
                assert "is told to stand" in events(made, leader, before[1])
            else:
                assert (leader, term) == before
    writer.check_kept()
    found = made.json("raft", "members")
    assert [member["id"] for member in found["members"]] == [leader]
    assert (len(set(found["removed_stores"])), found["joint"]) == (4, False)
    made.run("node", "remove", leader, code=6)
    wait_until(
        lambda: list(made.nodes()) == [leader], 30, "those that are gone are forgotten with their leases"
    )


def test_a_killed_node_is_replaced_and_its_store_is_not_heard_again(
    cluster: ClusterFactory, by_hand: RunByHand, tmp_path: Path
) -> None:
    made = cluster(3)
    with writing(made) as writer:
        writer.go_on(5)
        leader, _ = leads(made)
        old, other = [name for name in ("n1", "n2", "n3") if name != leader]
        known = of_raft(made)[old]
        made.run("kill", old)
        done = made.json("node", "replace", old, "--keep-data")
        assert (done["node"], done["replaced"], done["role"]) == ("n4", old, "voter")
        assert set(done["voters"]) == {"n1", "n2", "n3", "n4"} - {old}
        found = made.json("raft", "members")
        assert (found["joint"], found["removed_stores"]) == (False, [known["store_id"]])
        made.run("kill", other)
        writer.go_on(5)  # which takes the vote of the new one
        made.run("cluster", "start")

        said = tmp_path / "said"
        by_hand(made, Path(done["data_dir"]) / "data", said, known["address"])
        says(said, f"{old}, store {known['store_id']}, was removed from cluster {known['cluster_id']}")
        says(made.directory / leader / "raftd.log", f"refused a peer: {old}, store {known['store_id']}")
        writer.go_on(5)
        assert leads(made)[0] == leader
    writer.check_kept()


def test_the_leadership_goes_where_it_is_told_and_from_a_leader_that_stops(
    cluster: ClusterFactory, settings: str
) -> None:
    made = cluster(3, "--config", settings)
    with writing(made) as writer:
        leader, term = leads(made)
        to, other = [name for name in ("n1", "n2", "n3") if name != leader]
        moved = made.json("raft", "transfer-leader", to)
        assert (moved["leader"], moved["term"], moved["previous"]) == (to, term + 1, leader)
        writer.go_on(1)
        again = made.json("raft", "transfer-leader", to)
        assert (again["leader"], again["term"]) == (to, term + 1), "it leads already"

        made.run("node", "stop", "leader")
        writer.go_on(1)
        new, reached = leads(made)
        assert (new in (leader, other), reached) == (True, term + 2)
        assert "hands over" in events(made, to, term + 1)
        assert "is told to stand" in events(made, new, term + 1), "it had not to find out that nobody leads"

        made.run("raft", "transfer-leader", to, code=4)
        writer.go_on(1)
        assert leads(made) == (new, term + 2), "who is down takes nothing over, and the leader goes on"
    made.run("cluster", "start")
    writer.check_kept()


def test_a_removed_node_s_directory_is_refused(
    cluster: ClusterFactory, by_hand: RunByHand, tmp_path: Path
) -> None:
    made = cluster(2)
    address = made.nodes()["n2"]["address"]
    kept = Path(made.json("node", "remove", "n2", "--keep-data")["data_dir"]) / "data"
    said = tmp_path / "said"
    ended = by_hand(made, kept, said, address)
    assert ended.wait(COMMAND_TIMEOUT_S) == 3
    assert "n2" in said.read_text()
    assert "was removed from its cluster" in said.read_text()
    assert "raftd init --join" in said.read_text()
    made.run("node", "start", "n2", code=3)
    made.run("node", "add", "n2", code=6)
    assert made.json("node", "add")["node"] == "n3", "a number is not given again"


def test_an_old_copy_of_a_data_directory_is_refused(cluster: ClusterFactory) -> None:
    made = cluster(3)
    victim = next(name for name in ("n1", "n2", "n3") if name != made.leader())
    data = files(made, victim)
    made.run("node", "stop", victim)
    shutil.copytree(data, data.with_name("copy"))
    made.run("node", "start", victim)
    made.run("node", "restart", victim)
    made.run("cluster", "wait", "--for", "healthy", "--timeout", "60s")
    made.run("node", "stop", victim)
    data.rename(data.with_name("original"))
    data.with_name("copy").rename(data)
    made.run("node", "start", victim, code=None)  # it may have ended before it was seen to serve

    def halted() -> bool:
        return bool(made.nodes()[victim]["process"] != "running")

    wait_until(halted, 30, "the copy halts")
    assert "data directory is an old copy" in made.run("node", "logs", victim).stdout
    made.run("submit", "noop", "--wait")

    shutil.rmtree(data)
    data.with_name("original").rename(data)
    made.run("node", "start", victim)
    made.run("cluster", "wait", "--for", "healthy", "--timeout", "60s")


def test_a_node_of_another_cluster_is_never_let_in(
    cluster: ClusterFactory, by_hand: RunByHand, tmp_path: Path
) -> None:
    made = cluster(1)
    data, said, address = tmp_path / "data", tmp_path / "said", f"127.0.0.1:{free_port()}"
    words = ["init", f"--data-dir={data}", "--name=stranger", "--cluster-id=1234", "--join"]
    store_id = subprocess.check_output([sys.executable, "-m", "raftd", *words], cwd=ROOT, text=True).strip()
    by_hand(made, data, said, address)
    says(said, "serves on")
    (mine,) = made.nodes().values()
    token = (made.directory / "token").read_text().strip()
    with (
        Client(Endpoints((("n1", mine["address"]),), token)) as client,
        pytest.raises(WrongIdentity) as refused,
    ):
        client.add_member("stranger", store_id, address, learner=False, replaces="")
    cluster_id = of_raft(made)["n1"]["cluster_id"]
    assert refused.value.message == f"n1 is of cluster {cluster_id}, stranger of cluster 0000000000001234"
    says(said, f"refused a peer: n1 is of cluster {cluster_id}, stranger of cluster 0000000000001234")
    made.run("submit", "noop", "--wait")
    found = made.json("raft", "members")
    assert ([member["id"] for member in found["members"]], found["removed_stores"]) == (["n1"], [])
