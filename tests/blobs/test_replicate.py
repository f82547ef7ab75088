"""Replicas: enough of them, elsewhere when one fails, and a refusal that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raftd.blobs.ref import BlobRef, NotEnoughReplicas, ref_of
from raftd.blobs.replicate import Replicator
from raftd.errors import BlobNotFound, InvalidArguments
from tests.blobs.fakes import FakeNetwork

NAMES = ("n1", "n2", "n3", "n4", "n5")


def run(
    path: Path,
    scenario: Callable[[FakeNetwork, Replicator, BlobRef], Awaitable[None]],
    *,
    local_name: str = "n1",
) -> None:
    async def main() -> None:
        network = FakeNetwork(path, (*NAMES, "w1"))
        ref = await network.nodes[local_name].put_bytes(b"tile", pinned=False)
        peers = network.peers(local_name)
        replicator = Replicator(
            local_name,
            network.nodes[local_name],
            peers,
            lambda name: name not in network.cut,
            hedge_ms=60_000,
        )
        await asyncio.wait_for(scenario(network, replicator, ref), 30)

    asyncio.run(main())


def pinned_on(network: FakeNetwork, ref: BlobRef) -> set[str]:
    found = set()
    for name, node in network.nodes.items():
        stat = node.stat(ref.digest)
        if stat is not None and stat.pinned:
            found.add(name)
    return found


def test_a_majority_holds_it_including_this_node(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        holders = await replicator.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000)
        assert len(holders) == 3
        assert "n1" in holders
        assert set(holders) == pinned_on(network, ref)
        assert len(network.pushes) == 2

    run(tmp_path, scenario)


def test_a_node_that_is_no_candidate_does_not_count(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        holders = await replicator.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000)
        assert len(holders) == 3
        assert "w1" not in holders

    run(tmp_path, scenario, local_name="w1")


def test_candidates_that_hold_it_already_are_not_asked(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        holders = await replicator.replicate(
            ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000, known=("n4", "n5", "w1")
        )
        assert holders == ("n1", "n4", "n5")
        assert network.pushes == []

    run(tmp_path, scenario)


def test_others_stand_in_for_those_that_fail(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        up = Replicator("n1", network.nodes["n1"], network.peers("n1"), lambda _: True)
        network.cut = {"n2", "n3"}
        assert await up.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000) == (
            "n1",
            "n4",
            "n5",
        )
        network.pushes.clear()
        other = await network.nodes["n1"].put_bytes(b"other")
        await replicator.replicate(other.digest, replicas=3, candidates=NAMES, timeout_ms=10_000)
        assert set(network.pushes) == {"n4", "n5"}, "nodes that are up are tried first"

    run(tmp_path, scenario)


def test_without_a_majority_it_says_who_failed_and_why(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        network.cut = {"n2", "n3", "n4"}
        with pytest.raises(NotEnoughReplicas) as raised:
            await replicator.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000)
        assert raised.value.holders == ("n1", "n5")
        assert set(raised.value.failures) == {"n2", "n3", "n4"}
        assert "n2: n2 cannot be reached" in raised.value.message
        assert raised.value.retryable

    run(tmp_path, scenario)


def test_a_paused_node_gets_company(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        network.paused = {"n2", "n3"}
        first = Replicator(
            "n1", network.nodes["n1"], network.peers("n1"), lambda name: name in network.paused, hedge_ms=20
        )
        holders = await first.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=10_000)
        assert holders == ("n1", "n4", "n5")
        assert set(network.pushes[:2]) == {"n2", "n3"}

    run(tmp_path, scenario)


def test_the_deadline_ends_it_and_leaves_no_push_behind(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        network.paused = {"n2", "n3", "n4"}
        with pytest.raises(NotEnoughReplicas) as raised:
            await replicator.replicate(ref.digest, replicas=4, candidates=NAMES, timeout_ms=100)
        assert "no answer within 100 ms" in raised.value.message
        assert len(asyncio.all_tasks()) <= 2, "this test and its wait_for"

    run(tmp_path, scenario)


@pytest.mark.parametrize("replicas", [0, 6])
def test_more_replicas_than_candidates_are_refused(tmp_path: Path, replicas: int) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        with pytest.raises(InvalidArguments):
            await replicator.replicate(ref.digest, replicas=replicas, candidates=NAMES, timeout_ms=1000)

    run(tmp_path, scenario)


def test_what_is_not_here_cannot_be_replicated(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        with pytest.raises(BlobNotFound):
            await replicator.replicate(ref_of(b"no").digest, replicas=1, candidates=NAMES, timeout_ms=1000)

    run(tmp_path, scenario)


def test_a_damaged_local_copy_does_not_count(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        (await network.nodes["n1"].path(ref.digest)).write_bytes(b"rot!")
        with pytest.raises(BlobNotFound):
            await replicator.replicate(ref.digest, replicas=3, candidates=NAMES, timeout_ms=1000)
        assert network.pushes == []

    run(tmp_path, scenario)


def test_blobs_spread_over_the_nodes(tmp_path: Path) -> None:
    async def scenario(network: FakeNetwork, replicator: Replicator, ref: BlobRef) -> None:
        for number in range(20):
            one = await network.nodes["n1"].put_bytes(b"%d" % number)
            await replicator.replicate(one.digest, replicas=2, candidates=NAMES, timeout_ms=10_000)
        assert set(network.pushes) == {"n2", "n3", "n4", "n5"}

    run(tmp_path, scenario)
