"""Results on their way to the result store, and blobs on their way to tasks and from them.

What may live here: these transfers between the files of a slot and the stores that wiring has handed in, with their
retries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from raftd.errors import RaftdError
from raftd.executor.frames import Head
from raftd.executor.protocols import BlobStore, ResultStore
from raftd.executor.slot_link import SlotLink
from raftd.scheduler.model import BlobRef

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 1.0

Done = TypeVar("Done")

Stored = tuple[BlobRef, tuple[str, ...]]
"""What names a stored result, and which nodes hold it."""


class Results:
    """Moves bytes for the slots.

    Args:
        store: where large results go.
        blobs: where tasks get blobs from, and put some.
    """

    def __init__(self, store: ResultStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._transfers: dict[asyncio.Task[None], SlotLink] = {}

    async def store(self, path: str) -> Stored | str:
        """Stores a slot's result file and removes it; tries until it works or the caller cancels.

        Returns:
            why it can never work, in one line, if so.
        """
        try:
            data = await asyncio.to_thread(_take, Path(path))
        except OSError as error:
            return f"the result cannot be read: {error}"
        return await self._put(data)

    def drop(self, path: str) -> None:
        """Nobody wants this result file, if there is one."""
        if path:
            Path(path).unlink(missing_ok=True)

    async def _put(self, data: bytes) -> Stored | str:
        try:
            return await _until_done(lambda: self._store.put(data), f"a result of {len(data)} bytes")
        except RaftdError as error:
            return f"the result cannot be stored: {error.message}"

    def fetch(self, link: SlotLink, question: str, digest: str) -> None:
        """Fetches a blob for the task on this slot and tells it."""
        self._answer(link, question, lambda: self._fetch(digest))

    def keep(self, link: SlotLink, question: str, path: str) -> None:
        """Stores a file as a blob for the task on this slot and tells it; tries until it works."""
        self._answer(link, question, lambda: self._keep(Path(path)))

    def forget(self, link: SlotLink) -> None:
        """The attempt on this slot is over: nobody waits for its blobs."""
        for task, its_link in list(self._transfers.items()):
            if its_link is link:
                task.cancel()

    def _answer(self, link: SlotLink, question: str, work: Callable[[], Awaitable[Head]]) -> None:
        async def answer() -> None:
            told: Head = {"digest": "", "path": "", "error": ""}
            try:
                told |= await work()
            except RaftdError as error:
                told["error"] = error.message
            except OSError as error:
                told["error"] = str(error)
            except Exception as error:  # a store that breaks its promise fails the call, and leaves a trace
                log.exception("a blob for slot %d", link.slot)
                told["error"] = f"{type(error).__name__}: {error}"
            link.send({"t": "blob", "question": question, **told})

        task = asyncio.create_task(answer())
        self._transfers[task] = link
        task.add_done_callback(lambda done: self._transfers.pop(done, None))

    async def _fetch(self, digest: str) -> Head:
        return {"path": str((await self._blobs.fetch(digest)).absolute())}

    async def _keep(self, path: Path) -> Head:
        ref = await _until_done(lambda: self._blobs.put_file(path), f"blob {path}")
        return {"digest": ref.digest}


async def _until_done(work: Callable[[], Awaitable[Done]], what: str) -> Done:
    """Does it again while it fails with what may pass; raises what does not."""
    delay_s = _RETRY_FIRST_S
    while True:
        try:
            return await work()
        except RaftdError as error:
            if not error.retryable:
                raise
            log.warning("%s is not stored yet: %s", what, error.message)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _RETRY_MAX_S)


def _take(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data
