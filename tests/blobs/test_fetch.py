"""Getting a blob from anywhere: once, verified, and from the next holder when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from raftd.blobs.fetch import Fetcher
from raftd.blobs.ref import FRAME_BYTES, BadDigest, BlobRef, ref_of
from raftd.blobs.replicate import Replicator
from raftd.errors import BlobNotFound, PeerUnreachable
from tests.blobs.fakes import FakeDirectory, FakeNetwork, stream
from tests.support import eventually

NAMES = ("n1", "n2", "n3", "n4", "n5")
DATA = bytes(range(256)) * (FRAME_BYTES // 100)

Scenario = Callable[[FakeNetwork, FakeDirectory, Fetcher, BlobRef], Awaitable[None]]


def run(path: Path, scenario: Scenario, *, stall_ms: int = 60_000) -> None:
    """n2, n3 and n4 hold the blob, and the fetcher is n1's."""

    async def main() -> None:
        network, directory = FakeNetwork(path, NAMES), FakeDirectory(NAMES)
        for name in ("n2", "n3", "n4"):
            await network.nodes[name].put_bytes(DATA)
        directory.note(ref_of(DATA), "n2", "n3", "n4")
        fetcher = Fetcher("n1", network.nodes["n1"], network.peers("n1"), directory, stall_ms=stall_ms)
        await asyncio.wait_for(scenario(network, directory, fetcher, ref_of(DATA)), 30)

    asyncio.run(main())


def test_it_is_pulled_once_and_kept_as_a_copy(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert network.pulls == ["n2"]
        stat = network.nodes["n1"].stat(ref.digest)
        assert stat is not None
        assert not stat.pinned

    run(tmp_path, scenario)


def test_nodes_that_are_up_are_asked_first(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        directory.down = {"n2", "n3"}
        await fetcher.fetch(ref.digest)
        assert network.pulls == ["n4"]

    run(tmp_path, scenario)


def test_many_who_ask_at_once_share_one_pull(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        network.pull_gate.clear()
        tasks = [asyncio.create_task(fetcher.fetch(ref.digest)) for _ in range(10)]
        await eventually(lambda: network.pulls, 5, "the pull")
        tasks[0].cancel()
        network.pull_gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(isinstance(path, Path) and path.read_bytes() == DATA for path in results[1:])
        assert network.pulls == ["n2"]

    run(tmp_path, scenario)


def test_when_nobody_waits_any_more_the_pull_ends_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        network.pull_gate.clear()
        task = asyncio.create_task(fetcher.fetch(ref.digest))
        await eventually(lambda: network.pulls, 5, "the pull")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await eventually(lambda: len(asyncio.all_tasks()) <= 2, 5, "the end of the pull")
        network.pull_gate.set()
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert network.pulls == ["n2", "n2"]

    run(tmp_path, scenario)


def test_the_next_holder_is_asked_when_one_is_cut_lies_or_lost_it(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        network.cut, network.lying = {"n2"}, {"n3"}
        (await network.nodes["n4"].path(ref.digest)).write_bytes(b"rot")
        with pytest.raises(PeerUnreachable) as raised:
            await fetcher.fetch(ref.digest)
        assert all(name in raised.value.message for name in ("n2: ", "n3: ", "n4: "))
        assert network.nodes["n1"].list() == []
        network.pulls.clear()
        network.lying = set()
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert network.pulls == ["n2", "n3"]

    run(tmp_path, scenario)


def test_a_holder_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        network.paused = {"n2"}
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert network.pulls == ["n2", "n3"]

    run(tmp_path, scenario, stall_ms=50)


def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        with pytest.raises(BlobNotFound, match="does not know it"):
            await fetcher.fetch(ref_of(b"never").digest)
        directory.note(ref_of(b"lost"), "n1")
        with pytest.raises(BlobNotFound, match="no other node"):
            await fetcher.fetch(ref_of(b"lost").digest)
        directory.note(ref_of(b"gone"), "n2")
        with pytest.raises(BlobNotFound, match="n2: blob"):
            await fetcher.fetch(ref_of(b"gone").digest)
        with pytest.raises(BadDigest):
            await fetcher.fetch("../etc/passwd")

    run(tmp_path, scenario)


def test_a_damaged_replica_of_this_node_is_replaced_from_a_peer(tmp_path: Path) -> None:
    async def scenario(
        network: FakeNetwork, directory: FakeDirectory, fetcher: Fetcher, ref: BlobRef
    ) -> None:
        await network.nodes["n1"].put_bytes(DATA)
        directory.note(ref, "n1", "n3")
        path = await network.nodes["n1"].path(ref.digest)
        path.write_bytes(DATA[:-1] + b"!")
        async with aclosing(await fetcher.open(ref.digest)) as frames:
            assert b"".join([frame async for frame in frames]) == DATA
        stat = network.nodes["n1"].stat(ref.digest)
        assert stat is not None
        assert stat.pinned, "the directory counts on it"
        path.write_bytes(b"rot")
        assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA
        assert network.pulls == ["n3", "n3"]

    run(tmp_path, scenario)


def test_from_put_to_get_while_a_minority_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        network, directory = FakeNetwork(tmp_path, NAMES), FakeDirectory(NAMES)
        ref = await network.nodes["n1"].put(stream([DATA]))
        replicator = Replicator("n1", network.nodes["n1"], network.peers("n1"), directory.is_up)
        holders = await replicator.replicate(
            ref.digest, replicas=3, candidates=directory.voters(), timeout_ms=10_000
        )
        directory.note(ref, *holders)
        network.cut = set(holders[1:])
        for name in NAMES:
            fetcher = Fetcher(name, network.nodes[name], network.peers(name), directory)
            assert (await fetcher.fetch(ref.digest)).read_bytes() == DATA

    asyncio.run(scenario())
