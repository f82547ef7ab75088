"""Rendering one frame on a cluster: submit the tiles, fetch them as they come, put them together.

What may live here: the course of one rendering, and what a person sees of it meanwhile. Nothing is lost when
the leader goes: the job is in the cluster, and waiting for it finds another node by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from raftctl import output
from raftctl.client.errors import ClientError, TaskFailed, Unavailable
from raftctl.client.models import ArrayRange, Submission, Task, TaskState
from raftctl.client.request_ids import new_request_id
from raftctl.context import Invocation
from raftctl.durations import format_duration
from raftctl.errors import CliError, ExitCode
from raftctl.render.picture import write_picture
from raftctl.render.tiles import Tile, TileError, assemble, read_tile
from raftctl.render.unroll import KIND, FrameOptions
from raftctl.sdk import AsyncClient, connect

FETCHES_AT_ONCE = 4
FETCH_TIMEOUT_S = 120.0
LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Rendering:
    """One frame on its way.

    Invariants: `job_id` is empty until the cluster has acknowledged the job; `tiles` holds only tiles whose
    bytes have the digest that the cluster recorded.
    """

    frame: FrameOptions
    file: Path
    request_id: str
    priority: int
    job_id: str = ""
    tiles: dict[int, Tile] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def ending(self, summary: dict[str, Any]) -> str:
        """What to say when it is done."""
        again = summary["rendered_again"]
        return (
            f"{self.file}: {summary['width']}x{summary['height']}, {summary['tiles']} tiles in "
            f"{format_duration(summary['elapsed_ms'])} on {len(summary['nodes'])} nodes"
            + (f"; {again} tiles were rendered again after a node was lost" if again else "")
        )


async def render_frame(asked: Invocation, rendering: Rendering, bundle: bytes | None) -> dict[str, Any]:
    """Renders, writes the file, and returns the summary.

    Raises:
        TaskFailed: a tile could not be rendered; the rest was cancelled.
        ClientError: the cluster did not take it, or did not answer.
    """
    async with connect(asked) as client:
        if bundle is not None:
            blob = await client.blob_put(bundle)
            rendering.frame = replace(rendering.frame, scene=f"blob:{blob.digest}")
        task_ids = await _submit(asked, client, rendering)
        with ExitStack() as stack:
            shown = _Shown(asked, rendering, stack)
            looking = asyncio.create_task(_look(client, shown))
            try:
                await _collect(client, rendering, task_ids, shown)
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
    return await asyncio.to_thread(_write, rendering)


async def _submit(asked: Invocation, client: AsyncClient, rendering: Rendering) -> tuple[str, ...]:
    rendering.request_id = rendering.request_id or new_request_id()
    submission = Submission(
        kind=KIND,
        args=tuple(rendering.frame.array_args()),
        name="",
        priority=rendering.priority,
        array=ArrayRange(0, rendering.frame.tile_count - 1),
        request_id=rendering.request_id,
    )
    try:
        accepted = await client.submit(submission)
    except Unavailable as error:
        again = f"again with --request-id {rendering.request_id}"
        raise CliError(
            error.message, f"{error.try_}, then {again}" if error.try_ else again, error.exit_code
        ) from error
    rendering.job_id = accepted.job_id
    taken_up = ", taken up again" if accepted.duplicate else ""
    output.say(
        asked,
        f"{accepted.job_id}{taken_up}: {len(accepted.task_ids)} tiles, request id {rendering.request_id}",
    )
    return accepted.task_ids


async def _collect(
    client: AsyncClient, rendering: Rendering, task_ids: tuple[str, ...], shown: _Shown
) -> None:
    """Fetches every tile as soon as it is there; stops at the first that failed."""
    limit = asyncio.Semaphore(FETCHES_AT_ONCE)
    numbers = {task_id: number for number, task_id in enumerate(task_ids)}

    async def fetch(task: Task) -> None:
        async with limit:
            assert task.result is not None
            if task.result.blob is None:
                data = task.result.inline or b""
            else:
                data = await client.blob_get(task.result.blob.digest, timeout_s=FETCH_TIMEOUT_S)
        try:
            rendering.tiles[numbers[task.task_id]] = read_tile(data)
        except TileError as error:
            raise CliError(f"the result of {task.task_id} is no tile: {error}") from None
        shown.tile_done()

    async def wait(group: asyncio.TaskGroup) -> None:
        def ended(task: Task) -> None:
            rendering.tasks.append(task)
            if task.state is not TaskState.SUCCEEDED or task.result is None:
                raise _tile_failed(task, numbers[task.task_id])
            group.create_task(fetch(task))

        await client.wait(task_ids, job_id=rendering.job_id, on_ended=ended, on_interruption=shown.note)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(group))
    except* (ClientError, CliError) as failures:
        first = failures.exceptions[0]
        if isinstance(first, TaskFailed):
            await _cancel_rest(client, rendering)
        raise first from None


def _tile_failed(task: Task, number: int) -> TaskFailed:
    because = f": {task.reason}" if task.reason else ""
    return TaskFailed(f"tile {number} ({task.task_id}) {task.state}{because}", f"raftctl logs {task.task_id}")


async def _cancel_rest(client: AsyncClient, rendering: Rendering) -> None:
    try:
        await client.cancel(rendering.job_id)
    except Unavailable as error:
        raise CliError(
            f"a tile failed, and the rest could not be cancelled: {error.message}",
            f"raftctl job cancel {rendering.job_id}",
            ExitCode.TASK_FAILED,
        ) from error


def _write(rendering: Rendering) -> dict[str, Any]:
    tiles = [rendering.tiles[number] for number in sorted(rendering.tiles)]
    picture = assemble(tiles)
    write_picture(picture, rendering.file)
    nodes = Counter(task.attempts[-1].node for task in rendering.tasks if task.attempts)
    return {
        "output": str(rendering.file),
        "sha256": hashlib.sha256(rendering.file.read_bytes()).hexdigest(),
        "job_id": rendering.job_id,
        "request_id": rendering.request_id,
        "width": picture.width,
        "height": picture.height,
        "tiles": len(tiles),
        "elapsed_ms": round((time.monotonic() - rendering.began_s) * 1000),
        "rendered_again": sum(1 for task in rendering.tasks if len(task.attempts) > 1),
        "nodes": dict(sorted(nodes.items())),
    }


# --- what a person sees meanwhile ------------------------------------------------------------------------------------


class _Shown:
    """A progress bar on a terminal; a line for every tenth of the way and every new leader elsewhere. All on stderr."""

    def __init__(self, asked: Invocation, rendering: Rendering, stack: ExitStack) -> None:
        self._asked = asked
        self._total = rendering.frame.tile_count
        self._done = 0
        self._leader: str | None = None
        self._progress: Progress | None = None
        if sys.stderr.isatty() and not asked.quiet:
            self._progress = Progress(
                TextColumn("[bold]{task.fields[job]}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[doing]}"),
                console=output.console(stderr=True),
            )
            self._bar = self._progress.add_task("tiles", total=self._total, job=rendering.job_id, doing="")
            stack.enter_context(self._progress)

    def tile_done(self) -> None:
        """One more tile is here."""
        before = self._done * 10 // self._total
        self._done += 1
        if self._progress is not None:
            self._progress.update(self._bar, completed=self._done)
        elif self._done * 10 // self._total > before:
            self.note(f"{self._done} of {self._total} tiles")

    def looked(self, leader: str | None, nodes: list[str]) -> None:
        """Who leads, and who renders."""
        if leader is not None and leader != self._leader:
            if self._leader is not None:
                self.note(f"{leader} leads after {self._leader}")
            self._leader = leader
        if self._progress is not None:
            busy = f"{' '.join(nodes)} " if nodes else ""
            self._progress.update(self._bar, doing=f"{busy}(leader {leader or 'none'})")

    def note(self, text: str) -> None:
        """Says something above the bar, or as a line."""
        if self._progress is not None:
            self._progress.console.print(text, style="yellow")
        else:
            output.say(self._asked, text)


async def _look(client: AsyncClient, shown: _Shown) -> None:
    """Tells who leads and who renders, for as long as it is not cancelled."""
    while True:
        try:
            status = await client.status(recent_count=0)
        except Unavailable:
            shown.looked(None, [])
        else:
            shown.looked(status.leader, sorted({row.node for row in status.executing}))
        await asyncio.sleep(LOOK_EVERY_S)
