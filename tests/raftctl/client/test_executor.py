"""`RaftExecutor` keeps what the standard library's executors promise."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftctl.client import errors
from raftctl.client.executor import RaftExecutor
from tests.raftctl.fake_server import Failure, FakeCluster
from tests.raftctl.fake_slots import FakeSlots
from tests.support import wait_until

DEADLINE_S = 20
ROOT = Path(__file__).parents[3]


@pytest.fixture
def slots(cluster: FakeCluster) -> Iterator[FakeSlots]:
    with FakeSlots(cluster) as made:
        yield made


def square(x: int) -> int:
    return x * x


def test_a_program_for_a_process_pool_runs_unchanged(cluster: FakeCluster, slots: FakeSlots) -> None:
    with RaftExecutor(cluster.endpoints, 4) as executor:
        futures = {executor.submit(square, n): n for n in range(10)}
        for future in concurrent.futures.as_completed(futures):
            assert future.result() == futures[future] ** 2
        assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 2)


@pytest.mark.parametrize("size", [1, 3, 10, 50])
def test_map_in_chunks_returns_the_same(cluster: FakeCluster, slots: FakeSlots, size: int) -> None:
    with RaftExecutor(cluster.endpoints) as executor:
        assert list(executor.map(square, range(20), chunksize=size)) == [n * n for n in range(20)]
        assert len(cluster.tasks) == -(-20 // size)


def test_what_cannot_be_is_refused(cluster: FakeCluster) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        RaftExecutor(cluster.endpoints, 0)
    with pytest.raises(TypeError, match="mp_context"):
        RaftExecutor(cluster.endpoints, mp_context=None)
    with RaftExecutor(cluster.endpoints) as executor, pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_options_are_those_of_a_submission(cluster: FakeCluster, slots: FakeSlots) -> None:
    with RaftExecutor(cluster.endpoints, priority=7, retries=2) as executor:
        executor.submit(square, 3).result(DEADLINE_S)
    assert (cluster.tasks["t1"].priority, cluster.tasks["t1"].retries) == (7, 2)


def test_max_workers_bounds_what_is_in_the_cluster(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    with RaftExecutor(cluster.endpoints, max_workers=2) as executor:
        futures = [executor.submit(square, n) for n in range(6)]
        wait_until(lambda: len(cluster.tasks) == 2, DEADLINE_S, "two are sent")
        slots.hold(held=False)
    assert [future.result() for future in futures] == [n * n for n in range(6)]


def test_shutdown_cancels_what_has_not_begun_if_told_to(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    for node in cluster.nodes.values():
        node.failures["Cancel"] = [Failure("no_leader")]  # so that closing has to wait for it
    executor = RaftExecutor(cluster.endpoints, max_workers=2)
    futures = [executor.submit(square, n) for n in range(6)]
    wait_until(lambda: len(cluster.tasks) == 2, DEADLINE_S, "two are sent")
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert {str(task.state) for task in cluster.tasks.values()} == {"5"}, "the cluster knows"
    assert not {thread.name for thread in threading.enumerate() if thread.name.startswith("raftctl")}


def wait_for_gate(x: int) -> int:
    assert gate.wait(DEADLINE_S)
    return x


gate = threading.Event()


def test_shutdown_lets_end_what_has_begun(cluster: FakeCluster, slots: FakeSlots) -> None:
    gate.clear()
    executor = RaftExecutor(cluster.endpoints, max_workers=5)
    futures = [executor.submit(wait_for_gate, n) for n in range(50)]
    wait_until(lambda: sum(future.running() for future in futures) == 2, DEADLINE_S, "both slots have begun")
    executor.shutdown(wait=False, cancel_futures=True)
    assert sum(future.cancelled() for future in futures) == 48
    gate.set()
    executor.shutdown()
    assert [future.result() for future in futures if not future.cancelled()] == [0, 1]


def test_shutdown_without_waiting_lets_everything_end(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    executor = RaftExecutor(cluster.endpoints)
    futures = [executor.submit(square, n) for n in range(6)]
    executor.shutdown(wait=False)
    slots.hold(held=False)
    assert [future.result(DEADLINE_S) for future in futures] == [n * n for n in range(6)]
    wait_until(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("raftctl")],
        DEADLINE_S,
        "the client is closed",
    )


def test_an_executor_that_is_let_go_ends_what_it_was_given(cluster: FakeCluster, slots: FakeSlots) -> None:
    slots.hold()
    executor = RaftExecutor(cluster.endpoints)
    results = executor.map(square, range(6))
    del executor
    gc.collect()
    slots.hold(held=False)
    assert list(results) == [n * n for n in range(6)]
    wait_until(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("raftctl")],
        DEADLINE_S,
        "the client is closed",
    )


@pytest.mark.usefixtures("_impatient")
def test_an_executor_is_broken_when_its_cluster_is_lost(cluster: FakeCluster, slots: FakeSlots) -> None:
    with RaftExecutor(cluster.endpoints, patience_s=0.5) as executor:
        executor.submit(square, 2).result(DEADLINE_S)
        for name in cluster.nodes:
            cluster.stop(name)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 2).result(60)
        with pytest.raises(errors.ClusterLost):
            executor.submit(square, 2)


# --- at the end of the interpreter -----------------------------------------------------------------------------------

PROGRAM = """
import atexit, pickle, sys

@atexit.register
def last():
    try:
        executor.submit(abs, -3)
    except RuntimeError as error:
        print(error)

from raftctl.client.executor import RaftExecutor

endpoints = pickle.loads(bytes.fromhex(sys.argv[1]))
executor = RaftExecutor(endpoints)
for x in (-1, -2):
    executor.submit(abs, x).add_done_callback(lambda future: print(future.result()))
{then}
"""


@pytest.mark.parametrize("then", ["", "executor.shutdown(wait=False)", "sys.exit(0)"])
def test_the_interpreter_waits_for_what_was_submitted(
    cluster: FakeCluster, slots: FakeSlots, then: str
) -> None:
    packed = pickle.dumps(cluster.endpoints).hex()
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(then=then), packed],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    assert sorted(ended.stdout.split("\n")[:2]) == ["1", "2"]
    assert ended.stdout.split("\n")[2] == "cannot schedule new futures after interpreter shutdown"
