"""``raftctl submit``: one task, or an array of them, into the queue; with ``--wait`` until it has ended.

What may live here: the options of a submission and what they come to. Options may stand before or after KIND
and ARGS; ``--`` ends them.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import only_timeout_s, run, say_goes_on
from raftctl.context import Invocation, invocation
from raftctl.durations import parse_duration_ms
from raftctl.errors import CliError, ExitCode, UsageError

if TYPE_CHECKING:
    from raftctl.client.models import Accepted, Graph, Job, Submission, Task
    from raftctl.sdk import AsyncClient

app = typer.Typer(add_completion=False)


Kind = Annotated[
    str, typer.Argument(metavar="KIND", help="noop, sleep, shell, render-tile, ...", show_default=False)
]
Args = Annotated[
    list[str] | None, typer.Argument(metavar="ARGS...", help="Its arguments; {} is the array index.")
]
Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="K=V", help="Set a variable for the task; repeatable."),
]
Stdin = Annotated[
    str | None, typer.Option("--stdin", metavar="FILE", help="The task's standard input; - for ours.")
]
RequestId = Annotated[
    str, typer.Option("--request-id", metavar="ID", help="However often it is submitted, it is one task.")
]
Array = Annotated[
    str | None, typer.Option("--array", metavar="0-63", help="One task for each index, as one job.")
]
MaxFailures = Annotated[
    int, typer.Option("--max-failures", min=0, help="Cancel the rest of the job after so many. 0: never.")
]
Priority = Annotated[int, typer.Option("--priority", help="Higher runs first.")]
Retries = Annotated[
    int, typer.Option("--retries", min=0, help="Further attempts after an error of the task itself.")
]
Backoff = Annotated[
    str | None, typer.Option("--backoff", metavar="exp:1s..60s", help="The pause before each retry.")
]
RunTimeout = Annotated[
    str | None, typer.Option("--run-timeout", metavar="5m", help="Stop an attempt that runs longer.")
]
QueueTimeout = Annotated[
    str | None, typer.Option("--queue-timeout", metavar="1h", help="Fail if nothing starts it in time.")
]
After = Annotated[
    list[str] | None,
    typer.Option(
        "--after", metavar="ID[:any]", help="Start when this task or job has succeeded (any: ended)."
    ),
]
Delay = Annotated[str | None, typer.Option("--delay", metavar="10s", help="Start no sooner than in so long.")]
Require = Annotated[
    list[str] | None,
    typer.Option("--require", metavar="K=V", help="Only on nodes with this label; repeatable."),
]
Slots = Annotated[int, typer.Option("--slots", min=1, help="Slots of one node that it occupies.")]
File = Annotated[
    str | None,
    typer.Option("--file", metavar="FILE", help="Submissions, or a graph of them, as JSON; - for stdin."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 5 unless it succeeds.")]
Follow = Annotated[
    bool, typer.Option("--follow", help="Show what it writes until it ends; exit 5 unless it succeeds.")
]


@app.command()
def submit(
    ctx: typer.Context,
    kind: Kind = "",
    args: Args = None,
    name: Name = "",
    env: Env = None,
    stdin: Stdin = None,
    request_id: RequestId = "",
    array: Array = None,
    max_failures: MaxFailures = 0,
    priority: Priority = 0,
    retries: Retries = 0,
    backoff: Backoff = None,
    run_timeout: RunTimeout = None,
    queue_timeout: QueueTimeout = None,
    after: After = None,
    delay: Delay = None,
    require: Require = None,
    slots: Slots = 1,
    file: File = None,
    wait: Wait = False,
    follow: Follow = False,
) -> None:
    """Put a task, an array, or a graph of them into the queue.

    Prints what it became; with -q the id alone. An argument that begins with a dash needs -- before the
    arguments.
    """
    from raftctl.client.models import Submission
    from raftctl.client.request_ids import new_request_id
    from raftctl.commands import _submissions as typed

    asked = invocation(ctx)
    if file is not None:
        _refuse_beside_file(ctx)
        _submit_file(asked, file, wait=wait)
        return
    if not kind:
        raise UsageError("what is to be submitted?", "raftctl submit KIND [ARGS...]")
    first_ms, max_ms = typed.backoff(backoff)
    submission = Submission(
        kind=kind,
        args=tuple(args or ()),
        payload=typed.payload(stdin),
        env=dict(typed.pair("--env", text) for text in env or ()),
        name=name,
        priority=priority,
        retries=retries,
        backoff_first_ms=first_ms,
        backoff_max_ms=max_ms,
        run_timeout_ms=parse_duration_ms(run_timeout) if run_timeout else 0,
        queue_timeout_ms=parse_duration_ms(queue_timeout) if queue_timeout else 0,
        delay_ms=parse_duration_ms(delay) if delay else 0,
        after=tuple(typed.dependency(text) for text in after or ()),
        require=dict(typed.pair("--require", text) for text in require or ()),
        slots=slots,
        array=typed.array_range(array, max_failures),
        request_id=request_id or new_request_id(),
    )
    if follow and submission.array is not None:
        raise UsageError("--follow shows what one task writes, not an array", "--wait")
    if wait or follow:
        _submit_and_wait(asked, submission, follow=follow)
    else:
        run(_submit(asked, submission))


async def _submit(asked: Invocation, submission: Submission | Graph) -> None:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        accepted = await _acknowledged(client, submission)
    _print_accepted(asked, accepted)


async def _acknowledged(client: AsyncClient, submission: Submission | Graph) -> Accepted:
    from raftctl.client import errors
    from raftctl.client.models import Graph

    try:
        if isinstance(submission, Graph):
            return await client.submit_graph(submission)
        return await client.submit(submission)
    except errors.Unavailable as error:
        again = f"again with --request-id {submission.request_id}"
        raise CliError(
            error.message, f"{error.try_}, then {again}" if error.try_ else again, error.exit_code
        ) from error


def _refuse_beside_file(ctx: typer.Context) -> None:
    """A file says everything about what it submits; whatever else was typed would not count."""
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if name not in ("file", "wait") and source is not None and source.name == "COMMANDLINE":
            typed = name.upper() if name in ("kind", "args") else "--" + name.replace("_", "-")
            raise UsageError(f"--file says what to submit: {typed} would not count", "put it into the file")


def _submit_file(asked: Invocation, path: str, *, wait: bool) -> None:
    """Submits what a file holds: a graph whole, or submissions each for itself."""
    from raftctl.client.models import Graph
    from raftctl.client.request_ids import new_request_id
    from raftctl.commands import _submissions as typed

    found = typed.from_file(path)
    if isinstance(found, Graph):
        graph = found if found.request_id else replace(found, request_id=new_request_id())
        if wait:
            _submit_and_wait(asked, graph)
        else:
            run(_submit(asked, graph))
        return
    submissions = [one if one.request_id else replace(one, request_id=new_request_id()) for one in found]
    if wait:
        if len(submissions) > 1:
            raise UsageError("--wait waits for one submission or one graph", "raftctl task wait ID...")
        _submit_and_wait(asked, submissions[0])
        return
    run(_submit_many(asked, submissions))


async def _submit_many(asked: Invocation, submissions: list[Submission]) -> None:
    """One answer for each, in order; a refusal is told after the others were accepted."""
    from raftctl.client.models import Accepted
    from raftctl.client.submitter import in_batches
    from raftctl.sdk import connect
    from raftctl.views import data

    async with connect(asked) as client:
        replies = [reply for batch in in_batches(submissions) for reply in await client.submit_many(batch)]
    accepted = [reply for reply in replies if isinstance(reply, Accepted)]
    idents = [one.job_id or one.task_id for one in accepted]
    output.emit(
        asked,
        [data.accepted(one) for one in accepted],
        idents,
        lambda: "\n".join(idents) if asked.quiet else f"submitted {len(accepted)}: " + _span(idents),
    )
    refused = [reply for reply in replies if isinstance(reply, Exception)]
    if refused:
        raise CliError(
            f"{len(refused)} of {len(replies)} were refused; the first: {refused[0]}",
            getattr(refused[0], "try_", ""),
            getattr(refused[0], "exit_code", ExitCode.ERROR),
        )


def _span(idents: list[str]) -> str:
    shown = idents if len(idents) <= 4 else [*idents[:2], "...", idents[-1]]
    return " ".join(shown) or "nothing"


def _print_accepted(asked: Invocation, accepted: Accepted) -> None:
    from raftctl.views import data

    ident = accepted.job_id or accepted.task_id
    known = " (known already: nothing new was submitted)" if accepted.duplicate else ""
    count = len(accepted.task_ids)
    span = f": {count} tasks, {accepted.task_ids[0]} to {accepted.task_ids[-1]}" if accepted.job_id else ""
    output.emit(
        asked,
        data.accepted(accepted),
        [ident],
        lambda: ident if asked.quiet else f"submitted {ident}{span}{known}",
    )


# --- with --wait -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Waited:
    """How far a waiting submission has come: what is printed even when the wait is cut short."""

    accepted: Accepted | None = None
    task: Task | None = None
    job: Job | None = None

    @property
    def ident(self) -> str:
        assert self.accepted is not None
        return self.accepted.job_id or self.accepted.task_id

    @property
    def succeeded(self) -> bool:
        if self.task is not None:
            return self.task.state == "succeeded"
        return self.job is not None and self.job.succeeded == self.job.total


def _submit_and_wait(asked: Invocation, submission: Submission | Graph, *, follow: bool = False) -> None:
    waited = _Waited()
    try:
        run(_wait(asked, submission, waited, follow=follow))
    except KeyboardInterrupt:
        if waited.accepted is not None:
            say_goes_on(asked, (waited.ident,))
        raise
    finally:
        if waited.accepted is not None and asked.machine:
            _print_waited(asked, waited)
    if not waited.succeeded:
        raise typer.Exit(ExitCode.TASK_FAILED)


async def _wait(asked: Invocation, submission: Submission | Graph, waited: _Waited, *, follow: bool) -> None:
    from raftctl.sdk import connect

    timeout_s = only_timeout_s(asked)
    async with connect(asked) as client:
        waited.accepted = accepted = await _acknowledged(client, submission)
        if not asked.machine:
            _print_accepted(asked, accepted)
            sys.stdout.flush()  # the id is there whatever happens next
        if accepted.job_id:
            waited.job = await client.wait_job(accepted.job_id, timeout_s=timeout_s)
        elif follow:
            waited.task = await _follow(asked, client, accepted.task_id, timeout_s)
        else:
            [waited.task] = await client.wait([accepted.task_id], timeout_s=timeout_s)
        if not asked.machine and not asked.quiet:
            typer.echo(_ending(waited))


async def _follow(asked: Invocation, client: AsyncClient, task_id: str, timeout_s: float | None) -> Task:
    """Shows what its attempts write, one after the other, until it has ended."""
    from raftctl.client import errors
    from raftctl.commands._following import follow_task

    try:
        async with asyncio.timeout(timeout_s):
            return await follow_task(asked, client, task_id)
    except TimeoutError:
        raise errors.WaitTimedOut(
            f"{task_id} did not end within {timeout_s:g} s", f"raftctl logs -f {task_id}"
        ) from None


def _ending(waited: _Waited) -> str:
    from raftctl.views.tasks import ending

    if waited.task is None:
        job = waited.job
        assert job is not None
        counts = [(word, getattr(job, word)) for word in ("succeeded", "failed", "cancelled")]
        return f"{job.job_id} ended: " + ", ".join(f"{count} {word}" for word, count in counts if count)
    return ending(waited.task)


def _print_waited(asked: Invocation, waited: _Waited) -> None:
    from raftctl.views import data

    assert waited.accepted is not None
    value = data.accepted(waited.accepted)
    if waited.task is not None:
        value |= data.task(waited.task)
    if waited.job is not None:
        value |= data.job(waited.job)
    output.emit(asked, value, [waited.ident], lambda: waited.ident)
