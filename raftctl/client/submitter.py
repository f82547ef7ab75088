"""Many submissions, few calls: whatever is submitted while a call is under way goes into the next one.

A cluster writes one log entry and waits for one quorum round per call, so that a thousand tasks submitted one
by one from a loop cost little more than one. Nothing waits for company: an idle submitter sends at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

from raftctl.client.models import Accepted, Submission

BATCH_COUNT = 500
BATCH_BYTES = 1024 * 1024


class Submitter:
    """Coalesces submissions. `send` submits a batch and answers each item with what became of it."""

    def __init__(
        self, send: Callable[[Sequence[Submission]], Awaitable[Sequence[Accepted | Exception]]]
    ) -> None:
        self._send = send
        self._waiting: deque[tuple[Submission, asyncio.Future[Accepted]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission) -> Accepted:
        """What the submission became.

        Raises:
            ClientError: it was refused, or its batch was not acknowledged.
        """
        future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        if self._sending is None:
            self._sending = asyncio.create_task(self._drain())
        return await future

    async def close(self) -> None:
        """Lets what is under way end."""
        if self._sending is not None:
            await self._sending

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                try:
                    replies = await self._send([submission for submission, _ in batch])
                except Exception as error:
                    replies = [error] * len(batch)
                for (_, future), reply in zip(batch, replies, strict=True):
                    if future.done():
                        continue  # its caller has gone
                    if isinstance(reply, Exception):
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
        finally:
            self._sending = None

    def _take(self) -> list[tuple[Submission, asyncio.Future[Accepted]]]:
        batch: list[tuple[Submission, asyncio.Future[Accepted]]] = []
        room_bytes = BATCH_BYTES
        while self._waiting and len(batch) < BATCH_COUNT:
            size_bytes = len(self._waiting[0][0].payload) + sum(map(len, self._waiting[0][0].args))
            if batch and size_bytes > room_bytes:
                break
            room_bytes -= size_bytes
            batch.append(self._waiting.popleft())
        return batch


def in_batches(submissions: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    """The same in calls of a size that a node takes."""
    for start in range(0, len(submissions), BATCH_COUNT):
        yield submissions[start : start + BATCH_COUNT]
