"""`AsyncClient`: everything that can be asked of a cluster, as coroutines.

What may live here: one method per question, each a translation and a call. How a node is found is `channel`;
streams are `watching` and `transfer`; asking every node is `overview`; the operator's part is `administration`.
`sync_client.Client` is the same for callers without a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from grpc import aio

from raftctl.client import errors, overview, wire
from raftctl.client import models as m
from raftctl.client.administration import Administration
from raftctl.client.caller import AsyncCaller
from raftctl.client.calls import MAX_IN_FLIGHT, PATIENCE_S, Calls
from raftctl.client.channel import Router, Stubs
from raftctl.client.explanations import Explanation, Purged
from raftctl.client.futures import Future
from raftctl.client.operator_calls import OperatorCalls
from raftctl.client.overview import ClusterView
from raftctl.client.request_ids import new_request_id
from raftctl.client.submitter import Submitter
from raftctl.client.transfer import Transfers
from raftctl.client.watching import Watcher, WatchFilter
from raftctl.endpoints import Endpoints
from raftd.pb import scheduler_pb2 as pb

Req = TypeVar("Req")
Res = TypeVar("Res")

DEFAULT_TIMEOUT_S = 10.0
PAGE_COUNT = 500
READS_AT_ONCE = 16


class AsyncClient(AsyncCaller, OperatorCalls):
    """A cluster, seen from outside. Use it as ``async with AsyncClient(...) as client``.

    Every call finds the leader by itself, is repeated until `timeout_s` has passed when it may still succeed,
    and raises a `raftctl.client.errors.ClientError` otherwise.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """Knows a cluster; connects when it is first asked.

        Args:
            timeout_s: how long one question is repeated before it fails.
            patience_s: how long nobody may answer before the futures of calls are given up.
            max_in_flight: how many calls may be in the cluster at a time; further ones wait in this process.
        """
        super().__init__(Calls(self, max_in_flight=max_in_flight, patience_s=patience_s))
        self._router = Router(endpoints)
        self._timeout_s = timeout_s
        self.cluster = endpoints.cluster  # its name; empty when only addresses are known
        self._watcher = Watcher(self._router, self._current_status)
        self._transfers = Transfers(self._router)
        self._administration = Administration(self._router, timeout_s)
        self._submitter = Submitter(self.submit_many)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; futures that have not ended fail, their tasks go on."""
        await self._calls.close()
        await self._submitter.close()
        await self._router.close()

    async def _call(
        self,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float | None = None,
    ) -> Res:
        try:
            return await self._router.call(pick, request, self._timeout_s if timeout_s is None else timeout_s)
        except errors.Unavailable as failure:
            raise await overview.explain(self._router, failure) from failure

    # --- write --------------------------------------------------------------------------------------------------------

    async def submit(self, submission: m.Submission) -> m.Accepted:
        """Puts one task, or one array of tasks, into the queue; concurrent submissions share one call.

        Raises:
            InvalidRequest, Rejected: it was refused. Unavailable: it was not acknowledged in time. It may
            still be accepted: only the same `request_id` is safe
                to submit again.
        """
        return await self._submitter.submit(_identified(submission))

    async def submit_many(
        self, submissions: Sequence[m.Submission], timeout_s: float | None = None
    ) -> list[m.Accepted | Exception]:
        """Puts a batch into the queue, each item for itself: one's refusal is its place in the answer, not raised."""
        request = pb.SubmitRequest(
            submissions=[wire.submission_to_wire(_identified(one)) for one in submissions]
        )
        answer = await self._call(lambda s: s.scheduler.Submit, request, timeout_s)
        return [wire.accepted(reply) for reply in answer.replies]

    async def submit_graph(self, graph: m.Graph, *, timeout_s: float | None = None) -> m.Accepted:
        """Puts tasks that wait for each other into the queue, as one job, whole or not at all. Raises as `submit`."""
        if not graph.request_id:
            graph = replace(graph, request_id=new_request_id())
        request = pb.SubmitGraphRequest(graph=wire.graph_to_wire(graph))
        return _raised((await self._call(lambda s: s.scheduler.SubmitGraph, request, timeout_s)).reply)

    async def retry(self, task_id: str, *, request_id: str = "") -> m.Accepted:
        """Puts once more into the queue what an ended task was, as a new task.

        Raises:
            TaskNotFound: there is none, or none any more. Rejected: it has not ended. As `submit` otherwise.
        """
        item = pb.RetryItem(task_id=task_id, request_id=request_id or new_request_id())
        answer = await self._call(lambda s: s.scheduler.Retry, pb.RetryRequest(items=[item]))
        return _raised(answer.replies[0])

    async def purge(self, *ids: str, ended_before_ms: int = 0, states: Iterable[m.TaskState] = ()) -> Purged:
        """Forgets ended tasks and jobs before their time: those that are named, or those that ended before a time,
        a few thousand of them in one call."""
        request = pb.PurgeRequest(
            ids=ids,
            ended_before_ms=ended_before_ms,
            states=[wire.state_to_wire(state) for state in states],
        )
        return wire.purged(await self._call(lambda s: s.scheduler.Purge, request))

    async def cancel(self, *work: str | Future[Any]) -> list[m.Cancelled]:
        """Cancels tasks, jobs and calls: pending ones at once, running ones by TERM and then KILL."""
        ids = [one if isinstance(one, str) else one.task_id for one in work]
        unsent = {id(one): one.cancel() for one in work if not isinstance(one, str) and one.task_id is None}
        request = pb.CancelRequest(ids=[one for one in ids if one is not None])
        replies = iter(
            (await self._call(lambda s: s.scheduler.Cancel, request)).replies if request.ids else ()
        )
        return [
            m.Cancelled("", m.TaskState.CANCELLED, int(unsent[id(one)]), None)
            if id(one) in unsent
            else wire.cancelled(next(replies))
            for one in work
        ]

    # --- read ---------------------------------------------------------------------------------------------------------

    async def task(self, task_id: str, *, stale: bool = False) -> m.Task:
        """One task with its attempts.

        Raises:
            TaskNotFound: there is none, or none any more.
        """
        return (await self._task_at(task_id, stale=stale))[0]

    async def _task_at(self, task_id: str, *, stale: bool = False) -> tuple[m.Task, int]:
        request = pb.GetRequest(task_id=task_id, options=pb.ReadOptions(stale=stale))
        answer = await self._call(lambda s: s.scheduler.Get, request)
        return wire.task(answer.task), answer.read.applied_index

    async def _tasks_at(self, job_id: str, task_ids: Sequence[str]) -> tuple[list[m.Task], int]:
        """Many tasks, of one job if it is given, and an index that none of the answers is older than."""
        if job_id:
            pages = self._pages([], job_id, None, stale=False)
            answers = [(tasks, index) async for tasks, index in pages]
            return [task for tasks, _ in answers for task in tasks], min(index for _, index in answers)
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def one(task_id: str) -> tuple[m.Task, int]:
            async with limit:
                return await self._task_at(task_id)

        found = await asyncio.gather(*(one(task_id) for task_id in task_ids))
        return [task for task, _ in found], min((index for _, index in found), default=0)

    async def job(self, job_id: str, *, stale: bool = False) -> m.Job:
        """One job.

        Raises:
            JobNotFound: there is none, or none any more.
        """
        return (await self._job_at(job_id, stale=stale))[0]

    async def _job_at(self, job_id: str, *, stale: bool = False) -> tuple[m.Job, int]:
        request = pb.GetJobRequest(job_id=job_id, options=pb.ReadOptions(stale=stale))
        answer = await self._call(lambda s: s.scheduler.GetJob, request)
        return wire.job(answer.job), answer.read.applied_index

    async def jobs(
        self, *, unfinished: bool = False, limit: int | None = None, stale: bool = False
    ) -> AsyncGenerator[m.Job, None]:
        """Jobs, page by page as they are consumed; `unfinished`: those of which something is pending or running."""
        left, token = limit, ""
        while left is None or left > 0:
            request = pb.ListJobsRequest(
                unfinished=unfinished,
                page_size=PAGE_COUNT if left is None else min(left, PAGE_COUNT),
                page_token=token,
                options=pb.ReadOptions(stale=stale),
            )
            answer = await self._call(lambda s: s.scheduler.ListJobs, request)
            for message in answer.jobs:
                yield wire.job(message)
            left = None if left is None else left - len(answer.jobs)
            token = answer.next_page_token
            if not token:
                return

    async def explain(self, task_id: str, *, stale: bool = False) -> Explanation:
        """Why a task is where it is: what it waits for, and what each node says to it.

        Raises:
            TaskNotFound: there is none, or none any more.
        """
        request = pb.ExplainRequest(task_id=task_id, options=pb.ReadOptions(stale=stale))
        return wire.explanation(await self._call(lambda s: s.scheduler.Explain, request))

    async def tasks(
        self,
        *,
        states: Iterable[m.TaskState] = (),
        job_id: str = "",
        limit: int | None = None,
        stale: bool = False,
    ) -> AsyncGenerator[m.Task, None]:
        """Tasks, page by page as they are consumed; `limit` of them at most."""
        pages = self._pages(states, job_id, limit, stale=stale)
        async with aclosing(pages):
            async for tasks, _ in pages:
                for task in tasks:
                    yield task

    async def _pages(
        self, states: Iterable[m.TaskState], job_id: str, limit: int | None, *, stale: bool
    ) -> AsyncGenerator[tuple[list[m.Task], int], None]:
        left = limit
        token = ""
        wanted = [wire.state_to_wire(state) for state in states]
        while left is None or left > 0:
            request = pb.ListRequest(
                states=wanted,
                job_id=job_id,
                page_size=PAGE_COUNT if left is None else min(left, PAGE_COUNT),
                page_token=token,
                options=pb.ReadOptions(stale=stale),
            )
            answer = await self._call(lambda s: s.scheduler.List, request)
            yield [wire.task(message) for message in answer.tasks], answer.read.applied_index
            left = None if left is None else left - len(answer.tasks)
            token = answer.next_page_token
            if not token:
                return

    async def status(self, *, stale: bool = False, recent_count: int = 10) -> m.Status:
        """The whole picture, linearizable unless `stale`."""
        request = pb.StatusRequest(options=pb.ReadOptions(stale=stale), recent_count=recent_count)
        return wire.status(await self._call(lambda s: s.scheduler.Status, request))

    async def _current_status(self) -> m.Status:
        """For the watcher: quick, and without a diagnosis when it fails."""
        answer = await self._router.call(lambda s: s.scheduler.Status, pb.StatusRequest(), self._timeout_s)
        status = wire.status(answer)
        for row in status.nodes:
            self._router.learn(row.name, row.address)
        return status

    async def cluster_view(
        self, *, timeout_s: float | None = None, recent_count: int = 10, stale: bool = False
    ) -> ClusterView:
        """The cluster as far as it answers, every node asked: see `raftctl.client.overview`."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        return await overview.view_cluster(self._router, limit_s, recent_count, stale=stale)

    # --- follow -------------------------------------------------------------------------------------------------------

    def watch(
        self, *, from_index: int = 0, to_index: int = 0, job_id: str = "", task_id: str = ""
    ) -> AsyncGenerator[m.WatchBatch, None]:
        """Every change in log order from an index on (0: from now on), through any number of leaders.

        Args:
            to_index: the watch ends with the changes of this entry, which must be committed; 0: it does not end.
        """
        return self._watcher.watch(from_index, WatchFilter(job_id, task_id, to_index))

    async def wait(
        self,
        task_ids: Iterable[str],
        *,
        job_id: str = "",
        timeout_s: float | None = None,
        on_ended: Callable[[m.Task], None] | None = None,
        on_interruption: Callable[[str], None] | None = None,
    ) -> list[m.Task]:
        """Waits until every task is in a terminal state; returns them in the order they were asked for.

        Args:
            job_id: the job that all of them belong to, if they do: the cluster then tells only of that.
            on_ended: told of each task as it ends.
            on_interruption: told when the node that was watched is lost; another is found by itself.

        Raises:
            WaitTimedOut: not within `timeout_s`; the tasks go on.
            TaskNotFound: one of them does not exist.
        """
        ids = tuple(task_ids)
        about = WatchFilter(job_id=job_id, task_id=ids[0] if len(ids) == 1 else "")
        read = partial(self._tasks_at, job_id)
        try:
            async with asyncio.timeout(timeout_s):
                ended = await self._watcher.wait_tasks(ids, about, read, on_ended, on_interruption)
        except TimeoutError:
            what = ids[0] if len(ids) == 1 else f"{len(ids)} tasks"
            raise errors.WaitTimedOut(
                f"{what} did not end within {timeout_s:g} s", f"raftctl task wait {ids[0]}"
            ) from None
        return [ended[task_id] for task_id in ids]

    async def wait_job(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[m.Job], None] | None = None,
    ) -> m.Job:
        """Waits until every task of a job is in a terminal state.

        Raises:
            WaitTimedOut: not within `timeout_s`; the job goes on.
            JobNotFound: it does not exist.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._watcher.wait_job(job_id, lambda: self._job_at(job_id), on_progress)
        except TimeoutError:
            raise errors.WaitTimedOut(
                f"{job_id} did not end within {timeout_s:g} s", f"raftctl job wait {job_id}"
            ) from None

    async def result(self, task: m.Task | str, *, timeout_s: float | None = None) -> bytes:
        """The bytes of a task's result, inline or from the blob store; waits for the task to end.

        Raises:
            TaskFailed: it failed or was cancelled; the message says why.
            WaitTimedOut, BlobNotFound, BlobDamaged: there is no result to be had.
        """
        found = await self.task(task) if isinstance(task, str) else task
        if not found.state.terminal:
            [found] = await self.wait([found.task_id], timeout_s=timeout_s)
        if found.state is not m.TaskState.SUCCEEDED:
            because = f": {found.reason}" if found.reason else ""
            raise errors.TaskFailed(
                f"{found.task_id} {found.state}{because}", f"raftctl logs {found.task_id}"
            )
        if found.result is None:
            return b""
        if found.result.blob is not None:
            return await self.blob_get(found.result.blob.digest)
        return found.result.inline or b""

    def logs(
        self, task_id: str, *, attempt: int = 0, follow: bool = False
    ) -> AsyncGenerator[m.LogChunk, None]:
        """What an attempt (0: the last) wrote to stdout and stderr."""
        return self._transfers.logs(task_id, attempt, follow=follow)

    # --- blobs --------------------------------------------------------------------------------------------------------

    async def blob_get(self, digest: str, *, timeout_s: float | None = None) -> bytes:
        """The bytes that have this SHA-256, proved."""
        return await self._transfers.get(digest, self._timeout_s if timeout_s is None else timeout_s)

    async def blob_put(self, data: bytes, *, replicas: int = 0) -> m.BlobRef:
        """Stores bytes on so many nodes (0: a majority of the voters)."""
        return await self._transfers.put(data, replicas, self._timeout_s)

    async def blob_stat(self, digest: str) -> m.BlobStat:
        """Where a blob is."""
        return await self._transfers.stat(digest, self._timeout_s)


def _identified(submission: m.Submission) -> m.Submission:
    return submission if submission.request_id else replace(submission, request_id=new_request_id())


def _raised(reply: pb.SubmitReply) -> m.Accepted:
    answer = wire.accepted(reply)
    if isinstance(answer, Exception):
        raise answer
    return answer
