"""Results on their way to the result store, and blobs on their way to tasks.

What may live here: both transfers between the files of a slot and the stores that wiring has handed in, with their
retries.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from raftd.errors import RaftdError
from raftd.executor.protocols import BlobSource, ResultStore
from raftd.executor.slot_link import SlotLink
from raftd.scheduler.model import BlobRef

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 1.0

Stored = tuple[BlobRef, tuple[str, ...]]
"""What names a stored result, and which nodes hold it."""


class Results:
    """Moves bytes for the slots.

    Args:
        store: where large results go.
        blobs: where tasks get blobs from.
    """

    def __init__(self, store: ResultStore, blobs: BlobSource) -> None:
        self._store = store
        self._blobs = blobs
        self._fetches: dict[asyncio.Task[None], SlotLink] = {}

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

    async def _put(self, data: bytes) -> Stored | str:
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                return await self._store.put(data)
            except RaftdError as error:
                if not error.retryable:
                    return f"the result cannot be stored: {error.message}"
                log.warning("a result of %d bytes is not stored yet: %s", len(data), error.message)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    def fetch(self, link: SlotLink, digest: str) -> None:
        """Fetches a blob for the task on this slot and tells it."""
        task = asyncio.create_task(self._fetch(link, digest))
        self._fetches[task] = link
        task.add_done_callback(lambda done: self._fetches.pop(done, None))

    def forget(self, link: SlotLink) -> None:
        """The slot is gone: nobody waits for its blobs."""
        for task, its_link in list(self._fetches.items()):
            if its_link is link:
                task.cancel()

    async def _fetch(self, link: SlotLink, digest: str) -> None:
        path, failure = "", ""
        try:
            path = str((await self._blobs.fetch(digest)).absolute())
        except RaftdError as error:
            failure = error.message
        except OSError as error:
            failure = str(error)
        link.send({"t": "blob", "digest": digest, "path": path, "error": failure})


def _take(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data
