"""``raftctl raft``: the consensus cores, node by node, who belongs to the cluster, and who leads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, OutputFormat, invocation
from raftctl.errors import CliError, ExitCode

if TYPE_CHECKING:
    from raftctl.client.nodes import Leadership, Membership, SnapshotTaken
    from raftctl.sdk import AsyncClient

app = typer.Typer(
    add_completion=False, help="Term, log and replication, members and leadership.", no_args_is_help=True
)

LEADER = "leader"
SNAPSHOT_TIMEOUT_S = 60.0


@app.callback()
def group() -> None:
    """Term, log and replication, members and leadership."""


@app.command()
def status(ctx: typer.Context) -> None:
    """Every node's role, term and log, each as it sees itself, and how far its followers are for the leader."""
    run(_status(invocation(ctx)))


@app.command()
def members(ctx: typer.Context) -> None:
    """Who belongs to the cluster and who votes, as the leader has it; without one, as a node that answers has it."""
    run(_members(invocation(ctx)))


@app.command("transfer-leader")
def transfer_leader(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Who is to lead; default: who has most of the log.")
    ] = None,
) -> None:
    """Have another voter lead, without an election that nobody wanted."""
    run(_transfer(invocation(ctx), node))


@app.command()
def snapshot(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="n1, n2, ...; default: the leader.")
    ] = None,
) -> None:
    """Have a node write a snapshot now, and let go of the log behind it; nodes do so by themselves, too."""
    run(_snapshot(invocation(ctx), node))


async def _status(asked: Invocation) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data, raft

    async with connect(asked) as client:
        infos, silent = await client.everybody()
        name = client.cluster
    wide = asked.format is OutputFormat.WIDE
    output.emit(
        asked,
        data.raft(infos, silent, name),
        sorted(infos),
        lambda: raft.page(infos, silent, name, wide=wide),
    )


async def _members(asked: Invocation) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data, raft

    async with connect(asked) as client:
        found = await client.members()
        name = client.cluster
    names = [member.name for member in found.members]
    output.emit(asked, data.membership(found, name), names, lambda: raft.members(found, name))


async def _transfer(asked: Invocation, node: str | None) -> None:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        before = await client.members()
        target = await _named(client, before, node) if node is not None else ""
        if before.leads and target == before.answered_by:
            leader, term = target, (await client.node_info(target)).term
        else:
            found: Leadership = await client.transfer_leadership(target)
            leader, term = found.leader, found.term
        name = client.cluster
    previous = before.answered_by if before.leads else None
    value = {"cluster": name, "leader": leader, "term": term, "previous": previous}
    text = f"{leader} leads already" if leader == previous else f"{leader} leads in term {term}"
    output.emit(asked, value, [leader], lambda: text)


async def _snapshot(asked: Invocation, node: str | None) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data, raft

    async with connect(asked) as client:
        chosen = await _named(client, await client.members(), node or LEADER)
        timeout_s = asked.timeout_s(SNAPSHOT_TIMEOUT_S)
        taken: SnapshotTaken = await client.take_snapshot(chosen, timeout_s=timeout_s)
        name = client.cluster
    output.emit(asked, data.snapshot(taken, name), [taken.node], lambda: raft.snapshot(taken))


async def _named(client: AsyncClient, membership: Membership, word: str) -> str:
    """The node that a word means. Raises CliError: exit code 3 for no member, 4 for ``leader`` while nobody leads."""
    if word == LEADER:
        if not membership.leads:
            raise CliError("no node leads", "raftctl raft status", ExitCode.UNAVAILABLE)
        return membership.answered_by
    known = [member.name for member in membership.members]
    if word not in known:
        # One that is yet to join, or was removed, is no member and may still be asked about itself.
        infos, _ = await client.everybody()
        if word not in infos:
            names = ", ".join(known)
            raise CliError(f"there is no node {word!r}", f"one of: {names}, leader", ExitCode.NOT_FOUND)
    return word
