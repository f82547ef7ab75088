"""The Scheduler service: what clients ask, and the stream of each executor.

What may live here: turning requests into commands and reads, and answers into messages. A follower forwards calls
that need the leader; reads of tasks and jobs it answers itself, once the leader has confirmed an index; Watch and stale
reads are answered by whoever is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message

from raftd.codec.api import (
    decode_purge,
    decode_states,
    encode_job,
    encode_page,
    encode_purge_reply,
    encode_refusal,
    encode_state,
    encode_task,
)
from raftd.codec.attach import decode_up, encode_down, parse_id
from raftd.errors import InvalidRequest, JobNotFound, TaskNotFound, Unavailable
from raftd.node.clock import Clock
from raftd.node.history import History
from raftd.node.node import Node
from raftd.node.sessions import Sessions
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerServicer
from raftd.scheduler import commands, queries
from raftd.scheduler.attach import AttachDown, AttachUp
from raftd.scheduler.model import Task
from raftd.scheduler.replies import Cancelled, Refused, Reply
from raftd.scheduler.state import State
from raftd.services.cluster_view import ClusterView
from raftd.services.forwarding import Forwarder
from raftd.services.logs import LogsReader
from raftd.services.status import Context, remaining_s, served
from raftd.services.submissions import SERVICE, ArgumentCheck, Submissions
from raftd.services.watching import wanted, watch_responses
from raftd.transport.base import caller_identity
from raftd.transport.faults import FaultTable
from raftd.transport.guard import StreamGuard

DEFAULT_PAGE = 100
MAX_PAGE = 1000
PAGE_BYTES = 2 * 1024 * 1024
"""A page ends with the task that reaches this, so that it fits in a message however large the tasks are."""
MAX_RECENT = 100
WATCH_PAGE = 500
MAX_CANCELS = 10_000

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class SchedulerService(SchedulerServicer):
    """Serves clients and executors on one node.

    Args:
        node: the loop.
        state: the applied state.
        sessions: the leader's end of the Attach streams.
        history: the latest changes.
        view: puts Status together.
        forwarder: takes what needs the leader to it.
        logs: captured output, here or on other nodes.
        check: see ``Submissions``.
        faults: injected cuts, for the Attach streams.
        clock: time.
        members_name: the name of a store id, or empty.
    """

    def __init__(
        self,
        *,
        node: Node,
        state: Callable[[], State],
        sessions: Sessions,
        history: History,
        view: ClusterView,
        forwarder: Forwarder,
        logs: LogsReader,
        check: ArgumentCheck,
        faults: FaultTable,
        clock: Clock,
        leader_name: Callable[[], str],
    ) -> None:
        self._node = node
        self._state = state
        self._sessions = sessions
        self._history = history
        self._view = view
        self._forwarder = forwarder
        self._logs = logs
        self._submissions = Submissions(node, state, forwarder, check, clock)
        self._faults = faults
        self._clock = clock
        self._leader_name = leader_name

    # --- writes -------------------------------------------------------------------------------------------------

    @served
    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Accept a batch of submissions; see scheduler.proto."""
        return await self._submissions.submit(request, context)

    @served
    async def SubmitGraph(self, request: pb.SubmitGraphRequest, context: Context) -> pb.SubmitGraphResponse:
        """Accept a graph of tasks."""
        return await self._submissions.submit_graph(request, context)

    @served
    async def Retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryResponse:
        """Submit ended tasks once more."""
        return await self._submissions.retry(request, context)

    @served
    async def Purge(self, request: pb.PurgeRequest, context: Context) -> pb.PurgeResponse:
        """Forget ended tasks before their time."""
        command = decode_purge(request)

        async def local() -> pb.PurgeResponse:
            (reply,) = await self._node.propose(
                (command,), timeout=remaining_s(context), size_bytes=request.ByteSize() + 64
            )
            return encode_purge_reply(reply)

        return await self._forwarder.leader_or_forward(SERVICE + "Purge", request, context, local)

    @served
    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        """Cancel tasks and jobs; see scheduler.proto."""
        wanted = [_cancel(name) for name in request.ids]
        if not wanted:
            raise InvalidRequest("nothing to cancel was named")
        if len(wanted) > MAX_CANCELS:
            raise InvalidRequest(
                f"{len(wanted)} ids in one call; the limit is {MAX_CANCELS}", try_="name a job"
            )

        async def local() -> pb.CancelResponse:
            replies = await self._node.propose(
                wanted, timeout=remaining_s(context), size_bytes=64 * len(wanted)
            )
            return pb.CancelResponse(
                replies=[_cancel_reply(name, reply) for name, reply in zip(request.ids, replies, strict=True)]
            )

        return await self._forwarder.leader_or_forward(SERVICE + "Cancel", request, context, local)

    # --- reads --------------------------------------------------------------------------------------------------

    @served
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        """One task, whole."""
        task_id = parse_id(request.task_id, "t")

        def local() -> pb.GetResponse:
            return pb.GetResponse(
                task=encode_task(self._task(task_id)), read=self._view.read_info(request.options.stale)
            )

        return await self._read(request.options, context, local)

    @served
    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """One job, with its counts."""
        job_id = parse_id(request.job_id, "j")

        def local() -> pb.GetJobResponse:
            job = self._state().jobs.get(job_id)
            if job is None:
                raise JobNotFound(f"there is no job j{job_id}", try_="raftctl task list")
            return pb.GetJobResponse(job=encode_job(job), read=self._view.read_info(request.options.stale))

        return await self._read(request.options, context, local)

    @served
    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """A page of jobs, in the order of their ids."""
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        after = parse_id(request.page_token, "j") if request.page_token else 0

        def local() -> pb.ListJobsResponse:
            page = queries.job_page(
                self._state(), after=after, limit=size, unfinished_only=request.unfinished
            )
            return pb.ListJobsResponse(
                jobs=[encode_job(job) for job in page.jobs],
                next_page_token=f"j{page.next_after}" if page.next_after else "",
                read=self._view.read_info(request.options.stale),
            )

        return await self._read(request.options, context, local)

    @served
    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        """A page of whole tasks, in the order of their ids; it may hold fewer than were asked for."""
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        after = parse_id(request.page_token, "t") if request.page_token else 0
        job_id = parse_id(request.job_id, "j") if request.job_id else None
        states = decode_states(request.states)

        def local() -> pb.ListResponse:
            page = queries.task_page(self._state(), after=after, limit=size, states=states, job_id=job_id)
            tasks, cut = encode_page(page.tasks, PAGE_BYTES)
            next_after = tasks[-1].task_id if cut else f"t{page.next_after}" if page.next_after else ""
            return pb.ListResponse(
                tasks=tasks, next_page_token=next_after, read=self._view.read_info(request.options.stale)
            )

        return await self._read(request.options, context, local)

    @served
    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        """Both tables, the nodes and the counts."""

        def local() -> pb.StatusResponse:
            return self._view.response(request.options.stale, min(request.recent_count, MAX_RECENT))

        # Of executors only the leader knows when it heard them last.
        return await self._read_on_leader("Status", request, context, local)

    @served
    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        """Why a task is where it is."""
        task_id = parse_id(request.task_id, "t")

        def local() -> pb.ExplainResponse:
            return self._view.explanation(self._task(task_id), request.options.stale)

        # Which nodes it cannot speak to only the leader knows.
        return await self._read_on_leader("Explain", request, context, local)

    async def _read_on_leader(
        self,
        method: str,
        request: pb.StatusRequest | pb.ExplainRequest,
        context: Context,
        local: Callable[[], Response],
    ) -> Response:
        """Have the leader answer, who knows more than the record; a stale read is answered by whoever is asked."""
        if request.options.stale:
            return local()

        async def leading() -> Response:
            return await self._node.read(local, timeout=remaining_s(context))

        return await self._forwarder.leader_or_forward(
            SERVICE + method, request, context, leading, repeatable=True
        )

    async def _read(
        self, options: pb.ReadOptions, context: Context, local: Callable[[], Response]
    ) -> Response:
        """Answer from this node's applied state, once that holds everything that was committed before the call."""
        if options.stale:
            return local()
        return await self._forwarder.read_here(
            context, lambda timeout_s: self._node.read(local, timeout=timeout_s)
        )

    def _task(self, task_id: int) -> Task:
        task = self._state().tasks.get(task_id)
        if task is None:
            raise TaskNotFound(f"there is no task t{task_id}", try_="raftctl task list")
        return task

    # --- streams ------------------------------------------------------------------------------------------------

    @served
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        """Changes in log order, from this node's own applied log; a change of leader is told in between."""
        watched = wanted(request)
        last_index = request.to_index
        if last_index > self._state().applied_index:
            await self._node.read_barrier(timeout=remaining_s(context))
        next_index = request.from_index or self._history.next_index
        leader = self._leader_name()
        yield pb.WatchResponse(changes=[self._leader_change(leader)], next_index=next_index)
        while True:
            page = self._history.page(next_index, WATCH_PAGE)
            next_index = page.next_index
            if last_index and (next_index > last_index or not page.changes):
                kept = tuple(change for change in page.changes if change.index <= last_index)
                for response in watch_responses(replace(page, changes=kept), watched):
                    yield response
                return
            for response in watch_responses(page, watched):
                yield response
            if leader != (leader := self._leader_name()):
                yield pb.WatchResponse(changes=[self._leader_change(leader)], next_index=next_index)
            if not page.changes:
                await self._more(next_index)
            else:
                await asyncio.sleep(0)  # a watch from far back must not keep others waiting

    async def _more(self, next_index: int) -> None:
        """Wait for a change or for another leader."""
        waits = {
            asyncio.ensure_future(self._history.wait(next_index)),
            asyncio.ensure_future(self._node.leader_changed()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _leader_change(self, leader: str) -> pb.Change:
        message = f"{leader} leads" if leader else "no leader is known"
        return pb.Change(
            index=self._state().applied_index,
            time_ms=self._clock.wall_ms(),
            change="leader",
            node=leader,
            message=message,
        )

    @served
    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        """Captured output of one attempt, from the node that keeps it."""
        async for response in self._logs.read(request, context):
            yield response

    @served
    async def Attach(  # type: ignore[override]  # gRPC also takes a coroutine that writes, which the stubs omit
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> None:
        """The stream of one executor; see docs/attach.md."""
        # Now, and not with the first message: gRPC cannot end a stream whose first write was broken off.
        await context.send_initial_metadata(())
        caller = caller_identity(context.invocation_metadata() or ())
        cut = False

        def end() -> None:
            nonlocal cut
            cut = True
            serving.cancel()

        guard = StreamGuard(self._faults, caller.name, end)

        async def incoming() -> AsyncIterator[AttachUp]:
            async for request in request_iterator:
                if guard.lets_in():
                    yield decode_up(request)

        async def write(message: AttachDown) -> None:
            if guard.lets_out():
                await context.write(encode_down(message))

        serving = asyncio.create_task(self._sessions.serve(incoming(), write), name=f"attach {caller.name}")
        try:
            await serving
        except asyncio.CancelledError:
            if cut:
                raise Unavailable("the network to this node was cut") from None
            raise
        finally:
            guard.close()
            serving.cancel()


def _cancel(name: str) -> commands.Cancel:
    if name.startswith("j"):
        return commands.Cancel(job_id=parse_id(name, "j"), reason="cancelled by request")
    return commands.Cancel(task_id=parse_id(name, "t"), reason="cancelled by request")


def _cancel_reply(name: str, reply: Reply) -> pb.CancelReply:
    if isinstance(reply, Refused):
        return pb.CancelReply(id=name, refusal=encode_refusal(reply))
    if not isinstance(reply, Cancelled):
        raise TypeError(f"a Cancel was answered by {reply!r}")
    state = pb.TaskState.ValueType(0) if reply.state is None else encode_state(reply.state)
    return pb.CancelReply(id=name, state=state, cancelled_count=reply.count)
