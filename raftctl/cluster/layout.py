"""What a local cluster is on disk: where its files lie, what they say, and how they are written.

``$XDG_STATE_HOME/raftctl/<cluster>/`` holds ``cluster.json`` (this module's `ClusterRecord`), ``token`` (mode 0600)
and, for each node, ``<node>/`` with ``data/``, ``raftd.log`` and ``pid.json``. Files are replaced whole, so that a
reader never sees half of one. Nothing here starts, signals or calls anything.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from raftctl.cluster.process import ProcessIdentity
from raftctl.context import state_home
from raftctl.endpoints import Endpoints
from raftctl.errors import CliError, ExitCode

FORMAT: Final = 2
HOST: Final = "127.0.0.1"
_CLUSTER_DIRECTORY = re.compile(r"[a-z0-9][a-z0-9-]*")


class BrokenState(CliError):
    """The files of a local cluster are not what this version writes."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How every node of a cluster is started; what `cluster up` was asked for, with its defaults filled in."""

    slots: int = 1
    allow: tuple[str, ...] = ()
    fault_injection: bool = True
    config: str | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node: its name for people, its store id (16 hex digits) and the loopback port that it keeps for life.

    `joined` turns true, for good, once the node is a member; a founder is one from the beginning, and
    a worker needs nobody to let it in.
    """

    name: str
    store_id: str
    port: int
    joined: bool = True
    worker: bool = False

    @property
    def address(self) -> str:
        """Where it serves, for clients and for its peers."""
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The contents of ``cluster.json``.

    `numbers_given`: nodes were called n1 to this number, and workers w1 to `worker_numbers_given`; a new one gets the
    next, so that no name means two nodes.

    Invariant: `complete` turns true, for good, once every node has been initialised; an incomplete cluster never served
    anybody and may be thrown away.
    """

    name: str
    cluster_id: str
    created_at: str
    options: ClusterOptions
    nodes: tuple[NodeRecord, ...]
    complete: bool = False
    numbers_given: int = 0
    worker_numbers_given: int = 0

    def node(self, name: str) -> NodeRecord:
        """The node of that name. Raises CliError (exit code 3), which lists the names that there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise CliError(
            f"cluster {self.name!r} has no node {name!r}", f"one of: {known}, leader", ExitCode.NOT_FOUND
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its nodes, n1 first."""
        return tuple(node.name for node in self.nodes)

    @property
    def members(self) -> tuple[NodeRecord, ...]:
        """The nodes that are members, as far as this record knows."""
        return tuple(node for node in self.nodes if node.joined and not node.worker)

    @property
    def workers(self) -> tuple[NodeRecord, ...]:
        """The nodes that execute and hold no log."""
        return tuple(node for node in self.nodes if node.worker)

    @property
    def expected(self) -> tuple[NodeRecord, ...]:
        """The nodes that are to run: members and workers, but nobody who was never let in."""
        return (*self.members, *self.workers)

    def with_node(self, node: NodeRecord) -> "ClusterRecord":
        """The same cluster with this node, in place of one of its name if there is one."""
        if node.name in self.names:
            return replace(self, nodes=tuple(node if one.name == node.name else one for one in self.nodes))
        given = "worker_numbers_given" if node.worker else "numbers_given"
        pattern = r"w[1-9][0-9]{0,3}" if node.worker else r"n[1-9][0-9]{0,3}"
        number = int(node.name[1:]) if re.fullmatch(pattern, node.name) else 0
        return replace(self, nodes=(*self.nodes, node), **{given: max(getattr(self, given), number)})

    def without_node(self, name: str) -> "ClusterRecord":
        """The same cluster without the node of this name."""
        return replace(self, nodes=tuple(node for node in self.nodes if node.name != name))

    def completed(self) -> "ClusterRecord":
        """The same cluster, its nodes initialised."""
        return replace(self, complete=True)


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """The contents of ``pid.json``: the raftd that was last started for a node, and when (UTC, ISO 8601)."""

    identity: ProcessIdentity
    started_at: str


class ClusterDirectory:
    """The files of one cluster, whether they exist or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = (state_home() / name).absolute()  # nodes run in directories of their own

    # --- where things lie ---------------------------------------------------------------------------------------------

    @property
    def token_file(self) -> Path:
        """The secret that every call carries; readable by its owner alone."""
        return self.path / "token"

    @property
    def config_file(self) -> Path:
        """The copy of the file that `cluster up --config` named: a later change of it changes no running cluster."""
        return self.path / "raftd.toml"

    def node(self, name: str) -> Path:
        """Everything of one node."""
        return self.path / name

    def data(self, name: str) -> Path:
        """A node's data directory, which raftd alone reads and writes."""
        return self.node(name) / "data"

    def log(self, name: str) -> Path:
        """What a node says."""
        return self.node(name) / "raftd.log"

    # --- cluster.json -------------------------------------------------------------------------------------------------

    @property
    def _record_file(self) -> Path:
        return self.path / "cluster.json"

    def exists(self) -> bool:
        """Whether anything of this cluster is there, whole or broken."""
        return self.path.is_dir()

    def read(self) -> ClusterRecord | None:
        """The cluster's record, or None when there is no such cluster. Raises BrokenState."""
        try:
            text = self._record_file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                self._refuse(f"has format {found['format']}, this raftctl reads format {FORMAT}")
            return _record_from_json(found)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._refuse("cannot be read")

    def require(self) -> ClusterRecord:
        """The cluster's record. Raises CliError (exit code 3) when there is no such cluster, BrokenState."""
        record = self.read()
        if record is None or not record.complete:
            raise CliError(
                f"there is no local cluster {self.name!r}",
                f"raftctl cluster up {self.name} -n 5, or raftctl cluster list",
                ExitCode.NOT_FOUND,
            )
        return record

    def write(self, record: ClusterRecord) -> None:
        """Replaces ``cluster.json``."""
        write_json(self._record_file, {"format": FORMAT, **asdict(record)})

    def create(self, record: ClusterRecord) -> None:
        """Makes the directories of a new cluster, its token and its record. None of them may be there before."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for node in record.nodes:
            self.node(node.name).mkdir(mode=0o700)
        replace_file(self.token_file, secrets.token_hex(32) + "\n", mode=0o600)
        self.write(record)

    def remove(self) -> None:
        """Deletes everything of the cluster; its processes must have ended."""
        shutil.rmtree(self.path, ignore_errors=False)

    def token(self) -> str:
        """The cluster's secret; empty when it has none."""
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def _refuse(self, what: str) -> NoReturn:
        raise BrokenState(f"{self._record_file} {what}", f"raftctl cluster down {self.name} --purge")

    # --- pid.json -----------------------------------------------------------------------------------------------------

    def _pid_file(self, name: str) -> Path:
        return self.node(name) / "pid.json"

    def process(self, name: str) -> NodeProcess | None:
        """The process last started for a node; it may be gone. None when there is none, or nothing that can be read:
        what cannot be told apart for certain must not be signalled."""
        try:
            found = json.loads(self._pid_file(name).read_text(encoding="utf-8"))
            identity = ProcessIdentity(int(found["pid"]), str(found["started"]))
            return NodeProcess(identity, str(found["started_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_process(self, name: str, identity: ProcessIdentity) -> None:
        """Remembers the process that was started for a node."""
        found = {"pid": identity.pid, "started": identity.started, "started_at": utc_now()}
        write_json(self._pid_file(name), found)

    def forget_process(self, name: str) -> None:
        """Forgets a node's process, which has ended."""
        self._pid_file(name).unlink(missing_ok=True)

    def processes(self) -> dict[str, ProcessIdentity]:
        """Every process that any node directory remembers: it needs no readable ``cluster.json``."""
        remembered = {
            path.parent.name: self.process(path.parent.name) for path in self.path.glob("*/pid.json")
        }
        return {name: found.identity for name, found in sorted(remembered.items()) if found is not None}


def load_endpoints(cluster_name: str) -> Endpoints:
    """How to reach a local cluster. Raises CliError (exit code 3) when there is none of that name, BrokenState."""
    directory = ClusterDirectory(cluster_name)
    record = directory.require()
    addresses = tuple((node.name, node.address) for node in record.members)
    return Endpoints(addresses, directory.token(), cluster_name)


def cluster_names() -> tuple[str, ...]:
    """The names of all local clusters of this user, broken ones included, in alphabetical order."""
    try:
        found = [path.name for path in state_home().iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(name for name in found if _CLUSTER_DIRECTORY.fullmatch(name)))


def mint_id() -> str:
    """A new cluster id or store id: 64 random bits as 16 hex digits, never zero."""
    return f"{secrets.randbelow(2**64 - 1) + 1:016x}"


def utc_now() -> str:
    """This moment as every time is written: ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a file by this value."""
    replace_file(path, json.dumps(value, indent=2) + "\n", mode=0o600)


def replace_file(path: Path, text: str, mode: int) -> None:
    """Writes a file whole or not at all; it has its mode before it has its contents."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _record_from_json(found: Mapping[str, Any]) -> ClusterRecord:
    options = dict(found["options"])
    return ClusterRecord(
        name=found["name"],
        cluster_id=found["cluster_id"],
        created_at=found["created_at"],
        options=ClusterOptions(**{**options, "allow": tuple(options["allow"])}),
        nodes=tuple(NodeRecord(**node) for node in found["nodes"]),
        complete=bool(found["complete"]),
        numbers_given=int(found["numbers_given"]),
        worker_numbers_given=int(found.get("worker_numbers_given", 0)),
    )
