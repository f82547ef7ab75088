"""Reservations: attempts that wait for their turn on a slot, known to their executor, and charged to nobody."""

import pytest

from raftd.scheduler import queries
from raftd.scheduler.commands import MarkStopping, Occupy, OccupyNew, Vacate
from raftd.scheduler.effects import Assigned, JobChanged, SlotFreed, StopRequested, TaskChange, TaskChanged
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    FencingToken,
    Settings,
    StopReason,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Occupied, Refused, Vacated
from tests.scheduler.world import World, submission


def world_with_line(length: int = 3, reserve_depth: int = 8) -> tuple[World, list[int]]:
    """A node of one slot, a task on it, and others behind that one."""
    world = World(["n1"], settings=Settings(reserve_depth=reserve_depth))
    tasks = [world.submit() for _ in range(length)]
    world.occupy(tasks[0])
    for task_id in tasks[1:]:
        world.reserve(task_id)
    return world, tasks


def changes(world: World) -> list[tuple[int, TaskChange]]:
    return [(effect.task.id, effect.change) for effect in world.caused(TaskChanged)]


def costs(world: World, task_id: int) -> tuple[int, int, int]:
    task = world.task(task_id)
    return task.failures, task.crashes, task.returns


def test_a_reserved_attempt_has_number_and_token_and_goes_to_its_executor_at_once() -> None:
    world, (head, _) = world_with_line(2)
    third = world.submit()
    reply = world.reserve(third)
    assert reply == Occupied(third, 1, FencingToken(1, 3))
    (assigned,) = world.caused(Assigned)
    assert (assigned.node, assigned.attempt.token, assigned.attempt.slot) == ("n1", reply.token, 0)
    assert changes(world) == []
    attempt = world.attempt(third)
    assert (world.task(third).state, attempt.occupied_at_ms) == (TaskState.RESERVED, 0)
    assert world.executing() == {("n1", 0): head}


def test_to_everybody_but_its_executor_a_reserved_task_is_pending() -> None:
    world, _ = world_with_line(3)
    assert queries.counts(world.state).pending == 2
    job = world.submit_array(2)
    world.reserve(job.first_task_id)
    assert job.job_id is not None
    assert world.state.jobs[job.job_id].pending == 2
    assert world.state.jobs[job.job_id].running == 0


def test_when_the_head_vacates_the_next_has_its_turn_with_the_same_attempt_and_token() -> None:
    world, (head, second, third) = world_with_line(3)
    before = world.attempt(second)
    world.later(40)
    assert world.end(head) == Vacated(head, TaskState.SUCCEEDED)
    assert changes(world) == [(head, TaskChange.SUCCEEDED), (second, TaskChange.RUNNING)]
    assert not world.caused(Assigned)
    after = world.attempt(second)
    assert (after.number, after.token, after.occupied_at_ms) == (before.number, before.token, world.now_ms)
    assert world.line() == [second, third]
    assert world.free() == {}


def test_the_end_of_a_reserved_attempt_counts_before_its_turn_for_the_executor_may_have_run_it() -> None:
    world, (head, second, third) = world_with_line(3)
    assert world.end(third, result=b"3") == Vacated(third, TaskState.SUCCEEDED)
    assert [freed.task_id for freed in world.caused(SlotFreed)] == [third]
    assert world.line() == [head, second]
    assert world.task(third).result == b"3"
    world.end(second, AttemptOutcome.FAILED, reason="boom")
    assert (world.task(second).state, costs(world, second)) == (TaskState.FAILED, (1, 0, 0))
    world.end(head)
    assert world.free() == {"n1": 1}


def test_only_an_equal_token_ends_a_reserved_attempt() -> None:
    world, (_, second) = world_with_line(2)
    for token in (FencingToken(1, 1), FencingToken(1, 3), FencingToken(2, 2)):
        assert world.refused(Vacate(second, 1, token, AttemptOutcome.SUCCEEDED)) == "stale_token"


@pytest.mark.parametrize(
    "command",
    [
        Occupy(4, "n1", 1, 0),
        Occupy(4, "n1", 2, 0, reserve=True),
        Occupy(4, "n1", 1, 1, reserve=True),
        Occupy(1, "n1", 1, 0, reserve=True),
        Occupy(2, "n1", 1, 0, reserve=True),
    ],
)
def test_a_reservation_is_checked_like_any_occupy(command: Occupy) -> None:
    world, _ = world_with_line(3)
    world.submit()
    assert world.refused(command) == "rejected"


def test_so_many_wait_for_one_slot_and_no_more() -> None:
    world, _ = world_with_line(3, reserve_depth=2)
    assert world.refused(Occupy(world.submit(), "n1", 1, 0, reserve=True)) == "rejected"


def test_a_reservation_of_a_slot_that_has_become_free_has_its_turn_at_once() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.reserve(task_id)
    assert world.executing() == {("n1", 0): task_id}
    assert changes(world) == [(task_id, TaskChange.RUNNING)]


def test_the_node_should_be_running_what_waits_there_too_in_the_order_of_the_turns() -> None:
    world = World(["n1"], slots=2)
    tasks = [world.submit() for _ in range(5)]
    world.occupy(tasks[0], slot=1)
    world.occupy(tasks[1], slot=0)
    for task_id, slot in ((tasks[2], 1), (tasks[3], 0), (tasks[4], 1)):
        world.reserve(task_id, slot=slot)
    wanted = queries.assignments(world.state, "n1")
    assert [(each.slot, each.task_id) for each in wanted] == [
        (0, tasks[1]),
        (0, tasks[3]),
        (1, tasks[0]),
        (1, tasks[2]),
        (1, tasks[4]),
    ]


def test_a_cancelled_one_is_asked_to_stop_for_its_executor_may_have_begun_it() -> None:
    world, (head, second, third) = world_with_line(3)
    world.cancel(second)
    (stop,) = world.caused(StopRequested)
    assert (stop.token, stop.reason) == (world.attempt(second).token, StopReason.CANCELLED)
    assert world.task(second).state is TaskState.RESERVED
    world.end(head)
    assert world.line() == [second, third]
    assert world.attempt(second).stopping is StopReason.CANCELLED
    world.end(second, AttemptOutcome.CANCELLED)
    assert world.task(second).state is TaskState.CANCELLED
    assert world.line() == [third]


def test_a_job_that_is_stopped_stops_what_it_has_reserved() -> None:
    world = World(["n1"])
    job = world.submit_array(4, max_failures=1)
    first, second, third, _ = job.task_ids
    world.occupy(first)
    world.reserve(second)
    world.reserve(third)
    world.end(first, AttemptOutcome.FAILED, reason="boom")
    assert [world.task(task_id).state for task_id in job.task_ids] == [
        TaskState.FAILED,
        TaskState.RUNNING,
        TaskState.RESERVED,
        TaskState.CANCELLED,
    ]
    assert {world.attempt(task_id).stopping for task_id in (second, third)} == {StopReason.CANCELLED}
    world.end(third, AttemptOutcome.CANCELLED)
    world.end(second, AttemptOutcome.CANCELLED)
    assert world.caused(JobChanged)[-1].job.cancelled == 3


def test_one_that_is_withdrawn_goes_back_to_its_place_in_the_queue_at_once_and_at_no_cost() -> None:
    world, (_, second, third) = world_with_line(3)
    later = world.submit()
    world.withdraw(second)
    (stop,) = world.caused(StopRequested)
    assert (stop.token, stop.reason) == (world.attempt(second).token, StopReason.WITHDRAWN)
    assert changes(world) == []
    world.end(second, AttemptOutcome.WITHDRAWN)
    assert changes(world) == []
    assert world.queue() == [second, later]
    assert (world.task(second).state, costs(world, second)) == (TaskState.PENDING, (0, 0, 0))
    assert third in world.line()
    world.reserve(second)
    assert world.attempt(second).number == 2


def test_one_that_has_started_nevertheless_ends_as_it_ends() -> None:
    world, (head, second) = world_with_line(2)
    world.withdraw(second)
    world.end(second, result=b"2")
    assert world.task(second).state is TaskState.SUCCEEDED
    assert world.line() == [head]


def test_one_whose_turn_has_come_is_withdrawn_no_more_and_its_time_counts() -> None:
    world = World(["n1"])
    head, second = world.submit(), world.submit(run_timeout_ms=500)
    world.occupy(head)
    world.reserve(second)
    world.withdraw(second)
    world.later(10_000)
    world.end(head)
    assert world.attempt(second).stopping is None
    attempt = world.attempt(second)
    withdraw = MarkStopping(second, attempt.number, attempt.token, StopReason.WITHDRAWN)
    assert world.refused(withdraw) == "rejected"
    assert [key & 0xFF for key in world.state.indexes.run_deadlines] == [second]
    # Its executor dropped it before it heard of its turn: that is no error of anybody's.
    world.end(second, AttemptOutcome.WITHDRAWN)
    assert (world.queue(), costs(world, second)) == ([second], (0, 0, 0))


def test_the_time_of_one_that_waits_does_not_run() -> None:
    world = World(["n1"])
    head, second = world.submit(), world.submit(run_timeout_ms=500)
    world.occupy(head)
    world.reserve(second)
    assert not list(world.state.indexes.run_deadlines)
    attempt = world.attempt(second)
    time_out = MarkStopping(second, attempt.number, attempt.token, StopReason.TIMED_OUT)
    assert world.refused(time_out) == "rejected"


def test_a_cancel_goes_before_a_withdrawal_and_not_the_other_way_round() -> None:
    world, (_, second) = world_with_line(2)
    world.withdraw(second)
    world.cancel(second)
    assert world.attempt(second).stopping is StopReason.CANCELLED
    world.withdraw(second)
    assert world.attempt(second).stopping is StopReason.CANCELLED
    world.end(second, AttemptOutcome.WITHDRAWN)
    assert world.task(second).state is TaskState.CANCELLED


@pytest.mark.parametrize("how", ["lost", "restarted"])
def test_with_its_node_go_the_head_as_a_crash_and_those_behind_it_at_no_cost(how: str) -> None:
    world, (head, second, third) = world_with_line(3)
    world.cancel(third)
    if how == "lost":
        world.lose("n1")
    else:
        world.register("n1", 2)
    assert costs(world, head) == (0, 1, 0)
    assert (world.task(second).state, costs(world, second)) == (TaskState.PENDING, (0, 0, 0))
    assert world.attempt(second).outcome is AttemptOutcome.LOST
    assert world.task(second).not_before_ms <= world.now_ms
    assert world.task(third).state is TaskState.CANCELLED
    assert world.queue() == [head, second]


def test_the_occupy_of_a_new_task_rides_in_the_entry_of_its_submission() -> None:
    world = World(["n1", "n2"])
    replies = world.apply(
        submission("a", TaskSpec("noop")),
        submission("b", TaskSpec("render-tile"), ArraySpec(0, 2)),
        OccupyNew(0, 0, "n1", 1, 0),
        OccupyNew(1, 2, "n2", 1, 0),
    ).replies
    assert replies[2] == Occupied(1, 1, FencingToken(1, 1))
    assert replies[3] == Occupied(4, 1, FencingToken(1, 2))
    assert world.executing() == {("n1", 0): 1, ("n2", 0): 4}


@pytest.mark.parametrize(
    "rider",
    [
        OccupyNew(0, 0, "n1", 1, 0),  # it was known before
        OccupyNew(1, 0, "n1", 1, 0),  # it was refused
        OccupyNew(2, 0, "n1", 1, 0),  # no Submit
        OccupyNew(3, 1, "n1", 1, 0),  # it made one task
        OccupyNew(3, -1, "n1", 1, 0),
        OccupyNew(-1, 0, "n1", 1, 0),
        OccupyNew(4, 0, "n1", 1, 0),  # itself
        OccupyNew(99, 0, "n1", 1, 0),
        OccupyNew(3, 0, "n1", 2, 0),
        OccupyNew(3, 0, "n1", 1, 1),
        OccupyNew(3, 0, "n2", 1, 0),
        OccupyNew(3, 0, "n3", 1, 0),
    ],
)
def test_a_rider_is_refused_unless_a_task_of_its_entry_can_have_the_place(rider: OccupyNew) -> None:
    world = World(["n1", "n2"])
    world.lose("n2")
    known = submission("known", TaskSpec("noop"))
    world.accept(known)
    replies = world.apply(
        known,
        submission("bad", TaskSpec("unheard-of")),
        Occupy(99, "n1", 1, 0),
        submission("new", TaskSpec("noop")),
        rider,
    ).replies
    assert isinstance(replies[4], Refused)
    assert world.executing() == {}
    assert world.queue() == [1, 2]


def test_nothing_waits_behind_a_task_of_several_slots_and_such_a_task_behind_nothing() -> None:
    world = World(["n1"], slots=3)
    wide, single = world.submit(slots=2), world.submit()
    world.occupy(single, "n1", 2)
    assert world.refused(Occupy(wide, "n1", 1, 1, (2,), reserve=True)) == "rejected"
    world.occupy(wide, "n1", 0, 1)
    for slot in (0, 1):
        assert world.refused(Occupy(world.submit(), "n1", 1, slot, reserve=True)) == "rejected"
    world.end(wide)
    assert world.free() == {"n1": 2}
