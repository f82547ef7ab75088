"""The thread that a blocking client has."""

import asyncio

from raftctl.client.sync_client import Client
from raftctl.endpoints import Endpoints


def test_nothing_is_left_on_its_loop_when_it_is_closed() -> None:
    """What gRPC leaves there would be complained about on the terminal of the user: "Task was destroyed"."""
    client = Client(Endpoints((("", "127.0.0.1:1"),)))
    left: list[asyncio.Task[None]] = []

    async def forever() -> None:
        await asyncio.Event().wait()

    async def leave() -> None:
        left.append(asyncio.create_task(forever()))

    client._run(leave())
    client.close()
    client.close()
    assert [task.cancelled() for task in left] == [True]
