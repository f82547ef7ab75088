"""Captured output of attempts, from the node that keeps it.

What may live here: finding the node, reading its files, or passing on what another node reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc

from raftd.codec.attach import parse_id, task_name
from raftd.errors import LogsGone, NoLeader, PeerUnreachable, TaskNotFound
from raftd.node.members import Members
from raftd.node.node import Node
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.model import Attempt
from raftd.scheduler.state import State
from raftd.services.status import remaining_s
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, CallFailed, Purpose

CHUNK_BYTES = 64 * 1024
LOOKUP_TIMEOUT_S = 5.0

Context = grpc.aio.ServicerContext[object, object]


class OutputChunk(Protocol):
    """A piece of one stream of an attempt's output."""

    @property
    def stderr(self) -> bool:
        """Of stderr, otherwise of stdout."""

    @property
    def data(self) -> bytes:
        """The bytes."""

    @property
    def truncated(self) -> bool:
        """The limit on captured output was reached: what followed was dropped."""


class LocalOutput(Protocol):
    """The output that this node keeps (the executor)."""

    def output(self, task_id: int, attempt: int, follow: bool) -> AsyncIterator[OutputChunk]:
        """The output so far, and, with ``follow``, what comes until the attempt ends.

        Raises:
            LogsGone: it is not kept here.
        """


class LogsReader:
    """Answers Logs on one node.

    Args:
        name: of this node.
        node: the loop, for a fresh view where this node leads.
        state: the applied state.
        members: where other nodes are.
        output: what this node keeps.
        caller: the way to other nodes.
    """

    def __init__(
        self,
        name: str,
        node: Node,
        state: Callable[[], State],
        members: Members,
        output: LocalOutput,
        caller: Caller,
    ) -> None:
        self._name = name
        self._node = node
        self._state = state
        self._members = members
        self._output = output
        self._caller = caller

    async def read(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        """The output of one attempt.

        Raises:
            TaskNotFound: there is no such task.
            LogsGone: it has no such attempt, or its output is not kept.
            PeerUnreachable: the node that keeps it cannot be reached.
        """
        task_id = parse_id(request.task_id, "t")
        node, number = await self._place(task_id, request.attempt, context)
        if node == self._name:
            async for chunk in self._output.output(task_id, number, request.follow):
                yield pb.LogsResponse(
                    stream=pb.LOG_STREAM_STDERR if chunk.stderr else pb.LOG_STREAM_STDOUT,
                    data=chunk.data,
                    truncated=chunk.truncated,
                    node=node,
                    attempt=number,
                )
            return
        member = self._members.by_name(node)
        if member is None:
            raise LogsGone(f"{node}, which ran attempt {number} of {task_name(task_id)}, is no member any more")
        asked = pb.LogsRequest(task_id=task_name(task_id), attempt=number, follow=request.follow)
        remote = RemoteNode(member.name, member.store_id, member.address)
        try:
            async for data in self._caller.stream(
                remote, "/raftd.v1.Scheduler/Logs", asked.SerializeToString(), Purpose.LOGS, context.time_remaining()
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
        """Where and which attempt; a follower that has not applied it yet asks the leader."""
        attempt = self._attempt(task_id, number)
        if attempt is None and not self._node.leads:
            return await self._ask_leader(task_id, number, context)
        if attempt is None:
            if self._state().tasks.get(task_id) is None:
                raise TaskNotFound(f"there is no task {task_name(task_id)}", try_="raftctl task list")
            raise LogsGone(f"{task_name(task_id)} has no attempt {number or 'yet'}")
        return attempt.node, attempt.number

    def _attempt(self, task_id: int, number: int) -> Attempt | None:
        task = self._state().tasks.get(task_id)
        if task is None:
            return None
        wanted = [attempt for attempt in task.attempts if number in (0, attempt.number)]
        return wanted[-1] if wanted else None

    async def _ask_leader(self, task_id: int, number: int, context: Context) -> tuple[str, int]:
        leader = self._members.by_store_id(self._node.leader)
        if leader is None:
            raise NoLeader("no leader is known to this node")
        answer = await self._caller.unary(
            RemoteNode(leader.name, leader.store_id, leader.address),
            "/raftd.v1.Scheduler/Get",
            pb.GetRequest(task_id=task_name(task_id)).SerializeToString(),
            min(remaining_s(context), LOOKUP_TIMEOUT_S),
        )
        attempts = [one for one in pb.GetResponse.FromString(answer).task.attempts if number in (0, one.number)]
        if not attempts:
            raise LogsGone(f"{task_name(task_id)} has no attempt {number or 'yet'}")
        return attempts[-1].node, attempts[-1].number
