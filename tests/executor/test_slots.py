"""Attempts on real slot processes, under a leader in memory."""

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest

from raftd.errors import BlobNotFound, LogsGone, QueueFull, StorageError, Unavailable
from raftd.executor.process_tree import process_table
from raftd.scheduler.attach import Assignment, AttachDown
from raftd.scheduler.model import AttemptOutcome, BlobRef, StopReason
from tests.executor.conftest import Family
from tests.executor.fakes import WAIT_S, Rig, assignment, token
from tests.support import eventually

TREE = str(Path(__file__).parent / "tree.py")
PYTHON = sys.executable


PAIR = """import pathlib, select, sys
pathlib.Path(sys.argv[1]).touch()
while not pathlib.Path(sys.argv[2]).exists(): select.select([], [], [], 0.01)"""

WHO_AM_I = """import os, sys
mine = {k: v for k, v in os.environ.items() if k.startswith("RAFTD_") and k != "RAFTD_SLOT_OF"}
print(sorted(mine.items()), os.environ["COLOUR"], sys.stdin.read(), os.listdir())"""

TIDY = """import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("tidied", flush=True), sys.exit(0)))
print("up", flush=True)
signal.pause()"""

STUBBORN = """import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
signal.pause()"""

FLOOD = """import sys
for _ in range(400): sys.stdout.write("x" * 10_000)
print("end")
print("well", file=sys.stderr)"""

TWO_LINES = """import pathlib, select, sys
print("first", flush=True)
while not pathlib.Path(sys.argv[1]).exists(): select.select([], [], [], 0.01)
print("second")"""

WHERE = """import os, pathlib
pathlib.Path("file").write_text("x")
print(os.getcwd(), oct(os.stat(".").st_mode & 0o777))"""


def shell(
    counter: int,
    code: str,
    *args: str,
    payload: bytes = b"",
    env: dict[str, str] | None = None,
    array_index: int | None = None,
) -> Assignment:
    return assignment(
        counter, "shell", PYTHON, "-S", "-c", code, *args, payload=payload, env=env, array_index=array_index
    )


def slot_pid(rig: Rig, index: int = 0) -> int:
    link = rig.executor._pool._slots[index].link
    assert link is not None
    return link.pid


async def running_on_slot(rig: Rig, counter: int) -> None:
    """Waits until an attempt has been handed to its slot's process."""

    def there() -> bool:
        attempt = rig.executor.find_running(token(counter))
        return attempt is not None and attempt.started_at_ms > 0

    await eventually(there, WAIT_S, f"{counter} to be on its slot")


async def test_noop_succeeds_without_a_result_or_a_trace(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        end = await rig.run(assignment(1))
        assert end.outcome is AttemptOutcome.SUCCEEDED
        assert end.result is None
        assert 0 < end.started_at_ms <= end.ended_at_ms
        assert list((tmp_path / "attempts").iterdir()) == []


async def test_attempts_of_one_slot_run_one_after_the_other_and_of_two_at_once(tmp_path: Path) -> None:
    async with Rig(tmp_path, slots=2) as rig:
        one, two = str(tmp_path / "one"), str(tmp_path / "two")
        rig.leader.start(
            assignment(1, "shell", PYTHON, "-S", "-c", PAIR, one, two, slot=0),
            assignment(2, "shell", PYTHON, "-S", "-c", PAIR, two, one, slot=1),
            assignment(3, slot=0),
        )
        for counter in (1, 2, 3):
            assert (await rig.leader.end_of(token(counter))).outcome is AttemptOutcome.SUCCEEDED
        ends = [end.token.counter for end in rig.leader.ended]
        assert ends.index(1) < ends.index(3)


async def test_a_task_sees_who_it_is_and_what_its_submitter_chose(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        env = {"COLOUR": "green", "RAFTD_TASK_ID": "mine"}
        end = await rig.run(shell(17, WHO_AM_I, env=env, payload=b"given", array_index=3))
        assert end.result == (
            b"[('RAFTD_ARRAY_INDEX', '3'), ('RAFTD_ATTEMPT', '1'), ('RAFTD_FENCING_TOKEN', '1.17'),"
            b" ('RAFTD_TASK_ID', 't17')] green given []\n"
        )


async def test_a_program_that_fails_says_how(tmp_path: Path) -> None:
    plain, nonsense = tmp_path / "plain", tmp_path / "nonsense"
    plain.touch(0o600)
    nonsense.write_bytes(b"\x7fnonsense")
    nonsense.chmod(0o700)
    async with Rig(tmp_path) as rig:
        for counter, argv, reason in (
            (1, ("sh", "-c", "echo to-err >&2; exit 3"), "exit status 3"),
            (2, ("sh", "-c", "kill -9 $$"), "killed by signal 9 (SIGKILL)"),
            (3, ("no-such-program",), "no program 'no-such-program' on this node"),
            (4, (str(plain),), f"'{plain}' may not be executed on this node"),
            (5, (str(nonsense),), f"'{nonsense}' is nothing that this system can execute"),
        ):
            end = await rig.run(assignment(counter, "shell", *argv))
            assert (end.outcome, end.reason) == (AttemptOutcome.FAILED, reason)
        assert rig.output(1, "stderr") == b"to-err\n"
        assert (await rig.run(assignment(6))).outcome is AttemptOutcome.SUCCEEDED


async def test_wrong_arguments_fail_in_the_slot_with_a_traceback_in_the_log(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        end = await rig.run(assignment(1, "sleep", "soon"))
        assert end.outcome is AttemptOutcome.FAILED
        assert end.reason.startswith("InvalidArguments: sleep 'soon'")
        assert b"Traceback" in rig.output(1, "stderr")


async def test_what_cannot_run_here_is_not_started(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("noop",)) as rig:
        for counter, wrong, words in (
            (1, assignment(1, "shell", "true"), "does not offer the kind 'shell'"),
            (2, assignment(2, slot=1), "has no slot 1"),
        ):
            end = await rig.run(wrong)
            assert end.outcome is AttemptOutcome.NOT_STARTED
            assert words in end.reason
            assert (end.started_at_ms, counter) == (0, end.task_id)


async def test_the_whole_tree_dies_with_its_program(tmp_path: Path, family: Family) -> None:
    async with Rig(tmp_path) as rig:
        end = await rig.run(assignment(1, "shell", PYTHON, TREE, str(family.file), "leave"))
        assert end.outcome is AttemptOutcome.SUCCEEDED
        assert len(family.read()) == 5
        assert family.alive() == set()


async def test_cancel_reaches_every_process_with_term_then_kill(tmp_path: Path, family: Family) -> None:
    async with Rig(tmp_path, stop_grace_ms=100) as rig:
        rig.leader.start(assignment(1, "shell", PYTHON, TREE, str(family.file), "stay"))
        await asyncio.to_thread(family.read)
        rig.leader.stop(token(1))
        end = await rig.leader.end_of(token(1))
        assert end.outcome is AttemptOutcome.CANCELLED
        assert family.alive() == set()


async def test_cancel_gives_a_program_the_grace_to_tidy_up(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        before = slot_pid(rig)
        rig.leader.start(shell(1, TIDY))
        await running_on_slot(rig, 1)
        await eventually(lambda: rig.output(1) == b"up\n", WAIT_S, "the program to be up")
        rig.leader.stop(token(1))
        end = await rig.leader.end_of(token(1))
        assert end.outcome is AttemptOutcome.CANCELLED
        assert rig.output(1) == b"up\ntidied\n"
        assert slot_pid(rig) == before


async def test_a_program_that_ignores_term_is_killed_after_the_grace_and_its_slot_replaced(
    tmp_path: Path,
) -> None:
    async with Rig(tmp_path, stop_grace_ms=100) as rig:
        before = slot_pid(rig)
        rig.leader.start(shell(1, STUBBORN))
        await running_on_slot(rig, 1)
        await eventually(lambda: rig.output(1) == b"up\n", WAIT_S, "the program to be up")
        rig.leader.stop(token(1))
        end = await rig.leader.end_of(token(1))
        assert (end.outcome, end.reason) == (AttemptOutcome.CANCELLED, "killed after the grace")
        assert (await rig.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED
        assert slot_pid(rig) != before


async def test_sleep_ends_at_once_when_cancelled_and_its_slot_lives_on(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        before = slot_pid(rig)
        rig.leader.start(assignment(1, "sleep", "1000"))
        await running_on_slot(rig, 1)
        rig.leader.stop(token(1))
        end = await rig.leader.end_of(token(1))
        assert end.outcome is AttemptOutcome.CANCELLED
        assert (await rig.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED
        assert slot_pid(rig) == before


async def test_a_stop_never_hits_the_attempt_after_the_one_that_was_meant(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.run(assignment(1))
        rig.leader.start(assignment(2, "sleep", "0.3"))
        await running_on_slot(rig, 2)
        link = rig.executor._pool._slots[0].link
        assert link is not None
        link.send({"t": "stop", "token": "1.1"})
        os.kill(link.pid, signal.SIGTERM)
        assert (await rig.leader.end_of(token(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_a_waiting_attempt_is_stopped_without_ever_starting(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"), assignment(2))
        await running_on_slot(rig, 1)
        rig.leader.stop(token(2))
        end = await rig.leader.end_of(token(2))
        assert (end.outcome, end.started_at_ms) == (AttemptOutcome.CANCELLED, 0)
        rig.leader.stop(token(1))
        await rig.leader.end_of(token(1))


async def test_one_that_is_withdrawn_never_starts_unless_it_has_begun_and_then_it_goes_on(
    tmp_path: Path,
) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "0.5"), assignment(2), assignment(3))
        await running_on_slot(rig, 1)
        rig.leader.stop(token(1), StopReason.WITHDRAWN)
        rig.leader.stop(token(2), StopReason.WITHDRAWN)
        withdrawn = await rig.leader.end_of(token(2))
        assert (withdrawn.outcome, withdrawn.started_at_ms) == (AttemptOutcome.WITHDRAWN, 0)
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.SUCCEEDED
        assert (await rig.leader.end_of(token(3))).outcome is AttemptOutcome.SUCCEEDED


async def test_one_that_was_to_be_withdrawn_and_had_begun_can_be_cancelled(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"))
        await running_on_slot(rig, 1)
        rig.leader.stop(token(1), StopReason.WITHDRAWN)
        rig.leader.stop(token(1))
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.CANCELLED


async def test_those_that_wait_behind_a_slot_that_dies_go_on_with_the_next_process(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"), assignment(2), assignment(3))
        await running_on_slot(rig, 1)
        before = slot_pid(rig)
        os.kill(before, signal.SIGKILL)
        outcomes = [(await rig.leader.end_of(token(counter))).outcome for counter in (1, 2, 3)]
        assert outcomes == [AttemptOutcome.CRASHED, AttemptOutcome.SUCCEEDED, AttemptOutcome.SUCCEEDED]
        assert slot_pid(rig) != before
        assert [end.token.counter for end in rig.leader.ended] == [1, 2, 3]


@pytest.mark.parametrize("what", [("sleep", "1000"), ("shell", "sleep", "1000")])
async def test_the_run_timeout_ends_an_attempt(tmp_path: Path, what: tuple[str, ...]) -> None:
    async with Rig(tmp_path) as rig:
        kind, *args = what
        end = await rig.run(assignment(1, kind, *args, run_timeout_ms=100))
        assert (end.outcome, end.reason) == (
            AttemptOutcome.TIMED_OUT,
            "ran longer than its timeout of 100 ms",
        )


async def test_a_slot_that_dies_is_replaced_and_its_attempt_crashed(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"))
        await running_on_slot(rig, 1)
        os.kill(slot_pid(rig), signal.SIGSEGV)
        end = await rig.leader.end_of(token(1))
        assert end.outcome is AttemptOutcome.CRASHED
        assert "signal 11" in end.reason
        assert (await rig.run(assignment(2))).outcome is AttemptOutcome.SUCCEEDED


async def test_the_tree_of_a_slot_that_died_is_gone_before_its_crash_is_told(
    tmp_path: Path, family: Family
) -> None:
    async with Rig(tmp_path) as rig:
        rig.leader.start(assignment(1, "shell", PYTHON, TREE, str(family.file), "stay"))
        await asyncio.to_thread(family.read)
        os.kill(slot_pid(rig), signal.SIGKILL)
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.CRASHED
        assert family.alive() == set()


async def test_output_is_bounded_without_the_task_noticing(tmp_path: Path) -> None:
    async with Rig(tmp_path, output_limit_bytes=50_000) as rig:
        end = await rig.run(shell(1, FLOOD))
        assert end.outcome is AttemptOutcome.SUCCEEDED
        logs = rig.executor.open_logs(1, 1)
        assert logs.ended
        assert logs.truncated("stdout")
        assert not logs.truncated("stderr")
        assert rig.output(1) == b"x" * 50_000
        assert rig.output(1, "stderr") == b"well\n"
        assert isinstance(end.result, bytes)
        assert end.result.endswith(b"xxxend\n")
        assert len(end.result) == 4096


async def test_output_of_each_attempt_is_complete_when_its_end_is_told_and_goes_to_no_other(
    tmp_path: Path,
) -> None:
    async with Rig(tmp_path) as rig:
        for counter in range(1, 30):
            await rig.run(assignment(counter, "shell", "echo", str(counter)))
            assert rig.output(counter) == f"{counter}\n".encode()


async def test_output_can_be_followed_while_it_comes(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        go_on = tmp_path / "go-on"
        rig.leader.start(shell(1, TWO_LINES, str(go_on)))
        await running_on_slot(rig, 1)
        logs = rig.executor.open_logs(1, 1)
        seen = b""
        async with asyncio.timeout(WAIT_S):
            while True:
                seen += logs.read("stdout", len(seen))
                if seen == b"first\n":
                    go_on.touch()
                if logs.ended:
                    break
                await logs.changed()
        assert seen + logs.read("stdout", len(seen)) == b"first\nsecond\n"


async def test_logs_of_unknown_attempts_are_gone(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        with pytest.raises(LogsGone, match="t5, attempt 1"):
            rig.executor.open_logs(5, 1)


async def test_a_working_directory_is_private_and_goes_with_the_attempt(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        end = await rig.run(shell(1, WHERE))
        assert isinstance(end.result, bytes)
        where, mode = end.result.decode().split()
        assert Path(where).is_relative_to(tmp_path / "work")
        assert mode == "0o700"
        assert not list((tmp_path / "work").rglob("file"))


async def test_a_large_result_goes_to_the_store_and_is_tried_until_it_is_there(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-bytes",), task_env=with_test_kinds()) as rig:
        rig.store.refusals = [Unavailable("no majority"), QueueFull("not now")]
        end = await rig.run(assignment(1, "test-bytes", "100000"))
        assert end.outcome is AttemptOutcome.SUCCEEDED
        assert isinstance(end.result, BlobRef)
        assert rig.store.kept[end.result.digest] == b"x" * 100_000
        assert end.blob_holders == ("n1", "n2")
        assert rig.store.puts == 3
        assert not list((tmp_path / "work").rglob("*.result"))


async def test_a_small_result_goes_along(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-bytes",), task_env=with_test_kinds()) as rig:
        assert (await rig.run(assignment(1, "test-bytes", "4096"))).result == b"x" * 4096
        assert rig.store.puts == 0


async def test_a_result_that_can_never_be_stored_fails_the_attempt(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-bytes",), task_env=with_test_kinds()) as rig:
        rig.store.refusals = [StorageError("disk is damaged")]
        end = await rig.run(assignment(1, "test-bytes", "100000"))
        assert (end.outcome, end.reason) == (
            AttemptOutcome.FAILED,
            "the result cannot be stored: disk is damaged",
        )


async def test_a_result_over_the_limit_fails_the_attempt(tmp_path: Path) -> None:
    async with Rig(
        tmp_path, kinds=("test-bytes",), task_env=with_test_kinds(), result_limit_bytes=50_000
    ) as rig:
        end = await rig.run(assignment(1, "test-bytes", "100000"))
        assert (end.outcome, end.reason) == (
            AttemptOutcome.FAILED,
            "the result has 100000 bytes, the limit is 50000",
        )


async def test_an_attempt_whose_result_is_on_the_way_can_be_stopped(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-bytes",), task_env=with_test_kinds()) as rig:
        rig.store.refusals = [Unavailable("no majority")] * 1000
        rig.leader.start(assignment(1, "test-bytes", "100000"))
        await eventually(lambda: rig.store.puts, WAIT_S, "the store to be asked")
        rig.leader.stop(token(1))
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.CANCELLED


async def test_a_task_gets_blobs_and_says_how_far_it_is(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-blob",), task_env=with_test_kinds()) as rig:
        ref, _ = await rig.store.put(b"seven")
        end = await rig.run(assignment(1, "test-blob", ref.digest))
        assert end.result == b"seven"
        end = await rig.run(assignment(2, "test-blob", "0" * 64))
        assert end.reason == f"OSError: blob {'0' * 64}: {BlobNotFound('no blob ' + '0' * 64)}"


async def test_progress_reaches_the_leader(tmp_path: Path) -> None:
    async with Rig(tmp_path, progress_ms=10) as rig:
        rig.leader.start(assignment(1, "sleep", "1000"))

        def told() -> bool:
            return any(p.token == token(1) for beat in rig.leader.heartbeats for p in beat.progress)

        await eventually(told, WAIT_S, "progress of the sleep")
        rig.leader.stop(token(1))
        await rig.leader.end_of(token(1))


async def test_a_task_that_leaves_a_thread_or_a_process_leaves_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-leaver",), task_env=with_test_kinds()) as rig:
        before = slot_pid(rig)
        end = await rig.run(assignment(1, "test-leaver", "process"))
        assert isinstance(end.result, bytes)
        assert int(end.result) not in process_table()
        assert slot_pid(rig) == before
        await rig.run(assignment(2, "test-leaver", "thread"))
        await rig.run(assignment(3, "test-leaver", "nothing"))
        assert slot_pid(rig) != before


async def test_an_isolated_kind_has_an_interpreter_of_its_own(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-isolated",), task_env=with_test_kinds()) as rig:
        end = await rig.run(assignment(1, "test-isolated", "pid", payload=b"given"))
        assert isinstance(end.result, bytes)
        pid, payload = end.result.split()
        assert int(pid) not in (slot_pid(rig), os.getpid())
        assert payload == b"given"
        end = await rig.run(assignment(2, "test-isolated", "raise"))
        assert (end.outcome, end.reason) == (AttemptOutcome.FAILED, "ValueError: as asked")
        end = await rig.run(assignment(3, "test-isolated", "die"))
        assert (end.outcome, end.reason) == (AttemptOutcome.FAILED, "exit status 7")
        rig.leader.start(assignment(4, "test-isolated", "wait"))
        await running_on_slot(rig, 4)
        await eventually(lambda: rig.output(4) == b"up\n", WAIT_S, "the task to be up")
        rig.leader.stop(token(4))
        end = await rig.leader.end_of(token(4))
        assert (end.outcome, rig.output(4)) == (AttemptOutcome.CANCELLED, b"up\ntidied\n")


async def test_a_failure_brings_what_the_task_hands_over(tmp_path: Path) -> None:
    async with Rig(
        tmp_path, kinds=("test-fails",), task_env=with_test_kinds(), result_limit_bytes=200_000
    ) as rig:
        end = await rig.run(assignment(1, "test-fails", "5"))
        assert (end.outcome, end.reason, end.result) == (AttemptOutcome.FAILED, "as asked", b"eeeee")
        assert b"Traceback" not in rig.output(1, "stderr")
        end = await rig.run(assignment(2, "test-fails", "100000"))
        assert (end.outcome, end.reason) == (AttemptOutcome.FAILED, "as asked")
        assert isinstance(end.result, BlobRef)
        assert rig.store.kept[end.result.digest] == b"e" * 100_000
        assert end.blob_holders == ("n1", "n2")
        for counter, amount in ((3, "0"), (4, "200001")):
            end = await rig.run(assignment(counter, "test-fails", amount))
            assert (end.outcome, end.reason, end.result) == (AttemptOutcome.FAILED, "as asked", None)
        rig.store.refusals = [StorageError("disk is damaged")]
        end = await rig.run(assignment(5, "test-fails", "100000"))
        assert (end.outcome, end.reason, end.result) == (AttemptOutcome.FAILED, "as asked", None)


@pytest.mark.parametrize("source", ["bytes", "file"])
async def test_a_task_puts_blobs_and_waits_until_they_are_there(tmp_path: Path, source: str) -> None:
    kinds = ("test-puts", "test-puts-isolated")
    async with Rig(tmp_path, kinds=kinds, task_env=with_test_kinds()) as rig:
        rig.store.refusals = [Unavailable("no majority"), QueueFull("not now")]
        end = await rig.run(assignment(1, "test-puts", source))
        assert isinstance(end.result, bytes)
        wanted = b"eight" if source == "bytes" else b"nine"
        assert rig.store.kept[end.result.decode()] == wanted
        assert rig.store.puts == 3
        end = await rig.run(assignment(2, "test-puts-isolated", source))
        assert end.result == wanted + b" " + hashlib.sha256(wanted).hexdigest().encode()
        assert not list((tmp_path / "work").rglob("*.blob"))


async def test_what_cannot_be_put_is_the_tasks_to_handle(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-puts",), task_env=with_test_kinds()) as rig:
        rig.store.refusals = [StorageError("disk is damaged")]
        end = await rig.run(assignment(1, "test-puts", "file"))
        assert end.reason.startswith("OSError: blob ")
        assert end.reason.endswith("/made: disk is damaged")
        end = await rig.run(assignment(2, "test-puts", "/no/such/file"))
        assert end.reason.startswith("OSError: blob /no/such/file: [Errno 2]")


async def test_a_task_that_waits_for_its_put_can_be_stopped(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-puts",), task_env=with_test_kinds()) as rig:
        rig.store.refusals = [Unavailable("no majority")] * 1000
        before = slot_pid(rig)
        outlives = (
            tmp_path / "outlives"
        )  # a file of the attempt's own is gone with it, and so is the reason to try
        outlives.touch()
        rig.leader.start(assignment(1, "test-puts", str(outlives)))
        await eventually(lambda: rig.store.puts, WAIT_S, "the store to be asked")
        rig.leader.stop(token(1))
        assert (await rig.leader.end_of(token(1))).outcome is AttemptOutcome.CANCELLED
        transfers = rig.executor._pool._results._transfers
        await eventually(
            lambda: not transfers, WAIT_S, "nobody tries any more for the attempt that was stopped"
        )
        assert rig.store.refusals, "it was not for want of refusals"
        rig.store.refusals = []
        end = await rig.run(assignment(2, "test-puts", "bytes"))
        assert end.outcome is AttemptOutcome.SUCCEEDED
        assert slot_pid(rig) == before


async def test_the_context_says_who_it_is_to_whoever_asks(tmp_path: Path) -> None:
    async with Rig(tmp_path, kinds=("test-who",), task_env=with_test_kinds(), progress_ms=10) as rig:
        end = await rig.run(assignment(7, "test-who", payload=b"given", array_index=3))
        assert end.result == b"t7 1 1.7 3 b'given' False"
        assert rig.output(7, "stderr") == b"a task uses blobs from its main thread\n"
        before = slot_pid(rig)
        await rig.run(assignment(8, "test-who"))
        assert slot_pid(rig) == before


async def test_a_repeated_or_smaller_token_is_never_started(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    once = assignment(5, "shell", "sh", "-c", f"echo x >> {file}")
    async with Rig(tmp_path) as rig:
        await rig.run(once)
        rig.leader.say(AttachDown(start=(once, assignment(4))))
        await rig.run(assignment(6))
        assert file.read_text() == "x\n"
        assert [end.token.counter for end in rig.leader.ended] == [5, 6]


async def test_an_attempt_that_comes_as_stopping_never_starts(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        end = await rig.run(assignment(1, "sleep", "1000", stop=StopReason.CANCELLED))
        assert (end.outcome, end.started_at_ms) == (AttemptOutcome.CANCELLED, 0)


def with_test_kinds() -> dict[str, str]:
    """An environment in which slots find the kinds of test_kinds, as those of an installed distribution."""
    plugin = str(Path(__file__).parent / "plugin")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((plugin, str(Path(__file__).parent.parent.parent)))}
