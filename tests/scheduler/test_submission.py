"""What is accepted: once, whole or not at all, and within limits that the refusal names."""

import pytest

from raftd.scheduler import invariants
from raftd.scheduler.commands import Purge, Submit
from raftd.scheduler.effects import JobChanged, TaskChange, TaskChanged
from raftd.scheduler.model import ArraySpec, Settings, TaskSpec, TaskState
from raftd.scheduler.replies import Accepted, Refused
from raftd.scheduler.requests import created_ms, request_digest
from raftd.scheduler.state import State
from tests.scheduler.world import START_MS, World, submission


def test_a_submission_makes_one_pending_task() -> None:
    world = World(["n1"])
    reply = world.accept(submission("a", TaskSpec("noop", args=("x",), priority=3)))
    assert reply == Accepted(first_task_id=1, count=1)
    task = world.task(1)
    assert (task.state, task.request_id, task.submitted_at_ms) == (TaskState.PENDING, "a", START_MS)
    assert [change.change for change in world.caused(TaskChanged)] == [TaskChange.SUBMITTED]
    assert world.caused(TaskChanged)[0].task == task


def test_the_same_request_twenty_times_is_one_task_and_one_answer() -> None:
    world = World(["n1"])
    submit = submission("same", TaskSpec("noop"))
    first = world.accept(submit)
    again = [world.accept(submit) for _ in range(19)]
    assert again == [Accepted(first.first_task_id, 1, None, duplicate=True)] * 19
    assert world.queue() == [first.first_task_id]
    assert not world.effects


def test_the_same_request_twice_in_one_entry_is_one_task() -> None:
    world = World(["n1"])
    submit = submission("same", TaskSpec("noop"))
    first, second = world.apply(submit, submit).replies
    assert first == Accepted(1, 1)
    assert second == Accepted(1, 1, duplicate=True)


def test_a_repeated_request_is_answered_although_its_task_has_ended_and_is_forgotten() -> None:
    world = World(["n1"], settings=Settings(tasks_kept=0))
    submit = submission("same", TaskSpec("noop"))
    task_id = world.accept(submit).first_task_id
    world.occupy(task_id)
    world.end(task_id)
    assert world.state.tasks.get(task_id) is None
    assert world.accept(submit) == Accepted(task_id, 1, duplicate=True)


def test_the_same_id_for_another_request_is_a_conflict() -> None:
    world = World(["n1"])
    world.accept(submission("same", TaskSpec("noop")))
    assert world.refused(submission("same", TaskSpec("sleep"))) == "request_id_conflict"
    assert world.refused(submission("same", TaskSpec("noop"), ArraySpec(0, 0))) == "request_id_conflict"


def test_a_sdk_id_older_than_the_retention_is_refused_and_never_run_again() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000))
    submit = submission(f"{START_MS:012x}-k3", TaskSpec("noop"))
    assert submit.created_ms == START_MS
    world.accept(submit)
    world.later(1_000)
    assert world.accept(submit).duplicate
    world.later(1)
    world.apply()
    # Its record may be there or gone: it is never accepted as new.
    reply = world.do(submit)
    assert isinstance(reply, Refused) or reply == Accepted(1, 1, duplicate=True)
    world.later(10_000)
    world.apply()
    assert not len(world.state.requests)
    assert world.refused(submit) == "request_expired"


def test_an_id_made_by_a_clock_that_is_ahead_is_remembered_for_as_long_as_it_could_be_accepted() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000))
    submit = submission(f"{START_MS + 900:012x}-k3", TaskSpec("noop"))
    world.accept(submit)
    for _ in range(20):
        world.later(100)
        world.apply()
        reply = world.do(submit)
        assert reply == Accepted(1, 1, duplicate=True) or isinstance(reply, Refused)
    assert world.refused(submission(f"{world.now_ms + 1_001:012x}-k4", TaskSpec("noop"))) == "invalid_request"


def test_an_id_without_a_time_is_new_again_after_the_retention_and_its_task() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000, tasks_kept_ms=5_000))
    submit = submission("nightly", TaskSpec("noop"))
    world.accept(submit)
    world.later(20_000)
    world.apply()
    assert world.accept(submit) == Accepted(1, 1, duplicate=True)
    world.run(1)
    world.later(4_000)
    world.apply()
    assert world.refused(submission("nightly", TaskSpec("noop", priority=1))) == "request_id_conflict"
    world.later(1_001)
    world.apply()
    assert world.accept(submit) == Accepted(2, 1)


def test_the_id_of_an_array_is_held_until_the_last_of_its_tasks_is_gone() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000, tasks_kept_ms=5_000))
    submit = submission("nightly", TaskSpec("noop"), ArraySpec(0, 1))
    world.accept(submit)
    world.run(1)
    world.later(5_001)
    world.apply()
    assert world.state.tasks.get(1) is None
    assert world.accept(submit).duplicate
    world.run(2)
    world.later(5_001)
    world.apply()
    assert world.state.jobs.get(1) is None
    assert not world.accept(submit).duplicate


def test_an_id_that_is_held_is_in_a_snapshot() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000))
    submit = submission("nightly", TaskSpec("noop"))
    world.accept(submit)
    world.accept(submission("another", TaskSpec("noop")))
    world.run(2)
    world.later(1_001)
    world.apply()
    world.accept(submission("young", TaskSpec("noop")))
    again = State.thaw(world.state.freeze())
    invariants.check(again)
    assert list(again.requests.items()) == list(world.state.requests.items())
    assert invariants.state_hash(again) == invariants.state_hash(world.state)
    assert again.requests.oldest == world.state.requests.get("young")


def test_a_purged_task_takes_the_id_that_was_held_for_it_with_it() -> None:
    world = World(["n1"], settings=Settings(request_retention_ms=1_000))
    submit = submission("nightly", TaskSpec("noop"))
    world.accept(submit)
    world.run(1)
    world.later(1_001)
    world.apply(Purge((1,)))
    assert len(world.state.requests) == 0


def test_an_array_is_one_job_with_contiguous_ids_and_is_accepted_whole() -> None:
    world = World(["n1"])
    world.submit()
    reply = world.accept(submission("job", TaskSpec("render-tile", args=("{}",)), ArraySpec(10, 13)))
    assert reply == Accepted(first_task_id=2, count=4, job_id=1)
    assert [world.task(task_id).array_index for task_id in reply.task_ids] == [10, 11, 12, 13]
    job = world.state.jobs[1]
    assert (job.total, job.pending, list(job.task_ids)) == (4, 4, [2, 3, 4, 5])
    assert world.caused(JobChanged)[0].job == job
    assert len(world.caused(TaskChanged)) == 4
    # One record of what to run for all of them.
    assert len({id(world.task(task_id).spec) for task_id in reply.task_ids}) == 1


def test_an_array_that_does_not_fit_into_the_queue_is_refused_whole_and_may_be_retried() -> None:
    world = World(["n1"], settings=Settings(max_queue=5))
    for _ in range(3):
        world.submit()
    submit = submission("job", TaskSpec("noop"), ArraySpec(0, 2))
    reply = world.do(submit)
    assert isinstance(reply, Refused)
    assert (reply.code, reply.retryable) == ("queue_full", True)
    assert "5" in reply.message
    world.run(1)
    assert world.accept(submit).count == 3


def test_a_full_queue_does_not_touch_what_was_accepted() -> None:
    world = World(["n1"], settings=Settings(max_queue=2))
    kept = [world.submit(), world.submit()]
    assert world.refused(submission("more", TaskSpec("noop"))) == "queue_full"
    assert world.queue() == kept


@pytest.mark.parametrize(
    ("spec", "array", "code"),
    [
        (TaskSpec("never-heard-of"), None, "unknown_kind"),
        (TaskSpec(""), None, "invalid_request"),
        (TaskSpec("n" * 65), None, "invalid_request"),
        (TaskSpec("noop", payload=b"x" * 11), None, "payload_too_large"),
        (TaskSpec("noop", args=("x" * 21,)), None, "payload_too_large"),
        (TaskSpec("noop", env=(("K", "x" * 20),)), None, "payload_too_large"),
        (TaskSpec("noop", name="x" * 21), None, "payload_too_large"),
        (TaskSpec("noop", require=(("zone", "x" * 20),)), None, "payload_too_large"),
        (TaskSpec("noop", require=(("", "a"),)), None, "invalid_request"),
        (TaskSpec("noop", require=(("", ""),)), None, "invalid_request"),
        (TaskSpec("noop", slots=0), None, "invalid_request"),
        (TaskSpec("noop", slots=1_025), None, "invalid_request"),
        (TaskSpec("noop", queue_timeout_ms=2**63), None, "invalid_request"),
        (TaskSpec("noop", delay_ms=-1), None, "invalid_request"),
        (TaskSpec("noop", delay_ms=2**63), None, "invalid_request"),
        (TaskSpec("noop", priority=2**31), None, "invalid_request"),
        (TaskSpec("noop", retries=-1), None, "invalid_request"),
        (TaskSpec("noop", retries=10**7), None, "invalid_request"),
        (TaskSpec("noop", run_timeout_ms=-1), None, "invalid_request"),
        (TaskSpec("noop", backoff_first_ms=2**63), None, "invalid_request"),
        (TaskSpec("noop"), ArraySpec(5, 4), "invalid_request"),
        (TaskSpec("noop"), ArraySpec(-1, 4), "invalid_request"),
        (TaskSpec("noop"), ArraySpec(0, 100), "invalid_request"),
        (TaskSpec("noop"), ArraySpec(0, 2**63), "invalid_request"),
        (TaskSpec("noop"), ArraySpec(0, 3, max_failures=-1), "invalid_request"),
    ],
)
def test_a_submission_over_a_limit_is_refused_and_changes_nothing(
    spec: TaskSpec, array: ArraySpec | None, code: str
) -> None:
    world = World(["n1"], settings=Settings(max_payload_bytes=10, max_args_bytes=20, max_array=100))
    assert world.refused(submission("a", spec, array)) == code


def test_a_task_requires_at_most_as_many_labels_as_a_node_has() -> None:
    world = World(["n1"])
    labels = tuple((f"label-{number:02}", "") for number in range(65))
    assert world.refused(submission("a", TaskSpec("noop", require=labels))) == "invalid_request"
    assert world.accept(submission("a", TaskSpec("noop", require=labels[:64], slots=1_024))).count == 1


def test_equal_specs_of_one_entry_are_kept_once() -> None:
    world = World(["n1"])
    world.apply(*(submission(f"r{number}", TaskSpec("noop", args=("x",))) for number in range(9)))
    assert len({id(world.task(task_id).spec) for task_id in range(1, 10)}) == 1


def test_a_request_id_must_be_there_and_short() -> None:
    world = World(["n1"])
    for request_id in ("", "x" * 129):
        assert world.refused(submission(request_id, TaskSpec("noop"))) == "invalid_request"


def test_a_refused_request_is_not_remembered() -> None:
    world = World(["n1"], settings=Settings(max_queue=1))
    world.submit()
    submit = submission("later", TaskSpec("noop"))
    assert world.refused(submit) == "queue_full"
    world.run(1)
    assert not world.accept(submit).duplicate


def test_one_bad_command_in_an_entry_does_not_hurt_the_others() -> None:
    world = World(["n1"])
    replies = world.apply(
        submission("a", TaskSpec("noop")), submission("b", TaskSpec("bad")), submission("c", TaskSpec("noop"))
    ).replies
    assert [type(reply) for reply in replies] == [Accepted, Refused, Accepted]
    assert world.queue() == [1, 2]


def test_a_kind_stays_known_when_the_nodes_that_offered_it_are_lost() -> None:
    world = World(["n1"])
    world.lose("n1")
    assert world.submit("render-tile") == 1


def test_a_digest_tells_requests_apart_that_look_alike() -> None:
    specs = [
        TaskSpec("noop", args=("ab", "c")),
        TaskSpec("noop", args=("a", "bc")),
        TaskSpec("noop", args=("abc",)),
        TaskSpec("noop", env=(("ab", "c"),)),
        TaskSpec("noop", name="abc"),
        TaskSpec("noop", payload=b"abc"),
        TaskSpec("noop", priority=1),
        TaskSpec("noop", retries=1),
        TaskSpec("noop", require=(("ab", "c"),)),
        TaskSpec("noop", queue_timeout_ms=1),
        TaskSpec("noop", delay_ms=1),
        TaskSpec("noop", slots=2),
    ]
    arrays = [None, ArraySpec(0, 1), ArraySpec(0, 1, 1)]
    digests = {request_digest(spec, array) for spec in specs for array in arrays}
    assert len(digests) == len(specs) * len(arrays)


def test_the_time_in_a_request_id_is_read_only_where_the_sdk_wrote_it() -> None:
    assert created_ms("0191a2b3c4d5-xyz") == 0x0191A2B3C4D5
    for request_id in ("nightly", "0191a2b3c4d5", "0191a2b3c4d5-", "0191A2B3C4D5-x", "191a2b3c4d5-x", ""):
        assert created_ms(request_id) == 0


def test_the_first_answer_does_not_depend_on_the_digest_being_well_formed() -> None:
    world = World(["n1"])
    odd = Submit("a", b"", 0, TaskSpec("noop"))
    assert world.do(odd) == Accepted(1, 1)
    assert world.do(odd) == Accepted(1, 1, duplicate=True)
