"""What the commands on local clusters share: the cluster that is meant, its launcher, and progress while one waits.

Nothing here decides or prints a result; it imports rich only for a terminal, and gRPC not at all.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from raftctl.cluster.launcher import Launcher
from raftctl.cluster.layout import ClusterDirectory, ClusterRecord, NodeRecord
from raftctl.cluster.nodes import LocalNodes
from raftctl.cluster.readiness import NotReady
from raftctl.cluster.spawn import StartFailed, last_words
from raftctl.context import Invocation
from raftctl.errors import UsageError
from raftctl.output import console

SHOWN_LOGS = 2


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """One local cluster and the means to change it."""

    asked: Invocation
    directory: ClusterDirectory
    nodes: LocalNodes
    launcher: Launcher

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.directory.name

    def record(self) -> ClusterRecord:
        """Its record. Raises CliError (exit code 3) when there is no such cluster."""
        return self.directory.require()


@contextlib.contextmanager
def local_cluster(asked: Invocation, name: str | None = None) -> Iterator[LocalCluster]:
    """The local cluster that a command line means. Raises UsageError when it names addresses instead."""
    if asked.address is not None:
        raise UsageError(
            "this works on the processes of a local cluster, which --address does not name",
            "-c NAME instead of --address",
        )
    directory = ClusterDirectory(asked.cluster_name(name))
    with LocalNodes(directory) as nodes, progress(asked) as say_progress:
        yield LocalCluster(asked, directory, nodes, Launcher(directory.name, nodes, progress=say_progress))


@contextlib.contextmanager
def progress(asked: Invocation) -> Iterator[Callable[[str], None]]:
    """A way to say how far something is: a spinner on a terminal, lines with ``-v``, nothing otherwise."""
    if asked.quiet or not (sys.stderr.isatty() or asked.verbose):
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        said: list[str] = []

        def line(text: str) -> None:
            if text not in said[-1:]:
                said.append(text)
                typer.echo(text, err=True)

        yield line
        return
    from rich.status import Status

    with contextlib.ExitStack() as stack:
        shown: list[Status] = []

        def spin(text: str) -> None:
            if shown:
                shown[0].update(text)
            else:
                shown.append(stack.enter_context(Status(text, console=console(stderr=True))))

        yield spin


@contextlib.contextmanager
def showing_logs(cluster: LocalCluster) -> Iterator[None]:
    """Says on stderr what the nodes that failed said last, before the error itself is said."""
    try:
        yield
    except StartFailed as failure:
        _show(failure.node, failure.said)
        raise
    except NotReady as failure:
        words = {name: last_words(cluster.directory, name, 5) for name in failure.missing}
        for name in [name for name, said in words.items() if said][:SHOWN_LOGS]:
            _show(name, words[name])
        raise


def names_of(nodes: tuple[NodeRecord, ...]) -> str:
    """The nodes in a sentence."""
    return ", ".join(node.name for node in nodes)


def _show(node_name: str, said: tuple[str, ...]) -> None:
    if said:
        typer.echo(f"{node_name} said last:", err=True)
        for line in said:
            typer.echo(f"  {line}", err=True)
