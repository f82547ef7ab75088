"""Nodes with real blob stores and a network made of method calls, which can be cut, stalled and made to lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path

from raftd.blobs.disk import DiskBlobs
from raftd.blobs.local import LocalBlobs
from raftd.blobs.ref import BlobRef
from raftd.errors import PeerUnreachable
from raftd.scheduler.model import BlobRecord


async def stream(frames: Iterable[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


class FakeNetwork:
    """Every node's store, and what is wrong between them."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.nodes = {name: LocalBlobs(DiskBlobs(path / name)) for name in names}
        self.cut: set[str] = set()
        """Cannot be reached; a call fails at once."""
        self.paused: set[str] = set()
        """Answers nothing, and closes nothing."""
        self.lying: set[str] = set()
        """Sends other bytes."""
        self.pushes: list[str] = []
        self.pulls: list[str] = []
        self.pull_gate = asyncio.Event()
        self.pull_gate.set()

    def peers(self, local_name: str) -> FakePeers:
        return FakePeers(self, local_name)


class FakePeers:
    """``PeerBlobs`` of one node."""

    def __init__(self, network: FakeNetwork, local_name: str) -> None:
        self._network = network
        self._local_name = local_name

    async def push(self, node: str, digest: str) -> None:
        self._network.pushes.append(node)
        await self._reach(node)
        async with aclosing(await self._network.nodes[self._local_name].open(digest)) as frames:
            await self._network.nodes[node].put(frames, digest=digest)

    async def pull(self, node: str, digest: str) -> AsyncGenerator[bytes, None]:
        self._network.pulls.append(node)
        await self._network.pull_gate.wait()
        if node in self._network.cut:
            raise PeerUnreachable(f"{node} cannot be reached")
        async with aclosing(await self._network.nodes[node].open(digest)) as frames:
            async for frame in frames:
                await self._reach(node)
                yield bytes(len(frame)) if node in self._network.lying else frame

    async def _reach(self, node: str) -> None:
        if node in self._network.cut:
            raise PeerUnreachable(f"{node} cannot be reached")
        if node in self._network.paused:
            await asyncio.Event().wait()


class FakeDirectory:
    """``BlobDirectory`` with what a test says."""

    def __init__(self, voters: Iterable[str]) -> None:
        self.records: dict[str, BlobRecord] = {}
        self.down: set[str] = set()
        self._voters = tuple(voters)

    def note(self, ref: BlobRef, *holders: str) -> None:
        self.records[ref.digest] = BlobRecord(ref, holders)

    def record(self, digest: str) -> BlobRecord | None:
        return self.records.get(digest)

    def voters(self) -> tuple[str, ...]:
        return self._voters

    def is_up(self, node: str) -> bool:
        return node not in self.down
