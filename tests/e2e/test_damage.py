"""A log that is torn is mended at its end; one that is damaged halts its node, and the others go on."""

from pathlib import Path

from tests.e2e.conftest import Cluster, ClusterFactory
from tests.e2e.writes import isolate_amid_writes
from tests.support import wait_until

SECTOR_BYTES = 512


def segments(cluster: Cluster, node: str) -> list[Path]:
    """The files of a node's log, oldest first."""
    return sorted((cluster.directory / node / "data").rglob("*.wal"))


def used_bytes(segment: Path) -> int:
    """Up to the last byte that is not zero: segments are filled with zeros when they are made."""
    return len(segment.read_bytes().rstrip(b"\0"))


def test_a_flipped_bit_halts_its_node_with_advice_and_the_others_go_on(cluster: ClusterFactory) -> None:
    made = cluster(3)
    made.run("submit", "noop", "--array", "0-49", "--wait")
    victim = next(name for name in ("n1", "n2", "n3") if name != made.leader())
    made.run("node", "stop", victim)
    segment = segments(made, victim)[0]
    with segment.open("r+b") as file:
        place = used_bytes(segment) // 2
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0x10]))
    refused = made.run("node", "start", victim, code=1)
    assert f"damage in {segment}" in refused.stderr
    assert "remove this store from the cluster" in refused.stderr
    assert f"{victim} ended as it started (exit code 3)" in refused.stderr
    assert made.json("submit", "noop", "--wait")["state"] == "succeeded"
    again = made.run("node", "start", victim, code=1)
    assert segment.name in again.stderr, "it stays damaged: nothing was cut away"


def test_a_torn_last_record_is_cut_and_the_node_comes_back(cluster: ClusterFactory) -> None:
    """A record that nobody was told of: the last one of a leader that was cut off, and killed under the write."""
    made = cluster(3)
    made.run("submit", "noop", "--array", "0-49", "--wait")
    victim = made.leader()
    written = isolate_amid_writes(made, victim, payload=bytes(range(1, 251)) * 10)
    made.run("kill", victim)
    segment = segments(made, victim)[-1]
    end = used_bytes(segment)
    with segment.open("r+b") as file:
        file.seek((end - 1) // SECTOR_BYTES * SECTOR_BYTES)
        file.write(bytes(SECTOR_BYTES))
    made.run("heal")
    made.run("node", "start", victim)
    assert "the log ended in a write that a crash interrupted" in made.run("node", "logs", victim).stdout

    def level() -> bool:
        nodes = made.json("raft", "status")["nodes"]
        return len({(node["commit_index"], node["last_index"]) for node in nodes}) == 1

    wait_until(level, 30, "it has caught up")
    made.run("submit", "noop", "--wait")
    known = {task["request_id"] for task in made.tasks()}
    assert written.acknowledged <= known
    assert not written.behind_the_cut & known
