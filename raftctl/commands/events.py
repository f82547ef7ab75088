"""``raftctl events``: what has happened in the cluster, in the order of its log.

What may live here: the printing of the stream of changes.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, invocation

app = typer.Typer(add_completion=False)


@app.command()
def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    from_index: Annotated[
        int | None,
        typer.Option(
            "--from-index",
            min=1,
            metavar="N",
            help="Begin with this entry of the log (default: all that is kept).",
        ),
    ] = None,
    job: Annotated[str, typer.Option("--job", metavar="ID", help="Only of this job.")] = "",
    task: Annotated[str, typer.Option("--task", metavar="ID", help="Only of this task.")] = "",
) -> None:
    """Every change of tasks, jobs and nodes, in order. With -o json one line each, with its index."""
    run(_events(invocation(ctx), follow=follow, from_index=from_index, job=job, task=task))


async def _events(asked: Invocation, *, follow: bool, from_index: int | None, job: str, task: str) -> None:
    from raftctl.sdk import connect
    from raftctl.views import changes as view
    from raftctl.views import data

    console = None if asked.machine else output.console()
    async with connect(asked) as client:
        last = 0 if follow else (await client.status(recent_count=0)).commit_index
        stream = client.watch(from_index=from_index or 1, to_index=last, job_id=job, task_id=task)
        async with aclosing(stream) as batches:
            async for batch in batches:
                if batch.gap and from_index is not None:
                    output.say(asked, "the cluster keeps only later changes: what came before is gone")
                if batch.interruption is not None:
                    output.say(asked, f"{batch.interruption}: looking for another node")
                for change in batch.changes:
                    if change.change == "leader" and not follow:
                        continue  # that is of now, and not of the log
                    if console is None:
                        output.json_line(data.change(change))
                    else:
                        console.print(view.line(change), soft_wrap=True)
