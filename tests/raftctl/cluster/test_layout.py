"""The files of a local cluster: what is written can be read again, and what cannot be read is said."""

import dataclasses
import json
import stat
from pathlib import Path

import pytest

from raftctl.cluster import layout
from raftctl.cluster.layout import BrokenState, ClusterDirectory, ClusterOptions, ClusterRecord, NodeRecord
from raftctl.cluster.process import ProcessIdentity
from raftctl.errors import CliError, ExitCode

RECORD = ClusterRecord(
    name="c",
    cluster_id="00000000000000aa",
    created_at="2026-11-24T00:00:00.000000Z",
    options=ClusterOptions(slots=2, allow=("shell",)),
    nodes=(NodeRecord("n1", "0000000000000001", 4001), NodeRecord("n2", "0000000000000002", 4002)),
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterDirectory:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return ClusterDirectory("c")


def test_a_cluster_reads_back_as_it_was_written(directory: ClusterDirectory) -> None:
    assert directory.read() is None
    directory.create(RECORD)
    assert directory.read() == RECORD
    directory.write(RECORD.completed())
    assert directory.require() == dataclasses.replace(RECORD, complete=True)


def test_the_state_is_its_owners_alone(directory: ClusterDirectory) -> None:
    directory.create(RECORD)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.token_file.stat().st_mode) == 0o600
    assert len(directory.token()) == 64


def test_every_cluster_has_a_token_of_its_own(directory: ClusterDirectory) -> None:
    directory.create(RECORD)
    other = ClusterDirectory("d")
    other.create(dataclasses.replace(RECORD, name="d"))
    assert directory.token() != other.token()


def test_endpoints_name_every_node_and_hide_the_token(directory: ClusterDirectory) -> None:
    directory.create(RECORD.completed())
    endpoints = layout.load_endpoints("c")
    assert endpoints.addresses == (("n1", "127.0.0.1:4001"), ("n2", "127.0.0.1:4002"))
    assert endpoints.token == directory.token()
    assert endpoints.token not in repr(endpoints)


def test_a_cluster_that_is_not_there_is_not_found(directory: ClusterDirectory) -> None:
    with pytest.raises(CliError) as caught:
        layout.load_endpoints("c")
    assert caught.value.exit_code is ExitCode.NOT_FOUND


def test_half_a_cluster_is_not_found_either(directory: ClusterDirectory) -> None:
    directory.create(RECORD)
    with pytest.raises(CliError) as caught:
        directory.require()
    assert caught.value.exit_code is ExitCode.NOT_FOUND


def test_an_unknown_node_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(CliError) as caught:
        RECORD.node("n9")
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "n1, n2" in caught.value.try_


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", json.dumps({"format": 99}), json.dumps({"format": layout.FORMAT, "nodes": []})],
)
def test_a_damaged_record_says_how_to_be_rid_of_it(directory: ClusterDirectory, text: str) -> None:
    directory.create(RECORD)
    (directory.path / "cluster.json").write_text(text)
    with pytest.raises(BrokenState) as caught:
        directory.read()
    assert "--purge" in caught.value.try_


def test_a_process_reads_back_and_is_forgotten(directory: ClusterDirectory) -> None:
    directory.create(RECORD)
    assert directory.process("n1") is None
    directory.write_process("n1", ProcessIdentity(77, "then"))
    found = directory.process("n1")
    assert found is not None
    assert found.identity == ProcessIdentity(77, "then")
    assert directory.processes() == {"n1": found.identity}
    directory.forget_process("n1")
    directory.forget_process("n1")
    assert directory.processes() == {}


@pytest.mark.parametrize("text", ["", "77", '{"pid": 77}', '{"pid": "x", "started": "", "started_at": ""}'])
def test_a_process_that_cannot_be_told_for_certain_is_none(directory: ClusterDirectory, text: str) -> None:
    directory.create(RECORD)
    (directory.node("n1") / "pid.json").write_text(text)
    assert directory.process("n1") is None


def test_clusters_are_listed_by_name_and_nothing_else_is(directory: ClusterDirectory) -> None:
    assert layout.cluster_names() == ()
    directory.create(RECORD)
    (directory.path.parent / ".locks").mkdir()
    (directory.path.parent / "notes.txt").write_text("")
    assert layout.cluster_names() == ("c",)


def test_a_node_that_joins_is_no_member_until_it_is_settled(directory: ClusterDirectory) -> None:
    joining = NodeRecord("n7", "0000000000000007", 4007, joined=False)
    grown = RECORD.completed().with_node(joining)
    assert (grown.names, grown.numbers_given) == (("n1", "n2", "n7"), 7)
    directory.create(grown)
    assert directory.read() == grown
    assert [name for name, _ in layout.load_endpoints("c").addresses] == ["n1", "n2"]
    settled = grown.with_node(dataclasses.replace(joining, joined=True))
    assert [node.name for node in settled.members] == ["n1", "n2", "n7"]
    left = settled.without_node("n7").with_node(NodeRecord("blue", "0000000000000008", 4008))
    assert (left.names, left.numbers_given) == (("n1", "n2", "blue"), 7)


def test_minted_ids_are_sixteen_digits_and_differ() -> None:
    minted = {layout.mint_id() for _ in range(100)}
    assert len(minted) == 100
    assert all(len(one) == 16 and int(one, 16) > 0 for one in minted)
