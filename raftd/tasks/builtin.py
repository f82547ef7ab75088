"""The built-in task kinds: noop, sleep, shell, render-tile, python.

What may live here: kinds of a few lines, with their checks. Importing this file must stay cheap, for servers do it to
check submissions: whatever renders is imported when the first tile is rendered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from raftd.errors import InvalidArguments
from raftd.tasks.context import TaskContext
from raftd.tasks.registry import Args, TaskKind, task

MAX_SLEEP_S = 7 * 24 * 3600.0
MAX_PROGRAM_NAME = 4096

PROGRESS_EVERY_S = 0.5


def _check_noop(args: Sequence[str]) -> None:
    if args:
        raise InvalidArguments(f"noop takes no arguments, got {len(args)}", try_="raftctl submit noop")


def _check_sleep(args: Sequence[str]) -> None:
    _sleep_s(args)


def _check_shell(args: Sequence[str]) -> None:
    if not args or not args[0]:
        raise InvalidArguments("shell needs a program to run", try_="raftctl submit shell -- echo hello")
    if len(args[0]) > MAX_PROGRAM_NAME:
        raise InvalidArguments(f"shell: the program's name has over {MAX_PROGRAM_NAME} characters")
    if any("\0" in arg for arg in args):
        raise InvalidArguments("shell: an argument contains a NUL character")


def _check_render_tile(args: Sequence[str]) -> None:
    from raftd.tasks.render.task import check

    check(args)


def _check_python(args: Sequence[str]) -> None:
    from raftd.tasks.pickled import check

    check(args)


def _sleep_s(args: Sequence[str]) -> float:
    if len(args) != 1:
        raise InvalidArguments(
            f"sleep takes one argument, a number of seconds, got {len(args)}", try_="raftctl submit sleep 2.5"
        )
    try:
        seconds = float(args[0])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_SLEEP_S:  # false for nan, too
        shown = args[0] if len(args[0]) <= 80 else args[0][:77] + "..."
        raise InvalidArguments(f"sleep {shown!r}: give a number of seconds from 0 to {MAX_SLEEP_S:.0f}")
    return seconds


@task("noop", check=_check_noop, workdir=False)
def noop(ctx: TaskContext, args: Args) -> None:
    """Does nothing, to measure and to try things out."""


@task("sleep", check=_check_sleep, workdir=False)
def sleep(ctx: TaskContext, args: Args) -> None:
    """Sleeps for a number of seconds; ends early when it is cancelled."""
    total_s = _sleep_s(args)
    end = time.monotonic() + total_s
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, PROGRESS_EVERY_S))
        ctx.progress(min(1.0, 1.0 - (end - time.monotonic()) / total_s))


def _argv(args: Args) -> Sequence[str]:
    return args


@task("shell", check=_check_shell, isolated=True, opt_in=True, program=_argv)
def shell(ctx: TaskContext, args: Args) -> None:
    """Runs a program with arguments, never through a shell string."""
    raise InvalidArguments("shell runs as a program of its own, never inside a slot")


@task("render-tile", check=_check_render_tile, result="blob")
def render_tile(ctx: TaskContext, args: Args) -> bytes:
    """Renders one tile of a frame."""
    from raftd.tasks.render.task import run

    return run(ctx, args)


@task("python", check=_check_python, opt_in=True)
def python(ctx: TaskContext, args: Args) -> bytes:
    """Calls a pickled function."""
    from raftd.tasks.pickled import run

    return run(ctx, args)


KINDS: Mapping[str, TaskKind] = {kind.name: kind for kind in (noop, sleep, shell, render_tile, python)}
