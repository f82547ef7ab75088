"""Functions of the submitter's in a slot: values, errors, what they may use, and other Pythons."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from raftd.executor.limits import Limits
from raftd.scheduler.attach import Assignment, AttemptEnded
from raftd.scheduler.model import AttemptOutcome, BlobRef
from raftd.tasks.context import current_context
from raftd.tasks.pickled import VERSION, RemoteError
from tests.executor.fakes import WAIT_S, Rig, assignment, token
from tests.executor.test_slots import slot_pid
from tests.support import eventually


def call(counter: int, function: Callable[..., Any], *args: Any, **named: Any) -> Assignment:
    payload = cloudpickle.dumps((function, args, named))
    return assignment(counter, "python", VERSION, payload=payload)


def rig(directory: Path, **settings: Any) -> Rig:
    return Rig(directory, kinds=("python", "noop"), task_env=dict(os.environ), **settings)


def error_of(end: AttemptEnded) -> tuple[BaseException, str]:
    assert end.outcome is AttemptOutcome.FAILED
    assert isinstance(end.result, bytes)
    error, text = cloudpickle.loads(end.result)
    assert isinstance(error, BaseException)
    return error, text


async def test_a_function_gets_its_arguments_and_returns_its_value(tmp_path: Path) -> None:
    factor = 3

    def scale(value: int, *, by: int = factor) -> dict[str, int]:
        return {"scaled": value * by * factor}

    async with rig(tmp_path) as one:
        before = slot_pid(one)
        end = await one.run(call(1, scale, 5))
        assert isinstance(end.result, bytes)
        assert cloudpickle.loads(end.result) == {"scaled": 45}
        end = await one.run(call(2, scale, 5, by=1))
        assert isinstance(end.result, bytes)
        assert cloudpickle.loads(end.result) == {"scaled": 15}
        end = await one.run(call(3, bytes, 100_000))
        assert isinstance(end.result, BlobRef)
        assert cloudpickle.loads(one.store.kept[end.result.digest]) == bytes(100_000)
        assert slot_pid(one) == before


async def test_a_large_call_comes_as_a_blob(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        ref, _ = await one.store.put(cloudpickle.dumps((len, ("x" * 1_000_000,), {})))
        end = await one.run(assignment(1, "python", VERSION, ref.digest))
        assert isinstance(end.result, bytes)
        assert cloudpickle.loads(end.result) == 1_000_000


class Odd(Exception):
    """Can be pickled, and not be made again from that."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


async def test_an_exception_travels_with_its_traceback(tmp_path: Path) -> None:
    def divide(value: int) -> float:
        return 1 / value

    def odd() -> None:
        raise Odd(1, 2)

    def exits() -> None:
        raise SystemExit(4)

    def unpicklable() -> object:
        return (number for number in range(3))

    def holds_a_lock() -> None:
        import threading

        raise ValueError("with a lock", threading.Lock())

    async with rig(tmp_path) as one:
        end = await one.run(call(1, divide, 0))
        error, text = error_of(end)
        assert (type(error), str(error)) == (ZeroDivisionError, "division by zero")
        assert end.reason == "ZeroDivisionError: division by zero"
        assert "return 1 / value" in text or "in divide" in text
        assert "pickled.py" not in text
        assert one.output(1, "stderr").decode() == text
        error, _ = error_of(await one.run(call(2, exits)))
        assert isinstance(error, SystemExit)
        error, text = error_of(await one.run(call(3, odd)))
        assert isinstance(error, RemoteError)
        assert error.name.endswith("Odd")
        assert str(error).endswith("Odd: 1 and 2")
        assert "1 and 2" in text
        error, _ = error_of(await one.run(call(4, unpicklable)))
        assert "pickle" in str(error)
        error, _ = error_of(await one.run(call(5, holds_a_lock)))
        assert isinstance(error, RemoteError)
        assert "ValueError: ('with a lock'" in str(error)


async def test_what_cannot_be_unpickled_is_the_attempts_failure(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        error, _ = error_of(await one.run(assignment(1, "python", VERSION, payload=b"no pickle")))
        assert isinstance(error, Exception)
        end = await one.run(assignment(2, "python", "2.7", payload=b""))
        assert end.reason.startswith("InvalidArguments: the function was pickled by Python 2.7")
        assert end.result is None


async def test_a_function_can_see_that_it_shall_end_and_say_how_far_it_is(tmp_path: Path) -> None:
    def wait() -> None:
        from time import sleep

        context = current_context()
        context.log("up")
        context.progress(0.25, f"attempt {context.attempt}")  # last: the test stops it when it has heard this
        while not context.cancelled:
            try:
                sleep(0.01)
            except Exception:
                context.log("never")

    async with rig(tmp_path, progress_ms=10) as one:
        before = slot_pid(one)
        one.leader.start(call(1, wait))
        await eventually(
            lambda: [p.message for beat in one.leader.heartbeats for p in beat.progress],
            WAIT_S,
            "its progress",
        )
        one.leader.stop(token(1))
        assert (await one.leader.end_of(token(1))).outcome is AttemptOutcome.CANCELLED
        assert one.output(1, "stderr") == b"up\n"
        assert slot_pid(one) == before
    with pytest.raises(RuntimeError, match="no attempt"):
        current_context()


async def test_a_limit_is_named_also_in_what_a_function_raised(tmp_path: Path) -> None:
    def grow() -> int:
        return len(bytearray(800 * 1024 * 1024))

    def burn() -> None:
        while True:
            sum(range(1000))

    async with rig(tmp_path, limits=Limits(memory_bytes=200 * 1024 * 1024, cpu_ms=500)) as one:
        end = await one.run(call(1, grow))
        assert end.reason.endswith("bytes of memory (task_memory_bytes)")
        assert isinstance(error_of(end)[0], MemoryError)
        end = await one.run(call(2, burn))
        assert end.reason == "over this node's limit of 500 ms of CPU time (task_cpu_ms)"
        assert (await one.run(call(3, abs, -1))).outcome is AttemptOutcome.SUCCEEDED
