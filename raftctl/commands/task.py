"""``raftctl task``: look at tasks, wait for them, read what they wrote, cancel them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import only_timeout_s, run, say_goes_on
from raftctl.context import Invocation, OutputFormat, invocation
from raftctl.errors import CliError, ExitCode, RaftctlError, UsageError

if TYPE_CHECKING:
    from raftctl.client.models import Cancelled, Task, TaskState

app = typer.Typer(
    add_completion=False, help="List, look at, wait for and cancel tasks.", no_args_is_help=True
)

DEFAULT_LIMIT = 100

TaskId = Annotated[str, typer.Argument(metavar="ID", help="A task: t17.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Tasks: t17; where it fits also jobs: j3.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="pending, running, succeeded, failed, cancelled.")
    ] = None,
    job: Annotated[str, typer.Option("--job", metavar="ID", help="Only the tasks of this job.")] = "",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="At most so many (default: 100 for people, else all)."),
    ] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Any node's own view, without a leader.")] = False,
) -> None:
    """List tasks, oldest first, as they come from the cluster."""
    asked = invocation(ctx)
    states = [_state(word) for text in state or () for word in text.split(",")]
    run(_list(asked, states, job, limit, stale=stale))


def _state(word: str) -> TaskState:
    from raftctl.client.models import TaskState

    known = [one for one in TaskState if one is not TaskState.UNKNOWN]
    if word not in known:
        raise UsageError(f"{word!r} is no state of a task", ", ".join(known))
    return TaskState(word)


async def _list(
    asked: Invocation, states: list[TaskState], job_id: str, limit: int | None, *, stale: bool
) -> None:
    from raftctl.sdk import connect
    from raftctl.views import tasks as view
    from raftctl.views.times import now_ms

    people = not asked.machine
    if limit is None and people:
        limit = DEFAULT_LIMIT + 1
        shown = DEFAULT_LIMIT
    else:
        shown = limit or sys.maxsize
    printer = _Printer(asked)
    console, now, width, count = output.console() if people else None, now_ms(), output.width_for_lines(), 0
    async with connect(asked) as client:
        async for task in client.tasks(states=states, job_id=job_id, limit=limit, stale=stale):
            count += 1
            if console is None:
                printer.add(task)
            elif count <= shown:
                if count == 1 and not asked.quiet:
                    console.print(view.header())
                console.print(view.line(task, now, width), soft_wrap=True)
    printer.end()
    if people and count == 0:
        output.say(asked, "no tasks")
    if people and count > shown:
        output.say(asked, f"there are more: --limit {shown * 10}, or -o json for all")


class _Printer:
    """Prints tasks one by one so that the whole is one JSON array, one YAML list, or one name a line."""

    def __init__(self, asked: Invocation) -> None:
        self._format = asked.format
        self._count = 0

    def add(self, task: Task) -> None:
        from raftctl.views import data
        from raftctl.views.yaml import to_yaml

        if self._format is OutputFormat.NAME:
            sys.stdout.write(task.task_id + "\n")
        elif self._format is OutputFormat.YAML:
            sys.stdout.write(to_yaml([data.task(task)]))
        else:
            sys.stdout.write("[\n" if self._count == 0 else ",\n")
            sys.stdout.write(json.dumps(data.task(task), ensure_ascii=False))
        self._count += 1

    def end(self) -> None:
        if self._format is OutputFormat.JSON:
            sys.stdout.write("\n]\n" if self._count else "[]\n")
        elif self._format is OutputFormat.YAML and self._count == 0:
            sys.stdout.write("[]\n")


@app.command()
def info(
    ctx: typer.Context,
    task_id: TaskId,
    stale: Annotated[bool, typer.Option("--stale", help="Any node's own view, without a leader.")] = False,
) -> None:
    """Everything about one task: its state, its attempts, its result."""
    run(_info(invocation(ctx), task_id, stale=stale))


async def _info(asked: Invocation, task_id: str, *, stale: bool) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data
    from raftctl.views import tasks as view
    from raftctl.views.times import now_ms

    async with connect(asked) as client:
        task = await client.task(task_id, stale=stale)
    output.emit(asked, data.task(task), [task.task_id], lambda: view.detail(task, now_ms()))


@app.command()
def wait(ctx: typer.Context, ids: Ids) -> None:
    """Wait until tasks have ended; exit 5 unless all succeeded, 124 when --timeout has passed."""
    asked = invocation(ctx)
    try:
        tasks = run(_wait(asked, ids))
    except KeyboardInterrupt:
        say_goes_on(asked, tuple(ids))
        raise
    if any(task.state != "succeeded" for task in tasks):
        raise typer.Exit(ExitCode.TASK_FAILED)


async def _wait(asked: Invocation, ids: list[str]) -> list[Task]:
    from raftctl.sdk import connect
    from raftctl.views import data
    from raftctl.views import tasks as view

    def ended(task: Task) -> None:
        if not asked.machine and not asked.quiet:
            typer.echo(view.ending(task))
            sys.stdout.flush()

    async with connect(asked) as client:
        tasks = await client.wait(
            ids,
            timeout_s=only_timeout_s(asked),
            on_ended=ended,
            on_interruption=lambda why: output.say(asked, f"{why}: looking for another node"),
        )
    if asked.machine:
        values = [data.task(task) for task in tasks]
        output.emit(asked, values if len(values) > 1 else values[0], ids, lambda: "")
    return tasks


@app.command()
def result(
    ctx: typer.Context,
    task_id: TaskId,
) -> None:
    """A task's result, as it is, on stdout (or into the file that -o names)."""
    asked = invocation(ctx)
    content = run(_result(asked, task_id))
    if asked.machine:
        from raftctl.client.models import TaskResult
        from raftctl.views import data

        value = {"task_id": task_id, "result": data.result(TaskResult(inline=content, blob=None))}
        output.emit(asked, value, [task_id], lambda: "")
    elif asked.output_file is not None:
        asked.output_file.write_bytes(content)
        output.say(asked, f"{len(content)} bytes in {asked.output_file}")
    elif sys.stdout.isatty() and b"\0" in content:
        raise CliError(f"the result of {task_id} is {len(content)} bytes that are no text", "-o FILE")
    else:
        sys.stdout.buffer.write(content)
        if sys.stdout.isatty() and content and not content.endswith(b"\n"):
            sys.stdout.write("\n")


async def _result(asked: Invocation, task_id: str) -> bytes:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        task = await client.task(task_id)
        if not task.state.terminal:
            raise CliError(f"{task_id} is {task.state}: it has no result yet", f"raftctl task wait {task_id}")
        return await client.result(task)


@app.command()
def explain(
    ctx: typer.Context,
    task_id: TaskId,
    stale: Annotated[bool, typer.Option("--stale", help="Any node's own view, without a leader.")] = False,
) -> None:
    """Why a task is where it is: what it waits for, and what each node says to it."""
    run(_explain(invocation(ctx), task_id, stale=stale))


async def _explain(asked: Invocation, task_id: str, *, stale: bool) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data
    from raftctl.views import explain as view

    async with connect(asked) as client:
        found = await client.explain(task_id, stale=stale)
    output.emit(
        asked,
        data.explanation(found),
        [one.node for one in found.nodes if one.available],
        lambda: found.summary if asked.quiet else view.page(found),
    )


@app.command()
def retry(ctx: typer.Context, ids: Ids) -> None:
    """Submit ended tasks once more, each as a new task."""
    run(_retry(invocation(ctx), ids))


async def _retry(asked: Invocation, ids: list[str]) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data

    async with connect(asked) as client:
        accepted = [(task_id, await client.retry(task_id)) for task_id in ids]
    values = [data.accepted(one) | {"retry_of": task_id} for task_id, one in accepted]
    output.emit(
        asked,
        values if len(values) > 1 else values[0],
        [one.task_id for _, one in accepted],
        lambda: "\n".join(
            one.task_id if asked.quiet else f"submitted {one.task_id}: {task_id} once more"
            for task_id, one in accepted
        ),
    )


@app.command()
def purge(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Ended tasks and jobs: t17, j3.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="1h", help="All that ended longer ago than this.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Of those only the succeeded, failed or cancelled.")
    ] = None,
) -> None:
    """Forget the records of ended tasks before their time."""
    from raftctl.durations import parse_duration_ms

    if bool(ids) == (older_than is not None):
        raise UsageError("name tasks, or say --older-than", "raftctl task purge --older-than 1h")
    states = [_state(word) for text in state or () for word in text.split(",")]
    age_ms = None if older_than is None else parse_duration_ms(older_than)
    run(_purge(invocation(ctx), ids or [], age_ms, states))


async def _purge(asked: Invocation, ids: list[str], age_ms: int | None, states: list[TaskState]) -> None:
    from raftctl.sdk import connect
    from raftctl.views.times import now_ms

    count = 0
    refused: list[tuple[str, Exception]] = []
    before_ms = 0 if age_ms is None else max(1, now_ms() - age_ms)
    async with connect(asked) as client:
        while True:
            purged = await client.purge(*ids, ended_before_ms=before_ms, states=states)
            count += purged.count
            refused += purged.refused
            if ids or not purged.count:
                break
    output.emit(
        asked,
        {"purged": count, "refused": [{"id": ident, "error": str(error)} for ident, error in refused]},
        [],
        lambda: f"{count} records forgotten",
    )
    if refused:
        ident, error = refused[0]
        raise error if isinstance(error, RaftctlError) else CliError(f"{ident}: {error}")


@app.command()
def logs(
    ctx: typer.Context,
    task_id: TaskId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Which attempt; 0 for the last.")] = 0,
) -> None:
    """What a task wrote: its stdout to stdout, its stderr to stderr."""
    run(_logs(invocation(ctx), task_id, attempt, follow=follow))


async def _logs(asked: Invocation, task_id: str, attempt: int, *, follow: bool) -> None:
    from raftctl.commands._following import follow_attempt, follow_task, write_chunk
    from raftctl.sdk import connect

    truncated = superseded = 0
    async with connect(asked) as client:
        if follow and attempt:
            await follow_attempt(asked, client, task_id, attempt)
            return
        if follow:
            await follow_task(asked, client, task_id)
            return
        async for chunk in client.logs(task_id, attempt=attempt):
            write_chunk(chunk)
            truncated = truncated or chunk.truncated
            superseded = max(superseded, chunk.attempt if chunk.superseded else 0)
    if truncated:
        output.say(asked, f"the output of {task_id} reached its limit: what came after is not kept")
    if superseded:
        output.say(asked, f"attempt {superseded} was superseded: a later one has taken its place")


@app.command()
def cancel(ctx: typer.Context, ids: Ids) -> None:
    """Cancel tasks and jobs: pending tasks at once, running ones by TERM and then KILL."""
    run(cancel_all(invocation(ctx), ids))


async def cancel_all(asked: Invocation, ids: list[str]) -> None:
    """Cancels tasks and jobs; one that does not exist is told after the others were cancelled."""
    from raftctl.sdk import connect
    from raftctl.views import data

    async with connect(asked) as client:
        replies = await client.cancel(*ids)
    values = [data.cancelled(reply) for reply in replies]
    output.emit(
        asked,
        values if len(values) > 1 else values[0],
        [reply.id for reply in replies if reply.error is None],
        lambda: "\n".join(_cancelled_line(reply) for reply in replies if reply.error is None),
    )
    for reply in replies:
        if reply.error is not None:
            raise reply.error if isinstance(reply.error, RaftctlError) else CliError(str(reply.error))


def _cancelled_line(reply: Cancelled) -> str:
    if reply.id.startswith("j"):
        return f"{reply.id}: {reply.cancelled_count} tasks cancelled"
    if reply.cancelled_count:
        return f"{reply.id} {'is being stopped' if reply.state == 'running' else 'cancelled'}"
    return f"{reply.id} is {reply.state} already"
