"""``raftctl node``: the nodes looked at, and, on a local cluster, added, removed, started, stopped and killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftctl.cluster import control
from raftctl.cluster.layout import NodeRecord
from raftctl.commands import _membership
from raftctl.commands.local import LocalCluster, local_cluster, names_of, progress, showing_logs
from raftctl.context import Invocation, OutputFormat, invocation
from raftctl.durations import parse_duration_ms
from raftctl.errors import CliError, ExitCode, UsageError
from raftctl.output import emit, say

if TYPE_CHECKING:
    from raftctl.client.overview import ClusterView

app = typer.Typer(
    add_completion=False,
    help="The nodes: look at them, add and remove them, start, stop, pause and kill them.",
    no_args_is_help=True,
)

LOOK_TIMEOUT_S = 2.0
START_TIMEOUT_S = 30.0
FOLLOW_POLL_S = 0.1

Nodes = Annotated[list[str], typer.Argument(metavar="NODE...", help="n1, n2, ... or leader.")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="n1, n2, ... or leader.")]
KeepData = Annotated[
    bool, typer.Option("--keep-data", help="Leave the files of the node that goes where they are.")
]


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """Every node: its part, its health and its process."""
    asked = invocation(ctx)
    rows = _rows(asked)

    def draw() -> Any:
        from raftctl.views import style

        wide = asked.format is OutputFormat.WIDE
        more = (">TERM", ">APPLIED", "STORE", "ELIGIBILITY", "STARTED") if wide else ()
        table = style.table("Nodes", "NODE", "ROLE", "PROCESS", "HEALTH", "SLOTS", "ADDRESS", ">PID", *more)
        for row in rows:
            slots = "-" if row["slots"] is None else f"{row['slots_free']}/{row['slots']}"
            cells = [
                row["id"],
                style.state(row["raft_role"] if row["role"] == "voter" or row["leads"] else row["role"]),
                style.state(row["process"]),
                style.state(row["health"]),
            ]
            cells += [slots, row["address"], _dash(row["pid"])]
            if wide:
                cells += [
                    _dash(row[key])
                    for key in ("term", "last_applied", "store_id", "eligibility", "started_at")
                ]
            table.add_row(*cells)
        return table

    emit(asked, rows, [row["id"] for row in rows], draw)


@app.command()
def info(ctx: typer.Context, node: Node) -> None:
    """One node: what `node list` knows of it, and what it says of itself."""
    asked = invocation(ctx)
    rows = {row["id"]: row for row in _rows(asked)}
    leader = next((name for name, row in rows.items() if row["leads"]), None)
    if node == control.LEADER and leader is None:
        raise CliError("no node leads", "raftctl node list", ExitCode.UNAVAILABLE)
    name = leader if node == control.LEADER and leader is not None else node
    if name not in rows:
        raise CliError(f"there is no node {name!r}", f"one of: {', '.join(rows)}, leader", ExitCode.NOT_FOUND)
    found = rows[name]
    emit(asked, found, [name], lambda: "\n".join(f"{key:<16} {_dash(value)}" for key, value in found.items()))


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="What to call it; default: the next number.")
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker", help="Let it execute only: it holds no log and is no member.")
    ] = False,
    learner: Annotated[
        bool, typer.Option("--learner", help="Let it stay a learner: it follows, and does not vote.")
    ] = False,
    replaced: Annotated[
        str | None,
        typer.Option("--replace", metavar="OLD", help="In the step in which it gets its vote, OLD leaves."),
    ] = None,
    keep_data: KeepData = False,
) -> None:
    """Start a new node and let it into the cluster: a learner first, a voter as soon as it has caught up."""
    if worker and (learner or replaced is not None):
        raise UsageError("a worker is no member: it neither learns nor replaces one", "node add --worker")
    if worker:
        _membership.add_worker(invocation(ctx), name)
        return
    _membership.add(invocation(ctx), name, learner=learner, replaced=replaced, keep_data=keep_data)


@app.command()
def replace(
    ctx: typer.Context,
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="The node that leaves; `leader` names the leader.")
    ],
    new: Annotated[str | None, typer.Argument(metavar="[NEW]", help="What to call the new one.")] = None,
    keep_data: KeepData = False,
) -> None:
    """Put a new node in the place of another: `node add --replace OLD`."""
    _membership.add(invocation(ctx), new, learner=False, replaced=old, keep_data=keep_data)


@app.command()
def promote(ctx: typer.Context, node: Node) -> None:
    """Give a learner a vote, as soon as it has caught up."""
    _membership.promote(invocation(ctx), node)


@app.command()
def remove(
    ctx: typer.Context,
    node: Node,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the nodes that are left and up are no majority.")
    ] = False,
    keep_data: KeepData = False,
) -> None:
    """Take a node out of the cluster for good, then stop it and delete its files. It may be down; it may lead."""
    _membership.remove(invocation(ctx), node, force=force, keep_data=keep_data)


@app.command()
def start(ctx: typer.Context, nodes: Nodes) -> None:
    """Start nodes that are down, with what they had on disk."""
    asked = invocation(ctx)
    with local_cluster(asked) as cluster, showing_logs(cluster):
        chosen = _chosen(cluster, nodes)
        started = _start(cluster, chosen)
        _report(cluster, chosen, started, "started", "already running")


@app.command()
def stop(ctx: typer.Context, nodes: Nodes) -> None:
    """Stop nodes in good order (TERM); they stay down until `node start`."""
    with local_cluster(invocation(ctx)) as cluster:
        chosen = _chosen(cluster, nodes)
        stopped = cluster.launcher.stop_nodes([node.name for node in chosen])
        _report(cluster, chosen, stopped, "stopped", "already down")


@app.command()
def restart(ctx: typer.Context, nodes: Nodes) -> None:
    """Stop nodes in good order and start them again."""
    with local_cluster(invocation(ctx)) as cluster, showing_logs(cluster):
        chosen = _chosen(cluster, nodes)
        cluster.launcher.stop_nodes([node.name for node in chosen])
        _report(cluster, chosen, _start(cluster, chosen), "restarted", "already running")


@app.command()
def kill(ctx: typer.Context, nodes: Nodes) -> None:
    """Kill nodes with SIGKILL, as a power cut would; they stay down until `node start`."""
    with local_cluster(invocation(ctx)) as cluster:
        chosen = _chosen(cluster, nodes)
        _report(cluster, chosen, control.kill_nodes(cluster.directory, chosen), "killed", "already down")


@app.command()
def pause(ctx: typer.Context, nodes: Nodes) -> None:
    """Stop the clocks of nodes (SIGSTOP): they hang, and do not know it, until `node resume`."""
    with local_cluster(invocation(ctx)) as cluster:
        chosen = _chosen(cluster, nodes)
        _report(cluster, chosen, control.pause_nodes(cluster.directory, chosen), "paused", "already paused")


@app.command()
def resume(ctx: typer.Context, nodes: Nodes) -> None:
    """Let paused nodes go on (SIGCONT)."""
    asked = invocation(ctx)
    with local_cluster(asked) as cluster:
        chosen = _chosen(cluster, nodes)
        resumed = control.resume_nodes(cluster.directory, chosen)
        _tell_missed(cluster, chosen)
        _report(cluster, chosen, resumed, "resumed", "not paused")


@app.command()
def cordon(ctx: typer.Context, nodes: Nodes) -> None:
    """Have nodes take nothing new; what they run goes on."""
    from raftctl.commands import _eligibility

    _eligibility.set_eligibility(invocation(ctx), nodes, "cordoned")


@app.command()
def uncordon(ctx: typer.Context, nodes: Nodes) -> None:
    """Have cordoned or drained nodes take work again."""
    from raftctl.commands import _eligibility

    _eligibility.set_eligibility(invocation(ctx), nodes, "ready")


@app.command()
def drain(
    ctx: typer.Context,
    nodes: Nodes,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="5m", help="What still runs then is put back in the queue."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until nothing runs on them any more.")
    ] = True,
) -> None:
    """Have nodes take nothing new, and finish what they run."""
    from raftctl.commands import _eligibility

    deadline_ms = parse_duration_ms(deadline) if deadline else 0
    _eligibility.drain(invocation(ctx), nodes, deadline_ms, wait=wait)


@app.command()
def label(
    ctx: typer.Context,
    node: Node,
    labels: Annotated[list[str], typer.Argument(metavar="K=V|K-...", help="gpu=yes sets, gpu- takes back.")],
) -> None:
    """Set labels of a node, for tasks that require them; they outlive its restarts."""
    from raftctl.commands import _eligibility

    _eligibility.label(invocation(ctx), node, labels)


@app.command()
def logs(
    ctx: typer.Context,
    node: Node,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what it says from now on.")
    ] = False,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many of the last lines; 0: all.")
    ] = 0,
) -> None:
    """What a node's raftd says of itself (what tasks say: `raftctl logs TASK`)."""
    with local_cluster(invocation(ctx)) as cluster:
        (chosen,) = _chosen(cluster, [node])
        path = cluster.directory.log(chosen.name)
        position = _print_log(path, lines)
        if not follow:
            stderr = path.with_name("stderr.log")
            _print_log(stderr, lines)
            return
        for chunk in _follow(path, position, lambda: time.sleep(FOLLOW_POLL_S)):
            sys.stdout.write(chunk)
            sys.stdout.flush()


# --- what is done ----------------------------------------------------------------------------------------------------


def _chosen(cluster: LocalCluster, words: Sequence[str]) -> tuple[NodeRecord, ...]:
    return control.resolve_nodes(
        cluster.record(), words, cluster.nodes, cluster.asked.timeout_s(LOOK_TIMEOUT_S)
    )


def _start(cluster: LocalCluster, chosen: Sequence[NodeRecord]) -> tuple[str, ...]:
    timeout_s = cluster.asked.timeout_s(START_TIMEOUT_S)
    started = cluster.launcher.start_nodes([node.name for node in chosen], timeout_s)
    _tell_missed(cluster, chosen)
    return started


def _tell_missed(cluster: LocalCluster, chosen: Sequence[NodeRecord]) -> None:
    from raftctl.cluster.nodes import tell_missed

    tell_missed(cluster.directory, chosen, cluster.nodes, cluster.asked.timeout_s())


def _report(
    cluster: LocalCluster, chosen: tuple[NodeRecord, ...], done: Sequence[str], verb: str, otherwise: str
) -> None:
    """Says what was done to whom, and to whom there was nothing to do: that is no error, the wish is fulfilled."""
    left = tuple(node for node in chosen if node.name not in done)
    if left and done:
        say(cluster.asked, f"{names_of(left)}: {otherwise}")
    text = f"{verb} {', '.join(done)}" if done else f"{names_of(left)}: {otherwise}"
    emit(cluster.asked, {"cluster": cluster.name, verb.replace(" ", "_"): list(done)}, done, lambda: text)


# --- what is shown ---------------------------------------------------------------------------------------------------


def _rows(asked: Invocation) -> list[dict[str, Any]]:
    """One row a node: what the cluster knows of it, what it says itself, and what its process does."""
    view = _view(asked)
    rows = {row["id"]: row for row in _known_to_cluster(view)} if view is not None else {}
    if asked.address is None:
        with local_cluster(asked) as cluster:
            for node in cluster.record().nodes:
                status = control.node_status(cluster.directory, node)
                row = rows.setdefault(node.name, _unknown(node))
                row |= {"process": status.word, "pid": status.pid, "started_at": status.started_at}
                if status.word != "running":
                    row |= {"raft_role": "unknown", "leads": False}
    return [rows[name] for name in sorted(rows, key=lambda name: (len(name), name))]


def _view(asked: Invocation) -> ClusterView | None:
    from raftctl.client.errors import Unavailable
    from raftctl.sdk import Client

    timeout_s = asked.timeout_s(LOOK_TIMEOUT_S)
    with Client(asked.cluster, address=asked.address, timeout_s=timeout_s) as client, progress(asked):
        try:
            return client.cluster_view(timeout_s=timeout_s)
        except Unavailable:
            if asked.address is not None:
                raise
            return None


def _known_to_cluster(view: ClusterView) -> list[dict[str, Any]]:
    from raftctl.views import data

    rows = []
    for found in view.status.nodes:
        said = view.infos.get(found.name)
        row = data.node(found, answers=said is not None)
        row |= {
            "process": "unknown",
            "started_at": None,
            "leads": found.name == view.status.leader,
            "leader": said.leader if said is not None else None,
            "term": said.term if said is not None else None,
            "commit_index": said.commit_index if said is not None else None,
            "last_applied": said.last_applied if said is not None else None,
            "slots_ready": said.slots_ready if said is not None else None,
            "fault_injection": said.fault_injection if said is not None else None,
            "version": said.version if said is not None else None,
        }
        rows.append(row)
    return rows


def _unknown(node: NodeRecord) -> dict[str, Any]:
    """A node of which nobody that answers knows anything: the keys are the same, the values say so."""
    nothing = (
        "incarnation",
        "slots",
        "slots_free",
        "last_seen_ms",
        "leader",
        "term",
        "commit_index",
        "last_applied",
    )
    return {
        "id": node.name,
        "store_id": node.store_id,
        "role": "worker" if node.worker else "voter",
        "raft_role": "unknown",
        "health": "unknown",
        "eligibility": "unknown",
        "address": node.address,
        "pid": None,
        "answers": False,
        "reachable": False,
        "kinds": [],
        "leads": False,
        **dict.fromkeys((*nothing, "slots_ready", "fault_injection", "version")),
    }


def _dash(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _print_log(path: Path, lines: int) -> int:
    """Prints a log, or its last lines; returns where it ended."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return 0
    shown = text.splitlines(keepends=True)[-lines:] if lines else [text]
    sys.stdout.write(b"".join(shown).decode("utf-8", errors="replace"))
    sys.stdout.flush()
    return len(text)


def _follow(path: Path, position: int, pause: Callable[[], None]) -> Iterator[str]:
    """What is appended to a file from here on, through its rotation."""
    while True:
        try:
            with open(path, "rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.seek(position)
                while path.exists() and path.stat().st_ino == inode:
                    chunk = file.read()
                    if chunk:
                        yield chunk.decode("utf-8", errors="replace")
                    else:
                        pause()
                yield file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            pause()
        position = 0
