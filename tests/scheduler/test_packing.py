"""Ended tasks in few bytes: each comes back as it was, and a table of them is a table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.model import (
    Attempt,
    AttemptOutcome,
    BlobRef,
    FencingToken,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.packing import PackedTask, TaskTable, as_task, pack, unpack

ENDS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
texts = st.text(max_size=20) | st.just("\ud800")

attempts = st.builds(
    Attempt,
    u64,
    texts,
    u32,
    u64,
    st.builds(FencingToken, u64, u64),
    u64,
    u64,
    u64,
    st.none() | st.sampled_from(AttemptOutcome),
    texts,
    st.none() | st.sampled_from(StopReason),
    st.lists(u32, max_size=3).map(tuple),
)
tasks = st.builds(
    Task,
    u64,
    st.just(TaskSpec("noop")),
    st.sampled_from(ENDS),
    st.none() | st.integers(1, 2**64 - 1),
    st.none() | st.integers(0, 2**53),
    texts,
    u64,
    u64,
    st.lists(attempts, max_size=3).map(tuple),
    u64,
    u64,
    u64,
    st.none() | st.binary(max_size=9) | st.builds(BlobRef, texts, u64),
    texts,
    u64,
    u64,
)


@given(tasks)
def test_an_ended_task_comes_back_as_it_was(task: Task) -> None:
    packed = pack(task)
    assert unpack(task.id, packed) == task
    assert pack(unpack(task.id, packed)) == packed
    assert packed.spec is task.spec


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
    assert isinstance(record, PackedTask)
    with pytest.raises(KeyError):
        table.remove(2)
