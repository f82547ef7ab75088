"""What clients submit: single tasks, arrays, graphs, and retries of what has ended.

What may live here: the limits of one call, the kinds' own checks, and the way from messages to commands and back.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Protocol

from raftd.codec.api import (
    decode_graph,
    decode_retry,
    decode_submission,
    encode_refusal,
    encode_submit_reply,
)
from raftd.errors import InvalidRequest, RaftdError
from raftd.node.clock import Clock
from raftd.node.node import Node
from raftd.node.proposals import MAX_CLIENT_COMMANDS
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler import commands
from raftd.scheduler.model import TaskSpec
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State
from raftd.services.forwarding import Forwarder
from raftd.services.status import Context, refuse, remaining_s

SERVICE = "/raftd.v1.Scheduler/"
MAX_SUBMISSIONS = 10_000
MAX_TASKS = 20_000
"""Of one call, arrays counted out: all of them are checked in one go here, and applied in one go on every node."""
CHECKS_IN_ONE_GO = 32
"""Also what a call may bring without waiting for others."""


class ArgumentCheck(Protocol):
    """The kinds' own checks of their arguments (``raftd.tasks.registry``)."""

    def __call__(self, kind: str, args: tuple[str, ...]) -> None:
        """Raises ``InvalidArguments``; a kind that is not known here passes, for the cluster decides."""


class Submissions:
    """Takes submissions to the log.

    Args:
        node: the loop.
        state: the applied state, for its limits.
        forwarder: takes what needs the leader to it.
        check: refuses bad arguments before they reach the log.
        clock: time, for the request ids that are made here.
    """

    def __init__(
        self,
        node: Node,
        state: Callable[[], State],
        forwarder: Forwarder,
        check: ArgumentCheck,
        clock: Clock,
    ) -> None:
        self._node = node
        self._state = state
        self._forwarder = forwarder
        self._check = check
        self._clock = clock
        self._checked = 0
        self._large = asyncio.Lock()

    async def submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Accept a batch of submissions, each for itself."""
        _some(request.submissions, "submissions")
        count = sum(map(self._task_count, request.submissions))
        if count > MAX_TASKS:
            raise InvalidRequest(
                f"{count} tasks in one call; the limit is {MAX_TASKS}", try_="submit in parts"
            )
        for submission in request.submissions:
            # Made before it is forwarded, so that both nodes speak of the same request.
            submission.request_id = submission.request_id or self._new_id()

        async def local() -> pb.SubmitResponse:
            return await self._submit(request, context)

        return await self._forwarder.leader_or_forward(SERVICE + "Submit", request, context, local)

    async def submit_graph(self, request: pb.SubmitGraphRequest, context: Context) -> pb.SubmitGraphResponse:
        """Accept tasks that wait for each other, all or nothing."""
        graph = request.graph
        _some(graph.tasks, "tasks")
        limit = self._state().settings.max_graph
        if len(graph.tasks) > limit:
            raise InvalidRequest(
                f"the graph has {len(graph.tasks)} tasks; the limit is {limit}", try_="submit it in parts"
            )
        graph.request_id = graph.request_id or self._new_id()

        async def local() -> pb.SubmitGraphResponse:
            command = decode_graph(graph)
            for task in command.tasks:
                await self._check_one(task.spec)
            (reply,) = await self._node.propose(
                (command,),
                timeout=remaining_s(context),
                size_bytes=request.ByteSize() + 64 * len(graph.tasks),
            )
            return pb.SubmitGraphResponse(reply=encode_submit_reply(graph.request_id, reply))

        return await self._forwarder.leader_or_forward(SERVICE + "SubmitGraph", request, context, local)

    async def retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryResponse:
        """Submit what ended tasks were, as new tasks."""
        _some(request.items, "tasks")
        for item in request.items:
            item.request_id = item.request_id or self._new_id()
        wanted = [decode_retry(item) for item in request.items]

        async def local() -> pb.RetryResponse:
            replies = await self._node.propose(
                wanted, timeout=remaining_s(context), size_bytes=128 * len(wanted)
            )
            return pb.RetryResponse(
                replies=[
                    encode_submit_reply(command.request_id, reply)
                    for command, reply in zip(wanted, replies, strict=True)
                ]
            )

        return await self._forwarder.leader_or_forward(SERVICE + "Retry", request, context, local)

    def _new_id(self) -> str:
        return f"{self._clock.wall_ms():012x}-{secrets.token_hex(10)}"

    async def _submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Propose what passes its check; every submission gets its own answer, in its place.

        Large calls are read, and answered, one at a time: each gives way to the node's loop now and then, but twenty of
        them that do so in turn would still make one long piece of work between two turns of the loop.
        """
        if len(request.submissions) <= CHECKS_IN_ONE_GO:
            size, submits, answers = await self._read(request)
        else:
            async with self._large:
                size, submits, answers = await self._read(request)
        replies: tuple[Reply, ...] = ()
        if submits:
            replies = await self._propose(submits, size, remaining_s(context))
        if len(answers) <= CHECKS_IN_ONE_GO:
            return await self._answer(answers, submits, replies)
        async with self._large:
            return await self._answer(answers, submits, replies)

    async def _read(
        self, request: pb.SubmitRequest
    ) -> tuple[int, list[commands.Submit], list[pb.SubmitReply | None]]:
        """About their size, what passes its check, and the answers to what does not, in their places."""
        answers: list[pb.SubmitReply | None] = []
        submits: list[commands.Submit] = []
        size = request.ByteSize()
        for submission in request.submissions:
            count = self._task_count(submission)
            size += 64 * count
            try:
                command = decode_submission(submission, submission.request_id)
                await self._check_arguments(command)
            except RaftdError as error:
                answers.append(
                    pb.SubmitReply(request_id=submission.request_id, refusal=encode_refusal(refuse(error)))
                )
            else:
                answers.append(None)
                submits.append(command)
        return size, submits, answers

    async def _answer(
        self,
        answers: list[pb.SubmitReply | None],
        submits: list[commands.Submit],
        replies: tuple[Reply, ...],
    ) -> pb.SubmitResponse:
        following = iter(zip(submits, replies, strict=True))
        response = pb.SubmitResponse()
        for answer in answers:
            await self._pause()
            if answer is not None:
                response.replies.append(answer)
            else:
                command, reply = next(following)
                response.replies.append(encode_submit_reply(command.request_id, reply))
        return response

    async def _propose(self, submits: list[commands.Submit], size: int, timeout: float) -> tuple[Reply, ...]:
        """In portions that other work finds room between; they keep their order."""
        if len(submits) <= MAX_CLIENT_COMMANDS:
            return await self._node.propose(submits, timeout=timeout, size_bytes=size)
        portions = [
            submits[start : start + MAX_CLIENT_COMMANDS]
            for start in range(0, len(submits), MAX_CLIENT_COMMANDS)
        ]
        done = await asyncio.gather(
            *(
                self._node.propose(part, timeout=timeout, size_bytes=size * len(part) // len(submits))
                for part in portions
            )
        )
        return tuple(reply for replies in done for reply in replies)

    def _task_count(self, submission: pb.Submission) -> int:
        """How many tasks it would become; of an array that is refused for its size, one refusal."""
        if not submission.HasField("array"):
            return 1
        count = submission.array.last_index - submission.array.first_index + 1
        return count if 0 < count <= self._state().settings.max_array else 1

    async def _check_arguments(self, command: commands.Submit) -> None:
        spec, array = command.spec, command.array
        if array is None or not any("{}" in arg for arg in spec.args):
            await self._check_one(spec)
            return
        limit = self._state().settings.max_array
        if not 0 <= array.last_index - array.first_index < limit:
            return  # the state machine refuses it, with the limit in its message
        for index in range(array.first_index, array.last_index + 1):
            await self._pause()
            self._check(spec.kind, tuple(arg.replace("{}", str(index)) for arg in spec.args))

    async def _check_one(self, spec: TaskSpec) -> None:
        await self._pause()
        self._check(spec.kind, spec.args)

    async def _pause(self) -> None:
        """Now and then: peers must not wait for thousands of checks."""
        self._checked += 1
        if self._checked % CHECKS_IN_ONE_GO == 0:
            await asyncio.sleep(0)


def _some(items: Iterable[object], what: str) -> None:
    count = sum(1 for _ in items)
    if not count:
        raise InvalidRequest("nothing was submitted")
    if count > MAX_SUBMISSIONS:
        raise InvalidRequest(f"{count} {what} in one call; the limit is {MAX_SUBMISSIONS}")
