"""The queue: who is next, who starves, who has to wait, and who has waited too long."""

import pytest

from raftd.scheduler.commands import Expire, MarkStopping, NodeLost, Occupy, SetSettings, Vacate
from raftd.scheduler.effects import TaskChange, TaskChanged
from raftd.scheduler.model import (
    MAX_TIME_MS,
    ArraySpec,
    AttemptOutcome,
    Settings,
    StopReason,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.planner import InFlight, next_wakeup_ms
from raftd.scheduler.replies import Expired, Refused
from tests.scheduler.world import World, submission

P, F = TaskState.PENDING, TaskState.FAILED


def patient(world: World, queue_timeout_ms: int = 1_000, delay_ms: int = 0, retries: int = 0) -> int:
    """A task that waits only so long."""
    spec = TaskSpec("noop", queue_timeout_ms=queue_timeout_ms, delay_ms=delay_ms, retries=retries)
    return world.accept(submission(world.new_request_id(), spec)).first_task_id


def test_priority_goes_first_and_then_the_order_of_submission() -> None:
    world = World(["n1"])
    low, first, second, high = (world.submit(priority=priority) for priority in (-1, 0, 0, 1))
    assert world.queue() == [high, first, second, low]


def test_one_step_of_priority_is_worth_so_much_waiting() -> None:
    world = World(["n1"], settings=Settings(ageing_ms=1_000))
    old = world.submit()
    world.later(999)
    younger = world.submit(priority=1)
    world.later(1)
    tie = world.submit(priority=1)
    world.later(1)
    youngest = world.submit(priority=1)
    assert world.queue() == [younger, old, tie, youngest]


def test_nobody_starves_behind_a_stream_of_better_ones() -> None:
    world = World(["n1"], settings=Settings(ageing_ms=1_000))
    poor = world.submit(priority=-5)
    for _ in range(11):
        world.submit(priority=5)
        world.later(1_000)
        world.place()
        ((_, running),) = world.executing().items()
        if running == poor:
            return
        world.end(running)
    assert world.task(poor).state is not P, "eleven seconds are more than ten steps of priority"


def test_without_ageing_priority_is_strict() -> None:
    world = World(["n1"], settings=Settings(ageing_ms=0))
    old = world.submit()
    world.later(10**12)
    assert world.queue() == [old]
    young = world.submit(priority=1)
    assert world.queue() == [young, old]


def test_another_ageing_orders_anew_what_is_in_the_queue_and_what_comes() -> None:
    world = World(["n1"], settings=Settings(ageing_ms=0))
    old = world.submit()
    world.later(5_000)
    young = world.submit(priority=1)
    other_kind = world.submit("sleep", priority=2)
    assert world.queue() == [other_kind, young, old]
    world.do(SetSettings((("ageing_ms", 1_000),)))
    assert world.queue() == [old, other_kind, young]
    later = world.submit(priority=9)
    assert world.queue() == [later, old, other_kind, young]
    world.do(SetSettings((("ageing_ms", 0),)))
    assert world.queue() == [later, other_kind, young, old]


def test_no_priority_and_no_time_is_too_large_for_the_order() -> None:
    world = World(["n1"], settings=Settings(ageing_ms=MAX_TIME_MS))
    most = 2**31 - 1
    low, middle, high = (world.submit(priority=priority) for priority in (-most, 0, most))
    world.now_ms = MAX_TIME_MS
    world.apply()
    late = world.submit(priority=most)
    assert world.queue() == [high, late, middle, low]


def test_a_delayed_task_waits_from_its_submission() -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", delay_ms=1_000)
    job = world.accept(submission("job", spec, ArraySpec(0, 1)))
    assert [world.task(task_id).not_before_ms for task_id in job.task_ids] == [world.now_ms + 1_000] * 2
    assert world.plan() == ()
    assert next_wakeup_ms(world.state, world.now_ms) == world.now_ms + 1_000
    reply = world.do(Occupy(job.first_task_id, "n1", 1, 0))
    assert isinstance(reply, Refused)
    world.later(1_000)
    world.place()
    assert world.executing() == {("n1", 0): job.first_task_id}


def test_the_leader_fails_what_nothing_has_started_within_its_queue_timeout() -> None:
    world = World(["n1"])
    running = world.submit()
    world.occupy(running)
    task_id = patient(world)
    assert next_wakeup_ms(world.state, world.now_ms) == world.now_ms + 1_000
    world.later(999)
    assert world.plan() == ()
    assert world.refused(Expire(task_id)) == "rejected"
    world.later(1)
    assert world.plan() == (Expire(task_id),)
    assert world.do(Expire(task_id)) == Expired(task_id)
    task = world.task(task_id)
    assert (task.state, task.finished_at_ms) == (F, world.now_ms)
    assert task.reason == "nothing started it within its queue timeout of 1000 ms"
    assert [change.change for change in world.caused(TaskChanged)] == [TaskChange.FAILED]
    assert world.plan() == ()
    assert next_wakeup_ms(world.state, world.now_ms) is None


def test_the_queue_timeout_runs_from_the_end_of_the_delay() -> None:
    world = World(["n1"])
    task_id = patient(world, delay_ms=500)
    world.later(1_499)
    assert world.refused(Expire(task_id)) == "rejected"
    world.later(1)
    assert world.do(Expire(task_id)) == Expired(task_id)


def test_a_task_whose_time_is_up_is_not_placed_and_one_that_is_being_placed_is_not_expired() -> None:
    world = World(["n1", "n2"])
    late = patient(world)
    world.later(1_000)
    assert world.plan() == (Expire(late),)
    placing = InFlight()
    placing.proposed([Occupy(late, "n1", 1, 0)])
    assert world.plan(placing) == ()
    expiring = InFlight()
    expiring.proposed([Expire(late)])
    assert world.plan(expiring) == ()
    expiring.settled([Expire(late)])
    assert world.plan(expiring) == (Expire(late),)
    expiring.proposed([Expire(late)])
    expiring.clear()
    assert world.plan(expiring) == (Expire(late),)


def test_once_it_has_had_its_turn_there_is_no_queue_timeout_any_more() -> None:
    world = World(["n1"])
    task_id = patient(world, retries=1)
    world.run(task_id, AttemptOutcome.FAILED)
    world.later(100_000)
    world.apply()
    assert world.queue() == [task_id]
    assert world.refused(Expire(task_id)) == "rejected"
    assert Expire(task_id) not in world.plan()


def test_a_turn_that_is_not_kept_any_more_was_one_all_the_same() -> None:
    world = World(["n1"], settings=Settings(max_attempts_kept=2))
    head, task_id = world.submit(), patient(world, retries=9)
    world.run(task_id, AttemptOutcome.FAILED)
    world.occupy(head)
    world.later(100_000)
    for _ in range(2):
        assert not isinstance(world.do(Occupy(task_id, "n1", 1, 0, reserve=True)), Refused)
        attempt = world.attempt(task_id)
        world.do(Vacate(task_id, attempt.number, attempt.token, AttemptOutcome.WITHDRAWN))
    assert [attempt.occupied_at_ms for attempt in world.task(task_id).attempts] == [0, 0]
    assert world.refused(Expire(task_id)) == "rejected"


def test_a_turn_that_never_came_does_not_count_and_does_not_prolong_the_wait() -> None:
    world = World(["n1"])
    head, task_id = world.submit(), patient(world)
    world.occupy(head)
    world.later(900)
    assert not isinstance(world.do(Occupy(task_id, "n1", 1, 0, reserve=True)), Refused)
    world.later(100)
    assert world.refused(Expire(task_id)) == "rejected"
    attempt = world.attempt(task_id)
    world.do(MarkStopping(task_id, attempt.number, attempt.token, StopReason.WITHDRAWN))
    world.do(Vacate(task_id, attempt.number, attempt.token, AttemptOutcome.WITHDRAWN))
    assert world.task(task_id).state is P
    assert world.do(Expire(task_id)) == Expired(task_id)


def test_a_task_in_line_on_a_node_that_is_lost_has_not_had_its_turn() -> None:
    world = World(["n1"])
    head, task_id = world.submit(), patient(world)
    world.occupy(head)
    assert not isinstance(world.do(Occupy(task_id, "n1", 1, 0, reserve=True)), Refused)
    world.later(1_000)
    world.do(NodeLost("n1", 1))
    assert world.do(Expire(task_id)) == Expired(task_id)


def test_an_expired_task_counts_as_a_failure_of_its_job() -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", queue_timeout_ms=1_000)
    job = world.accept(submission("job", spec, ArraySpec(0, 2, max_failures=1)))
    world.later(1_000)
    world.do(Expire(job.first_task_id))
    states = [world.task(task_id).state for task_id in job.task_ids]
    assert states == [F, TaskState.CANCELLED, TaskState.CANCELLED]
    assert (world.state.jobs[1].failed, world.state.jobs[1].cancelled) == (1, 2)


@pytest.mark.parametrize("task_id", [1, 2, 3, 77])
def test_what_has_no_queue_timeout_or_is_not_pending_does_not_expire(task_id: int) -> None:
    world = World(["n1"])
    world.submit()
    patient(world)
    patient(world)
    world.occupy(2)
    world.cancel(3)
    world.later(10_000)
    assert world.refused(Expire(task_id)) == ("task_not_found" if task_id == 77 else "rejected")


def test_the_counts_of_reserved_tasks_are_those_of_pending_ones() -> None:
    world = World(["n1"], settings=Settings(max_queue=3))
    job = world.submit_array(3)
    world.occupy(job.task_ids[0])
    assert not isinstance(world.do(Occupy(job.task_ids[1], "n1", 1, 0, reserve=True)), Refused)
    record = world.state.jobs[1]
    assert (record.pending, record.running) == (2, 1)
    world.submit()
    assert world.refused(submission("more", TaskSpec("noop"))) == "queue_full"
