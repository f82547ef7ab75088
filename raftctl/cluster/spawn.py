"""How the nodes of a local cluster are started: raftd's command line, its environment, and plumbum's part in it.

A node is a detached process: a session of its own, closed stdin, output to files, so that it outlives this command and
its terminal. Nothing here decides which nodes should run, or waits for them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from raftctl.cluster.layout import ClusterDirectory, ClusterRecord, NodeRecord
from raftctl.cluster.process import ProcessIdentity, identify
from raftctl.errors import CliError

if TYPE_CHECKING:
    from plumbum.commands.base import BaseCommand

MARK_VARIABLE = "RAFTCTL_NODE"
INIT_TIMEOUT_S = 60.0
_TAIL_LIMIT_BYTES = 64 * 1024
# What would configure a node behind the back of cluster.json, or name another node's cluster.
_NOT_INHERITED = ("RAFTD_", "RAFTCTL_")


class StartFailed(CliError):
    """A node did not start; carries its name and the last lines that it said."""

    def __init__(self, node: str, message: str, said: Sequence[str], try_: str = "") -> None:
        super().__init__(message, try_ or f"raftctl node logs {node}")
        self.node = node
        self.said = tuple(said)


@dataclass(frozen=True, slots=True)
class StartedNode:
    """A raftd that this process has started and can therefore ask for its exit code."""

    name: str
    identity: ProcessIdentity
    process: subprocess.Popen[bytes]

    def exit_code(self) -> int | None:
        """What it exited with (negative: the signal), or None while it runs."""
        return self.process.poll()

    def release(self) -> None:
        """Lets go of it: it runs on, and is from now on known by its identity alone."""
        if self.process.poll() is None:
            self.process.returncode = (
                0  # so that Popen takes it for collected, and does not warn of it when it goes
            )


@dataclass(frozen=True, slots=True)
class RaftdCommand:
    """The program that is started: by default this interpreter with ``-m raftd``."""

    prefix: tuple[str, ...] = (sys.executable, "-m", "raftd")

    def _bound(self, arguments: Sequence[str]) -> BaseCommand:
        from plumbum import local  # a tenth of a second, which only who starts nodes shall wait

        # plumbum adds to its own copy of the environment and never takes away: what must go, goes there.
        for name in [name for name in local.env.getdict() if name.startswith(_NOT_INHERITED)]:
            del local.env[name]
        program, *before = self.prefix
        return local[program][[*before, *arguments]]

    def init_arguments(
        self, directory: ClusterDirectory, record: ClusterRecord, node: NodeRecord
    ) -> list[str]:
        """``raftd init``: every founding node gets the same list of members, one that is to join gets none."""
        identity = [f"--name={node.name}", f"--cluster-id={record.cluster_id}"]
        if record.options.config is not None:
            identity.append(f"--config={directory.config_file}")
        if not node.joined:
            joining = ["--join", f"--store-id={node.store_id}"]
            return ["init", f"--data-dir={directory.data(node.name)}", *identity, *joining]
        members = [f"--member={one.name}={one.store_id}@{one.address}" for one in record.members]
        return ["init", f"--data-dir={directory.data(node.name)}", *identity, *members]

    def run_arguments(
        self, directory: ClusterDirectory, record: ClusterRecord, node: NodeRecord
    ) -> list[str]:
        """``raftd run``, as the cluster's options have it."""
        options = record.options
        arguments = [
            "run",
            f"--data-dir={directory.data(node.name)}",
            f"--name={node.name}",  # so that a directory that was moved here from another node is refused
            f"--cluster-id={record.cluster_id}",
            f"--listen={node.address}",
            f"--slots={options.slots}",
            f"--token-file={directory.token_file}",
            f"--log-file={directory.log(node.name)}",
            *(f"--allow={kind}" for kind in options.allow),
        ]
        if options.fault_injection:
            arguments.append("--fault-injection")
        if options.config is not None:
            arguments.append(f"--config={directory.config_file}")
        if node.worker:
            members = ",".join(member.address for member in record.members)
            arguments += ["--role=worker", f"--store-id={node.store_id}", f"--join={members}"]
        return arguments

    def init(self, directory: ClusterDirectory, record: ClusterRecord, node: NodeRecord) -> None:
        """Makes a node's data directory; a worker's is made by its first start, which is cheaper for many of them.

        Raises StartFailed with what ``raftd init`` said.
        """
        if node.worker:
            return
        from plumbum.commands.processes import ProcessTimedOut

        command = self._bound(self.init_arguments(directory, record, node))
        try:
            code, _, said = command.run(
                retcode=None,
                timeout=INIT_TIMEOUT_S,
                cwd=directory.node(node.name),
                env=_environment(record, node),
            )
        except ProcessTimedOut:
            raise StartFailed(
                node.name, f"raftd init of {node.name} took over {INIT_TIMEOUT_S:g} s", ()
            ) from None
        if code != 0:
            lines = said.splitlines()[-20:]
            raise StartFailed(node.name, f"raftd init of {node.name} failed (exit code {code})", lines)

    def start(self, directory: ClusterDirectory, record: ClusterRecord, node: NodeRecord) -> StartedNode:
        """Starts a node's raftd, detached, and writes down which process it is. Does not wait for it to serve."""
        command = self._bound(self.run_arguments(directory, record, node))
        with open(stderr_file(directory, node.name), "wb") as output:
            opened = command.popen(
                cwd=str(directory.node(node.name)),
                env=_environment(record, node),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                new_session=True,
            )
        # plumbum's wrapper waits a fifth of a second for its process when it is collected: it shall have none by then.
        process = cast("AbstractContextManager[subprocess.Popen[bytes]]", opened).__enter__()
        vars(opened).clear()
        identity = identify(process.pid)
        if identity is None:  # only a process that somebody else has collected: it is our own child
            raise StartFailed(
                node.name, f"{node.name} vanished as it was started", last_words(directory, node.name)
            )
        directory.write_process(node.name, identity)
        return StartedNode(node.name, identity, process)


def mark_of(record: ClusterRecord, node_name: str) -> str:
    """What the environment of a node, and of all that it starts, says in MARK_VARIABLE."""
    return f"{record.cluster_id}/{node_name}"


def stderr_file(directory: ClusterDirectory, node_name: str) -> Path:
    """What the last start of a node wrote to stdout and stderr: nothing, unless something went wrong."""
    return directory.node(node_name) / "stderr.log"


def last_words(directory: ClusterDirectory, node_name: str, count: int = 8) -> tuple[str, ...]:
    """The last lines of a node's log, and after them what it said on stderr since its last start."""
    lines = [
        *_tail(directory.log(node_name), count),
        *_tail(stderr_file(directory, node_name), count),
    ]
    return tuple(lines[-count:])


def _tail(path: Path, count: int) -> list[str]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_LIMIT_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def _environment(record: ClusterRecord, node: NodeRecord) -> dict[str, str]:
    """The environment of a node: this one's, without what would configure it or name another cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    search_path = _search_path(kept.get("PYTHONPATH", ""))
    if search_path:
        kept["PYTHONPATH"] = search_path
    return {**kept, MARK_VARIABLE: mark_of(record, node.name)}


def _search_path(given: str) -> str:
    """PYTHONPATH for a node, which runs in its own directory: absolute, with raftd's home where it is not installed."""
    entries = [os.path.abspath(entry) for entry in given.split(os.pathsep) if entry]
    spec = importlib.util.find_spec("raftd")
    locations = spec.submodule_search_locations if spec is not None else None
    if locations:
        home = str(Path(locations[0]).resolve().parent)
        if home not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *entries}:
            entries.insert(0, home)
    return os.pathsep.join(entries)
