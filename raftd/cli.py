"""The ``raftd`` command: flags become a Config, and the Config a running node.

What may live here: flags, exit codes and how a failure is said. Heavy imports come inside the commands: ``raftd init``
needs neither gRPC nor the cores.

Exit codes: 0 ok; 1 an error; 2 a wrong flag or setting; 3 the data directory (foreign, removed, locked, damaged,
not initialised, or the disk failed); 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from raftd.errors import (
    ConfigError,
    NameTaken,
    RaftdError,
    StorageError,
    StoreRemoved,
    UnknownFormat,
    WrongIdentity,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A node of a fault-tolerant scheduler: Raft peer, scheduler and executor in one process.",
)


def exit_code(error: RaftdError) -> int:
    """The exit code of a failure."""
    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, StorageError | WrongIdentity | StoreRemoved | NameTaken | UnknownFormat):
        return 3
    return 1


def say(error: RaftdError) -> None:
    """Print a failure the way every command does: what happened, then what to try."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.try_:
        print(f"try: {error.try_}", file=sys.stderr)


@app.command()
def init(
    data_dir: Annotated[Path, typer.Option(help="The directory to make; it must be empty or not there.")],
    name: Annotated[str, typer.Option(help="This node's name; a founder's is one of the members'.")],
    cluster_id: Annotated[str, typer.Option(help="The cluster's id: 16 hex digits, the same on every node.")],
    member: Annotated[
        list[str] | None,
        typer.Option(help="NAME=STORE_ID@HOST:PORT; once for each founding voter, the same list on each."),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Join a cluster that runs, instead of founding one.")
    ] = False,
    worker: Annotated[
        bool, typer.Option("--worker", help="For a worker, which executes and holds no log.")
    ] = False,
    store_id: Annotated[
        str | None,
        typer.Option(help="With --join or --worker: 16 hex digits that no store ever had. [default: random]"),
    ] = None,
    segment_bytes: Annotated[
        int | None, typer.Option(help="Size of the first log segment. [default: as for run]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The TOML file that the node will run with: its segment_bytes counts.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="plain or json.")] = "plain",
) -> None:
    """Make a node's data directory: a founder's, (--join) that of a node that will be let in, or (--worker) a worker's.

    A founder gets its identity and entry 1, the same on every founder. A node that joins gets an identity alone; its
    store id, printed, is what `raftctl node add` lets in. A worker's first start makes its directory by itself, too.
    """
    from raftd import founding
    from raftd.config import hex_id, load

    if output not in ("plain", "json"):
        raise ConfigError(f"--output {output} is neither plain nor json")
    if join + worker + bool(member) > 1:
        raise ConfigError(
            "--join, --worker and --member exclude each other: only a founder knows the members beforehand"
        )
    if not (join or worker) and (not member or store_id is not None):
        raise ConfigError(
            "a founder is named among the --member options, with its store id",
            try_="--member NAME=STORE_ID@HOST:PORT for each founder, or --join, or --worker",
        )
    settings = load({"data_dir": data_dir, "segment_bytes": segment_bytes}, os.environ, config)
    if worker:
        wanted = None if store_id is None else hex_id("store id", store_id)
        store = f"{founding.employ(data_dir, name, hex_id('cluster id', cluster_id), wanted):016x}"
    elif join:
        store = f"{founding.join(data_dir, name, cluster_id, store_id, settings.segment_bytes):016x}"
    else:
        store = f"{founding.found(data_dir, name, cluster_id, member or (), settings.segment_bytes):016x}"
    if output == "json":
        typer.echo(
            json.dumps(
                {"data_dir": str(data_dir), "name": name, "store_id": store, "joins": join, "worker": worker}
            )
        )
    elif join or worker:
        typer.echo(store)
    else:
        typer.echo(f"{data_dir} is ready for {name}")


@app.command()
def run(
    data_dir: Annotated[Path | None, typer.Option(help="Made by raftd init.")] = None,
    role: Annotated[
        str | None, typer.Option(help="member (the default), or worker: it executes and holds no log.")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(help="Of a worker: HOST:PORT,... of some members; it remembers those that it hears of."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Refuse a data directory of another node.")] = None,
    store_id: Annotated[str | None, typer.Option(help="Refuse a data directory of another store.")] = None,
    cluster_id: Annotated[str | None, typer.Option(help="Refuse a directory of another cluster.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to serve gRPC on.")] = None,
    advertise: Annotated[str | None, typer.Option(help="HOST:PORT that others reach it under.")] = None,
    slots: Annotated[int | None, typer.Option(help="Attempts that run at once.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Offer a kind that is off by default: shell, python.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be repeated.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The token that every call must carry.")] = None,
    fault_injection: Annotated[
        bool | None, typer.Option("--fault-injection", help="Let clients partition this node.")
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve unencrypted beyond loopback.")
    ] = None,
    tick_ms: Annotated[int | None, typer.Option(help="Raft's clock.")] = None,
    heartbeat_ticks: Annotated[int | None, typer.Option(help="Ticks between a leader's heartbeats.")] = None,
    election_ticks: Annotated[int | None, typer.Option(help="Base of the election timeout.")] = None,
    segment_bytes: Annotated[int | None, typer.Option(help="Size of one log segment.")] = None,
    snapshot_entries: Annotated[int | None, typer.Option(help="Applied entries between snapshots.")] = None,
    snapshot_log_bytes: Annotated[
        int | None, typer.Option(help="Bytes of applied entries between snapshots.")
    ] = None,
    kept_entries: Annotated[
        int | None, typer.Option(help="Entries kept behind a snapshot, for followers a little behind.")
    ] = None,
    lease_reads: Annotated[
        bool | None, typer.Option("--lease-reads", help="Answer reads by lease; on all members or on none.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a line for each transition of Raft here.")] = None,
    slot_nice: Annotated[int | None, typer.Option(help="CPU niceness of the slots.")] = None,
    stop_grace_ms: Annotated[int | None, typer.Option(help="Between TERM and KILL of an attempt.")] = None,
    output_limit_bytes: Annotated[int | None, typer.Option(help="Captured output of an attempt.")] = None,
    task_cpu_ms: Annotated[int | None, typer.Option(help="CPU time that ends an attempt.")] = None,
    task_memory_bytes: Annotated[int | None, typer.Option(help="Memory that ends an attempt.")] = None,
    task_file_bytes: Annotated[int | None, typer.Option(help="Size of a file that ends an attempt.")] = None,
    task_output_bytes: Annotated[int | None, typer.Option(help="Output that ends an attempt.")] = None,
    task_processes: Annotated[int | None, typer.Option(help="Processes at once that end an attempt.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Where to log; default: stderr.")] = None,
    log_file_bytes: Annotated[int | None, typer.Option(help="At this size the log file is rotated.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these settings.")] = None,
) -> None:
    """Run a node until it is told to stop (TERM or Ctrl-C). The word may be left out: raftd --role worker --join ...

    The first start of a worker makes its data directory, for which it needs --name.
    """
    from raftd.config import load

    flags = {
        key: value
        for key, value in locals().items()
        if key not in ("label", "config", "load") and value is not None
    }
    if label:
        flags["labels"] = label
    settings = load(flags, os.environ, config)
    from raftd.process import serve

    raise typer.Exit(serve(settings))


@app.command()
def version() -> None:
    """Print the version."""
    from raftd import __version__

    typer.echo(f"raftd {__version__}")


def _words(words: list[str]) -> list[str]:
    """``raftd --role worker ...`` is ``raftd run --role worker ...``."""
    return ["run", *words] if words and words[0].startswith("--") and words[0] != "--help" else words


def main() -> NoReturn:
    """The console script."""
    try:
        code = app(_words(sys.argv[1:]), standalone_mode=False)
    except RaftdError as error:
        say(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # typer's own usage errors, and its word for an interrupt; everything else is a bug and is logged whole.
        if isinstance(error, typer.Abort):
            sys.exit(130)
        show = getattr(error, "show", None)
        if show is None:
            logging.getLogger("raftd").exception("raftd failed")
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
        show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code or 0)
