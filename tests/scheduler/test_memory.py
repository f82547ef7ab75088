"""What a task costs in memory, with its place in every order and the record of its request."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from raftd.codec.commands import decode_batch, encode_batch
from raftd.scheduler.commands import Batch, Command, Header, Occupy, Submit, Vacate
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.model import ArraySpec, AttemptOutcome, TaskSpec
from raftd.scheduler.replies import Occupied, Reply
from tests.scheduler.world import GENESIS, START_MS, registration, submission

TASKS = 4_000
SLOTS = 100


def array(first: int) -> list[Command]:
    return [submission(request_id(first), TaskSpec("noop", args=("{}",)), ArraySpec(0, 999))]


def singles(first: int) -> list[Command]:
    """Each with an argument and a request id of its own, as the SDK makes them."""
    return [single(number) for number in range(first, first + 1_000)]


def single(number: int) -> Submit:
    return submission(request_id(number), TaskSpec("noop", args=(f"input-{number}",)))


def request_id(number: int) -> str:
    return f"{START_MS:012x}-{number:020x}"


@pytest.mark.parametrize(
    ("submissions", "pending_bytes", "finished_bytes"),
    # A single task brings a spec, a request id and a digest of its own.
    [(array, 350, 350), (singles, 1_024, 512)],
)
def test_a_task_takes_little_room_and_less_when_it_has_ended(
    submissions: Callable[[int], list[Command]], pending_bytes: int, finished_bytes: int
) -> None:
    machine = StateMachine()
    machine.apply_genesis(1, GENESIS)

    def apply(commands: list[Command]) -> tuple[Reply, ...]:
        index = machine.applied_index + 1
        # As a node has them: read from bytes.
        entry = encode_batch(Batch(Header(START_MS + index, 0), tuple(commands)))
        return machine.apply(index, decode_batch(entry)).replies

    apply([registration("n1", slots=SLOTS)])
    gc.collect()
    tracemalloc.start(1)
    try:
        for first in range(0, TASKS, 1_000):
            apply(submissions(first))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / TASKS < pending_bytes
        for first in range(1, TASKS + 1, SLOTS):
            placed = apply([Occupy(first + slot, "n1", 1, slot) for slot in range(SLOTS)])
            apply([end_of(reply) for reply in placed])
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / TASKS < finished_bytes
    finally:
        tracemalloc.stop()
    assert machine.state.indexes.ended_count == TASKS


def end_of(placed: Reply) -> Vacate:
    assert isinstance(placed, Occupied)
    outcome, times = AttemptOutcome.SUCCEEDED, (START_MS + placed.task_id, START_MS + placed.task_id + 9)
    return Vacate(placed.task_id, placed.attempt, placed.token, outcome, "", b"ok", (), *times)
