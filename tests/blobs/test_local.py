"""The store for the event loop: callers that go away leave nothing half done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from raftd.blobs.disk import DiskBlobs
from raftd.blobs.local import LocalBlobs
from raftd.blobs.ref import FRAME_BYTES, ContentMismatch, ref_of
from raftd.blobs.transfer import Upload
from raftd.errors import BlobNotFound
from tests.blobs.fakes import stream
from tests.support import eventually

BIG = bytes(range(256)) * (FRAME_BYTES // 100)


def test_frames_in_and_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        local = LocalBlobs(DiskBlobs(tmp_path / "blobs"))
        ref = await local.put(
            stream([BIG, b"", BIG]), digest=ref_of(BIG + BIG).digest, size_bytes=2 * len(BIG)
        )
        async with aclosing(await local.open(ref.digest)) as frames:
            got = [frame async for frame in frames]
        assert b"".join(got) == BIG + BIG
        assert max(map(len, got)) == FRAME_BYTES
        assert (await local.path(ref.digest)).read_bytes() == BIG + BIG
        await local.unpin(ref.digest)
        assert [stat.pinned for stat in local.list()] == [False]
        assert await local.pin(ref.digest) == ref
        assert await local.delete(ref.digest)
        with pytest.raises(BlobNotFound):
            await local.open(ref.digest)

    asyncio.run(scenario())


def test_a_stream_that_breaks_or_lies_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    async def scenario() -> None:
        local = LocalBlobs(DiskBlobs(tmp_path / "blobs"))
        with pytest.raises(ConnectionResetError):
            await local.put(broken())
        with pytest.raises(ContentMismatch):
            await local.put(stream([b"wrong"]), digest=ref_of(b"right").digest)
        assert local.list() == []
        assert not list((tmp_path / "blobs" / "temp").iterdir())

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        local = LocalBlobs(DiskBlobs(tmp_path / "blobs"))
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"half"
            begun.set()
            await asyncio.Event().wait()

        put = asyncio.create_task(local.put(endless()))
        await begun.wait()
        put.cancel()
        with suppress(asyncio.CancelledError):
            await put
        await eventually(lambda: not list((tmp_path / "blobs" / "temp").iterdir()), 5, "the clean-up")
        assert local.list() == []

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_while_the_upload_is_being_made_leaves_nothing(tmp_path: Path) -> None:
    """The thread that makes it goes on without its caller."""

    class SlowDisk(DiskBlobs):
        may_begin = threading.Event()

        def begin(self, *, digest: str | None = None, size_bytes: int | None = None) -> Upload:
            upload = super().begin(digest=digest, size_bytes=size_bytes)
            assert self.may_begin.wait(10)
            return upload

    async def scenario() -> None:
        temp = tmp_path / "blobs" / "temp"
        local = LocalBlobs(SlowDisk(tmp_path / "blobs"))
        put = asyncio.create_task(local.put(stream([BIG])))
        await eventually(lambda: list(temp.iterdir()), 5, "the temporary file")
        put.cancel()
        with suppress(asyncio.CancelledError):
            await put
        SlowDisk.may_begin.set()
        await eventually(lambda: not list(temp.iterdir()), 5, "the clean-up")

    asyncio.run(scenario())
