"""Following the cluster: a watch that outlives its node, and waiting for tasks and jobs on top of it.

What may live here: the loop that takes a broken stream up again where it stopped, at the leader of the day. A
node that is cut off or paused ends no stream, it falls silent; so after some silence the cluster is asked who
leads, and a watch that hangs on somebody else moves there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from grpc import StatusCode, aio

from raftctl.client import errors, wire
from raftctl.client.channel import Router
from raftctl.client.models import Job, Status, Task, WatchBatch
from raftd.pb import scheduler_pb2 as pb

T = TypeVar("T")

SILENCE_S = 2.0  # after so long without a word, see whether the watched node still leads
RECONNECT_PAUSE_S = 0.2
JOB_POLL_S = 0.2  # a job of many tasks changes faster than anyone needs to count


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """What a watch is about; empty fields ask for everything."""

    job_id: str = ""
    task_id: str = ""
    to_index: int = 0
    """0: for ever; else the watch ends with the changes of this entry."""


class _WatchOver(Exception):
    """A watch with an end has come to it."""


class Watcher:
    """Opens watches. `read_status` asks the cluster, linearizably, and may raise `Unavailable`."""

    def __init__(self, router: Router, read_status: Callable[[], Awaitable[Status]]) -> None:
        self._router = router
        self._read_status = read_status

    async def watch(self, from_index: int, about: WatchFilter) -> AsyncGenerator[WatchBatch, None]:
        """Batches of changes from `from_index` on (0: from now on), for ever; interruptions are told, not raised.

        Raises:
            ClientError: what no other node would answer differently.
        """
        next_index = from_index
        told = False  # one interruption is told once, however many attempts it takes to end it
        while True:
            try:
                if next_index == 0:
                    next_index = (await self._read_status()).read.applied_index + 1
                address = self._router.order()[0]
                await self._router.reach(address, SILENCE_S)
                async with contextlib.aclosing(self._stream(address, next_index, about)) as batches:
                    async for batch in batches:
                        next_index = max(next_index, batch.next_index)
                        told = False
                        yield replace(batch, next_index=next_index)
                continue  # moved to another node: nothing was lost
            except _WatchOver:
                return
            except errors.Unavailable as error:
                why = error.message
            if not told:
                told = True
                yield WatchBatch(changes=(), next_index=next_index, interruption=why)
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _stream(
        self, address: str, next_index: int, about: WatchFilter
    ) -> AsyncGenerator[WatchBatch, None]:
        """One stream from one node; ends when another node leads."""
        request = pb.WatchRequest(
            from_index=next_index, to_index=about.to_index, job_id=about.job_id, task_id=about.task_id
        )
        call = self._router.stubs(address).scheduler.Watch(request, metadata=self._router.metadata)
        reading: asyncio.Future[Any] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(call.read())
                done, _ = await asyncio.wait({reading}, timeout=SILENCE_S)
                if not done:
                    if await self._leads_elsewhere(address):
                        return
                    continue
                response = reading.result()
                reading = None
                if not isinstance(response, pb.WatchResponse):
                    if about.to_index and await call.code() is StatusCode.OK:
                        raise _WatchOver
                    raise errors.NodeUnreachable(f"{self._router.name_of(address)} ended the stream")
                yield wire.watch_batch(response)
        except aio.AioRpcError as error:
            raise self._router.note_failure(address, error) from error
        finally:
            call.cancel()
            if reading is not None:
                with contextlib.suppress(aio.AioRpcError, asyncio.CancelledError):
                    await reading

    async def _leads_elsewhere(self, address: str) -> bool:
        try:
            status = await self._read_status()
        except errors.Unavailable:
            return False  # nobody leads: there is nowhere to go
        leader = self._router.address_of(status.leader) if status.leader else None
        if leader is None or leader == address:
            return False
        self._router.lead_by(status.leader or "", leader)
        return True

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def wait_tasks(
        self,
        task_ids: Iterable[str],
        about: WatchFilter,
        read_tasks: Callable[[Sequence[str]], Awaitable[tuple[list[Task], int]]],
        on_ended: Callable[[Task], None] | None = None,
        on_interruption: Callable[[str], None] | None = None,
    ) -> dict[str, Task]:
        """Returns when every task is in a terminal state; never, if need be: the caller sets the deadline.

        Args:
            about: a filter that lets every change of these tasks pass.
            read_tasks: the tasks, and an index that their answers are not older than.
            on_ended: told of each task as it ends.
            on_interruption: told when the watch lost its node.
        """
        open_ids = set(task_ids)
        ended: dict[str, Task] = {}

        def end(task: Task) -> None:
            if task.state.terminal and task.task_id in open_ids:
                open_ids.discard(task.task_id)
                ended[task.task_id] = task
                if on_ended is not None:
                    on_ended(task)

        async def read_all() -> int:
            tasks, index = await _until_answered(lambda: read_tasks(sorted(open_ids)))
            for task in tasks:
                end(task)
            return index

        index = await read_all()
        if not open_ids:
            return ended
        async with contextlib.aclosing(self.watch(index + 1, about)) as batches:
            async for batch in batches:
                if batch.interruption is not None and on_interruption is not None:
                    on_interruption(batch.interruption)
                for change in batch.changes:
                    if change.task is not None:
                        end(change.task)
                if batch.gap:
                    await read_all()
                if not open_ids:
                    break
        return ended

    async def wait_job(
        self,
        job_id: str,
        read_job: Callable[[], Awaitable[tuple[Job, int]]],
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Returns when every task of the job is in a terminal state."""
        job, index = await _until_answered(read_job)
        loop = asyncio.get_running_loop()
        if on_progress is not None:
            on_progress(job)
        if job.ended == job.total:
            return job
        async with contextlib.aclosing(self.watch(index + 1, WatchFilter(job_id=job_id))) as batches:
            counted_at = loop.time()
            ended = job.ended
            async for batch in batches:
                ended += sum(
                    1 for change in batch.changes if change.task is not None and change.task.state.terminal
                )
                if batch.gap or ended >= job.total or loop.time() - counted_at >= JOB_POLL_S:
                    job, _ = await _until_answered(read_job)
                    counted_at, ended = loop.time(), job.ended
                    if on_progress is not None:
                        on_progress(job)
                    if job.ended == job.total:
                        break
        return job


async def _until_answered(read: Callable[[], Awaitable[tuple[T, int]]]) -> tuple[T, int]:
    """Reads again for as long as nobody answers: each read takes its own time before it gives up."""
    while True:
        with contextlib.suppress(errors.Unavailable):
            return await read()
