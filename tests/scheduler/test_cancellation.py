"""Cancel and timeouts: the intent is durable at once, the slot is free only when the attempt is over."""

from raftd.scheduler.commands import Cancel, MarkStopping, Occupy
from raftd.scheduler.effects import JobChange, JobChanged, StopRequested, TaskChange, TaskChanged
from raftd.scheduler.model import AttemptOutcome, FencingToken, StopReason, TaskState
from raftd.scheduler.replies import Cancelled, Marked
from tests.scheduler.world import World


def test_a_pending_task_is_cancelled_at_once() -> None:
    world = World(["n1"])
    task_id = world.submit()
    assert world.cancel(task_id) == Cancelled(1, TaskState.CANCELLED)
    assert world.queue() == []
    assert world.refused(Occupy(task_id, "n1", 1, 0)) == "rejected"


def test_a_delayed_task_is_cancelled_at_once() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.run(task_id, AttemptOutcome.FAILED)
    assert world.cancel(task_id) == Cancelled(1, TaskState.CANCELLED)
    world.later(10**6)
    world.apply()
    assert world.queue() == []


def test_a_running_task_is_marked_and_its_slot_stays_occupied_until_the_attempt_is_over() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=5)
    token = world.occupy(task_id).token
    assert world.cancel(task_id) == Cancelled(1, TaskState.RUNNING)
    (stop,) = world.caused(StopRequested)
    assert (stop.node, stop.token, stop.reason) == ("n1", token, StopReason.CANCELLED)
    assert world.caused(TaskChanged)[0].change is TaskChange.STOPPING
    assert world.executing() == {("n1", 0): task_id}
    assert world.free() == {}
    world.end(task_id, AttemptOutcome.CANCELLED)
    assert world.task(task_id).state is TaskState.CANCELLED
    assert world.free() == {"n1": 1}


def test_cancelling_again_changes_nothing() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.cancel(task_id)
    assert world.cancel(task_id) == Cancelled(0, TaskState.RUNNING)
    assert not world.effects


def test_a_success_that_was_faster_than_the_cancel_stands() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.cancel(task_id)
    world.end(task_id, result=b"done")
    assert (world.task(task_id).state, world.task(task_id).result) == (TaskState.SUCCEEDED, b"done")


def test_a_cancelled_task_whose_node_is_lost_is_cancelled_and_not_run_again() -> None:
    world = World(["n1", "n2"])
    task_id = world.submit()
    world.occupy(task_id)
    world.cancel(task_id)
    world.lose("n1")
    task = world.task(task_id)
    assert (task.state, task.attempts[-1].outcome) == (TaskState.CANCELLED, AttemptOutcome.LOST)
    assert world.queue() == []


def test_cancelling_what_has_ended_is_no_refusal_and_no_change() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.run(task_id)
    assert world.cancel(task_id) == Cancelled(0, TaskState.SUCCEEDED)


def test_a_cancel_names_one_thing_that_is_there() -> None:
    world = World(["n1"])
    assert world.refused(Cancel(task_id=9)) == "task_not_found"
    assert world.refused(Cancel(job_id=9)) == "job_not_found"
    assert world.refused(Cancel()) == "invalid_request"
    assert world.refused(Cancel(task_id=1, job_id=1)) == "invalid_request"


def test_the_reason_of_a_cancel_is_kept() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    world.occupy(second)
    world.apply(Cancel(task_id=first, reason="wrong scene"), Cancel(task_id=second, reason="wrong camera"))
    world.end(second, AttemptOutcome.CANCELLED, reason="terminated")
    assert [world.task(task_id).reason for task_id in (first, second)] == ["wrong scene", "wrong camera"]


def test_a_run_timeout_marks_the_attempt_and_its_end_uses_up_a_retry() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1, run_timeout_ms=1_000)
    world.occupy(task_id)
    assert world.time_out(task_id) == Marked(task_id)
    assert world.caused(StopRequested)[0].reason is StopReason.TIMED_OUT
    assert world.free() == {}
    world.end(task_id, AttemptOutcome.TIMED_OUT)
    assert (world.task(task_id).state, world.task(task_id).failures) == (TaskState.PENDING, 1)
    assert world.free() == {"n1": 1}


def test_a_cancel_overrides_a_timeout_and_nothing_overrides_a_cancel() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=9, run_timeout_ms=1_000)
    world.occupy(task_id)
    world.time_out(task_id)
    assert world.cancel(task_id) == Cancelled(1, TaskState.RUNNING)
    assert world.time_out(task_id) == Marked(task_id)
    assert not world.effects
    world.end(task_id, AttemptOutcome.TIMED_OUT)
    assert world.task(task_id).state is TaskState.CANCELLED


def test_marking_an_attempt_that_is_not_the_current_one_is_refused() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    wrong = MarkStopping(task_id, 1, FencingToken(1, 9), StopReason.TIMED_OUT)
    assert world.refused(wrong) == "stale_token"
    assert world.refused(MarkStopping(77, 1, FencingToken(1, 1), StopReason.TIMED_OUT)) == "task_not_found"


def test_cancelling_a_job_ends_what_waits_and_asks_what_runs_to_stop() -> None:
    world = World(["n1", "n2"])
    job = world.submit_array(5)
    assert job.job_id is not None
    first, second = job.task_ids[:2]
    world.run(first)
    world.occupy(second, "n2")
    assert world.cancel_job(job.job_id) == Cancelled(4, None)
    assert world.queue() == []
    record = world.state.jobs[job.job_id]
    assert (record.succeeded, record.running, record.cancelled, record.stopping) == (1, 1, 3, True)
    world.end(second, AttemptOutcome.FAILED)
    record = world.state.jobs[job.job_id]
    assert (record.running, record.cancelled, record.finished_at_ms) == (0, 4, world.now_ms)
    assert [change.change for change in world.caused(JobChanged)] == [JobChange.FINISHED]
    assert world.cancel_job(job.job_id) == Cancelled(0, None)


def test_a_job_over_its_max_failures_is_stopped() -> None:
    world = World(["n1", "n2"])
    job = world.submit_array(6, max_failures=2)
    assert job.job_id is not None
    running = job.task_ids[5]
    world.occupy(running, "n2")
    world.run(job.task_ids[0], AttemptOutcome.FAILED)
    assert len(world.queue()) == 4
    world.run(job.task_ids[1], AttemptOutcome.FAILED)
    assert world.queue() == []
    assert "limit of 2" in world.task(job.task_ids[2]).reason
    assert world.attempt(running).stopping is StopReason.CANCELLED
    world.end(running, AttemptOutcome.CANCELLED)
    record = world.state.jobs[job.job_id]
    assert (record.failed, record.cancelled, bool(record.finished_at_ms)) == (2, 4, True)


def test_retries_do_not_count_as_failed_tasks_of_a_job() -> None:
    world = World(["n1"])
    job = world.submit_array(2, max_failures=1, retries=1)
    world.run(job.task_ids[0], AttemptOutcome.FAILED)
    assert job.job_id is not None
    assert not world.state.jobs[job.job_id].stopping


def test_the_loss_of_a_node_can_end_a_job_whose_other_task_was_on_it() -> None:
    world = World(["n1"], slots=2)
    job = world.submit_array(3, max_failures=1)
    doomed, neighbour, waiting = job.task_ids
    for incarnation in range(2, 6):
        world.occupy(doomed)
        world.register("n1", incarnation, slots=2)
    world.occupy(doomed, slot=0)
    world.occupy(neighbour, slot=1)
    world.lose("n1")
    states = [world.task(task_id).state for task_id in (doomed, neighbour, waiting)]
    assert states == [TaskState.FAILED, TaskState.CANCELLED, TaskState.CANCELLED]
    assert job.job_id is not None
    assert world.state.jobs[job.job_id].finished_at_ms
