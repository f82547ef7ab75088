"""Where words go: stdout is data, stderr is talk.

What may live here: printing in the format that was asked for, and the console for people. Commands hand in a
value, the names in it and a way to draw it; what is drawn is made in ``raftctl.views``. rich is imported only
when something is drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer

from raftctl.context import Invocation, OutputFormat

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 120  # columns of a table that goes into a file or a pipe


def emit(
    asked: Invocation, value: Any, names: Iterable[str], draw: Callable[[], RenderableType | str]
) -> None:
    """Prints one answer: as JSON, YAML or names where that was asked for, else what `draw` makes for people."""
    if asked.format is OutputFormat.JSON:
        json_document(value)
    elif asked.format is OutputFormat.YAML:
        from raftctl.views.yaml import to_yaml

        sys.stdout.write(to_yaml(value))
    elif asked.format is OutputFormat.NAME:
        for name in names:
            typer.echo(name)
    else:
        drawn = draw()
        if isinstance(drawn, str):
            if drawn:
                typer.echo(drawn)
        else:
            console().print(drawn)


def json_document(value: Any) -> None:
    """One value, indented, and nothing else."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def json_line(value: Any) -> None:
    """One line of NDJSON, at once."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    sys.stdout.flush()


def say(asked: Invocation, text: str) -> None:
    """Talk: to stderr, and not with ``-q``."""
    if not asked.quiet:
        typer.echo(text, err=True)


def console(*, stderr: bool = False) -> Console:
    """The console for people on stdout (or stderr). Its width is the terminal's, COLUMNS', or `PIPE_WIDTH`."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else max(int(os.environ.get("COLUMNS") or PIPE_WIDTH), 40)
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def width_for_lines() -> int:
    """Columns for plain lines on stdout."""
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns


def interactive() -> bool:
    """Whether stdout is a terminal that may be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
