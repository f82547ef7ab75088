"""The settings of one node: flag > environment > TOML file > default, validated once, here.

What may live here: the frozen ``Config``, where each value may come from, and the rules between values. A setting
of the whole cluster (limits, retention, the lease) is not here: those are replicated state
(``raftd.scheduler.model.Settings``), for two nodes must never disagree on them.
"""

from __future__ import annotations

import ipaddress
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from raftd.errors import ConfigError

ENVIRONMENT_PREFIX = "RAFTD_"

MAX_LABELS = 64
MAX_TEXT_CHARS = 256
"""Limits of the record on what a node says of itself (``raftd.scheduler.registration``): over them it would be refused
by every leader, again and again, instead of once, here."""

LINUX_ONLY = ("task_cpu_ms", "task_memory_bytes", "task_processes")

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Of a node."""

_ADDRESS = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that ``raftd run`` needs to know. Field names are the TOML keys and, upper-cased, the variables.

    Attributes:
        data_dir: made by ``raftd init`` (a worker's also by its first start); holds identity, log, blobs and captured
            output.
        role: ``member`` holds the log and executes; ``worker`` only executes.
        join: of a worker: addresses of members to ask for the leader; it remembers all that it hears of.
        store_id: the store that ``data_dir`` must be, or that a worker's first start makes; None: whichever it is.
        name: the node that ``data_dir`` must belong to; empty: whichever it says.
        cluster_id: the cluster that it must belong to; None: whichever it says.
        listen: ``host:port`` that gRPC is served on.
        advertise: ``host:port`` that others reach this node under; empty: the same as ``listen``.
        slots: how many attempts run at once.
        allow: task kinds that are off unless named here (``shell``, ``python``); checked at the start.
        labels: free text pairs, shown, and matched with what tasks require.
        token_file: a file with the token that every call must carry; None: no token is asked for.
        fault_injection: serve ``Admin.SetFaults`` (partitions that act inside this node's transport).
        insecure: serve on an address that is not loopback although nothing is encrypted.
        tick_ms, heartbeat_ticks, election_ticks: Raft's clock; the election timeout is election_ticks to
            2 x election_ticks - 1 ticks.
        segment_bytes: size of one preallocated log segment.
        snapshot_entries, snapshot_log_bytes: a snapshot is taken, and the log compacted, when so many entries, or bytes
            of them, were applied since the last.
        kept_entries: of the log behind a snapshot, for followers that are a little behind.
        lease_reads: a leader answers reads by its lease, without asking; on all members alike, or on none.
        trace: a file that gets one line of JSON for each transition of the consensus core; None: none.
        slot_nice: CPU priority of the slots, so that tasks never delay heartbeats.
        stop_grace_ms: between TERM and KILL of an attempt.
        output_limit_bytes: captured stdout and stderr of an attempt, each; what follows is dropped.
        task_cpu_ms, task_memory_bytes, task_file_bytes, task_output_bytes, task_processes: what an attempt may use;
            going over one ends it (docs/writing-tasks.md). 0: no limit.
        log_file: where raftd writes its own log; None: stderr.
        log_file_bytes: at this size the log file is rotated (one old file is kept).
        log_level: debug, info, warning or error.
    """

    data_dir: Path
    role: str = "member"
    join: tuple[str, ...] = ()
    store_id: int | None = None
    name: str = ""
    cluster_id: int | None = None
    listen: str = "127.0.0.1:7411"
    advertise: str = ""
    slots: int = 1
    allow: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    token_file: Path | None = None
    fault_injection: bool = False
    insecure: bool = False
    tick_ms: int = 50
    heartbeat_ticks: int = 2
    election_ticks: int = 8
    segment_bytes: int = 16 * 1024 * 1024
    snapshot_entries: int = 20_000
    snapshot_log_bytes: int = 64 * 1024 * 1024
    kept_entries: int = 5_000
    lease_reads: bool = False
    trace: Path | None = None
    slot_nice: int = 15
    stop_grace_ms: int = 5_000
    output_limit_bytes: int = 1024 * 1024
    task_cpu_ms: int = 0
    task_memory_bytes: int = 0
    task_file_bytes: int = 0
    task_output_bytes: int = 0
    task_processes: int = 0
    log_file: Path | None = None
    log_file_bytes: int = 16 * 1024 * 1024
    log_level: str = "info"

    @property
    def address(self) -> str:
        """The ``host:port`` that others use."""
        return self.advertise or self.listen


TICKS_AT_ONCE = 2
"""Ticks that a late turn of the loop makes up at most (docs/decisions/0006)."""

CLOCK_DRIFT_PERCENT = 2
"""Two clocks of 1 % each."""


def lease_ms(config: Config) -> int:
    """How long a leader answers reads by itself: less than a voter keeps its promise (``raftd.raft.types.Config``)."""
    ticks = config.election_ticks - 1 - TICKS_AT_ONCE
    return ticks * config.tick_ms * (100 - CLOCK_DRIFT_PERCENT) // 100


def hex_id(source: str, value: Any) -> int:
    """Read the id of a cluster or a store.

    Raises:
        ConfigError: it is not 1 to 16 hex digits, or it is 0.
    """
    text = _text(source, value)
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", text) or not int(text, 16):
        raise ConfigError(f"{source} {text[:MAX_TEXT_CHARS]!r} is not 1 to 16 hex digits other than 0")
    return int(text, 16)


def split_address(address: str) -> tuple[str, int]:
    """Take ``host:port`` apart; an IPv6 host stands in brackets.

    Raises:
        ConfigError: it is not of that form, or the port is not 0 to 65535.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"not a host:port address: {address[:MAX_TEXT_CHARS]!r}",
            try_="write it like 127.0.0.1:7411 or [::1]:7411",
        )
    return match["v6"] or match["host"], int(match["port"])


def check_name(source: str, name: str) -> str:
    """The name of a node, if it can be one.

    Raises:
        ConfigError: it cannot.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{source} {name[:MAX_TEXT_CHARS]!r} is no name: letters, digits, dots, dashes and underscores, at most 64"
        )
    return name


def fixed_address(source: str, address: str) -> tuple[str, int]:
    """The same for an address that other nodes are told: its port must be known before the node starts.

    Raises:
        ConfigError: the port is 0, or the address is none, or too long.
    """
    host, port = split_address(address)
    if not port or len(address) > MAX_TEXT_CHARS:
        raise ConfigError(
            f"{source} = {address[:MAX_TEXT_CHARS]}: other nodes cannot reach a port that is not named",
            try_="name a port from 1 to 65535",
        )
    return host, port


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _integer(low: int, high: int) -> Callable[[str, Any], int]:
    def parse(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ConfigError(f"{name} = {value!r} is not a whole number")
        try:
            number = int(value)
        except ValueError:
            raise ConfigError(f"{name} = {value!r} is not a whole number") from None
        if not low <= number <= high:
            raise ConfigError(f"{name} = {number} is outside {low} to {high}")
        return number

    return parse


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise ConfigError(f"{name} = {value!r} is neither true nor false")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} = {value!r} is not text")
    return value


def _path(name: str, value: Any) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(name, value)
    if not text:
        raise ConfigError(f"{name} is empty")
    return Path(text).expanduser()


def _words(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word for word in value.replace(",", " ").split() if word)
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise ConfigError(f"{name} = {value!r} is not a list of words")


def _pairs(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {_text(name, key): _text(name, word) for key, word in value.items()}
    pairs = {}
    for word in _words(name, value):
        key, separator, text = word.partition("=")
        if not separator or not key:
            raise ConfigError(f"{name}: {word!r} is not of the form key=value")
        pairs[key] = text
    return pairs


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "data_dir": _path,
    "role": _text,
    "join": _words,
    "store_id": hex_id,
    "name": _text,
    "cluster_id": hex_id,
    "listen": _text,
    "advertise": _text,
    "slots": _integer(1, 1024),
    "allow": _words,
    "labels": _pairs,
    "token_file": _path,
    "fault_injection": _boolean,
    "insecure": _boolean,
    "tick_ms": _integer(1, 10_000),
    "heartbeat_ticks": _integer(1, 1_000),
    "election_ticks": _integer(2, 10_000),
    "segment_bytes": _integer(64 * 1024, 1 << 30),
    "snapshot_entries": _integer(1, 1 << 40),
    "snapshot_log_bytes": _integer(4096, 1 << 40),
    "kept_entries": _integer(0, 1 << 40),
    "lease_reads": _boolean,
    "trace": _path,
    "slot_nice": _integer(0, 19),
    "stop_grace_ms": _integer(0, 3_600_000),
    "output_limit_bytes": _integer(1024, 1 << 30),
    "task_cpu_ms": _integer(0, 1 << 40),
    "task_memory_bytes": _integer(0, 1 << 50),
    "task_file_bytes": _integer(0, 1 << 50),
    "task_output_bytes": _integer(0, 1 << 40),
    "task_processes": _integer(0, 1 << 20),
    "log_file": _path,
    "log_file_bytes": _integer(4096, 1 << 40),
    "log_level": _text,
}


def parsed(key: str, source: str, value: Any) -> Any:
    """One setting from its text, in its bounds.

    Raises:
        ConfigError: it is wrong; ``source`` names it.
    """
    return _PARSERS[key](source, value)


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> Config:
    """Put a node's settings together.

    Args:
        flags: what the command line says; a value of None means that the flag was not given.
        environment: the process's variables; ``RAFTD_SLOTS`` sets ``slots``, and so on.
        file: a TOML file, or None.

    Raises:
        ConfigError: a value is wrong, a key is unknown, or two values clash; both are named.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(key: str, value: Any, source: str) -> None:
        values[key] = parsed(key, source, value)
        sources[key] = source

    if file is not None:
        for key, value in _read_file(file).items():
            if key not in _PARSERS:
                raise ConfigError(
                    f"{file}: unknown setting {key!r}", try_=f"the settings are {', '.join(_PARSERS)}"
                )
            take(key, value, f"{file}: {key}")
    for key in _PARSERS:
        variable = ENVIRONMENT_PREFIX + key.upper()
        if variable in environment:
            take(key, environment[variable], variable)
    for key, value in flags.items():
        if value is not None:
            take(key, value, "--" + key.replace("_", "-"))
    if "data_dir" not in values:
        raise ConfigError("no data directory is named", try_="raftd run --data-dir DIR (made by raftd init)")
    config = Config(**values)
    _check(config, {f.name: sources.get(f.name, f"the default of {f.name}") for f in fields(Config)})
    return config


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


def _check(config: Config, sources: Mapping[str, str]) -> None:
    for key in ("listen", "advertise"):
        address = getattr(config, key)
        if not address:
            continue
        host, _ = fixed_address(sources[key], address)
        if not config.insecure and not is_loopback(host):
            raise ConfigError(
                f"{sources[key]} = {address}: nothing is encrypted, so only loopback addresses are served",
                try_="use 127.0.0.1, or say --insecure if everyone on that network may read and command this node",
            )
    if config.role not in ("member", "worker"):
        raise ConfigError(f"{sources['role']} = {config.role!r} is neither member nor worker")
    for address in config.join:
        fixed_address(sources["join"], address)
    if config.join and config.role != "worker":
        raise ConfigError(
            f"{sources['join']} is for workers, and {sources['role']} is {config.role}",
            try_="--role worker; or raftd init --join, to become a member",
        )
    if config.election_ticks <= 2 * config.heartbeat_ticks:
        raise ConfigError(
            f"{sources['election_ticks']} = {config.election_ticks} must be more than twice "
            f"{sources['heartbeat_ticks']} = {config.heartbeat_ticks}, or one lost heartbeat starts an election"
        )
    if config.lease_reads and lease_ms(config) <= 0:
        raise ConfigError(
            f"{sources['election_ticks']} = {config.election_ticks} leaves no room for a lease to read by",
            try_="raise election_ticks, or do without lease_reads",
        )
    texts = (*config.labels.keys(), *config.labels.values())
    if len(config.labels) > MAX_LABELS or any(len(text) > MAX_TEXT_CHARS for text in texts):
        raise ConfigError(
            f"{sources['labels']}: at most {MAX_LABELS} labels, of at most {MAX_TEXT_CHARS} characters each"
        )
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigError(
            f"{sources['log_level']} = {config.log_level!r} is not debug, info, warning or error"
        )
    for key in LINUX_ONLY:
        if getattr(config, key) and not sys.platform.startswith("linux"):
            raise ConfigError(f"{sources[key]}: only Linux keeps this limit", try_="leave it out here")


def read_token(file: Path | None) -> str:
    """The token in a file; empty without one. Raises ConfigError."""
    if file is None:
        return ""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {file}: {error}") from None
    if not token or any(not "!" <= character <= "~" for character in token):
        raise ConfigError(f"the token file {file} holds no token", try_="one line of printable characters")
    return token
