"""What the tests of the client and of the commands share: a fake cluster, and a client that gives up soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from raftctl.client import channel, overview, watching
from raftctl.client.async_client import AsyncClient
from tests.raftctl.fake_server import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Three nodes, n1 leads."""
    with FakeCluster() as made:
        yield made


@pytest.fixture
def five() -> Iterator[FakeCluster]:
    """Five nodes, n1 leads."""
    with FakeCluster(5) as made:
        yield made


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that hangs, and a watch that is silent, are given up soon."""
    monkeypatch.setattr(channel, "FIRST_TRY_S", 0.2)
    monkeypatch.setattr(overview, "NODE_ANSWERS_S", 0.3)
    monkeypatch.setattr(watching, "SILENCE_S", 0.2)
    monkeypatch.setattr(watching, "RECONNECT_PAUSE_S", 0.02)


def with_client(
    cluster: FakeCluster, use: Callable[[AsyncClient], Awaitable[None]], timeout_s: float = 10.0
) -> None:
    """Runs `use` with a client of the cluster, on a loop of its own."""

    async def main() -> None:
        async with AsyncClient(cluster.endpoints, timeout_s=timeout_s) as client:
            await use(client)

    asyncio.run(main())
