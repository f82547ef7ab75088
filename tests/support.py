"""What tests of every part share: waiting for a condition instead of sleeping, and free loopback ports.

This is the only file of the tests that may pause: everything else waits here, for something that it can name.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def wait_until(predicate: Callable[[], T], timeout_s: float, what: str) -> T:
    """Calls `predicate` until it returns something true, and returns that.

    Raises AssertionError, naming `what` was waited for, once `timeout_s` have passed.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        _give_up_at(deadline, timeout_s, what)
        time.sleep(POLL_S)
    return value


async def eventually(predicate: Callable[[], T | Awaitable[T]], timeout_s: float, what: str) -> T:
    """Like `wait_until`, on the event loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        _give_up_at(deadline, timeout_s, what)
        await asyncio.sleep(POLL_S)


def _give_up_at(deadline: float, timeout_s: float, what: str) -> None:
    if time.monotonic() >= deadline:
        raise AssertionError(f"waited {timeout_s} s in vain for: {what}")


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nobody listens on at this moment; another process may take one before you do."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_port() -> int:
    """One port as from `free_ports`."""
    return free_ports(1)[0]
