"""Purge and Retry: what is forgotten on request, and what is submitted again."""

import pytest

from raftd.scheduler import purge
from raftd.scheduler.commands import Purge
from raftd.scheduler.effects import TaskChange, TaskChanged
from raftd.scheduler.model import ArraySpec, AttemptOutcome, Settings, TaskSpec, TaskState
from raftd.scheduler.queries import task_args
from raftd.scheduler.replies import Accepted, Purged, Refused
from tests.scheduler.world import World, resubmission, submission

S, F, C = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED


def purged(world: World, command: Purge) -> tuple[int, dict[str, str]]:
    """How many records are gone, and the codes by what was named."""
    reply = world.do(command)
    assert isinstance(reply, Purged), reply
    return reply.count, {name: refusal.code for name, refusal in reply.refused}


def kept(world: World) -> list[int]:
    return [task.id for task in world.state.tasks.values()]


def test_named_tasks_go_and_those_that_have_not_ended_stay_and_are_told_why() -> None:
    world = World(["n1"])
    done, running, pending, other = (world.submit() for _ in range(4))
    world.run(done)
    world.run(other)
    world.occupy(running)
    assert purged(world, Purge((done, running, pending, 77, done))) == (
        1,
        {"t2": "rejected", "t3": "rejected", "t77": "task_not_found", "t1": "task_not_found"},
    )
    assert kept(world) == [running, pending, other]


def test_a_purged_task_leaves_its_request_id_behind() -> None:
    world = World(["n1"])
    submit = submission("same", TaskSpec("noop"))
    task_id = world.accept(submit).first_task_id
    world.run(task_id)
    assert purged(world, Purge((task_id,))) == (1, {})
    assert world.accept(submit) == Accepted(task_id, 1, duplicate=True)


def test_a_job_goes_with_all_of_its_tasks_or_not_at_all() -> None:
    world = World(["n1"])
    done, going = world.submit_array(3), world.submit_array(2)
    for task_id in (*done.task_ids, going.task_ids[0]):
        world.run(task_id)
    assert purged(world, Purge(job_ids=(1, 2, 77))) == (3, {"j2": "rejected", "j77": "job_not_found"})
    assert kept(world) == list(going.task_ids)
    assert world.state.jobs.get(1) is None


def test_a_job_goes_with_the_last_of_its_tasks_that_is_named() -> None:
    world = World(["n1"])
    job = world.submit_array(2)
    world.cancel_job(1)
    assert purged(world, Purge((job.task_ids[0],))) == (1, {})
    assert (world.state.jobs[1].cancelled, world.state.jobs[1].forgotten) == (2, 1)
    assert purged(world, Purge((job.task_ids[1],))) == (1, {})
    assert world.state.jobs.get(1) is None


def test_what_ended_before_a_time_goes_in_the_states_that_are_asked_for() -> None:
    world = World(["n1"])
    tasks = [world.submit() for _ in range(5)]
    for task_id, how in zip(tasks, (S, F, C, S, F), strict=True):
        world.later(10)
        if how is C:
            world.cancel(task_id)
        else:
            world.run(task_id, AttemptOutcome.SUCCEEDED if how is S else AttemptOutcome.FAILED)
    assert purged(world, Purge(ended_before_ms=world.now_ms, states=(F, C))) == (2, {})
    assert kept(world) == [tasks[0], tasks[3], tasks[4]]
    assert purged(world, Purge(ended_before_ms=world.now_ms - 10)) == (1, {})
    assert purged(world, Purge(ended_before_ms=world.now_ms + 1)) == (2, {})
    assert kept(world) == []


def test_one_command_forgets_a_bounded_number_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "MAX_PURGED", 3)
    world = World(["n1"])
    tasks = [world.submit() for _ in range(5)]
    for task_id in reversed(tasks):
        world.later(1)
        world.run(task_id, AttemptOutcome.FAILED if task_id % 2 else AttemptOutcome.SUCCEEDED)
    command = Purge(ended_before_ms=world.now_ms + 1)
    assert purged(world, command) == (3, {})
    assert kept(world) == tasks[:2]
    assert purged(world, command) == (2, {})
    job = world.submit_array(5)
    world.cancel_job(job.job_id or 0)
    assert purged(world, Purge(job_ids=(1,))) == (3, {})
    assert purged(world, Purge(job_ids=(1,))) == (2, {})
    assert world.refused(Purge((1, 2, 3), (4,))) == "invalid_request"


@pytest.mark.parametrize(
    "command",
    [
        Purge(),
        Purge((1,), ended_before_ms=5),
        Purge(ended_before_ms=5, states=(S, TaskState.RUNNING)),
        Purge(tuple(range(2_001))),
    ],
)
def test_a_purge_says_what_it_means_or_is_refused(command: Purge) -> None:
    assert World(["n1"]).refused(command) == "invalid_request"


@pytest.mark.parametrize("how", [S, F, C])
def test_what_has_ended_is_submitted_again_as_a_new_task(how: TaskState) -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", args=("x",), priority=3, delay_ms=50)
    old = world.accept(submission("a", spec)).first_task_id
    if how is C:
        world.cancel(old)
    else:
        world.later(50)
        world.run(old, AttemptOutcome.SUCCEEDED if how is S else AttemptOutcome.FAILED)
    before = world.task(old)
    assert world.accept(resubmission("b", old)) == Accepted(2, 1)
    assert [effect.change for effect in world.caused(TaskChanged)] == [TaskChange.SUBMITTED]
    new = world.task(2)
    assert (new.spec, new.request_id, new.attempts) == (spec, "b", ())
    assert new.not_before_ms == world.now_ms + 50
    assert world.task(old) == before


def test_of_an_array_one_index_runs_again_and_its_job_counts_as_before() -> None:
    world = World(["n1"])
    job = world.accept(submission("job", TaskSpec("render-tile", args=("{}",)), ArraySpec(5, 6)))
    world.run(job.task_ids[1], AttemptOutcome.FAILED)
    again = world.accept(resubmission("b", job.task_ids[1])).first_task_id
    assert task_args(world.task(again)) == ("6",)
    assert world.task(again).job_id is None
    assert (world.state.jobs[1].failed, world.state.jobs[1].pending) == (1, 1)


def test_the_same_retry_twice_is_one_task() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    world.run(first)
    world.run(second)
    again = world.accept(resubmission("b", first))
    assert world.accept(resubmission("b", first)) == Accepted(again.first_task_id, 1, duplicate=True)
    assert world.refused(resubmission("b", second)) == "request_id_conflict"
    assert world.refused(resubmission("request-1", first)) == "request_id_conflict"


def test_what_has_not_ended_or_is_not_there_is_not_submitted_again() -> None:
    world = World(["n1"], settings=Settings(max_queue=1))
    pending = world.submit()
    assert world.refused(resubmission("a", pending)) == "rejected"
    world.occupy(pending)
    assert world.refused(resubmission("a", pending)) == "rejected"
    world.end(pending)
    assert world.refused(resubmission("a", 77)) == "task_not_found"
    assert world.refused(resubmission("", pending)) == "invalid_request"
    world.submit()
    assert world.refused(resubmission("a", pending)) == "queue_full"


def test_who_needs_a_task_does_not_wait_for_its_retry() -> None:
    world = World(["n1"])
    first = world.submit()
    world.run(first, AttemptOutcome.FAILED)
    reply = world.do(resubmission("a", first))
    assert not isinstance(reply, Refused)
    assert world.task(2).after == ()
