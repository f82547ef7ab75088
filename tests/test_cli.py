"""The ``raftd`` command: what it says and how it exits, when what it is given is wrong."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftd import cli, founding, process
from raftd.config import Config
from raftd.errors import (
    ConfigError,
    InvalidRequest,
    NoLeader,
    RaftdError,
    StorageError,
    StoreRemoved,
    UnknownFormat,
    WrongIdentity,
)
from raftd.raft.types import HardState
from raftd.storage.directory import DataDirectory
from raftd.storage.worker import WorkerDirectory
from tests.support import free_port

CLUSTER = "00000000000000c1"
MEMBER = "n1=1@127.0.0.1:7401"

Raftd = Callable[..., tuple[int, str, str]]


@pytest.fixture
def raftd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Raftd]:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raftd", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    yield run
    logging.captureWarnings(False)


def init(
    path: Path, *, name: str = "n1", members: tuple[str, ...] = (MEMBER,), cluster: str = CLUSTER
) -> list[str]:
    """The words that found a node."""
    words = ["init", "--data-dir", str(path), "--name", name, "--cluster-id", cluster]
    for member in members:
        words += ["--member", member]
    return [*words, "--segment-bytes", "65536"]


def test_init_makes_what_run_opens(raftd: Raftd, tmp_path: Path) -> None:
    code, out, err = raftd(*init(tmp_path / "data"))
    assert (code, out, err) == (0, f"{tmp_path / 'data'} is ready for n1\n", "")
    directory = DataDirectory.open(str(tmp_path / "data"), segment_bytes=65536)
    assert (directory.identity.name, directory.identity.store_id) == ("n1", 1)
    assert directory.incarnation == 1
    directory.close()


def test_every_founder_gets_the_same_first_entry(raftd: Raftd, tmp_path: Path) -> None:
    members = ("n1=1@127.0.0.1:1", "n2=ff@127.0.0.1:2", "n3=3@[::1]:3")
    entries = []
    for name in ("n1", "n2", "n3"):
        assert raftd(*init(tmp_path / name, name=name, members=members))[0] == 0
        directory = DataDirectory.open(str(tmp_path / name), segment_bytes=65536)
        entries.append(directory.recovered.entries)
        directory.close()
    assert entries[0] == entries[1] == entries[2]
    assert [entry.index for entry in entries[0]] == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "n2"}, "--name n2 is none of the members (n1)"),
        ({"cluster": "0"}, "cluster id '0' is not 1 to 16 hex digits other than 0"),
        ({"cluster": "c1" * 9}, "is not 1 to 16 hex digits"),
        ({"cluster": "x"}, "is not 1 to 16 hex digits"),
        ({"members": ("n1",)}, "--member 'n1' is not of the form NAME=STORE_ID@HOST:PORT"),
        ({"members": ("n1=0@127.0.0.1:1",)}, "store id '0'"),
        ({"members": ("../n1=1@127.0.0.1:1",)}, "is not of the form"),
        ({"members": ("n1=1@127.0.0.1",)}, "not a host:port address"),
        ({"members": ("n1=1@127.0.0.1:0",)}, "--member n1 = 127.0.0.1:0: other nodes cannot reach"),
        ({"members": (MEMBER, "n1=2@127.0.0.1:2")}, "two members have the name n1"),
        ({"members": (MEMBER, "n2=1@127.0.0.1:2")}, "two members have the store id 0000000000000001"),
        ({"members": (MEMBER, "n2=2@127.0.0.1:7401")}, "two members have the address 127.0.0.1:7401"),
    ],
)  # fmt: skip
def test_words_that_make_no_cluster_exit_2_and_make_nothing(
    raftd: Raftd, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    code, _, err = raftd(*init(tmp_path / "data", **changes))  # type: ignore[arg-type]  # by name
    assert (code, err.startswith("error: ")) == (2, True)
    assert said in err
    assert not (tmp_path / "data").exists()


def joining(path: Path, *more: str) -> list[str]:
    """The words that make a node which is to join."""
    words = ["init", "--join", "--data-dir", str(path), "--name", "n4", "--cluster-id", CLUSTER]
    return [*words, "--segment-bytes", "65536", *more]


def test_a_node_that_joins_gets_a_store_id_and_knows_nothing(raftd: Raftd, tmp_path: Path) -> None:
    code, out, _ = raftd(*joining(tmp_path / "data"))
    directory = DataDirectory.open(str(tmp_path / "data"), segment_bytes=65536)
    directory.close()
    assert (code, out) == (0, f"{directory.identity.store_id:016x}\n")
    assert (directory.identity.name, directory.identity.cluster_id) == ("n4", 0xC1)
    assert (directory.recovered.hard_state, list(directory.recovered.entries)) == (HardState(0, 0, 0), [])
    assert raftd(*joining(tmp_path / "other"))[1] != out


def test_the_store_id_of_a_node_that_joins_can_be_given(raftd: Raftd, tmp_path: Path) -> None:
    code, out, _ = raftd(*joining(tmp_path / "data", "--store-id", "ab", "-o", "json"))
    assert code == 0
    assert json.loads(out) == {
        "data_dir": str(tmp_path / "data"), "name": "n4", "store_id": "00000000000000ab", "joins": True,
        "worker": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--join", "--member", MEMBER), "--join, --worker and --member exclude each other"),
        (("--join", "--worker"), "--join, --worker and --member exclude each other"),
        ((), "a founder is named among the --member options"),
        (("--member", MEMBER, "--store-id", "1"), "a founder is named among the --member options"),
        (("--join", "--store-id", "0"), "store id '0' is not 1 to 16 hex digits"),
        (("--join", "--name", "../n4"), "--name '../n4' is no name"),
        (("--join", "-o", "xml"), "--output xml is neither plain nor json"),
    ],
)
def test_words_that_make_no_node(raftd: Raftd, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    code, _, err = raftd(*[word for word in joining(tmp_path / "data") if word != "--join"], *words)
    assert (code, said in err) == (2, True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("size", ["0", "-1", "65535", str(1 << 40)])
def test_a_segment_has_the_bounds_that_run_knows(raftd: Raftd, tmp_path: Path, size: str) -> None:
    code, _, err = raftd(*init(tmp_path / "data")[:-1], size)
    assert (code, f"--segment-bytes = {size} is outside" in err) == (2, True)
    assert not (tmp_path / "data").exists()


def test_the_first_segment_is_as_the_settings_file_has_it(
    raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "raftd.toml"
    config.write_text("segment_bytes = 131072\nslots = 3\n")
    founding = [*init(tmp_path / "founder")[:-2], "--config", str(config)]
    for words, path, size in (
        (founding, tmp_path / "founder", 131072),
        ([*joining(tmp_path / "joins")[:-2], "--config", str(config)], tmp_path / "joins", 131072),
        ([*init(tmp_path / "flag"), "--config", str(config)], tmp_path / "flag", 65536),
    ):
        assert raftd(*words)[0] == 0
        (segment,) = (path / "log").iterdir()
        assert segment.stat().st_size == size
    monkeypatch.setenv("RAFTD_SEGMENT_BYTES", "196608")
    assert raftd(*init(tmp_path / "variable")[:-2])[0] == 0
    (segment,) = (tmp_path / "variable" / "log").iterdir()
    assert segment.stat().st_size == 196608
    config.write_text("segment_bites = 131072\n")
    code, _, err = raftd(*init(tmp_path / "wrong")[:-2], "--config", str(config))
    assert (code, "unknown setting 'segment_bites'" in err) == (2, True)
    assert not (tmp_path / "wrong").exists()


def test_a_second_init_changes_nothing(raftd: Raftd, tmp_path: Path) -> None:
    assert raftd(*init(tmp_path / "data"))[0] == 0
    before = sorted(
        (file.name, file.read_bytes()) for file in (tmp_path / "data").rglob("*") if file.is_file()
    )
    code, _, err = raftd(*init(tmp_path / "data", cluster="d2"))
    assert code == 3
    assert err.startswith("error: ")
    assert before == sorted(
        (file.name, file.read_bytes()) for file in (tmp_path / "data").rglob("*") if file.is_file()
    )


def test_a_directory_that_cannot_be_made_exits_3(raftd: Raftd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = raftd(*init(tmp_path / "file" / "data"))
    assert (code, "error: " in err, "Traceback" in err) == (3, True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--data-dir", "d", "--slots", "0"),
        ("run", "--data-dir", "d", "--slots", "many"),
        ("run", "--data-dir", "d", "--listen", "0.0.0.0:7411"),
        ("run", "--data-dir", "d", "--no-such-flag"),
        ("run", "--data-dir", "d", "--cluster-id", "x"),
        ("run", "--data-dir", "d", "--config", "none.toml"),
        ("run", "--data-dir", "d", "--log-file", "no/such/directory/log"),
        ("init",),
        ("dance",),
    ],
)  # fmt: skip
def test_wrong_words_exit_2_without_a_traceback(
    raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = raftd(*arguments)
    assert (code, "Traceback" in out + err) == (2, False)
    assert err
    assert not list(tmp_path.iterdir())


def test_a_directory_that_was_never_initialised_exits_3(raftd: Raftd, tmp_path: Path) -> None:
    code, _, err = raftd("run", "--data-dir", str(tmp_path / "empty"))
    assert code == 3
    assert "raftd init" in err
    assert not (tmp_path / "empty").exists()


def test_a_directory_in_use_exits_3(raftd: Raftd, tmp_path: Path) -> None:
    assert raftd(*init(tmp_path / "data"))[0] == 0
    directory = DataDirectory.open(str(tmp_path / "data"), segment_bytes=65536)
    code, _, err = raftd("run", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_port()}")
    directory.close()
    assert code == 3
    assert "error: " in err


@pytest.mark.parametrize(
    ("meant", "said"),
    [
        (("--name", "n2"), "belongs to node n1, store 0000000000000001 of cluster 00000000000000c1, not to node n2"),
        (("--cluster-id", "d2"), "of cluster 00000000000000c1, not to cluster 00000000000000d2"),
    ],
)  # fmt: skip
def test_a_directory_of_another_node_or_cluster_exits_3_and_stays_as_it_was(
    raftd: Raftd, tmp_path: Path, meant: tuple[str, str], said: str
) -> None:
    assert raftd(*init(tmp_path / "data"))[0] == 0
    code, _, err = raftd("run", "--data-dir", str(tmp_path / "data"), *meant)
    assert code == 3
    assert said in err
    directory = DataDirectory.open(str(tmp_path / "data"), segment_bytes=65536)
    assert directory.incarnation == 1, "it was not opened before"
    directory.close()


def test_a_damaged_directory_exits_3_and_names_the_file(raftd: Raftd, tmp_path: Path) -> None:
    assert raftd(*init(tmp_path / "data"))[0] == 0
    (segment,) = (tmp_path / "data" / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[100:140] = b"\xff" * 40
    segment.write_bytes(data)
    code, _, err = raftd("run", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_port()}")
    assert code == 3
    assert segment.name in err


def test_insecure_is_a_word_and_not_a_value(raftd: Raftd, tmp_path: Path) -> None:
    """With it, the next thing that is wrong is the directory."""
    data = str(tmp_path / "none")
    assert raftd("run", "--data-dir", data, "--listen", "0.0.0.0:7411")[0] == 2
    assert raftd("run", "--data-dir", data, "--listen", "0.0.0.0:7411", "--insecure")[0] == 3


def test_version_and_help(raftd: Raftd) -> None:
    assert raftd("version")[1].startswith("raftd 0.")
    code, out, _ = raftd("run", "--help")
    assert code == 0
    assert "--insecure" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (StorageError("x"), 3),
        (WrongIdentity("x"), 3),
        (StoreRemoved("x"), 3),
        (UnknownFormat("x"), 3),
        (NoLeader("x"), 1),
        (InvalidRequest("x"), 1),
    ],
)
def test_exit_codes(
    raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RaftdError, code: int
) -> None:
    def fail(_: Config) -> int:
        raise error

    monkeypatch.setattr(process, "serve", fail)
    assert raftd("run", "--data-dir", str(tmp_path))[0] == code


def test_an_interrupt_exits_130(raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(founding, "found", interrupted)
    code, _, err = raftd(*init(tmp_path / "data"))
    assert (code, "Traceback" in err) == (130, False)


def test_a_bug_is_logged_whole_and_exits_1(
    raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Config) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(process, "serve", broken)
    code, _, err = raftd("run", "--data-dir", str(tmp_path))
    assert (code, "error: ZeroDivisionError: a bug" in err) == (1, True)
    assert "Traceback" in caplog.text


def test_a_worker_is_made_by_init_or_by_its_first_start(
    raftd: Raftd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["init", "--worker", "--data-dir", str(tmp_path / "w1"), "--name", "w1", "--cluster-id", CLUSTER]
    code, out, _ = raftd(*words)
    made = WorkerDirectory.open(str(tmp_path / "w1"))
    made.close()
    assert (code, out) == (0, f"{made.identity.store_id:016x}\n")

    async def served(_: Config, directory: DataDirectory | WorkerDirectory) -> int:
        started.append(directory)
        directory.close()
        return 0

    started: list[DataDirectory | WorkerDirectory] = []
    monkeypatch.setattr(process, "_serve", served)
    # The word `run` may be left out.
    first = [
        "--role",
        "worker",
        "--data-dir",
        str(tmp_path / "w2"),
        "--cluster-id",
        CLUSTER,
        "--store-id",
        "a2",
    ]
    assert raftd(*first)[0] == 2, "who makes it must name it"
    assert raftd(*first, "--name", "w2")[0] == 0
    assert raftd("run", "--role", "worker", "--data-dir", str(tmp_path / "w2"))[0] == 0
    identities = [(one.identity.name, one.identity.store_id, one.incarnation) for one in started]
    assert identities == [("w2", 0xA2, 1), ("w2", 0xA2, 2)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--role", "master"), 2, "is neither member nor worker"),
        (("--join", "127.0.0.1:1"), 2, "--join is for workers"),
        (("--role", "worker", "--join", "127.0.0.1"), 2, "not a host:port address"),
        (("--role", "worker", "--name", "w9"), 2, "no node of the cluster is named"),
        (("--role", "worker", "--name", "..", "--cluster-id", CLUSTER), 2, "--name '..' is no name"),
    ],
)
def test_words_that_make_no_worker(
    raftd: Raftd, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    ended, _, err = raftd("--data-dir", str(tmp_path / "data"), *words)
    assert (ended, said in err) == (code, True), err


def test_a_worker_of_another_store_exits_3(raftd: Raftd, tmp_path: Path) -> None:
    founding.employ(tmp_path / "w1", "w1", 0xC1, 0xA1)
    words = ("--role", "worker", "--data-dir", str(tmp_path / "w1"))
    code, _, err = raftd(*words, "--store-id", "a2")
    assert (code, "not to store 00000000000000a2" in err) == (3, True), err
    code, _, err = raftd("run", "--data-dir", str(tmp_path / "w1"))
    assert (code, "--role worker" in err) == (3, True), err
