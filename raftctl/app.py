"""The root of ``raftctl``: which words exist, where each lives, and what becomes of an error.

What may live here: the table of commands, the group that imports them only when they are asked for, and
`main`, the one place where an exception turns into lines on stderr and an exit code. ``raftctl --help`` must
answer in 250 ms, so nothing here imports gRPC, rich or a command.

A command module holds ``app = typer.Typer(add_completion=False, help=...)``. With one command and no callback
it *is* that command; otherwise it is a group. A command raises `raftctl.errors.CliError` for what it expects,
and ``typer.Exit(code)`` to leave with a code of the contract.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import TextIOWrapper
from typing import Annotated, Any

import typer
import typer.core
import typer.main

import raftctl
from raftctl.context import Invocation, global_parameters
from raftctl.errors import ExitCode, RaftctlError


@dataclass(frozen=True, slots=True)
class _Word:
    """One top-level word.

    Attributes:
        section: the heading it stands under in the root help.
        help: its line there.
        module: the module in ``raftctl.commands`` that holds it.
        command: for a short way to a command of a group (``kill`` is ``node kill``), that command's name.
    """

    section: str
    help: str
    module: str
    command: str | None = None


_WORDS: dict[str, _Word] = {
    "submit": _Word("Work", "Put a task, or an array of them, into the queue", "submit"),
    "status": _Word("Work", "Who leads, what executes where, which nodes are free", "status"),
    "task": _Word("Work", "List, explain, wait for, retry and cancel tasks", "task"),
    "job": _Word("Work", "The same for arrays and graphs of tasks", "job"),
    "logs": _Word("Work", "What a task wrote to stdout and stderr", "task", "logs"),
    "events": _Word("Work", "What has happened, in the order of the log", "events"),
    "render": _Word("Work", "Render a picture, one task a tile", "render"),
    "cluster": _Word("Clusters", "Bring local clusters up and down", "cluster"),
    "node": _Word("Clusters", "Look at the nodes, start, stop, pause and kill them", "node"),
    "settings": _Word("Clusters", "Limits, retention and leases of the whole cluster", "settings"),
    "raft": _Word("Clusters", "Term, log and replication, node by node", "raft"),
    "kill": _Word("Trouble", "Kill a node with SIGKILL; `leader` names the leader", "node", "kill"),
    "partition": _Word("Trouble", "Cut groups of nodes off from each other", "chaos", "partition"),
    "isolate": _Word("Trouble", "Cut one node off from all others", "chaos", "isolate"),
    "heal": _Word("Trouble", "Remove every cut", "chaos", "heal"),
    "chaos": _Word("Trouble", "Every kind of fault, and which are in force", "chaos"),
    "version": _Word("Other", "The versions of raftctl and of the nodes", "version"),
}

_EPILOG = "Every command also takes -c, --address, -o, -q, -v, --timeout and --no-color: see raftctl --help."


def _dressed(command: Any, parameters: Sequence[Any]) -> Any:
    """Gives a command, and those below it, the options that stand everywhere, unless it has one of that name itself."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for parameter in parameters:
        if taken.isdisjoint(parameter.opts):
            command.params.append(parameter)
    command.rich_markup_mode = None
    command.epilog = command.epilog or _EPILOG
    command.context_settings = {"help_option_names": ["-h", "--help"], **(command.context_settings or {})}
    for below in getattr(command, "commands", {}).values():
        _dressed(below, parameters)
    return command


class _Root(typer.core.TyperGroup):
    """The root group: knows every word from the table, and imports a module when its word is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_WORDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        word = _WORDS.get(cmd_name)
        if word is None:
            return None
        module = importlib.import_module(f"raftctl.commands.{word.module}")
        command: Any = typer.main.get_command(module.app)
        if word.command is not None:
            command = command.commands[word.command]
        parameters = global_parameters()
        for parameter in parameters:
            parameter.hidden = True  # the root help shows them once, the epilog points there
        return _dressed(command, parameters)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in _WORDS:
            near = get_close_matches(args[0], _WORDS)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, _WORDS))
        for section in dict.fromkeys(word.section for word in _WORDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [
                        (name.ljust(width), word.help)
                        for name, word in _WORDS.items()
                        if word.section == section
                    ]
                )


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"raftctl {raftctl.__version__}")
        raise typer.Exit(0)


app = typer.Typer(cls=_Root, add_completion=False, rich_markup_mode=None, no_args_is_help=False)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    """Run work on a cluster that survives its machines."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(arguments: Sequence[str]) -> int:
    """Runs one command line, prints what it says, and returns the exit code. Nothing is raised."""
    asked = Invocation()
    try:
        root: Any = typer.main.get_command(app)
        root.params.extend(global_parameters())
        root.context_settings = {"help_option_names": ["-h", "--help"]}
        code = root.main(args=list(arguments), prog_name="raftctl", standalone_mode=False, obj=asked)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.ERROR
    except SystemExit as left:
        code = left.code
    except Exception as error:
        code = _report(error, verbose=asked.verbose)
    if code == ExitCode.INTERRUPTED and sys.stderr.isatty():
        typer.echo("", err=True)  # the shell's prompt goes below the ^C
    return code if isinstance(code, int) else ExitCode.OK


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    sys.exit(run(sys.argv[1:]))


def _report(error: Exception, *, verbose: bool) -> int:
    """Says on stderr what went wrong, in at most three lines (with -v: with the traceback), and what to exit with."""
    if isinstance(error, RaftctlError):
        message, try_, code = error.message, error.try_, int(error.exit_code)
    elif (
        format_message := getattr(error, "format_message", None)
    ) is not None:  # typer's own: what was typed is wrong
        message, try_, code = _usage(error, format_message())
    elif isinstance(error, OSError):
        message, try_, code = _system_error(error), "", ExitCode.ERROR
    else:
        message, try_, code = (
            f"this is a bug in raftctl: {type(error).__name__}: {error}",
            "again with -v",
            ExitCode.ERROR,
        )
    if verbose:
        typer.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    typer.echo(f"{_red('error:')} {' '.join(message.split())}", err=True)
    if try_:
        typer.echo(f"try: {try_}", err=True)
    return code


def _usage(error: Any, message: str) -> tuple[str, str, int]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "raftctl"
    if "\n" in message:  # a group without a command: the message is its help
        message = f"{path} needs a command"
    message = message[:1].lower() + message[1:].rstrip(".")
    return message, f"{path} --help", int(getattr(error, "exit_code", ExitCode.USAGE))


def _system_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _red(text: str) -> str:
    return f"\033[31m{text}\033[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else text
