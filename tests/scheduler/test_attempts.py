"""Occupy and Vacate: one authoritative attempt at a time, tokens that only grow, an outcome that is recorded once."""

import pytest

from raftd.scheduler.commands import NodeLost, Occupy, RecordBlob, Vacate
from raftd.scheduler.effects import Assigned, SlotFreed, TaskChange, TaskChanged
from raftd.scheduler.model import AttemptOutcome, BlobRef, FencingToken, Settings, TaskSpec, TaskState
from raftd.scheduler.queries import blob
from raftd.scheduler.replies import Occupied, Recorded, Refused, Vacated
from raftd.scheduler.transitions import RETURN_BACKOFF_FIRST_MS
from tests.scheduler.world import World, submission

DIGEST = "ab" * 32


def test_occupy_moves_a_task_from_the_queue_to_executing_and_the_slot_from_free() -> None:
    world = World(["n1", "n2"])
    task_id = world.submit()
    reply = world.occupy(task_id, "n2")
    assert reply == Occupied(task_id, 1, FencingToken(1, 1))
    assert world.executing() == {("n2", 0): task_id}
    assert world.free() == {"n1": 1}
    assert world.queue() == []
    (assigned,) = world.caused(Assigned)
    assert (assigned.node, assigned.incarnation, assigned.attempt.token) == ("n2", 1, reply.token)
    assert world.caused(TaskChanged)[0].change is TaskChange.RUNNING


def test_vacate_records_the_result_and_frees_the_slot() -> None:
    world = World(["n1"])
    task_id = world.submit()
    token = world.occupy(task_id).token
    world.later(250)
    assert world.end(task_id, result=b"42") == Vacated(task_id, TaskState.SUCCEEDED)
    task = world.task(task_id)
    assert (task.result, task.finished_at_ms, task.attempts[0].outcome) == (
        b"42",
        world.now_ms,
        AttemptOutcome.SUCCEEDED,
    )
    assert world.free() == {"n1": 1}
    (freed,) = world.caused(SlotFreed)
    assert (freed.node, freed.slot, freed.token) == ("n1", 0, token)


def test_tokens_grow_from_attempt_to_attempt_and_from_task_to_task() -> None:
    world = World(["n1"])
    first, second = world.submit(retries=5), world.submit()
    tokens = []
    for task_id in (first, second, first):
        world.later(100_000)
        tokens.append(world.occupy(task_id).token)
        world.end(task_id, AttemptOutcome.FAILED)
    assert tokens == sorted(set(tokens))
    assert [attempt.number for attempt in world.task(first).attempts] == [1, 2]


def test_the_outcome_of_an_attempt_that_was_given_up_is_refused_and_the_new_attempt_decides() -> None:
    world = World(["n1", "n2"])
    task_id = world.submit()
    old = world.occupy(task_id, "n1")
    world.lose("n1")
    new = world.occupy(task_id, "n2")
    assert new.token > old.token
    late = Vacate(task_id, old.attempt, old.token, AttemptOutcome.SUCCEEDED, result=b"old")
    assert world.refused(late) == "stale_token"
    world.end(task_id, result=b"new")
    assert world.task(task_id).result == b"new"
    assert world.refused(late) == "stale_token"


@pytest.mark.parametrize(
    ("attempt", "token"),
    [
        (1, FencingToken(1, 2)),
        (1, FencingToken(1, 0)),
        (1, FencingToken(2, 1)),
        (1, FencingToken(0, 1)),
        (2, FencingToken(1, 1)),
        (0, FencingToken(1, 1)),
    ],
)
def test_a_token_counts_only_if_it_is_equal_not_if_it_is_greater(attempt: int, token: FencingToken) -> None:
    world = World(["n1"])
    task_id = world.submit()
    assert world.occupy(task_id).token == FencingToken(1, 1)
    assert world.refused(Vacate(task_id, attempt, token, AttemptOutcome.SUCCEEDED)) == "stale_token"


def test_the_same_outcome_reported_twice_is_recorded_once() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=3)
    occupied = world.occupy(task_id)
    vacate = Vacate(task_id, 1, occupied.token, AttemptOutcome.FAILED, "boom")
    replies = world.apply(vacate, vacate).replies
    assert isinstance(replies[0], Vacated)
    assert isinstance(replies[1], Refused)
    assert world.task(task_id).failures == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Occupy(99, "n1", 1, 0), "task_not_found"),
        (Occupy(1, "n9", 1, 0), "node_not_found"),
        (Occupy(1, "n1", 2, 0), "rejected"),
        (Occupy(1, "n1", 0, 0), "rejected"),
        (Occupy(1, "n1", 1, 1), "rejected"),
        (Occupy(1, "n1", 1, -1), "rejected"),
        (Occupy(1, "n2", 1, 0), "rejected"),
        (Occupy(2, "n1", 1, 0), "rejected"),
        (Occupy(3, "n1", 1, 0), "rejected"),
    ],
)
def test_occupy_is_checked_against_the_record_whatever_the_leader_thought(command: Occupy, code: str) -> None:
    world = World(["n1", "n2", "n3"])
    pending, running, ended = world.submit(), world.submit(), world.submit()
    world.occupy(running, "n3")
    world.run(ended)
    world.lose("n2")
    assert (pending, running, ended) == (1, 2, 3)
    assert world.refused(command) == code


def test_two_tasks_for_one_slot_in_one_entry_the_first_gets_it() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    replies = world.apply(Occupy(first, "n1", 1, 0), Occupy(second, "n1", 1, 0)).replies
    assert isinstance(replies[0], Occupied)
    assert isinstance(replies[1], Refused)
    assert world.executing() == {("n1", 0): first}


def test_a_failed_attempt_is_retried_after_its_backoff_and_keeps_its_place_in_the_queue() -> None:
    world = World(["n1"])
    unlucky = world.submit(retries=1)
    later = world.submit()
    assert world.run(unlucky, AttemptOutcome.FAILED) is TaskState.PENDING
    wait_ms = world.task(unlucky).not_before_ms - world.now_ms
    assert 500 <= wait_ms <= 1_000
    assert world.refused(Occupy(unlucky, "n1", 1, 0)) == "rejected"
    assert world.queue() == [later, unlucky]
    world.later(wait_ms)
    world.apply()
    assert world.queue() == [unlucky, later]
    assert world.run(unlucky, AttemptOutcome.FAILED) is TaskState.FAILED
    assert world.task(unlucky).reason == "boom"


def test_the_delay_is_the_leaders_chance_and_is_in_the_record() -> None:
    delays = set()
    for random_u64 in range(20):
        world = World(["n1"])
        task_id = world.submit(retries=1)
        token = world.occupy(task_id).token
        world.do(Vacate(task_id, 1, token, AttemptOutcome.FAILED), random_u64=random_u64)
        delays.add(world.task(task_id).not_before_ms)
    assert len(delays) > 10


def test_a_task_out_of_retries_fails_with_the_reason_of_its_last_attempt() -> None:
    world = World(["n1"])
    task_id = world.submit()
    assert world.run(task_id, AttemptOutcome.TIMED_OUT) is TaskState.FAILED
    assert world.task(task_id).reason == "its run timeout passed"
    assert world.caused(TaskChanged)[0].change is TaskChange.FAILED


def test_crashes_have_a_limit_of_their_own_and_use_up_no_retries() -> None:
    world = World(["n1", "n2"])
    poison = world.submit(retries=0)
    for crash in range(1, 5):
        state = world.run(poison, AttemptOutcome.CRASHED)
        assert (state, world.task(poison).crashes, world.task(poison).failures) == (
            TaskState.PENDING,
            crash,
            0,
        )
    assert world.run(poison, AttemptOutcome.CRASHED) is TaskState.FAILED
    assert "5 times" in world.task(poison).reason


def test_a_task_that_takes_down_every_node_it_runs_on_stops_doing_so() -> None:
    world = World(["n1"])
    poison = world.submit(retries=100)
    for incarnation in range(2, 7):
        world.occupy(poison, "n1")
        world.register("n1", incarnation)
    assert world.task(poison).state is TaskState.FAILED
    assert world.free() == {"n1": 1}


def test_an_attempt_that_could_not_start_costs_nothing_but_a_wait() -> None:
    world = World(["n1"])
    task_id = world.submit()
    for returns in range(1, 30):
        assert world.run(task_id, AttemptOutcome.NOT_STARTED) is TaskState.PENDING
        task = world.task(task_id)
        assert (task.returns, task.failures, task.crashes) == (returns, 0, 0)
        assert task.not_before_ms - world.now_ms >= RETURN_BACKOFF_FIRST_MS // 2
        world.later(10_000)
    # The list of attempts is bounded, their numbers go on.
    assert len(world.task(task_id).attempts) == world.state.settings.max_attempts_kept
    assert world.attempt(task_id).number == 29


def test_a_blob_result_enters_the_directory_with_its_holders() -> None:
    world = World(["n1"])
    task_id = world.submit("render-tile")
    world.occupy(task_id)
    ref = BlobRef(DIGEST, 6_000)
    world.end(task_id, result=ref, holders=("n3", "n1", "stranger"))
    assert world.task(task_id).result == ref
    record = blob(world.state, DIGEST)
    assert record is not None
    assert record.holders == ("n1", "n3")
    assert world.do(RecordBlob(ref, ("n2", "n3"))) == Recorded(DIGEST, ("n1", "n2", "n3"))
    assert world.refused(RecordBlob(BlobRef(DIGEST, 6_001), ("n2",))) == "invalid_request"


@pytest.mark.parametrize("digest", ["", "ab", "AB" * 32, "zz" * 32, "ab" * 33, "ab" * 31 + "\n "])
def test_what_is_no_digest_is_no_blob(digest: str) -> None:
    world = World(["n1"])
    assert world.refused(RecordBlob(BlobRef(digest, 1), ("n1",))) == "invalid_request"
    assert blob(world.state, digest) is None


@pytest.mark.parametrize("result", [b"x" * 4_097, BlobRef("nonsense", 1), BlobRef(DIGEST, -1)])
def test_a_success_without_a_usable_result_is_a_failure_and_frees_the_slot(result: bytes | BlobRef) -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    assert world.end(task_id, result=result) == Vacated(task_id, TaskState.FAILED)
    assert "result" in world.task(task_id).reason
    assert world.free() == {"n1": 1}


def test_what_a_task_says_of_its_error_is_kept_where_it_is_the_last_word() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.occupy(task_id)
    world.end(task_id, AttemptOutcome.FAILED, result=b"first error")
    assert (world.task(task_id).state, world.task(task_id).result) == (TaskState.PENDING, None)
    world.later(60_000)
    world.apply()
    world.occupy(task_id)
    world.end(task_id, AttemptOutcome.FAILED, reason="boom", result=b"last error")
    task = world.task(task_id)
    assert (task.state, task.result, task.reason) == (TaskState.FAILED, b"last error", "boom")


def test_an_error_that_lies_in_a_blob_is_in_the_directory() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.end(task_id, AttemptOutcome.FAILED, result=BlobRef("ab" * 32, 9), holders=("n1",))
    assert world.task(task_id).result == BlobRef("ab" * 32, 9)
    record = world.state.blob("ab" * 32)
    assert record is not None
    assert record.holders == ("n1",)


def test_a_task_that_could_not_say_its_error_has_failed_all_the_same() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.end(task_id, AttemptOutcome.FAILED, reason="boom", result=bytes(5_000))
    task = world.task(task_id)
    assert (task.state, task.result, task.reason) == (TaskState.FAILED, None, "boom")


@pytest.mark.parametrize(
    "outcome", sorted(set(AttemptOutcome) - {AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED})
)
def test_only_a_success_and_an_error_have_a_result(outcome: AttemptOutcome) -> None:
    world = World(["n1"], settings=Settings(crash_limit=1))
    task_id = world.submit()
    world.occupy(task_id)
    world.end(task_id, outcome, result=b"partial")
    assert world.task(task_id).result is None


def test_the_clock_of_the_cluster_never_goes_back() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.run(task_id, AttemptOutcome.FAILED)
    due_ms = world.task(task_id).not_before_ms
    world.later(due_ms - world.now_ms)
    world.apply()
    # A new leader whose clock is an hour behind.
    world.later(-3_600_000)
    world.apply()
    assert world.state.cluster_time_ms == due_ms
    assert world.queue() == [task_id]
    world.occupy(task_id)
    assert world.attempt(task_id).occupied_at_ms == due_ms


def test_priority_then_order_of_submission() -> None:
    world = World(["n1"])
    low, normal, high, also_normal = (world.submit(priority=priority) for priority in (-5, 0, 7, 0))
    assert world.queue() == [high, normal, also_normal, low]


def test_losing_a_node_that_is_not_there_changes_nothing() -> None:
    world = World(["n1"])
    assert world.refused(NodeLost("n7", 1)) == "node_not_found"
    assert world.refused(NodeLost("n1", 2)) == "incarnation_lost"


def test_the_tasks_of_a_submission_can_be_placed_by_the_same_entry() -> None:
    world = World(["n1"])
    replies = world.apply(submission("a", TaskSpec("noop")), Occupy(1, "n1", 1, 0)).replies
    assert isinstance(replies[1], Occupied)


def test_limits_of_the_record_hold_for_hostile_reports() -> None:
    world = World(["n1"], settings=Settings())
    task_id = world.submit()
    token = world.occupy(task_id).token
    world.do(
        Vacate(
            task_id,
            1,
            token,
            AttemptOutcome.FAILED,
            "r" * 100_000,
            started_at_ms=2**64 - 1,
            ended_at_ms=2**64 - 1,
        )
    )
    attempt = world.attempt(task_id)
    assert len(attempt.reason) == 1_000
    assert attempt.ended_at_ms == 2**60
