"""``raftctl job``: arrays and graphs of tasks, as one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import only_timeout_s, run, say_goes_on
from raftctl.commands.task import Ids, cancel_all
from raftctl.context import Invocation, invocation
from raftctl.errors import ExitCode

if TYPE_CHECKING:
    from raftctl.client.models import Job

app = typer.Typer(
    add_completion=False,
    help="Look at, wait for and cancel arrays and graphs of tasks.",
    no_args_is_help=True,
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job: j3.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those too that have ended.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1_000,
) -> None:
    """The jobs of which something is pending or running."""
    run(_list(invocation(ctx), limit, every=every))


async def _list(asked: Invocation, limit: int, *, every: bool) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data
    from raftctl.views import tasks as view
    from raftctl.views.times import now_ms

    async with connect(asked) as client:
        jobs = [job async for job in client.jobs(unfinished=not every, limit=limit)]
    output.emit(
        asked,
        [data.job(job) for job in jobs],
        [job.job_id for job in jobs],
        lambda: view.jobs(jobs, now_ms()),
    )


@app.command()
def info(ctx: typer.Context, job_id: JobId) -> None:
    """How far a job is."""
    run(_info(invocation(ctx), job_id))


async def _info(asked: Invocation, job_id: str) -> None:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        job = await client.job(job_id)
    _print(asked, job)


def _print(asked: Invocation, job: Job) -> None:
    from raftctl.views import data
    from raftctl.views import tasks as view
    from raftctl.views.times import now_ms

    output.emit(asked, data.job(job), [job.job_id], lambda: view.job(job, now_ms()))


@app.command()
def wait(ctx: typer.Context, job_id: JobId) -> None:
    """Wait until every task of a job has ended; exit 5 unless all succeeded, 124 when --timeout has passed."""
    asked = invocation(ctx)
    try:
        job = run(_wait(asked, job_id))
    except KeyboardInterrupt:
        say_goes_on(asked, (job_id,))
        raise
    _print(asked, job)
    if job.succeeded < job.total:
        raise typer.Exit(ExitCode.TASK_FAILED)


async def _wait(asked: Invocation, job_id: str) -> Job:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        return await client.wait_job(job_id, timeout_s=only_timeout_s(asked))


@app.command()
def cancel(ctx: typer.Context, ids: Ids) -> None:
    """Cancel jobs: their pending tasks at once, the running ones by TERM and then KILL."""
    run(cancel_all(invocation(ctx), ids))
