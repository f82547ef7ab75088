"""CPython's own tests of executors and futures, with `RaftExecutor` on a real cluster in the executor's place.

They come with the interpreter (``test.test_concurrent_futures``); some distributions leave them out, and then this
file has nothing to run. A case that does not apply is named below, with the reason; all others must pass, also those
that later versions of Python add.
"""

from __future__ import annotations

import importlib
import logging
import unittest
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from raftctl import Future, RaftExecutor
from tests.e2e.conftest import Cluster, take_down

PACKAGE = "test.test_concurrent_futures"

NOT_APPLICABLE = {
    "test_interpreter_shutdown": "its program imports the class from concurrent.futures and looks for what a task "
    "prints in its own output, which a cluster keeps as the task's; tests/raftctl/client/test_executor.py has the same "
    "with results",
    "test_submit_after_interpreter_shutdown": "as test_interpreter_shutdown",
    "test_cancel_futures": "expects that one of 50 calls has begun when shutdown follows at once; here a call begins "
    "when a slot of the cluster takes it, so all may be cancelled; tests/raftctl/client/test_executor.py waits for the "
    "first",
    "test_hang_gh83386": "as test_interpreter_shutdown, with shutdown(wait=False)",
}


@cache
def cpython(module: str) -> ModuleType:
    """A module of CPython's tests: since 3.12 one of a package, before that the only one."""
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    except ModuleNotFoundError as missing:
        if missing.name != f"{PACKAGE}.{module}":
            raise
        return importlib.import_module(PACKAGE)


try:
    importlib.import_module(PACKAGE)
except ModuleNotFoundError:
    pytest.skip(f"this Python comes without {PACKAGE}", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _on_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("cpython") / "state"
    home.mkdir()
    made = Cluster("cpython", home)
    made.run("cluster", "up", "-n", "3", "--slots", "2", "--allow", "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        patch.setenv("RAFTCTL_CLUSTER", made.name)
        yield
    take_down(home)


def cases(name: str, *mixins: type, **members: Any) -> type[unittest.TestCase]:
    """A test case of CPython's mixins, with the executor of this project and without what does not apply."""
    util = cpython("util")
    left_out = {case: None for case in NOT_APPLICABLE if any(hasattr(mixin, case) for mixin in mixins)}
    members = {"executor_type": RaftExecutor, "__module__": __name__, **left_out, **members}
    return type(name, (*mixins, util.ExecutorMixin, util.BaseTestCase), members)


RaftExecutorTest = cases(
    "RaftExecutorTest",
    cpython("executor").ExecutorTest,
    test_map_chunksize=cpython("test_process_pool").ProcessPoolExecutorTest.test_map_chunksize,
)
RaftExecutorShutdownTest = cases("RaftExecutorShutdownTest", cpython("test_shutdown").ExecutorShutdownTest)
RaftExecutorWaitTest = cases("RaftExecutorWaitTest", cpython("test_wait").WaitTests)
RaftExecutorAsCompletedTest = cases(
    "RaftExecutorAsCompletedTest", cpython("test_as_completed").AsCompletedTests
)


class RaftFutureTest(cpython("test_future").FutureTests):  # type: ignore[misc]  # known only at run time
    """The cases of futures, with those of this project."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        module = cpython("test_future")
        patch = pytest.MonkeyPatch()
        cls.addClassCleanup(patch.undo)
        made = {name: type_of(getattr(module, name)) for name in vars(module) if name.endswith("_FUTURE")}
        for name, future in made.items():
            patch.setattr(module, name, future)
        patch.setattr(module, "Future", Future)
        patch.setattr(module, "create_future", create_future)

    def setUp(self) -> None:
        super().setUp()
        # Some cases look for what logging writes to stderr where nobody else takes it, and pytest does take it.
        patch = pytest.MonkeyPatch()
        self.addCleanup(patch.undo)
        patch.setattr(logging.getLogger(), "handlers", [])


def create_future(
    state: str = "PENDING", exception: BaseException | None = None, result: Any = None
) -> Future[Any]:
    """A future in a state."""
    future: Future[Any] = Future()
    future._state, future._exception, future._result = state, exception, result
    return future


def type_of(future: Any) -> Future[Any]:
    """The same state, as a future of this project."""
    return create_future(future._state, future._exception, future._result)


def test_what_is_left_out_exists() -> None:
    shutdown = cpython("test_shutdown").ExecutorShutdownTest
    assert [case for case in NOT_APPLICABLE if not hasattr(shutdown, case)] == []
