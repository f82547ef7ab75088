"""Fixtures of the executor's tests: whatever a test starts is dead when it ends."""

import asyncio
import inspect
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftd.executor.process_tree import process_table, send
from tests.support import wait_until

TEST_S = 90.0


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs coroutine tests of this folder on an event loop of their own, bounded in time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(TEST_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


class Family:
    """Processes that a test has to account for."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "pids"
        self.pids: list[int] = []

    def read(self) -> list[int]:
        """Waits for the tree program to have grown its family."""
        text = wait_until(
            lambda: self.file.exists() and self.file.read_text(), 30, "the family's process ids"
        )
        self.pids = [int(line) for line in str(text).split()]
        return self.pids

    def alive(self) -> set[int]:
        return set(self.pids) & process_table().keys()


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    send(family.pids, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _no_process_is_left(tmp_path: Path) -> Iterator[None]:
    """Fails the test that leaves a process behind whose environment or command names its directory."""
    yield

    def left() -> set[int]:
        found = set()
        for pid in process_table():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(tmp_path) in command and pid != os.getpid():
                found.add(pid)
        return found

    try:
        wait_until(lambda: not left(), 20, "every process of this test to end")
    finally:
        send(left(), signal.SIGKILL)
