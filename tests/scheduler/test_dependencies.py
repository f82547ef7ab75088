"""Tasks that come after others: they wait, they are released or cancelled, and nobody waits for what is gone."""

import pytest

from raftd.scheduler import dependencies
from raftd.scheduler.commands import Cancel, Expire, Occupy
from raftd.scheduler.effects import JobChanged, TaskChange, TaskChanged
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    Condition,
    Dependency,
    Settings,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Refused
from tests.scheduler.world import World, submission

P, S, F, C = TaskState.PENDING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED


def ok(target: int) -> Dependency:
    return Dependency(target)


def ended(target: int) -> Dependency:
    return Dependency(target, condition=Condition.ANY)


def job_ok(target: int | None) -> Dependency:
    assert target is not None
    return Dependency(target, job=True)


def job_ended(target: int | None) -> Dependency:
    assert target is not None
    return Dependency(target, job=True, condition=Condition.ANY)


def changes(world: World) -> list[tuple[int, str]]:
    return [(effect.task.id, effect.change) for effect in world.caused(TaskChanged)]


def test_a_task_waits_for_another_and_is_released_by_its_success() -> None:
    world = World(["n1"])
    first = world.submit()
    second = world.submit_after(ok(first)).first_task_id
    assert world.queue() == [first]
    assert world.task(second).after == (ok(first),)
    reply = world.do(Occupy(second, "n1", 1, 0))
    assert isinstance(reply, Refused)
    assert reply.code == "rejected"
    world.run(first)
    assert changes(world) == [(first, TaskChange.SUCCEEDED), (second, TaskChange.RELEASED)]
    assert world.task(second).after == ()
    assert world.queue() == [second]
    assert world.run(second) is S


def test_a_task_is_released_only_by_the_last_that_it_comes_after() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    third = world.submit_after(ok(first), ended(second)).first_task_id
    world.run(second, AttemptOutcome.FAILED)
    assert changes(world) == [(second, TaskChange.FAILED)]
    assert world.task(third).after == (ok(first),)
    assert world.queue() == [first]
    world.run(first)
    assert world.queue() == [third]


def test_a_retry_of_what_it_comes_after_releases_nobody() -> None:
    world = World(["n1"])
    first = world.submit(retries=1)
    second = world.submit_after(ended(first)).first_task_id
    assert world.run(first, AttemptOutcome.FAILED) is P
    assert world.task(second).after == (ended(first),)


@pytest.mark.parametrize(("how", "word"), [("fail", "failed"), ("cancel", "was cancelled")])
def test_who_needs_a_success_that_does_not_come_is_cancelled_and_says_why(how: str, word: str) -> None:
    world = World(["n1"])
    first = world.submit()
    needs, waits = world.submit_after(ok(first)), world.submit_after(ended(first))
    if how == "fail":
        world.run(first, AttemptOutcome.FAILED)
    else:
        world.cancel(first)
    doomed = world.task(needs.first_task_id)
    assert (doomed.state, doomed.reason) == (C, f"t{first}, which it comes after, {word}")
    assert doomed.after == ()
    assert world.task(waits.first_task_id).state is P
    assert world.queue() == [waits.first_task_id]


def test_a_failure_goes_down_the_whole_chain_in_order_and_each_names_its_own_cause() -> None:
    world = World(["n1"])
    ids = [world.submit()]
    for _ in range(4):
        ids.append(world.submit_after(ok(ids[-1])).first_task_id)
    world.run(ids[0], AttemptOutcome.FAILED)
    assert changes(world) == [
        (ids[0], TaskChange.FAILED),
        *((task_id, TaskChange.CANCELLED) for task_id in ids[1:]),
    ]
    assert world.task(ids[4]).reason == f"t{ids[3]}, which it comes after, was cancelled"


def test_a_cancel_of_a_task_that_waits_takes_it_out_of_who_waits() -> None:
    world = World(["n1"])
    first = world.submit()
    second = world.submit_after(ok(first)).first_task_id
    third = world.submit_after(ended(second)).first_task_id
    world.cancel(second)
    assert world.task(second).state is C
    assert world.queue() == [first, third]
    world.run(first)
    assert changes(world) == [(first, TaskChange.SUCCEEDED)]


def test_what_has_ended_already_is_settled_at_once() -> None:
    world = World(["n1"])
    good, bad = world.submit(), world.submit()
    world.run(good)
    world.run(bad, AttemptOutcome.FAILED)
    free = world.submit_after(ok(good), ended(bad)).first_task_id
    assert world.queue() == [free]
    doomed = world.submit_after(ok(good), ok(bad)).first_task_id
    assert changes(world) == [(doomed, TaskChange.SUBMITTED), (doomed, TaskChange.CANCELLED)]
    assert world.task(doomed).reason == f"t{bad}, which it comes after, failed"


def test_an_array_after_what_has_failed_is_accepted_and_over() -> None:
    world = World(["n1"])
    bad = world.submit()
    world.cancel(bad)
    job = world.submit_after(ok(bad), count=3)
    assert job.job_id is not None
    record = world.state.jobs[job.job_id]
    assert (record.cancelled, record.pending) == (3, 0)
    assert [effect.change for effect in world.caused(JobChanged)] == ["submitted", "finished"]


def test_a_task_comes_after_a_job_when_all_of_it_has_ended() -> None:
    world = World(["n1"])
    job = world.submit_array(2)
    needs, waits = world.submit_after(job_ok(job.job_id)), world.submit_after(job_ended(job.job_id))
    world.run(job.task_ids[0])
    assert world.queue() == [job.task_ids[1]]
    world.run(job.task_ids[1])
    assert world.queue() == [needs.first_task_id, waits.first_task_id]


def test_who_needs_the_success_of_a_job_is_cancelled_when_one_task_of_it_has_failed_and_all_have_ended() -> (
    None
):
    world = World(["n1"])
    job = world.submit_array(2)
    needs, waits = world.submit_after(job_ok(job.job_id)), world.submit_after(job_ended(job.job_id))
    world.run(job.task_ids[0], AttemptOutcome.FAILED)
    assert world.task(needs.first_task_id).state is P
    world.run(job.task_ids[1])
    doomed = world.task(needs.first_task_id)
    assert doomed.state is C
    assert doomed.reason == (
        "j1, which it comes after, did not succeed: of 2 tasks 1 failed and 0 were cancelled"
    )
    assert world.queue() == [waits.first_task_id]


def test_a_job_that_is_over_already_is_settled_at_once() -> None:
    world = World(["n1"])
    good, bad = world.submit_array(1), world.submit_array(1)
    world.run(good.first_task_id)
    world.cancel_job(bad.job_id or 0)
    assert world.task(world.submit_after(job_ok(good.job_id)).first_task_id).state is P
    assert world.task(world.submit_after(job_ok(bad.job_id)).first_task_id).state is C
    assert world.task(world.submit_after(job_ended(bad.job_id)).first_task_id).state is P


def test_a_job_that_a_cascade_ends_tells_who_waits_for_it() -> None:
    world = World(["n1"])
    first = world.submit()
    middle = world.submit_after(ok(first), count=3)
    last = world.submit_after(job_ended(middle.job_id)).first_task_id
    world.cancel(first)
    assert world.state.jobs[middle.job_id or 0].cancelled == 3
    assert world.queue() == [last]


def test_the_tasks_of_a_job_that_wait_are_cancelled_with_it_and_by_its_limit_of_failures() -> None:
    world = World(["n1"])
    first = world.submit()
    job = world.submit_after(ended(first), count=3)
    world.cancel_job(job.job_id or 0)
    assert {world.task(task_id).state for task_id in job.task_ids} == {C}
    assert not world.state.indexes.dependents
    limited = world.submit_after(ended(first), count=3, max_failures=1)
    world.run(first)
    world.run(limited.task_ids[0], AttemptOutcome.FAILED)
    assert [world.task(task_id).state for task_id in limited.task_ids] == [F, C, C]


def test_the_loss_of_a_node_settles_who_waits_for_what_it_ended() -> None:
    world = World(["n1"], settings=Settings(crash_limit=1))
    first = world.submit()
    second = world.submit_after(ok(first)).first_task_id
    world.occupy(first)
    world.lose("n1")
    assert (world.task(first).state, world.task(second).state) == (F, C)


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ((ok(77),), "task_not_found"),
        ((job_ok(77),), "job_not_found"),
        # Its own id, and its own job's, are not there yet: nobody waits for itself.
        ((ok(2),), "task_not_found"),
        ((job_ok(1),), "job_not_found"),
        ((ok(1), ended(1), ok(1), ok(1)), "invalid_request"),
    ],
)
def test_a_task_after_what_is_not_there_or_after_too_many_is_refused(
    after: tuple[Dependency, ...], code: str
) -> None:
    world = World(["n1"], settings=Settings(max_dependencies=3))
    world.submit()
    assert world.refused(submission("a", TaskSpec("noop"), None, after)) == code
    assert world.refused(submission("a", TaskSpec("noop"), ArraySpec(0, 3), after)) == code


def test_a_task_after_what_is_forgotten_is_refused() -> None:
    world = World(["n1"], settings=Settings(tasks_kept=0))
    first = world.submit()
    world.cancel(first)
    assert world.refused(submission("a", TaskSpec("noop"), None, (ok(first),))) == "task_not_found"


def test_what_is_named_twice_has_to_succeed_if_either_says_so() -> None:
    world = World(["n1"])
    first = world.submit()
    second = world.submit_after(ended(first), ok(first), ended(first)).first_task_id
    assert world.task(second).after == (ok(first),)


def test_an_array_with_too_many_dependencies_in_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "MAX_EDGES", 5)
    world = World(["n1"])
    after = (ok(world.submit()), ok(world.submit()))
    assert world.refused(submission("a", TaskSpec("noop"), ArraySpec(0, 2), after)) == "invalid_request"
    assert world.submit_after(*after, count=2).count == 2


def test_the_queue_holds_so_many_dependencies_and_no_more() -> None:
    world = World(["n1"], settings=Settings(max_queue=4))
    after = (ok(world.submit()),)
    for _ in range(3):
        world.submit_after(*after)
    assert world.refused(submission("a", TaskSpec("noop"), None, after)) == "queue_full"
    wide = World(["n1"], settings=Settings(max_queue=12))
    targets = tuple(ok(wide.submit()) for _ in range(10))
    for expected in (10, 20):
        reply = wide.do(submission(f"r{expected}", TaskSpec("noop"), None, targets))
        assert not isinstance(reply, Refused)
        assert len(wide.state.indexes.dependents) == expected
    world = World(["n1"], settings=Settings(max_queue=2))
    first = world.submit()
    many = tuple(Dependency(first) for _ in range(17))
    assert world.refused(submission("b", TaskSpec("noop"), None, many)) == "queue_full"


def test_dependencies_are_part_of_what_a_request_asks_for() -> None:
    world = World(["n1"])
    first = world.submit()
    world.accept(submission("a", TaskSpec("noop"), None, (ok(first),)))
    assert world.accept(submission("a", TaskSpec("noop"), None, (ok(first),))).duplicate
    for after in ((), (ended(first),), (job_ok(first),)):
        assert world.refused(submission("a", TaskSpec("noop"), None, after)) == "request_id_conflict"


def test_a_task_that_waits_is_delayed_as_well_and_its_queue_timeout_runs_from_its_release() -> None:
    world = World(["n1"])
    first = world.submit()
    spec = TaskSpec("noop", delay_ms=1_000, queue_timeout_ms=500)
    late = world.accept(submission("late", spec, None, (ok(first),))).first_task_id
    world.later(5_000)
    world.apply()
    assert world.refused(Expire(late)) == "rejected"
    world.run(first)
    assert world.queue() == [late]
    world.later(499)
    assert world.refused(Expire(late)) == "rejected"
    world.later(1)
    world.do(Expire(late))
    assert world.task(late).state is F
    soon = world.accept(submission("soon", spec, None, (ok(first),))).first_task_id
    assert world.task(soon).not_before_ms == world.now_ms + 1_000


def test_the_end_of_one_that_many_come_after_releases_them_in_the_order_of_their_ids() -> None:
    world = World(["n1"])
    first = world.submit()
    after = [world.submit_after(ok(first)).first_task_id for _ in range(20)]
    world.run(first)
    assert [task_id for task_id, change in changes(world) if change is TaskChange.RELEASED] == after


def test_the_tasks_of_an_array_share_what_they_wait_for() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    job = world.submit_after(ok(first), ok(second), count=50)
    assert len({id(world.task(task_id).after) for task_id in job.task_ids}) == 1
    world.run(first)
    assert {world.task(task_id).after for task_id in job.task_ids} == {(ok(second),)}
    assert len({id(world.task(task_id).after) for task_id in job.task_ids}) == 1


def test_a_cancel_of_everything_at_once_leaves_nobody_waiting() -> None:
    world = World(["n1"])
    first = world.submit()
    second = world.submit_after(ok(first)).first_task_id
    third = world.submit_after(ended(first), ok(second)).first_task_id
    world.apply(*(Cancel(task_id=task_id) for task_id in (third, first, second)))
    assert {world.task(task_id).state for task_id in (first, second, third)} == {C}
    assert not world.state.indexes.dependents
