"""``raftctl submit``: one task, or an array of them, into the queue; with ``--wait`` until it has ended.

What may live here: the options of a submission and what they come to. Options may stand before or after KIND
and ARGS; ``--`` ends them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raftctl import output
from raftctl.commands._running import only_timeout_s, run, say_goes_on
from raftctl.context import Invocation, invocation
from raftctl.durations import parse_duration_ms
from raftctl.errors import CliError, ExitCode, UsageError

if TYPE_CHECKING:
    from raftctl.client.models import Accepted, ArrayRange, Job, Submission, Task
    from raftctl.sdk import AsyncClient

app = typer.Typer(add_completion=False)

_ARRAY = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
_BACKOFF = re.compile(r"exp:([^.]+)\.\.(.+)")


@app.command()
def submit(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="noop, sleep, shell, render-tile, ...")],
    args: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", help="Its arguments; {} is the array index.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="K=V", help="Set a variable for the task; repeatable."),
    ] = None,
    stdin: Annotated[
        str | None, typer.Option("--stdin", metavar="FILE", help="The task's standard input; - for ours.")
    ] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", metavar="ID", help="However often it is submitted, it is one task.")
    ] = "",
    array: Annotated[
        str | None, typer.Option("--array", metavar="0-63", help="One task for each index, as one job.")
    ] = None,
    max_failures: Annotated[
        int, typer.Option("--max-failures", min=0, help="Cancel the rest of the job after so many. 0: never.")
    ] = 0,
    priority: Annotated[int, typer.Option("--priority", help="Higher runs first.")] = 0,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Further attempts after an error of the task itself.")
    ] = 0,
    backoff: Annotated[
        str | None, typer.Option("--backoff", metavar="exp:1s..60s", help="The pause before each retry.")
    ] = None,
    run_timeout: Annotated[
        str | None, typer.Option("--run-timeout", metavar="5m", help="Stop an attempt that runs longer.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit 5 unless it succeeds.")
    ] = False,
) -> None:
    """Put a task, or an array of them, into the queue.

    Prints what it became; with -q the id alone. An argument that begins with a dash needs -- before the
    arguments.
    """
    from raftctl.client.models import Submission
    from raftctl.client.request_ids import new_request_id

    asked = invocation(ctx)
    first_ms, max_ms = _backoff(backoff)
    submission = Submission(
        kind=kind,
        args=tuple(args or ()),
        payload=_payload(stdin),
        env=dict(_variable(text) for text in env or ()),
        name=name,
        priority=priority,
        retries=retries,
        backoff_first_ms=first_ms,
        backoff_max_ms=max_ms,
        run_timeout_ms=parse_duration_ms(run_timeout) if run_timeout else 0,
        array=_array(array, max_failures),
        request_id=request_id or new_request_id(),
    )
    if wait:
        _submit_and_wait(asked, submission)
    else:
        run(_submit(asked, submission))


async def _submit(asked: Invocation, submission: Submission) -> None:
    from raftctl.sdk import connect

    async with connect(asked) as client:
        accepted = await _acknowledged(client, submission)
    _print_accepted(asked, accepted)


async def _acknowledged(client: AsyncClient, submission: Submission) -> Accepted:
    from raftctl.client import errors

    try:
        return await client.submit(submission)
    except errors.Unavailable as error:
        again = f"again with --request-id {submission.request_id}"
        raise CliError(
            error.message, f"{error.try_}, then {again}" if error.try_ else again, error.exit_code
        ) from error


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


def _submit_and_wait(asked: Invocation, submission: Submission) -> None:
    waited = _Waited()
    try:
        run(_wait(asked, submission, waited))
    except KeyboardInterrupt:
        if waited.accepted is not None:
            say_goes_on(asked, (waited.ident,))
        raise
    finally:
        if waited.accepted is not None and asked.machine:
            _print_waited(asked, waited)
    if not waited.succeeded:
        raise typer.Exit(ExitCode.TASK_FAILED)


async def _wait(asked: Invocation, submission: Submission, waited: _Waited) -> None:
    from raftctl.sdk import connect

    timeout_s = only_timeout_s(asked)
    async with connect(asked) as client:
        waited.accepted = accepted = await _acknowledged(client, submission)
        if not asked.machine:
            _print_accepted(asked, accepted)
            sys.stdout.flush()  # the id is there whatever happens next
        if accepted.job_id:
            waited.job = await client.wait_job(accepted.job_id, timeout_s=timeout_s)
        else:
            [waited.task] = await client.wait([accepted.task_id], timeout_s=timeout_s)
        if not asked.machine and not asked.quiet:
            typer.echo(_ending(waited))


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


# --- what was typed --------------------------------------------------------------------------------------------------


def _variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--env {text!r} is not of the form K=V")
    return key, value


def _payload(path: str | None) -> bytes:
    if path is None:
        return b""
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _array(text: str | None, max_failures: int) -> ArrayRange | None:
    from raftctl.client.models import ArrayRange

    if text is None:
        if max_failures:
            raise UsageError("--max-failures is for arrays", "--array 0-63 --max-failures 3")
        return None
    match = _ARRAY.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise UsageError(f"--array {text} names no indices", "--array 0-63")
    return ArrayRange(first, last, max_failures)


def _backoff(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 0
    match = _BACKOFF.fullmatch(text)
    if match is None:
        raise UsageError(f"--backoff {text} is not understood", "--backoff exp:1s..60s")
    first_ms, max_ms = parse_duration_ms(match[1]), parse_duration_ms(match[2])
    if not 0 < first_ms <= max_ms:
        raise UsageError(f"--backoff {text} ends before it begins", "--backoff exp:1s..60s")
    return first_ms, max_ms
