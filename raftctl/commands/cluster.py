"""``raftctl cluster``: local clusters brought up, stopped, started, looked at and taken down."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from raftctl.cluster import control
from raftctl.cluster.launcher import DEFAULT_SIZE, MAX_SIZE, MAX_WORKERS, UpOutcome, UpRequest
from raftctl.cluster.layout import BrokenState, ClusterDirectory, ClusterRecord, cluster_names
from raftctl.cluster.process import ProcessState
from raftctl.cluster.readiness import look
from raftctl.cluster.spawn import RaftdCommand
from raftctl.commands.local import LocalCluster, local_cluster, progress, showing_logs
from raftctl.context import Invocation, cluster_in_use, invocation, resolve_cluster, use_cluster
from raftctl.errors import CliError, ExitCode, UsageError
from raftctl.output import emit, say

app = typer.Typer(
    add_completion=False, help="Local clusters: bring them up, take them down.", no_args_is_help=True
)

UP_TIMEOUT_S = 60.0
WORKER_TIMEOUT_S = 2.0
LOOK_TIMEOUT_S = 1.0
MUST_BE_ALLOWED = ("python", "shell")

Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The cluster; default: -c, RAFTCTL_CLUSTER, `cluster use`."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready to work.")]


@app.command()
def up(
    ctx: typer.Context,
    name: Name = None,
    nodes: Annotated[
        int | None,
        typer.Option("-n", "--nodes", min=1, max=MAX_SIZE, help=f"How many nodes. [default: {DEFAULT_SIZE}]"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_WORKERS, help="Besides them, nodes that execute and hold no log. [default: 0]"
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Tasks that a node runs at once. [default: 1]")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Offer a kind of task that is off by default: shell, python."),
    ] = None,
    fault_injection: Annotated[
        bool | None,
        typer.Option(
            "--fault-injection/--no-fault-injection",
            help="Let `partition`, `isolate` and `cut` act. [default: on, for it is a local cluster]",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Settings for every raftd (TOML); it is copied."),
    ] = None,
    wait: Wait = True,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Leave what was begun, to look at it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be started, and start nothing.")
    ] = False,
) -> None:
    """Make sure that a cluster runs: make it, start what is down of it, or find that all is well."""
    asked = invocation(ctx)
    _check_allowed(allow or ())
    kinds = tuple(sorted(set(allow))) if allow else None
    request = UpRequest(nodes, slots, kinds, fault_injection, config, workers)
    with local_cluster(asked, name) as cluster:
        if dry_run:
            _say_what_would_run(asked, cluster, request)
            return
        began = time.monotonic()
        timeout_s = asked.timeout_s(UP_TIMEOUT_S + WORKER_TIMEOUT_S * (workers or 0))
        with showing_logs(cluster):
            outcome = cluster.launcher.up(
                request, wait=wait, timeout_s=timeout_s, keep_on_failure=keep_on_failure
            )
        if outcome.created:
            _advise(asked, outcome.record)
        _report_up(asked, cluster, outcome, time.monotonic() - began)


def _check_allowed(kinds: Sequence[str]) -> None:
    """Refuses what is not even the name of an installed kind; whether that needs leave only raftd finds out."""
    unknown = [kind for kind in kinds if kind not in MUST_BE_ALLOWED]
    if not unknown:
        return
    from importlib.metadata import entry_points  # not cheap, and seldom needed

    installed = {one.name for one in entry_points(group="raftd.tasks") if not one.value.startswith("raftd.")}
    for kind in unknown:
        if kind not in installed:
            raise UsageError(
                f"{kind!r} is no kind that must be allowed",
                " ".join(f"--allow {name}" for name in (*MUST_BE_ALLOWED, *sorted(installed))),
            )


@app.command()
def down(
    ctx: typer.Context,
    name: Name = None,
    all_: Annotated[bool, typer.Option("--all", help="Every local cluster of yours.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also a cluster whose files cannot be read any more.")
    ] = False,
) -> None:
    """Stop a cluster and delete it: its logs, its tasks and their results (`cluster stop` keeps them)."""
    asked = invocation(ctx)
    if all_ and name is not None:
        raise UsageError("--all means every cluster, and one is named", "raftctl cluster down --all")
    chosen = cluster_names() if all_ else (asked.cluster_name(name),)
    gone = []
    for one in chosen:
        with local_cluster(asked, one) as cluster:
            if cluster.launcher.down(purge=purge):
                gone.append(one)
    done = (
        f"deleted {', '.join(gone)}"
        if gone
        else f"nothing to delete: no cluster {' or '.join(chosen)}".rstrip()
    )
    if not chosen:
        done = "nothing to delete: there is no local cluster"
    emit(asked, {"deleted": gone}, gone, lambda: done)


@app.command()
def stop(ctx: typer.Context, name: Name = None) -> None:
    """Stop every node and keep what they wrote; `cluster start` goes on from there."""
    asked = invocation(ctx)
    with local_cluster(asked, name) as cluster:
        stopped = cluster.launcher.stop()
        text = (
            f"{cluster.name}: stopped {', '.join(stopped)}" if stopped else f"{cluster.name}: already stopped"
        )
    emit(asked, {"cluster": cluster.name, "stopped": list(stopped)}, stopped, lambda: text)


@app.command()
def start(ctx: typer.Context, name: Name = None, wait: Wait = True) -> None:
    """Start every node that is down, killed ones included."""
    asked = invocation(ctx)
    with local_cluster(asked, name) as cluster:
        began = time.monotonic()
        with showing_logs(cluster):
            outcome = cluster.launcher.start(wait=wait, timeout_s=asked.timeout_s(UP_TIMEOUT_S))
        _report_up(asked, cluster, outcome, time.monotonic() - began)


@app.command()
def restart(
    ctx: typer.Context,
    name: Name = None,
    rolling: Annotated[
        bool,
        typer.Option("--rolling", help="One node after the other, the cluster in service all the while."),
    ] = False,
) -> None:
    """Stop and start every node."""
    asked = invocation(ctx)
    with local_cluster(asked, name) as cluster, showing_logs(cluster):
        began = time.monotonic()
        timeout_s = asked.timeout_s(UP_TIMEOUT_S)
        record, seen = cluster.record(), None
        for group in [(one,) for one in record.names] if rolling else [record.names]:
            cluster.launcher.stop_nodes(group)
            seen = cluster.launcher.start(wait=True, timeout_s=timeout_s).seen
        outcome = UpOutcome(record, False, record.names, seen)
        _report_up(asked, cluster, outcome, time.monotonic() - began)


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """The local clusters of this user."""
    asked = invocation(ctx)
    rows = [_list_row(name) for name in cluster_names()]

    def draw() -> Any:
        from raftctl.views import style

        table = style.table("Local clusters", "NAME", "STATE", ">NODES", ">RUNNING", "CREATED", "")
        for row in rows:
            count = "?" if row["nodes"] is None else str(row["nodes"])
            use = "in use" if row["in_use"] else ""
            table.add_row(
                row["name"], style.state(row["state"]), count, str(row["running"]), row["created_at"], use
            )
        return table if rows else "no local cluster; raftctl cluster up -n 5 makes one"

    emit(asked, rows, [row["name"] for row in rows], draw)


@app.command()
def info(ctx: typer.Context, name: Name = None) -> None:
    """What a local cluster is made of: its nodes, their addresses and files."""
    asked = invocation(ctx)
    with local_cluster(asked, name) as cluster:
        found = _info(cluster)

    def draw() -> str:
        options = ", ".join(f"{key} {_plain(value)}" for key, value in found["options"].items())
        lines = [
            f"{found['cluster']}  {found['state']}  leader {found['leader'] or 'none'}  id {found['cluster_id']}",
            f"  made {found['created_at']}  {options}",
            f"  files {found['directory']}",
            *(
                f"  {node['id']}  {node['address']}  {node['state']}"
                + (f"  pid {node['pid']}" if node["pid"] else "")
                + f"  store {node['store_id']}"
                for node in found["nodes"]
            ),
        ]
        return "\n".join(lines)

    emit(asked, found, [found["cluster"]], draw)


@app.command()
def use(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="The cluster.")]
) -> None:
    """Make a cluster the one that is meant when none is named."""
    asked = invocation(ctx)
    chosen = resolve_cluster(name)
    if not ClusterDirectory(chosen).exists():
        known = ", ".join(cluster_names()) or "none yet"
        raise CliError(f"there is no local cluster {chosen!r}", f"one of: {known}", ExitCode.NOT_FOUND)
    use_cluster(chosen)
    emit(asked, {"cluster": chosen}, [chosen], lambda: f"commands now mean {chosen}")


@app.command()
def env(ctx: typer.Context, name: Name = None) -> None:
    """Print what makes a shell mean this cluster: eval "$(raftctl cluster env NAME)"."""
    asked = invocation(ctx)
    with local_cluster(asked, name) as cluster:
        cluster.record()
        found = {"RAFTCTL_CLUSTER": cluster.name}
    emit(
        asked,
        found,
        found,
        lambda: "\n".join(f"export {key}={shlex.quote(value)}" for key, value in found.items()),
    )


@app.command()
def wait(
    ctx: typer.Context,
    name: Name = None,
    for_: Annotated[
        str, typer.Option("--for", metavar="leader|healthy|idle", help="What to wait for.")
    ] = "healthy",
) -> None:
    """Wait until there is a leader, all is well (healthy), or nothing is left to do (idle). In vain: exit code 124."""
    from raftctl.commands.waiting import CONDITIONS, wait_for_condition

    asked = invocation(ctx)
    if for_ not in CONDITIONS:
        raise UsageError(f"--for {for_} is nothing to wait for", f"--for {', '.join(CONDITIONS)}")
    with progress(asked) as say_progress:
        found = wait_for_condition(asked, name, for_, asked.timeout_s(UP_TIMEOUT_S), say_progress)
    emit(
        asked,
        found,
        [found["cluster"]],
        lambda: f"{found['cluster']}: {for_}, {found['leader'] or 'nobody'} leads",
    )


# --- what is shown ---------------------------------------------------------------------------------------------------


def _say_what_would_run(asked: Invocation, cluster: LocalCluster, request: UpRequest) -> None:
    record = cluster.directory.read()
    if record is not None:
        running = cluster.launcher.running(record)
        start = [one for one in record.names if one not in running]
        differences = request.differences(record)
        text = f"{cluster.name} is there: " + (
            f"refused, it has {' and '.join(differences)}"
            if differences
            else f"would start {', '.join(start)}"
            if start
            else "nothing to do"
        )
        emit(asked, {"cluster": cluster.name, "start": start, "conflict": differences}, start, lambda: text)
        return
    preview = cluster.launcher.preview(request)
    command = RaftdCommand()
    lines = [
        shlex.join([*command.prefix, *arguments_of(cluster.directory, preview, node)])
        for node in preview.nodes
        for arguments_of in (command.init_arguments, command.run_arguments)
        if not (node.worker and arguments_of == command.init_arguments)
    ]
    value = {"cluster": cluster.name, "start": list(preview.names), "commands": lines}
    emit(asked, value, preview.names, lambda: "\n".join(lines))


def _advise(asked: Invocation, record: ClusterRecord) -> None:
    size = len(record.members)
    if size % 2 == 0:
        say(
            asked,
            f"warning: {size} nodes survive the loss of {(size - 1) // 2}, as {size - 1} would; odd sizes do better",
        )
    if record.options.fault_injection:
        say(asked, "note: fault injection is on, so that partition and isolate work (--no-fault-injection)")


def _report_up(asked: Invocation, cluster: LocalCluster, outcome: UpOutcome, took_s: float) -> None:
    record = outcome.record
    leader = outcome.seen.leader if outcome.seen is not None else None
    if outcome.created:
        done = f"{_count(record)} up in {took_s:.1f} s"
    elif outcome.started:
        done = f"started {', '.join(outcome.started)} in {took_s:.1f} s"
    else:
        done = f"already running, {_count(record)}"
    for node in record.nodes:
        if not node.joined:
            say(
                asked,
                f"warning: {node.name} has not joined: raftctl node add {node.name}, or node remove {node.name}",
            )
    missing = outcome.seen.missing() if outcome.seen is not None else {}
    for name, lack in missing.items():
        say(asked, f"warning: {name} {lack}: it was cut off on purpose (raftctl chaos status, raftctl heal)")
    value = {
        "cluster": cluster.name,
        "cluster_id": record.cluster_id,
        "created": outcome.created,
        "already_running": not outcome.created and not outcome.started,
        "started": list(outcome.started),
        "leader": leader.name if leader is not None else None,
        "elapsed_ms": round(took_s * 1000),
        "nodes": _node_rows(cluster.directory, record),
    }
    text = f"{cluster.name}: {done}" + (f", {leader.name} leads" if leader is not None else "")
    emit(asked, value, record.names, lambda: text)


def _count(record: ClusterRecord) -> str:
    size = len(record.members)
    workers = len(record.workers)
    beside = f" and {workers} worker{'s' if workers != 1 else ''}" if workers else ""
    return f"{size} node{'s' if size != 1 else ''}{beside}"


def _node_rows(directory: ClusterDirectory, record: ClusterRecord) -> list[dict[str, Any]]:
    statuses = [control.node_status(directory, node) for node in record.nodes]
    return [
        {
            "id": status.record.name,
            "store_id": status.record.store_id,
            "worker": status.record.worker,
            "address": status.record.address,
            "state": status.word,
            "pid": status.pid,
            "started_at": status.started_at,
            "data_dir": str(directory.data(status.record.name)),
            "log_file": str(directory.log(status.record.name)),
        }
        for status in statuses
    ]


def _list_row(name: str) -> dict[str, Any]:
    directory = ClusterDirectory(name)
    row: dict[str, Any] = {"name": name, "in_use": cluster_in_use() == name, "directory": str(directory.path)}
    try:
        record = directory.read()
    except BrokenState:
        record = None
    if record is None:
        return {
            **row,
            "state": "broken",
            "nodes": None,
            "running": len(directory.processes()),
            "created_at": None,
        }
    running = [
        node for node in record.nodes if control.node_status(directory, node).state is ProcessState.RUNNING
    ]
    return {
        **row,
        "state": control.cluster_word(directory, record),
        "nodes": len(record.nodes),
        "running": len(running),
        "created_at": record.created_at,
    }


def _info(cluster: LocalCluster) -> dict[str, Any]:
    record, directory = cluster.record(), cluster.directory
    options = record.options
    leader = look(record.members, cluster.nodes, LOOK_TIMEOUT_S).leader
    return {
        "cluster": cluster.name,
        "cluster_id": record.cluster_id,
        "state": control.cluster_word(directory, record),
        "leader": leader.name if leader is not None else None,
        "created_at": record.created_at,
        "directory": str(directory.path),
        "token_file": str(directory.token_file),
        "options": {
            "slots": options.slots,
            "allow": list(options.allow),
            "fault_injection": options.fault_injection,
            "config": str(directory.config_file) if options.config is not None else None,
        },
        "nodes": _node_rows(directory, record),
    }


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)
