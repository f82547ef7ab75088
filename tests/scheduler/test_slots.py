"""Tasks of several slots: they occupy all of them at once, on one node, and free all of them at once."""

import pytest

from raftd.scheduler import queries
from raftd.scheduler.commands import Occupy
from raftd.scheduler.effects import SlotFreed
from raftd.scheduler.model import StopReason, TaskState
from tests.scheduler.world import World


def test_a_task_of_several_slots_is_in_each_of_them_and_one_attempt() -> None:
    world = World(["n1"], slots=4)
    task_id = world.submit(slots=3)
    world.occupy(task_id, "n1", 0, 2, 3)
    assert world.executing() == {("n1", slot): task_id for slot in (0, 2, 3)}
    assert world.free() == {"n1": 1}
    (wanted,) = queries.assignments(world.state, "n1")
    assert (wanted.slot, wanted.extra_slots) == (0, (2, 3))
    assert world.attempt(task_id).slots == (0, 2, 3)


def test_its_end_frees_every_slot() -> None:
    world = World(["n1"], slots=3)
    task_id = world.submit(slots=2)
    world.occupy(task_id, "n1", 1, 2)
    world.end(task_id)
    assert world.free() == {"n1": 3}
    assert world.attempt(task_id).slots == (1, 2)
    assert len(world.caused(SlotFreed)) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_node_that_goes_gives_it_back_once(restarted: bool) -> None:
    world = World(["n1"], slots=3)
    task_id = world.submit(slots=3)
    world.occupy(task_id, "n1", 0, 1, 2)
    if restarted:
        world.register("n1", 2, slots=3)
    else:
        world.lose("n1")
    assert world.task(task_id).state is TaskState.PENDING
    assert world.task(task_id).crashes == 1
    assert world.executing() == {}


def test_a_stop_frees_nothing_before_its_end() -> None:
    world = World(["n1"], slots=2)
    task_id = world.submit(slots=2)
    world.occupy(task_id, "n1", 0, 1)
    world.stop(task_id, StopReason.CANCELLED)
    assert world.free() == {}


@pytest.mark.parametrize(
    "slots",
    [(0,), (0, 1, 2), (1, 0), (0, 0), (0, 4), (0, 3), (-1, 0)],
    ids=["too few", "too many", "descending", "one twice", "none such", "occupied", "negative"],
)
def test_slots_that_do_not_fit_are_refused(slots: tuple[int, ...]) -> None:
    world = World(["n1"], slots=4)
    world.occupy(world.submit(), "n1", 3)
    task_id = world.submit(slots=2)
    assert world.refused(Occupy(task_id, "n1", 1, slots[0], slots[1:])) == "rejected"


def test_a_task_is_not_put_on_a_node_that_lacks_a_label_which_it_requires() -> None:
    world = World(["n1"])
    task_id = world.submit(require=(("gpu", "a100"),))
    assert world.refused(Occupy(task_id, "n1", 1, 0)) == "rejected"
    world.set_labels("n1", ("gpu", "h100"))
    assert world.refused(Occupy(task_id, "n1", 1, 0)) == "rejected"
    world.set_labels("n1", ("gpu", "a100"))
    world.occupy(task_id)
