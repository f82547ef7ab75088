"""``raftctl raft``: the consensus cores, node by node."""

from __future__ import annotations

import typer

from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, invocation

app = typer.Typer(add_completion=False, help="Term, log and replication, node by node.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Term, log and replication, node by node."""


@app.command()
def status(ctx: typer.Context) -> None:
    """Every node's role, term and log, each as it sees itself, and how far its followers are for the leader."""
    run(_status(invocation(ctx)))


async def _status(asked: Invocation) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data, raft

    async with connect(asked) as client:
        infos, silent = await client.everybody()
        name = client.cluster
    output.emit(asked, data.raft(infos, silent, name), sorted(infos), lambda: raft.page(infos, silent, name))
