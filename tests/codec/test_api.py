"""Tasks as clients see them: whole in lists, and no more of them in a page than a message holds."""

from raftd.codec.api import encode_page, encode_task
from raftd.scheduler.model import TaskSpec, TaskState
from tests.scheduler.world import World, submission

PAGE_BYTES = 100_000


def test_a_listed_task_has_every_attempt_and_its_environment() -> None:
    world = World(["n1", "n2"])
    job = world.accept(submission("r1", TaskSpec("noop", env=(("LIGHT", "dim"),))))
    task_id = job.first_task_id
    world.occupy(task_id, "n1")
    world.lose("n1")
    world.occupy(task_id, "n2")
    [task], more = encode_page([world.state.tasks[task_id]], PAGE_BYTES)
    assert not more
    assert [(one.number, one.node) for one in task.attempts] == [(1, "n1"), (2, "n2")]
    assert dict(task.env) == {"LIGHT": "dim"}


def test_a_page_of_large_tasks_ends_in_time_and_the_rest_follows() -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", args=("x" * 20_000,))
    tasks = [world.state.tasks[world.accept(submission(f"r{n}", spec)).first_task_id] for n in range(9)]
    left, told = list(tasks), []
    while left:
        page, more = encode_page(left, PAGE_BYTES)
        assert 0 < sum(task.ByteSize() for task in page) < PAGE_BYTES + 21_000
        assert more == (len(page) < len(left))
        told += [task.task_id for task in page]
        left = left[len(page) :]
    assert told == [encode_task(task).task_id for task in tasks]


def test_a_task_larger_than_a_page_is_a_page() -> None:
    world = World(["n1"])
    huge = world.state.tasks[world.accept(submission("r", TaskSpec("noop", args=("x" * 500,)))).first_task_id]
    assert encode_page([huge, huge], 100) == ([encode_task(huge)], True)
    assert encode_page([], 100) == ([], False)


def test_a_task_that_waits_for_its_turn_is_pending_and_says_which_attempt_waits() -> None:
    world = World(["n1"])
    head, task_id = world.submit(), world.submit()
    world.occupy(head)
    world.reserve(task_id)
    task = encode_task(world.state.tasks[task_id])
    assert (int(task.state), task.attempts[0].reserved) == (int(TaskState.PENDING), True)
    world.end(head)
    task = encode_task(world.state.tasks[task_id])
    assert (int(task.state), task.attempts[0].reserved) == (int(TaskState.RUNNING), False)
