"""The tables of states: every move there is, every move there is not, and what each end of an attempt costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.commands import Command, MarkStopping, Occupy, Vacate
from raftd.scheduler.model import AttemptOutcome, FencingToken, StopReason, TaskState
from raftd.scheduler.replies import Refused
from raftd.scheduler.transitions import CHARGES, MOVES, Charge, backoff_ms, mix
from tests.scheduler.world import World

P, R, S, F, C, W = (
    TaskState.PENDING,
    TaskState.RUNNING,
    TaskState.SUCCEEDED,
    TaskState.FAILED,
    TaskState.CANCELLED,
    TaskState.RESERVED,
)


def world_with_task_in(state: TaskState) -> tuple[World, int]:
    world = World(["n1"])
    task_id = world.submit()
    if state is C:
        world.cancel(task_id)
    elif state is W:
        world.occupy(world.submit())
        world.reserve(task_id)
    elif state is not P:
        world.occupy(task_id)
        if state is not R:
            world.end(task_id, AttemptOutcome.SUCCEEDED if state is S else AttemptOutcome.FAILED)
    assert world.task(task_id).state is state
    return world, task_id


def test_terminal_states_absorb() -> None:
    for state in TaskState:
        assert state.terminal == (not MOVES[state])


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize(
    "event", ["occupy", "vacate", "cancel", "mark_stopping", "node_lost", "node_restarted"]
)
def test_every_event_in_every_state_makes_a_move_of_the_table_or_none(state: TaskState, event: str) -> None:
    world, task_id = world_with_task_in(state)
    before = world.task(task_id)
    token = before.attempts[-1].token if before.attempts else FencingToken(1, 1)
    if event == "node_restarted":
        world.register("n1", incarnation=2)
    elif event == "node_lost":
        world.lose("n1")
    elif event == "cancel":
        world.cancel(task_id)
    else:
        commands: dict[str, Command] = {
            "occupy": Occupy(task_id, "n1", 1, 0),
            "vacate": Vacate(task_id, 1, token, AttemptOutcome.FAILED),
            "mark_stopping": MarkStopping(task_id, 1, token, StopReason.TIMED_OUT),
        }
        reply = world.do(commands[event])
        wanted = {"occupy": (P,), "vacate": (R, W), "mark_stopping": (R,)}[event]
        assert isinstance(reply, Refused) == (state not in wanted)
    after = world.task(task_id)
    if after.state is not before.state:
        assert after.state in MOVES[before.state]
    if before.state.terminal:
        assert after == before


@pytest.mark.parametrize(
    ("outcome", "stopping", "state", "charge"),
    [
        (AttemptOutcome.SUCCEEDED, None, S, Charge.NOTHING),
        (AttemptOutcome.FAILED, None, P, Charge.FAILURE),
        (AttemptOutcome.TIMED_OUT, None, P, Charge.FAILURE),
        # Nobody cancelled it: it is given back, not cancelled.
        (AttemptOutcome.CANCELLED, None, P, Charge.RETURN),
        (AttemptOutcome.CRASHED, None, P, Charge.CRASH),
        (AttemptOutcome.LOST, None, P, Charge.CRASH),
        (AttemptOutcome.NOT_STARTED, None, P, Charge.RETURN),
        # Asked to stop by a cancel: cancelled, unless it had succeeded before that reached it.
        (AttemptOutcome.SUCCEEDED, StopReason.CANCELLED, S, Charge.NOTHING),
        (AttemptOutcome.FAILED, StopReason.CANCELLED, C, Charge.NOTHING),
        (AttemptOutcome.TIMED_OUT, StopReason.CANCELLED, C, Charge.NOTHING),
        (AttemptOutcome.CANCELLED, StopReason.CANCELLED, C, Charge.NOTHING),
        (AttemptOutcome.CRASHED, StopReason.CANCELLED, C, Charge.NOTHING),
        (AttemptOutcome.LOST, StopReason.CANCELLED, C, Charge.NOTHING),
        (AttemptOutcome.NOT_STARTED, StopReason.CANCELLED, C, Charge.NOTHING),
        # Asked to stop by its timeout: that uses up a retry, whatever else is reported.
        (AttemptOutcome.SUCCEEDED, StopReason.TIMED_OUT, S, Charge.NOTHING),
        (AttemptOutcome.FAILED, StopReason.TIMED_OUT, P, Charge.FAILURE),
        (AttemptOutcome.TIMED_OUT, StopReason.TIMED_OUT, P, Charge.FAILURE),
        (AttemptOutcome.CANCELLED, StopReason.TIMED_OUT, P, Charge.FAILURE),
        (AttemptOutcome.CRASHED, StopReason.TIMED_OUT, P, Charge.FAILURE),
        (AttemptOutcome.LOST, StopReason.TIMED_OUT, P, Charge.FAILURE),
        (AttemptOutcome.NOT_STARTED, StopReason.TIMED_OUT, P, Charge.FAILURE),
    ],
)
def test_what_the_end_of_an_attempt_makes_of_its_task(
    outcome: AttemptOutcome, stopping: StopReason | None, state: TaskState, charge: Charge
) -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.occupy(task_id)
    if stopping is StopReason.CANCELLED:
        world.cancel(task_id)
    elif stopping is StopReason.TIMED_OUT:
        world.time_out(task_id)
    world.end(task_id, outcome)
    task = world.task(task_id)
    assert task.state is state
    assert (task.failures, task.crashes, task.returns) == tuple(
        int(charge is counted) for counted in (Charge.FAILURE, Charge.CRASH, Charge.RETURN)
    )
    assert task.attempts[-1].outcome is outcome
    assert task.attempts[-1].stopping is stopping
    assert world.free() == {"n1": 1}


def test_every_outcome_has_its_charge() -> None:
    assert sorted(CHARGES) == sorted(AttemptOutcome)


@given(
    st.integers(1, 10**9),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 2**64 - 1),
)
def test_a_backoff_stays_between_half_of_its_step_and_its_step(
    times: int, first_ms: int, max_ms: int, random_u64: int
) -> None:
    delay_ms = backoff_ms(times, first_ms, max_ms, random_u64)
    step_ms = min(first_ms * 2 ** min(times - 1, 40), max(first_ms, max_ms))
    assert step_ms // 2 <= delay_ms <= step_ms


def test_backoff_doubles_up_to_its_limit() -> None:
    longest = [backoff_ms(times, 1_000, 60_000, 500) for times in range(1, 9)]
    assert longest[0] == 500 + 500
    assert sorted(longest) == longest
    assert all(delay_ms <= 60_000 for delay_ms in longest)


def test_one_random_number_gives_each_task_its_own() -> None:
    assert len({mix(7, task_id) for task_id in range(1_000)}) == 1_000
    assert all(0 <= mix(2**64 - 1, task_id) < 2**64 for task_id in range(100))
