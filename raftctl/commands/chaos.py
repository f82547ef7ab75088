"""``raftctl chaos``: nodes cut off from each other, and healed. Clients still reach every node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from raftctl.cluster import control, faults
from raftctl.cluster.faults import FaultChange
from raftctl.cluster.layout import ClusterRecord, NodeRecord
from raftctl.cluster.nodes import tell_all
from raftctl.commands.local import LocalCluster, local_cluster
from raftctl.context import invocation
from raftctl.errors import CliError, RaftctlError
from raftctl.output import emit, say

app = typer.Typer(
    add_completion=False, help="Faults between nodes: cut them off, and heal.", no_args_is_help=True
)

LOOK_TIMEOUT_S = 2.0
TELL_TIMEOUT_S = 5.0

Nodes = Annotated[list[str], typer.Argument(metavar="NODE...", help="n1, n2, ... or leader.")]


@app.command()
def partition(
    ctx: typer.Context,
    groups: Annotated[
        list[str], typer.Argument(metavar="GROUP...", help="Nodes joined by commas: n1,n2 n3,n4,n5.")
    ],
) -> None:
    """Cut groups of nodes off from each other, in place of all cuts before; nodes in no group form one more."""
    with local_cluster(invocation(ctx)) as cluster:
        record = cluster.record()
        chosen = [_names(cluster, record, [group]) for group in groups]
        _change(cluster, record, faults.partition(chosen, record.names))


@app.command()
def isolate(ctx: typer.Context, nodes: Nodes) -> None:
    """Cut each of these nodes off from all others, besides what is cut already."""
    with local_cluster(invocation(ctx)) as cluster:
        record = cluster.record()
        _change(cluster, record, faults.isolate(_names(cluster, record, nodes), record.names))


@app.command()
def cut(
    ctx: typer.Context,
    sender: Annotated[str, typer.Argument(metavar="FROM", help="The node that is no longer heard.")],
    receiver: Annotated[str, typer.Argument(metavar="TO", help="The node that no longer hears it.")],
) -> None:
    """Drop what one node says to another; what comes back still arrives."""
    with local_cluster(invocation(ctx)) as cluster:
        record = cluster.record()
        (one,) = _names(cluster, record, [sender])
        (other,) = _names(cluster, record, [receiver])
        _change(cluster, record, faults.cut(one, other))


@app.command()
def heal(
    ctx: typer.Context,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NODE...]", help="Only cuts of these nodes; default: all cuts."),
    ] = None,
) -> None:
    """Lift every cut, or every cut of some nodes."""
    with local_cluster(invocation(ctx)) as cluster:
        record = cluster.record()
        _change(cluster, record, faults.heal(_names(cluster, record, nodes or []), record.names))


@app.command()
def status(ctx: typer.Context) -> None:
    """Which cuts are in force, as the nodes themselves say."""
    with local_cluster(invocation(ctx)) as cluster:
        found = _status(cluster, cluster.record())
        emit(
            cluster.asked,
            found,
            [f"{one['from']}->{one['to']}" for one in found["cuts"]],
            lambda: _sentence(found),
        )


def _names(cluster: LocalCluster, record: ClusterRecord, words: Sequence[str]) -> list[str]:
    timeout_s = cluster.asked.timeout_s(LOOK_TIMEOUT_S)
    return [node.name for node in control.resolve_nodes(record, words, cluster.nodes, timeout_s)]


def _change(cluster: LocalCluster, record: ClusterRecord, change: FaultChange) -> None:
    """Tells all nodes concerned, says what is in force now, and fails if a node that runs could not be told."""
    asked = cluster.asked
    # Healing is always allowed: there may be nothing to heal. A cluster of one is refused like any other.
    if (change.add or not change) and not record.options.fault_injection:
        raise CliError(
            f"the nodes of {cluster.name!r} were started without fault injection",
            f"raftctl cluster down {cluster.name}, then cluster up --fault-injection",
        )
    told = tell_all(cluster.directory, record.nodes, change, cluster.nodes, asked.timeout_s(TELL_TIMEOUT_S))
    if told.later:
        say(
            asked,
            f"note: {', '.join(told.later)} cannot hear it now and will be told when started or resumed",
        )
    if told.failed:
        name, error = next(iter(told.failed.items()))
        failed, reached = ", ".join(told.failed), ", ".join(told.told) or "none"
        raise CliError(
            f"{failed} could not be told ({name}: {error.message}); told: {reached}",
            error.try_ or "the same again",
            error.exit_code,
        )
    found = _status(cluster, record)
    emit(asked, found, [f"{one['from']}->{one['to']}" for one in found["cuts"]], lambda: _sentence(found))


def _status(cluster: LocalCluster, record: ClusterRecord) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    timeout_s = cluster.asked.timeout_s(LOOK_TIMEOUT_S)

    def one(node: NodeRecord) -> dict[str, Any]:
        row: dict[str, Any] = {"id": node.name, "answers": False, "fault_injection": None, "cuts": []}
        if control.node_status(cluster.directory, node).word != "running":
            return row
        try:
            found = cluster.nodes.faults_of(node, timeout_s)
        except RaftctlError:
            return row
        cuts = [{"from": one.from_node, "to": one.to_node} for one in found.cuts]
        return row | {"answers": True, "fault_injection": found.fault_injection, "cuts": cuts}

    with ThreadPoolExecutor(len(record.nodes)) as pool:
        rows = list(pool.map(one, record.nodes))
    pairs = sorted({(one["from"], one["to"]) for row in rows for one in row["cuts"]})
    groups = faults.sides(pairs, record.names)
    return {
        "cluster": cluster.name,
        "cuts": [{"from": sender, "to": receiver} for sender, receiver in pairs],
        "groups": groups if groups is None or len(groups) > 1 else None,
        "nodes": rows,
        "silent": [row["id"] for row in rows if not row["answers"]],
    }


def _sentence(found: dict[str, Any]) -> str:
    if found["groups"] is not None:
        text = "partitioned: " + " | ".join(" ".join(group) for group in found["groups"])
    elif found["cuts"]:
        text = "cut: " + ", ".join(f"{one['from']} -> {one['to']}" for one in found["cuts"])
    else:
        text = "no cuts"
    return text + (f"  (silent: {', '.join(found['silent'])})" if found["silent"] else "")
