"""Following what a task writes, attempt after attempt, until it has ended.

What may live here: joining the stream of changes with the output of each attempt. Talk about what happens to the task
goes to stderr, what it writes to where it wrote it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing

from raftctl import output
from raftctl.client import errors
from raftctl.client.models import AttemptOutcome, LogChunk, OutputStream, Task
from raftctl.client.transfer import Seen
from raftctl.context import Invocation
from raftctl.sdk import AsyncClient

_PAUSE_S = 0.2


def write_chunk(chunk: LogChunk) -> None:
    """Some output, to the stream that it was written to."""
    stream = sys.stderr if chunk.stream is OutputStream.STDERR else sys.stdout
    stream.buffer.write(chunk.data)
    stream.buffer.flush()


async def follow_task(asked: Invocation, client: AsyncClient, task_id: str) -> Task:
    """Shows the output of every attempt as it comes; returns the task when it has ended."""
    shown = 0
    while True:
        task = await _begun(asked, client, task_id, shown)
        attempt = next((one for one in task.attempts if one.number > shown and not one.reserved), None)
        if attempt is None:
            return task
        if shown:
            output.say(asked, f"{task_id}: attempt {attempt.number} on {attempt.node}")
        shown = attempt.number
        await follow_attempt(asked, client, task_id, attempt.number)
        if (outcome := await _outcome(client, task_id, shown)) is not AttemptOutcome.SUCCEEDED:
            output.say(asked, f"{task_id}: attempt {shown} {outcome}")


async def follow_attempt(asked: Invocation, client: AsyncClient, task_id: str, number: int) -> None:
    """Shows the output of one attempt until it has ended, through any number of lost streams."""
    seen, told = Seen(), ""
    while True:
        why = ""
        try:
            seen.again()
            async with aclosing(client.logs(task_id, attempt=number, follow=True)) as chunks:
                async for chunk in chunks:
                    if (fresh := seen.fresh(chunk)) is not None:
                        write_chunk(fresh)
                    if chunk.truncated:
                        limit = f"the {chunk.stream} of {task_id} reached its limit: the rest is not kept"
                        output.say(asked, limit)
        except errors.LogsGone as error:
            why = error.message  # or its slot has not begun with it yet, though it is in the record
        except errors.Unavailable as error:
            why = error.message
            if why != told:
                told = why
                output.say(asked, f"{told}: trying again")
        if await _outcome(client, task_id, number) is not AttemptOutcome.RUNNING:
            if why:
                output.say(asked, f"the rest of its output cannot be read: {why}")
            return
        await asyncio.sleep(_PAUSE_S)


async def _begun(asked: Invocation, client: AsyncClient, task_id: str, shown: int) -> Task:
    """The task once it has an attempt after the one that was shown, or has ended."""

    def begun(task: Task) -> bool:
        return task.state.terminal or any(one.number > shown and not one.reserved for one in task.attempts)

    task = await client.task(task_id)
    if begun(task):
        return task
    output.say(asked, f"{task_id} waits for a slot: raftctl task explain {task_id}")
    return await _until(client, task, begun)


async def _outcome(client: AsyncClient, task_id: str, number: int) -> AttemptOutcome:
    task = await client.task(task_id)
    found = next((one for one in task.attempts if one.number == number), None)
    return AttemptOutcome.LOST if found is None else found.outcome


async def _until(client: AsyncClient, task: Task, holds: Callable[[Task], bool]) -> Task:
    """The task as soon as this holds of it, told by the stream of changes."""
    changes = client.watch(from_index=task.changed_index + 1, task_id=task.task_id)
    async with aclosing(changes) as batches:
        async for batch in batches:
            seen = [change.task for change in batch.changes if change.task is not None]
            if batch.gap:
                seen.append(await client.task(task.task_id))
            if (found := next(filter(holds, seen), None)) is not None:
                return found
    return task
