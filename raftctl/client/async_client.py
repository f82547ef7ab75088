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
from raftctl.client import nodes as n
from raftctl.client.administration import Administration
from raftctl.client.caller import AsyncCaller
from raftctl.client.calls import MAX_IN_FLIGHT, PATIENCE_S, Calls
from raftctl.client.channel import Router, Stubs
from raftctl.client.futures import Future
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


class AsyncClient(AsyncCaller):
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
        self, *, from_index: int = 0, job_id: str = "", task_id: str = ""
    ) -> AsyncGenerator[m.WatchBatch, None]:
        """Every change in log order from an index on (0: from now on), through any number of leaders."""
        return self._watcher.watch(from_index, WatchFilter(job_id, task_id))

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

    # --- the membership and the leadership ----------------------------------------------------------------------------

    async def members(self, *, timeout_s: float | None = None) -> n.Membership:
        """Who belongs to the cluster: as the leader has applied it, or, where nobody leads, any node that answers.

        Raises:
            NodeUnreachable: nobody answers.
        """
        return await self._administration.members(timeout_s)

    async def add_member(
        self,
        name: str,
        store_id: str,
        address: str,
        *,
        learner: bool = False,
        replaces: str = "",
        timeout_s: float | None = None,
    ) -> int:
        """Lets the store in that ``raftd init --join`` made and that serves at `address`; the index of the entry.

        It comes as a learner, and votes as soon as it has caught up, unless it is to stay a `learner`; in that moment
        the member that it `replaces` leaves. The same call again does nothing more.

        Raises:
            Rejected: the change makes no sense now, or another one is under way.
            NodeNotFound: there is no member to be replaced.
            OutcomeUnknown: it may have been let in, or may be yet.
        """
        return await self._administration.add_member(
            name, store_id, address, learner=learner, replaces=replaces, timeout_s=timeout_s
        )

    async def promote_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """Makes a learner a voter as soon as it has caught up. Raises as `add_member`, and DeadlinePassed."""
        return await self._administration.promote_member(name, timeout_s=timeout_s)

    async def remove_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """Takes a member out of the configuration; its store never comes back. Raises as `add_member`."""
        return await self._administration.remove_member(name, timeout_s=timeout_s)

    async def transfer_leadership(self, target: str = "", *, timeout_s: float | None = None) -> n.Leadership:
        """Has a voter (empty: the one that has most of the log) lead; returns when it does.

        Raises:
            NodeNotFound, InvalidChange: it is no voter.
            TransferFailed: it did not take over; the leader goes on leading.
        """
        return await self._administration.transfer_leadership(target, timeout_s=timeout_s)

    async def take_snapshot(self, node: str, *, timeout_s: float | None = None) -> n.SnapshotTaken:
        """Has this node write a snapshot of what it has applied, and let go of the log behind it."""
        return await self._administration.take_snapshot(node, timeout_s=timeout_s)

    # --- one node -----------------------------------------------------------------------------------------------------

    async def node_info(self, node: str, *, timeout_s: float | None = None) -> n.NodeInfo:
        """What this node (name or address) says about itself. Needs no leader.

        Raises:
            NodeNotFound: no node has this name.
            NodeUnreachable: it does not answer.
        """
        return await self._administration.node_info(node, timeout_s)

    async def node_infos(self, *, timeout_s: float = overview.NODE_ANSWERS_S) -> dict[str, n.NodeInfo]:
        """The same of every node that answers, by name."""
        return (await overview.node_infos(self._router, timeout_s))[0]

    async def everybody(
        self, *, timeout_s: float = overview.NODE_ANSWERS_S
    ) -> tuple[dict[str, n.NodeInfo], tuple[str, ...]]:
        """The same, members that were not known before included, and the names of those that do not answer.

        Raises:
            NodeUnreachable: nobody answers.
        """
        return await self._administration.everybody(timeout_s)

    async def faults(self, node: str, *, timeout_s: float | None = None) -> n.Faults:
        """Which cuts this node acts on."""
        return await self._administration.faults(node, timeout_s)

    async def set_faults(
        self,
        node: str,
        *,
        add: Iterable[n.Cut] = (),
        remove: Iterable[n.Cut] = (),
        heal: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[n.Cut, ...]:
        """Changes which cuts this node acts on (`heal` first removes all); returns those that are now in force.

        Raises:
            FaultInjectionOff: it was started without fault injection.
        """
        return await self._administration.set_faults(node, add, remove, heal=heal, timeout_s=timeout_s)


def _identified(submission: m.Submission) -> m.Submission:
    return submission if submission.request_id else replace(submission, request_id=new_request_id())
