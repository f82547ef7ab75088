"""The local part of a node's coming and going: its directory, its process and its line in ``cluster.json``.

What may live here: what is made and undone on this machine. Whether the node is a member is the cluster's to say, and
asking the cluster is the commands'. A node is written down before it is made, and marked as joined once the cluster has
let it in: whoever is interrupted in between leaves something that `begin` takes up again and `forget` clears away.
"""

import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from raftctl.cluster import ports
from raftctl.cluster.control import LEADER, node_status
from raftctl.cluster.launcher import MAX_SIZE, MAX_WORKERS, Launcher
from raftctl.cluster.layout import ClusterRecord, NodeRecord, mint_id
from raftctl.cluster.lock import exclusive
from raftctl.cluster.process import ProcessState
from raftctl.cluster.spawn import StartFailed, last_words
from raftctl.errors import CliError, ExitCode, UsageError

_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_RESERVED = (LEADER, "token")  # a word of its own, and a file beside the nodes' directories


def begin(launcher: Launcher, name: str | None, timeout_s: float, *, worker: bool = False) -> NodeRecord:
    """Makes and starts a node that is yet to be let in; returns once it serves.

    Args:
        name: None for the next that no node of the cluster ever had. One that `begin` made and nobody let in is
            taken up again.
        worker: whether it is one; nobody needs to let it in.

    Raises CliError (exit code 6) when there is such a node, UsageError, StartFailed and NotReady; what was made is then
    undone.
    """
    deadline = time.monotonic() + timeout_s
    with exclusive(launcher.name, launcher.lock_timeout_s):
        record = launcher.directory.require()
        name = _checked(launcher, record, name, worker)
        left = next((node for node in record.nodes if node.name == name), None)
        if left is None:
            node = NodeRecord(name, mint_id(), ports.free_ports(1)[0], joined=worker, worker=worker)
            launcher.directory.write(record.with_node(node))
        else:
            node = left
        launcher.directory.node(name).mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as unless_it_serves:
        if left is None:
            unless_it_serves.callback(undo, launcher, name)
        launcher.progress(f"starting {name}")
        if not worker and not launcher.directory.data(name).exists():
            launcher.command.init(launcher.directory, record, node)
        launcher.start_nodes([name], max(0.0, deadline - time.monotonic()))
        unless_it_serves.pop_all()
    return node


def undo(launcher: Launcher, name: str) -> None:
    """Removes everything of a node that was certainly never let in; its number may be given again."""
    forget(launcher, name)
    with exclusive(launcher.name, launcher.lock_timeout_s):
        record = launcher.directory.require()
        if name == f"w{record.worker_numbers_given}":
            launcher.directory.write(replace(record, worker_numbers_given=record.worker_numbers_given - 1))
        if name == f"n{record.numbers_given}":
            launcher.directory.write(replace(record, numbers_given=record.numbers_given - 1))


def settle(launcher: Launcher, name: str) -> None:
    """Writes down that the cluster has let the node in."""
    with exclusive(launcher.name, launcher.lock_timeout_s):
        record = launcher.directory.require()
        launcher.directory.write(record.with_node(replace(record.node(name), joined=True)))


def forget(launcher: Launcher, name: str, *, keep_data: bool = False) -> Path | None:
    """Stops a node that is no member and removes everything of it; returns where its files are if they are kept."""
    launcher.stop_nodes([name])
    with exclusive(launcher.name, launcher.lock_timeout_s):
        launcher.directory.write(launcher.directory.require().without_node(name))
        files = launcher.directory.node(name)
        if keep_data:
            return files
        shutil.rmtree(files, ignore_errors=False)
        return None


def check_runs(launcher: Launcher, node: NodeRecord) -> None:
    """Raises StartFailed, with what it said last, when the node's process has ended."""
    if node_status(launcher.directory, node).state is ProcessState.GONE:
        said = last_words(launcher.directory, node.name)
        raise StartFailed(node.name, f"{node.name} ended before it had joined", said)


def _checked(launcher: Launcher, record: ClusterRecord, name: str | None, worker: bool) -> str:
    limit, have = (MAX_WORKERS, record.workers) if worker else (MAX_SIZE, record.members)
    if len(have) >= limit:
        what = "workers" if worker else "nodes"
        raise CliError(f"a local cluster has at most {limit} {what}", exit_code=ExitCode.REJECTED)
    if name is None:
        letter, number = ("w", record.worker_numbers_given) if worker else ("n", record.numbers_given)
        number += 1
        while launcher.directory.node(f"{letter}{number}").exists():  # files of a former node that were kept
            number += 1
        return f"{letter}{number}"
    if not _NODE_NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"{name!r} cannot be a node's name", "lower-case letters, digits and dashes, at most 40"
        )
    found = next((node for node in record.nodes if node.name == name), None)
    if found is not None and found.joined:
        raise CliError(f"there is a node {name} already", "another name, or none", ExitCode.REJECTED)
    files = launcher.directory.node(name)
    if found is None and files.exists():
        raise CliError(
            f"the files of a former {name} are still there: {files}",
            "another name, or none; or delete them",
            ExitCode.REJECTED,
        )
    return name
