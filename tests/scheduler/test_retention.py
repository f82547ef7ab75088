"""What is forgotten and when: by count, by age, a little with each entry, and never what has not ended."""

from raftd.scheduler.commands import Cancel
from raftd.scheduler.model import ArraySpec, Settings, TaskSpec
from tests.scheduler.world import World, submission


def kept(world: World) -> list[int]:
    return [task.id for task in world.state.tasks.values()]


def test_the_oldest_ended_tasks_go_first_when_there_are_too_many() -> None:
    world = World(["n1"], settings=Settings(tasks_kept=2))
    tasks = [world.submit() for _ in range(4)]
    for task_id in (tasks[1], tasks[0], tasks[2]):
        world.later(1)
        world.run(task_id)
    assert kept(world) == [tasks[0], tasks[2], tasks[3]]


def test_ended_tasks_go_when_they_are_old() -> None:
    world = World(["n1"], settings=Settings(tasks_kept_ms=1_000))
    old, running, pending = world.submit(), world.submit(), world.submit()
    world.run(old)
    world.occupy(running)
    world.later(1_000)
    world.apply()
    assert kept(world) == [old, running, pending]
    world.later(1)
    world.apply()
    assert kept(world) == [running, pending]


def test_no_entry_pays_for_thousands() -> None:
    world = World(["n1"], settings=Settings(tasks_kept_ms=1_000))
    job = world.accept(submission("job", TaskSpec("noop"), ArraySpec(0, 499)))
    world.do(Cancel(job_id=job.job_id))
    world.later(10_000)
    before = len(world.state.tasks)
    rounds = 0
    while len(world.state.tasks):
        world.apply()
        assert before - len(world.state.tasks) <= 16
        before = len(world.state.tasks)
        rounds += 1
    assert rounds > 20


def test_forgetting_keeps_up_with_what_ends() -> None:
    world = World(["n1"], settings=Settings(tasks_kept=0))
    for _ in range(10):
        job = world.accept(submission(world.new_request_id(), TaskSpec("noop"), ArraySpec(0, 99)))
        world.do(Cancel(job_id=job.job_id))
    for _ in range(70):
        world.apply()
    assert len(world.state.tasks) == 0


def test_a_job_is_forgotten_with_the_last_of_its_tasks_and_counts_them_all_until_then() -> None:
    world = World(["n1"], settings=Settings(tasks_kept=1))
    job = world.submit_array(3)
    assert job.job_id is not None
    for task_id in job.task_ids:
        world.later(1)
        world.run(task_id)
    record = world.state.jobs[job.job_id]
    assert (record.succeeded, record.forgotten, record.total) == (3, 2, 3)
    world.run(world.submit())
    assert world.state.jobs.get(job.job_id) is None


def test_request_ids_are_kept_longer_than_their_tasks() -> None:
    settings = Settings(tasks_kept_ms=1_000, request_retention_ms=5_000)
    world = World(["n1"], settings=settings)
    world.run(world.submit(request_id="a"))
    world.later(1_001)
    world.apply()
    assert kept(world) == []
    assert world.state.requests.get("a") is not None  # it has no task any more, and its time is not over
    world.later(4_000)
    world.apply()
    assert world.state.requests.get("a") is None
