"""A worker's data directory: made once, locked, told from a member's, and a memory of whom to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftd.errors import StorageError, WrongIdentity
from raftd.raft.types import HardState
from raftd.scheduler.model import Member
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.errors import AlreadyInitialised, Condemned, DataDirectoryLocked, NotInitialised
from raftd.storage.identity import Identity
from raftd.storage.worker import NODES_FILE, WorkerDirectory, init_worker, is_made

W1 = Identity(0xC1, 0xAB, "w1", worker=True)
MEMBERS = (Member("n1", 1, "127.0.0.1:1"), Member("n2", 2**64 - 1, "[::1]:2", voter=False))


def test_each_life_has_a_higher_incarnation_and_remembers_the_members(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "w1")
    assert not is_made(path)
    init_worker(path, W1)
    assert is_made(path)
    first = WorkerDirectory.open(path, name="w1", cluster_id=0xC1)
    assert (first.identity, first.incarnation, first.nodes()) == (W1, 1, ())
    first.remember(MEMBERS)
    assert first.next_incarnation() == 2
    with pytest.raises(DataDirectoryLocked):
        WorkerDirectory.open(path)
    first.close()
    second = WorkerDirectory.open(path)
    assert (second.incarnation, second.nodes()) == (3, MEMBERS)
    second.condemn("it was copied")
    second.close()
    with pytest.raises(Condemned):
        WorkerDirectory.open(path)


def test_it_is_made_in_a_directory_of_its_own_and_once(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised):
        WorkerDirectory.open(str(tmp_path / "none"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(AlreadyInitialised):
        init_worker(str(tmp_path / "other"), W1)
    init_worker(str(tmp_path / "w1"), W1)
    with pytest.raises(AlreadyInitialised):
        init_worker(str(tmp_path / "w1"), W1)


def test_a_worker_and_a_member_cannot_be_started_as_each_other(tmp_path: Path) -> None:
    init_worker(str(tmp_path / "w1"), W1)
    with pytest.raises(WrongIdentity, match="holds no log"):
        DataDirectory.open(str(tmp_path / "w1"))
    init_directory(str(tmp_path / "n1"), Identity(0xC1, 1, "n1"), HardState(0, 0, 0), (), segment_bytes=65536)
    with pytest.raises(WrongIdentity, match="is no worker"):
        WorkerDirectory.open(str(tmp_path / "n1"))
    with pytest.raises(WrongIdentity, match="not to node w2"):
        WorkerDirectory.open(str(tmp_path / "w1"), name="w2")
    with pytest.raises(WrongIdentity, match="not to cluster"):
        WorkerDirectory.open(str(tmp_path / "w1"), cluster_id=0xC2)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "nodes": []}', '{"format": 1, "nodes": [{}]}'])
def test_a_memory_that_cannot_be_read_says_what_to_do(tmp_path: Path, text: str) -> None:
    init_worker(str(tmp_path / "w1"), W1)
    (tmp_path / "w1" / NODES_FILE).write_text(text)
    opened = WorkerDirectory.open(str(tmp_path / "w1"))
    with pytest.raises(StorageError, match="cannot be read") as refused:
        opened.nodes()
    assert "--join" in refused.value.try_
    opened.close()
