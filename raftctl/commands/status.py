"""``raftctl status``: who leads, what executes where, which nodes are free; once, or live with ``--watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, invocation
from raftctl.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from raftctl.client.overview import ClusterView

app = typer.Typer(add_completion=False)


@app.command()
def status(
    ctx: typer.Context,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Go on: redrawn on a terminal, change by change into a pipe."),
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Do not wait for a leader: what the nodes know, labelled.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 7 when anything is not as it should be.")
    ] = False,
) -> None:
    """The whole cluster: who leads, what executes where, which nodes are free, what waits and what ended.

    Without a leader it shows what the largest group of nodes that agree last knew, labelled stale.
    """
    asked = invocation(ctx)
    if watch:
        from raftctl.commands._watching import watch_status

        run(watch_status(asked, stale=stale))
        return
    view, name = run(_look(asked, stale=stale))
    _print(asked, view, name)
    if check and view.degraded:
        raise typer.Exit(ExitCode.DEGRADED)


async def _look(asked: Invocation, *, stale: bool) -> tuple[ClusterView, str]:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        return await client.cluster_view(stale=stale), client.cluster


def _print(asked: Invocation, view: ClusterView, name: str) -> None:
    from raftctl.views import data
    from raftctl.views.times import now_ms

    def draw() -> RenderableType:
        from raftctl.views import status as views

        if asked.quiet:
            return views.summary(view, name)
        return views.page(view, name, now_ms())

    output.emit(asked, data.status(view, name), [row.name for row in view.status.nodes], draw)
