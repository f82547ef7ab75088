"""The options that every command takes, wherever they stand, and what they come to.

What may live here: `Invocation` (what was asked for on this command line), the parameters that
``raftctl.app`` adds to every command, and the resolution of *which cluster*. No gRPC, no rich: this is
imported before anything is known to be needed.

A command reads them so::

    def command(ctx: typer.Context) -> None:
        asked = invocation(ctx)
        name = asked.cluster_name()          # or cluster_name(NAME) where the command takes one
        deadline_s = asked.timeout_s(60.0)   # --timeout, or this command's default
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from raftctl.durations import parse_duration_ms
from raftctl.errors import UsageError

DEFAULT_CLUSTER = "default"
DEFAULT_TIMEOUT_S = 10.0

_CLUSTER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_ANY_FILE = frozenset({"render", "result"})  # commands whose -o may also be a file to write


class OutputFormat(StrEnum):
    """What ``-o`` may say. ``table`` and ``wide`` are for people, the others for programs."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(slots=True)
class Invocation:
    """What the global options of one command line said; None where they said nothing."""

    cluster: str | None = None
    address: str | None = None
    format: OutputFormat = OutputFormat.TABLE
    output_file: Path | None = None  # what ``-o`` named, for the commands that write a file
    quiet: bool = False
    verbose: bool = False
    timeout_ms: int | None = None
    no_color: bool = False

    @property
    def machine(self) -> bool:
        """Whether stdout must hold data for a program and nothing else."""
        return self.format in (OutputFormat.JSON, OutputFormat.YAML, OutputFormat.NAME)

    def timeout_s(self, default_s: float = DEFAULT_TIMEOUT_S) -> float:
        """Seconds that this command may block."""
        return default_s if self.timeout_ms is None else self.timeout_ms / 1000

    def cluster_name(self, name: str | None = None) -> str:
        """Which cluster: NAME > ``-c`` > RAFTCTL_CLUSTER > ``cluster use`` > ``default``."""
        return resolve_cluster(name or self.cluster)


def invocation(ctx: typer.Context) -> Invocation:
    """The global options of this command line."""
    found = ctx.find_root().obj
    assert isinstance(found, Invocation), "raftctl.app puts one into every context"
    return found


# --- which cluster ---------------------------------------------------------------------------------------------------


def state_home() -> Path:
    """Where the state of all local clusters is: ``$XDG_STATE_HOME/raftctl``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "raftctl"


def resolve_cluster(name: str | None = None) -> str:
    """The cluster's name, from the argument or from what stands behind it.

    Raises:
        UsageError: it cannot be the name of a cluster.
    """
    chosen = name or os.environ.get("RAFTCTL_CLUSTER") or cluster_in_use() or DEFAULT_CLUSTER
    check_cluster_name(chosen)
    return chosen


def check_cluster_name(name: str) -> None:
    """Refuses what would not do as a directory name on every system.

    Raises:
        UsageError: it cannot be the name of a cluster.
    """
    if not _CLUSTER_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a cluster's name", "lower-case letters, digits and dashes, at most 40"
        )


def cluster_in_use() -> str | None:
    """What ``cluster use`` last said."""
    try:
        return _in_use_file().read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def use_cluster(name: str) -> None:
    """Makes `name` the cluster that commands mean when they name none (``cluster use``)."""
    check_cluster_name(name)
    path = _in_use_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name + "\n", encoding="utf-8")


def _in_use_file() -> Path:
    return state_home() / ".use"  # a dot: no cluster can be called so


# --- the options -----------------------------------------------------------------------------------------------------


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Remembers an option that was given; a command that was not given it leaves the outer one standing."""
    if not value or ctx.resilient_parsing:
        return value
    kept = invocation(ctx)
    if param.name == "timeout":
        kept.timeout_ms = parse_duration_ms(value)
    elif param.name == "output":
        for word in value:
            if word in set(OutputFormat):
                kept.format = OutputFormat(word)
            elif ctx.info_name in _ANY_FILE:
                kept.output_file = Path(word)
            else:
                raise UsageError(f"-o {word} is no output format", "-o table, wide, json, yaml or name")
    elif param.name is not None:
        setattr(kept, param.name, value)
    if param.name == "no_color":
        os.environ["NO_COLOR"] = "1"
    return value


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(
        *names, help=help, metavar=metavar, callback=_keep, expose_value=False, show_default=False
    )


def _declare_options(
    cluster: Annotated[
        str | None,
        _option(
            "--cluster",
            "-c",
            metavar="NAME",
            help="The cluster (RAFTCTL_CLUSTER, or what `cluster use` said).",
        ),
    ] = None,
    address: Annotated[
        str | None,
        _option("--address", metavar="HOST:PORT,...", help="Ask these nodes, whatever cluster they are of."),
    ] = None,
    output: Annotated[
        list[str] | None, _option("--output", "-o", metavar="FORMAT", help="table, wide, json, yaml or name.")
    ] = None,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Say only what was asked for.")] = False,
    verbose: Annotated[
        bool, _option("--verbose", "-v", help="Say more; show the traceback of an error.")
    ] = False,
    timeout: Annotated[
        str | None,
        _option("--timeout", metavar="10s", help="How long this command may take to get its answer."),
    ] = None,
    no_color: Annotated[bool, _option("--no-color", help="No colours (NO_COLOR does the same).")] = False,
) -> None:
    """Carries the declarations: typer turns them into parameters, whatever its version."""


def global_parameters() -> list[Any]:
    """The parameters to append to a command; its values go to `Invocation`, not to the command's function."""
    donor = typer.Typer(add_completion=False)
    donor.command()(_declare_options)
    return list(typer.main.get_command(donor).params)
