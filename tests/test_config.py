"""Settings: where each may come from, its bounds, and what is said when it is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raftd import config
from raftd.config import Config, fixed_address, is_loopback, load, split_address
from raftd.errors import ConfigError
from raftd.scheduler import limits, registration

DATA = {"data_dir": "/data"}


def refused(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> str:
    """What is said of settings that must be refused."""
    with pytest.raises(ConfigError) as caught:
        load({**DATA, **(flags or {})}, environment or {}, file)
    return caught.value.message


def toml(path: Path, text: str) -> Path:
    file = path / "raftd.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_data_directory_is_all_that_must_be_named() -> None:
    found = load(DATA, {}, None)
    assert found == Config(Path("/data"))
    assert found.address == found.listen
    with pytest.raises(ConfigError, match="no data directory") as caught:
        load({}, {}, None)
    assert "raftd init" in caught.value.try_


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'data_dir = "/file"\nslots = 1\ntick_ms = 11\nlog_level = "debug"')
    found = load({"slots": 3}, {"RAFTD_SLOTS": "2", "RAFTD_TICK_MS": "22", "RAFTD_HOME": "x"}, file)
    assert (found.slots, found.tick_ms, found.log_level) == (3, 22, "debug")
    assert found.data_dir == Path("/file")


def test_every_setting_can_come_from_everywhere(tmp_path: Path) -> None:
    assert set(config._PARSERS) == {field.name for field in fields(Config)}
    text = {
        "data_dir": "/d", "listen": "127.0.0.1:1", "advertise": "127.0.0.1:2", "slots": "4", "allow": "shell",
        "labels": "a=1,b=2", "token_file": "/t", "fault_injection": "yes", "insecure": "on", "tick_ms": "60",
        "heartbeat_ticks": "3", "election_ticks": "9", "segment_bytes": "65536", "slot_nice": "0",
        "stop_grace_ms": "0", "output_limit_bytes": "1024", "log_file": "/l", "log_file_bytes": "4096",
        "log_level": "error", "name": "n1", "cluster_id": "c1", "snapshot_entries": "7", "snapshot_log_bytes": "4096",
        "kept_entries": "0", "lease_reads": "true", "trace": "/t.jsonl",
        "task_cpu_ms": "1", "task_memory_bytes": "2", "task_file_bytes": "3", "task_output_bytes": "4",
        "task_processes": "5", "role": "worker", "join": "127.0.0.1:3,127.0.0.1:4", "store_id": "ab",
    }  # fmt: skip
    assert set(text) == set(config._PARSERS)
    by_variable = load({}, {f"RAFTD_{key.upper()}": value for key, value in text.items()}, None)
    lines = "\n".join(f'{key} = "{value}"' for key, value in text.items())
    assert load({}, {}, toml(tmp_path, lines)) == by_variable
    assert load(text, {}, None) == by_variable
    assert by_variable.labels == {"a": "1", "b": "2"}
    assert by_variable.address == "127.0.0.1:2"
    assert (by_variable.name, by_variable.cluster_id) == ("n1", 0xC1)
    assert (by_variable.join, by_variable.store_id) == (("127.0.0.1:3", "127.0.0.1:4"), 0xAB)


def test_a_limit_that_a_system_cannot_keep_is_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    load({"data_dir": "/d", "task_memory_bytes": 1}, {}, None)
    monkeypatch.setattr("sys.platform", "darwin")
    load({"data_dir": "/d", "task_file_bytes": 1, "task_output_bytes": 1}, {}, None)
    for key in ("task_cpu_ms", "task_memory_bytes", "task_processes"):
        assert "only Linux keeps this limit" in refused({key: 1})


NUMBERS = {
    "slots": (1, 1024),
    "tick_ms": (1, 10_000),
    "heartbeat_ticks": (1, 1_000),
    "election_ticks": (2, 10_000),
    "segment_bytes": (64 * 1024, 1 << 30),
    "snapshot_entries": (1, 1 << 40),
    "snapshot_log_bytes": (4096, 1 << 40),
    "kept_entries": (0, 1 << 40),
    "slot_nice": (0, 19),
    "stop_grace_ms": (0, 3_600_000),
    "output_limit_bytes": (1024, 1 << 30),
    "log_file_bytes": (4096, 1 << 40),
    "task_cpu_ms": (0, 1 << 40),
    "task_memory_bytes": (0, 1 << 50),
    "task_file_bytes": (0, 1 << 50),
    "task_output_bytes": (0, 1 << 40),
    "task_processes": (0, 1 << 20),
}


@pytest.mark.parametrize(("key", "low", "high"), [(key, *bounds) for key, bounds in NUMBERS.items()])
def test_numbers_have_bounds_and_the_message_names_them_and_the_source(key: str, low: int, high: int) -> None:
    for value in (low, high):
        assert config.parsed(key, "here", str(value)) == value
    for value in (low - 1, high + 1):
        said = refused({key: value})
        assert said == f"--{key.replace('_', '-')} = {value} is outside {low} to {high}"
        assert refused({}, {f"RAFTD_{key.upper()}": str(value)}).startswith(f"RAFTD_{key.upper()} = ")
    for wrong in ("", "ten", "1.5", "9" * 5_000, True, 1.0):
        assert "is not a whole number" in refused({key: wrong})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"fault_injection": "perhaps"}, "neither true nor false"),
        ({"fault_injection": 1}, "neither true nor false"),
        ({"data_dir": ""}, "is empty"),
        ({"data_dir": 7}, "is not text"),
        ({"allow": [1]}, "is not a list of words"),
        ({"labels": ["novalue"]}, "'novalue' is not of the form key=value"),
        ({"labels": ["=x"]}, "'=x' is not of the form key=value"),
        ({"labels": {"a": 1}}, "is not text"),
        ({"labels": [f"l{number}=x" for number in range(65)]}, "at most 64 labels"),
        ({"labels": ["a=" + "x" * 257]}, "at most 64 labels, of at most 256 characters"),
        ({"log_level": "loud"}, "'loud' is not debug, info, warning or error"),
        ({"election_ticks": 4, "heartbeat_ticks": 2}, "must be more than twice"),
        ({"listen": "localhost"}, "not a host:port address"),
        ({"listen": ":7411"}, "not a host:port address"),
        ({"listen": "127.0.0.1:"}, "not a host:port address"),
        ({"listen": "127.0.0.1:65536"}, "not a host:port address"),
        ({"listen": "127.0.0.1:" + "9" * 5_000}, "not a host:port address"),
        ({"listen": "127.0.0.1:٣"}, "not a host:port address"),
        ({"listen": "::1:7411"}, "not a host:port address"),
        ({"listen": "a b:7411"}, "not a host:port address"),
        ({"listen": "127.0.0.1:0"}, "--listen = 127.0.0.1:0: other nodes cannot reach a port that is not named"),
        ({"advertise": "127.0.0.1:0"}, "--advertise = 127.0.0.1:0: other nodes cannot reach"),
        ({"advertise": "h" * 300 + ":1", "insecure": True}, "other nodes cannot reach"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(flags: dict[str, Any], said: str) -> None:
    assert said in refused(flags)


@pytest.mark.parametrize("key", ["listen", "advertise"])
@pytest.mark.parametrize(
    "host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org", "127.1", "[::ffff:192.0.2.1]"]
)
def test_only_loopback_is_served_unless_it_is_said_in_so_many_words(key: str, host: str) -> None:
    assert "only loopback addresses are served" in refused({key: f"{host}:7411"})
    assert getattr(load({**DATA, key: f"{host}:7411", "insecure": True}, {}, None), key) == f"{host}:7411"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


def test_addresses_are_taken_apart() -> None:
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:7411") == ("::1", 7411)
    assert fixed_address("x", "example.org:1") == ("example.org", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slots = ", "is not valid TOML"),
        ("slot = 1", "unknown setting 'slot'"),
        ("slots = 1.5", "slots = 1.5 is not a whole number"),
        ("[slots]\na = 1", "is not a whole number"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = toml(tmp_path, text)
    message = refused(file=file)
    assert said in message
    assert str(file) in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read the settings file" in refused(file=tmp_path / "none.toml")
    assert "cannot read the settings file" in refused(file=tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in refused(file=binary)


def test_the_limits_of_labels_are_the_records() -> None:
    assert config.MAX_LABELS == limits.MAX_LABELS
    assert config.MAX_TEXT_CHARS == registration.MAX_TEXT_CHARS
    assert NUMBERS["slots"][1] == limits.MAX_SLOTS
