"""What a node grants an attempt: each limit ends what goes over it, says so, and leaves a slot that works."""

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from raftd.executor.limits import NONE, Limits
from raftd.executor.slot_fence import Fence
from raftd.executor.status import describe_status
from raftd.executor.usage import Watch
from raftd.scheduler.model import AttemptOutcome, BlobRef
from tests.executor.fakes import Rig, assignment, token
from tests.executor.test_slots import PYTHON, running_on_slot, shell, slot_pid, with_test_kinds
from tests.support import wait_until

KINDS = ("noop", "shell", "sleep", "python", "test-greedy", "test-greedy-isolated")
MIB = 1024 * 1024


def rig(directory: Path, limits: Limits = NONE, **more: Any) -> Rig:
    made = Rig(directory, kinds=KINDS, task_env=with_test_kinds(), limits=limits, **more)
    made.leader.patience_s = 80  # what uses up CPU time needs some, on a machine that is busy
    return made


@pytest.mark.parametrize("kind", ["test-greedy", "test-greedy-isolated"])
@pytest.mark.parametrize(
    ("limits", "what", "words"),
    [
        (Limits(cpu_ms=300), ("cpu", "0"), "over this node's limit of 300 ms of CPU time (task_cpu_ms)"),
        (
            Limits(memory_bytes=100 * MIB),
            ("memory", str(400 * MIB)),
            "MemoryError: over this node's limit of 104857600 bytes of memory (task_memory_bytes)",
        ),
        (
            Limits(file_bytes=10_000),
            ("file", "20000"),
            "over this node's limit of 10000 bytes in one file (task_file_bytes)",
        ),
    ],
)
async def test_a_python_kind_that_goes_over_a_limit_fails(
    tmp_path: Path, kind: str, limits: Limits, what: tuple[str, str], words: str
) -> None:
    async with rig(tmp_path, limits) as one:
        end = await one.run(assignment(1, kind, *what))
        assert end.outcome is AttemptOutcome.FAILED
        assert end.reason.endswith(words)
        assert (await one.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_who_does_not_listen_is_killed_by_the_system(tmp_path: Path) -> None:
    async with rig(tmp_path, Limits(cpu_ms=200)) as one:
        end = await one.run(assignment(1, "test-greedy", "deaf", "0"))
        assert end.outcome is AttemptOutcome.CRASHED
        assert end.reason == (
            f"its slot's process ended: killed by signal {int(signal.SIGXCPU)} (SIGXCPU): "
            "over this node's limit of 200 ms of CPU time (task_cpu_ms)"
        )
        assert (await one.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_limits_are_of_one_attempt_and_not_of_the_slot(tmp_path: Path) -> None:
    limits = Limits(cpu_ms=60_000, memory_bytes=200 * MIB, file_bytes=30_000)
    async with rig(tmp_path, limits) as one:
        pid = slot_pid(one)
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        for counter in range(1, 4):
            end = await one.run(assignment(counter, "test-greedy", "memory", str(100 * MIB)))
            assert (end.outcome, end.reason) == (AttemptOutcome.SUCCEEDED, "")
        assert slot_pid(one) == pid
        for number in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
            assert resource.prlimit(pid, number) == before


async def test_results_and_blobs_are_no_files_of_the_attempt(tmp_path: Path) -> None:
    async with rig(tmp_path, Limits(file_bytes=1_000)) as one:
        end = await one.run(assignment(1, "test-greedy", "result", "50000"))
        assert isinstance(end.result, BlobRef)
        assert end.result.size_bytes == 50_000
        end = await one.run(assignment(2, "test-greedy", "put", "50000"))
        assert isinstance(end.result, bytes)
        assert len(one.store.kept[end.result.decode()]) == 50_000


BURN = "while True: sum(range(1000))"
GROW = """import signal
kept = bytearray(300_000_000)
for at in range(0, len(kept), 4096): kept[at] = 1
signal.pause()"""
FAMILY = """import signal, subprocess
for _ in range(8): subprocess.Popen(["sleep", "1000"])
signal.pause()"""
PARENT = """import subprocess, sys
subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1]], start_new_session=True).wait()"""
WRITE = """import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
open("large", "wb", buffering=0).write(b"x" * 10_000); open("large", "ab", buffering=0).write(b"x" * 10_000)"""


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (Limits(cpu_ms=400), BURN, "over this node's limit of 400 ms of CPU time (task_cpu_ms)"),
        (
            Limits(memory_bytes=100 * MIB),
            GROW,
            "over this node's limit of 104857600 bytes of memory (task_memory_bytes)",
        ),
        (Limits(processes=4), FAMILY, "over this node's limit of 4 processes at once (task_processes)"),
    ],
)
async def test_a_program_and_all_below_it_are_held_to_the_limits_together(
    tmp_path: Path, limits: Limits, code: str, words: str
) -> None:
    async with rig(tmp_path, limits) as one:
        pid = slot_pid(one)
        for counter, attempt in ((1, shell(1, code)), (2, shell(2, PARENT, code))):
            end = await one.run(attempt)
            assert (counter, end.outcome, end.reason) == (counter, AttemptOutcome.FAILED, words)
        assert (await one.run(assignment(3))).outcome is AttemptOutcome.SUCCEEDED
        assert slot_pid(one) == pid, "the slot itself had nothing to do with it"


async def test_a_program_that_writes_too_large_a_file_is_killed(tmp_path: Path) -> None:
    async with rig(tmp_path, Limits(file_bytes=10_000)) as one:
        end = await one.run(shell(1, WRITE))
        assert end.outcome is AttemptOutcome.FAILED
        assert end.reason.startswith(f"killed by signal {int(signal.SIGXFSZ)} (SIGXFSZ)")
        assert end.reason.endswith("over this node's limit of 10000 bytes in one file (task_file_bytes)")


@pytest.mark.parametrize("kind", ["test-greedy", "test-greedy-isolated"])
async def test_who_writes_without_end_fails(tmp_path: Path, kind: str) -> None:
    async with rig(tmp_path, output_limit_bytes=2_000, output_over_bytes=100_000) as one:
        end = await one.run(assignment(1, kind, "output", "1000000000000"))
        assert end.outcome is AttemptOutcome.FAILED
        assert end.reason == "over this node's limit of 100000 bytes of output (task_output_bytes)"
        assert one.output(1) == b"x" * 2_000
        assert (await one.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_who_has_written_too_much_when_it_ends_fails_too(tmp_path: Path) -> None:
    async with rig(tmp_path, output_over_bytes=10_000) as one:
        for counter, amount in ((1, "10000"), (2, "11000")):
            await one.run(assignment(counter, "test-greedy", "output", amount))
        outcomes = [end.outcome for end in one.leader.ended]
        assert outcomes == [AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED]
        assert (await one.run(assignment(3, "sleep", "0.01"))).outcome is AttemptOutcome.SUCCEEDED


async def test_a_slot_that_aborts_under_a_memory_limit_says_that_it_may_be_the_reason(tmp_path: Path) -> None:
    async with rig(tmp_path, Limits(memory_bytes=500 * MIB)) as one:
        end = await one.run(assignment(1, "test-greedy", "abort", "0"))
        assert end.outcome is AttemptOutcome.CRASHED
        assert "(SIGABRT): perhaps for want of memory: this node's limit is" in end.reason


async def test_a_stop_counts_also_for_who_is_over_a_limit(tmp_path: Path) -> None:
    async with rig(tmp_path, Limits(cpu_ms=100), stop_grace_ms=100) as one:
        one.leader.start(assignment(1, "test-greedy", "deaf", "0"))
        await running_on_slot(one, 1)
        one.leader.stop(token(1))
        assert (await one.leader.end_of(token(1))).outcome is AttemptOutcome.CANCELLED


def test_a_shell_passes_on_what_its_program_died_of() -> None:
    limits = Limits(file_bytes=5)
    status = (128 + signal.SIGXFSZ) << 8
    assert describe_status(status, limits).endswith("bytes in one file (task_file_bytes)")
    assert describe_status(status) == f"exit status {128 + signal.SIGXFSZ}"
    assert describe_status(signal.SIGKILL, limits) == "killed by signal 9 (SIGKILL)"


def test_a_fence_raises_nothing_and_leaves_nothing() -> None:
    numbers = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
    before = [resource.getrlimit(number) for number in numbers]
    was = signal.getsignal(signal.SIGPROF)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, before[2][1]))
    fence = Fence(Limits(cpu_ms=10_000, memory_bytes=1 << 40, file_bytes=1 << 40), lambda *_: None)
    try:
        fence.close()
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 5_000_000
        assert resource.getrlimit(resource.RLIMIT_CPU)[0] > 0
        fence.open()
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 5_000_000
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[2])
        signal.signal(signal.SIGPROF, was)
    assert [resource.getrlimit(number) for number in numbers] == before


def test_what_was_waited_for_counts() -> None:
    watch = Watch(Limits(cpu_ms=150))
    assert watch.over() == ""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    pid = os.posix_spawn(PYTHON, [PYTHON, "-S", "-c", burn], os.environ)
    wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0], 30, "the child to end")
    assert "task_cpu_ms" in watch.over()
    assert Watch(Limits(cpu_ms=150)).over() == ""
