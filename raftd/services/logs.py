"""Captured output of attempts, from the node that keeps it.

What may live here: finding the node, reading its files, or passing on what another node reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc

from raftd.codec.attach import parse_id, task_name
from raftd.errors import LogsGone, PeerUnreachable, TaskNotFound
from raftd.node.members import Members
from raftd.node.node import Node
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.model import Attempt
from raftd.scheduler.state import State
from raftd.services.status import Context, remaining_s
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, CallFailed, Purpose

CHUNK_BYTES = 64 * 1024
LOOKUP_TIMEOUT_S = 5.0


class KeptOutput(Protocol):
    """The output of one attempt that this node keeps (``raftd.executor.logs.AttemptLogs``)."""

    @property
    def ended(self) -> bool:
        """Nothing more will come."""

    def truncated(self, stream: str) -> bool:
        """More was written to ``stdout`` or ``stderr`` than was kept."""

    def read(self, stream: str, offset: int, limit_bytes: int = ...) -> bytes:
        """What was kept from this offset on; empty at its present end."""

    async def changed(self) -> None:
        """Return when there is more to read, or the attempt has ended."""


OpenOutput = Callable[[int, int], KeptOutput]
"""Task id and attempt number to the output that this node keeps; raises ``LogsGone``."""

STREAMS = (("stdout", pb.LOG_STREAM_STDOUT), ("stderr", pb.LOG_STREAM_STDERR))


async def read_kept(
    output: KeptOutput, node: str, attempt: int, follow: bool
) -> AsyncIterator[pb.LogsResponse]:
    """The output so far, and, with ``follow``, what comes until the attempt ends."""
    offsets = {name: 0 for name, _ in STREAMS}
    while True:
        ended = output.ended
        more = False
        for name, stream in STREAMS:
            while data := output.read(name, offsets[name], CHUNK_BYTES):
                offsets[name] += len(data)
                more = True
                yield pb.LogsResponse(stream=stream, data=data, node=node, attempt=attempt)
        if more:
            continue  # whatever came while the last piece was sent must be read before waiting
        if ended or not follow:
            break
        await output.changed()
    for name, stream in STREAMS:
        if output.truncated(name):
            yield pb.LogsResponse(stream=stream, truncated=True, node=node, attempt=attempt)


class LogsReader:
    """Answers Logs on one node.

    Args:
        name: of this node.
        node: the loop, for a fresh view.
        state: the applied state.
        members: where other nodes are.
        output: opens what this node keeps.
        caller: the way to other nodes.
    """

    def __init__(
        self,
        name: str,
        node: Node,
        state: Callable[[], State],
        members: Members,
        output: OpenOutput,
        caller: Caller,
    ) -> None:
        self._name = name
        self._node = node
        self._state = state
        self._members = members
        self._output = output
        self._caller = caller

    async def read(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        """The output of one attempt; where a later one has taken its place, each piece says so.

        Raises:
            TaskNotFound: there is no such task.
            LogsGone: it has no such attempt, or its output is not kept.
            PeerUnreachable: the node that keeps it cannot be reached.
            RaftdError: as ``Node.read``, where this node must ask for a fresh view.
        """
        task_id = parse_id(request.task_id, "t")
        node, number = await self._place(task_id, request.attempt, context)
        async for response in self._pieces(task_id, node, number, request.follow, context):
            latest = self._attempt(task_id, 0)
            response.superseded = latest is not None and latest.number > number
            yield response

    async def _pieces(
        self, task_id: int, node: str, number: int, follow: bool, context: Context
    ) -> AsyncIterator[pb.LogsResponse]:
        """From here, or from the node that keeps it."""
        if node == self._name:
            async for response in read_kept(self._output(task_id, number), node, number, follow):
                yield response
            return
        member = self._members.node(node)
        if member is None:
            raise LogsGone(
                f"{node}, which ran attempt {number} of {task_name(task_id)}, is no node of the cluster any more"
            )
        asked = pb.LogsRequest(task_id=task_name(task_id), attempt=number, follow=follow)
        remote = RemoteNode(member.name, member.store_id, member.address)
        try:
            async for data in self._caller.stream(
                remote,
                "/raftd.v1.Scheduler/Logs",
                asked.SerializeToString(),
                Purpose.LOGS,
                context.time_remaining(),
            ):
                yield pb.LogsResponse.FromString(data)
        except CallFailed as failed:
            if failed.code is grpc.StatusCode.UNAVAILABLE:
                raise PeerUnreachable(
                    f"the output of attempt {number} of {task_name(task_id)} is on {node}, which cannot be reached",
                    try_=f"raftctl node start {node}",
                ) from None
            raise

    async def _place(self, task_id: int, number: int, context: Context) -> tuple[str, int]:
        """Where and which attempt; one that is not applied here yet is waited for."""
        attempt = self._attempt(task_id, number)
        if attempt is None:
            await self._node.read_barrier(timeout=min(remaining_s(context), LOOKUP_TIMEOUT_S))
            attempt = self._attempt(task_id, number)
        if attempt is not None:
            return attempt.node, attempt.number
        if self._state().tasks.get(task_id) is None:
            raise TaskNotFound(f"there is no task {task_name(task_id)}", try_="raftctl task list")
        raise LogsGone(f"{task_name(task_id)} has no attempt {number or 'yet'}")

    def _attempt(self, task_id: int, number: int) -> Attempt | None:
        task = self._state().tasks.get(task_id)
        if task is None:
            return None
        wanted = [attempt for attempt in task.attempts if number in (0, attempt.number)]
        return wanted[-1] if wanted else None
