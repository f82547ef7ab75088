"""Ended tasks in few bytes: each comes back as it was, and a table of them is a table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.model import (
    MAX_TIME_MS,
    Attempt,
    AttemptOutcome,
    BlobRef,
    FencingToken,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.packing import SharingTask, TaskTable, as_task, pack, unpack

ENDS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
# Numbers of all widths, and not only of the widest.
numbers = st.integers(0, 300) | st.integers(0, 2**16) | u32 | u64
times = st.just(0) | st.integers(1_700_000_000_000, 1_700_000_100_000) | st.integers(0, MAX_TIME_MS)
texts = st.text(max_size=20) | st.just("\ud800")

attempts = st.builds(
    Attempt,
    numbers,
    texts,
    u32,
    numbers,
    st.builds(FencingToken, numbers, numbers),
    times,
    times,
    times,
    st.none() | st.sampled_from(AttemptOutcome),
    texts,
    st.none() | st.sampled_from(StopReason),
    st.lists(u32, max_size=3).map(tuple),
)
pairs = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)
specs = st.just(TaskSpec("noop")) | st.builds(
    TaskSpec,
    texts,
    st.lists(texts | st.text(max_size=600), max_size=3).map(tuple),
    st.binary(max_size=5) | st.binary(min_size=250, max_size=1_100),
    pairs,
    texts,
    st.integers(-(2**31), 2**31),
    u32,
    times,
    times,
    times,
    times,
    times,
    pairs,
    numbers,
)
request_ids = (
    texts
    | st.from_regex(r"\A[0-9a-f]{12}-[0-9a-f]{20}\Z")
    | st.just("0" * 12 + "-" + "0" * 20)
    | st.just("\0a")
)
tasks = st.builds(
    Task,
    u64,
    specs,
    st.sampled_from(ENDS),
    st.none() | st.integers(1, 2**64 - 1),
    st.none() | st.integers(0, 2**53),
    request_ids,
    times,
    times,
    st.lists(attempts, max_size=3).map(tuple),
    numbers,
    numbers,
    numbers,
    st.none() | st.binary(max_size=9) | st.builds(BlobRef, texts, u64),
    texts,
    times,
    numbers,
)


@given(tasks)
def test_an_ended_task_comes_back_as_it_was(task: Task) -> None:
    packed = pack(task)
    assert unpack(task.id, packed) == task
    assert pack(unpack(task.id, packed)) == packed
    if task.array_index is not None:
        assert isinstance(packed, SharingTask)
        assert packed.spec is task.spec


def test_a_task_of_many_attempts_on_many_slots_comes_back_as_it_was() -> None:
    attempt = Attempt(
        1, "n1", 0, 1, FencingToken(1, 1), 1, 1, 1, AttemptOutcome.LOST, extra_slots=tuple(range(1, 1_024))
    )
    attempts = tuple(replace(attempt, number=number) for number in range(1, 1_001))
    task = Task(
        1,
        TaskSpec("noop", slots=1_024),
        TaskState.FAILED,
        None,
        None,
        "r",
        1,
        0,
        attempts,
        0,
        1,
        0,
        None,
        "",
        2,
        3,
    )
    assert unpack(1, pack(task)) == task


def test_a_long_spec_is_not_packed_with_every_record() -> None:
    spec = TaskSpec("noop", payload=bytes(2_000))
    task = Task(1, spec, TaskState.FAILED, None, None, "r", 1, 0, (), 0, 1, 0, None, "", 2, 3)
    assert unpack(1, pack(task)).spec is spec


@given(
    st.lists(
        tasks.map(lambda task: replace(task, id=task.id % 600)), max_size=9, unique_by=lambda task: task.id
    )
)
def test_a_table_holds_ended_and_live_tasks_alike(mixed: list[Task]) -> None:
    table, plain = TaskTable(), dict[int, Task]()
    for task in sorted(mixed, key=lambda task: task.id):
        live = replace(task, state=TaskState.RUNNING) if task.id % 2 else task
        table.put(task.id, live)
        plain[task.id] = live
    assert list(table.items()) == list(plain.items())
    assert list(table.values()) == list(plain.values())
    assert [table.get(task_id) for task_id in range(600)] == [plain.get(task_id) for task_id in range(600)]
    assert [task.id for task in table.from_key(300)] == [task_id for task_id in plain if task_id >= 300]
    frozen = {
        task_id: as_task(task_id, record) for chunk in table.freeze() for task_id, record in chunk.items()
    }
    assert frozen == plain
    for task_id in plain:
        assert table[task_id] == plain[task_id]
        table.remove(task_id)
        assert task_id not in table
    assert len(table) == 0


def test_only_ended_tasks_are_packed() -> None:
    table = TaskTable()
    task = Task(1, TaskSpec("noop"), TaskState.PENDING, None, None, "r", 1, 0, (), 0, 0, 0, None, "", 0, 1)
    table.put(1, task)
    assert table[1] is task
    table.put(1, replace(task, state=TaskState.CANCELLED))
    ((record,),) = (tuple(chunk.values()) for chunk in table.freeze())
    assert isinstance(record, bytes)
    with pytest.raises(KeyError):
        table.remove(2)
