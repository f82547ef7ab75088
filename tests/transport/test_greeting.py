"""A store is gone to before it is let in, whatever happened at its address a moment ago."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftd.errors import PeerUnreachable, WrongIdentity
from raftd.transport.greeting import Greeting
from tests.services.hosts import make_host, run, serving
from tests.support import free_ports

TRIES = 6


def test_a_node_that_has_just_been_started_is_met_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        leader = make_host(tmp_path)
        greeting = Greeting(leader.caller)
        for _ in range(TRIES):
            # Each failure makes gRPC wait longer before it dials that address again.
            with pytest.raises(PeerUnreachable):
                await greeting.greet("n2", 2, f"127.0.0.1:{port}", 5)
        async with serving(leader, make_host(tmp_path, 2, listen=f"127.0.0.1:{port}")):
            # The fake says nothing of itself: that it was asked is what counts.
            with pytest.raises(WrongIdentity, match="and not n2"):
                await greeting.greet("n2", 2, f"127.0.0.1:{port}", 5)

    run(scenario())
