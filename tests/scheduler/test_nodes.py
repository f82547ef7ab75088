"""The lives of a node: it registers, is lost, comes back as a higher incarnation, and never takes what is another's."""

import pytest

from raftd.scheduler.commands import NodeLost
from raftd.scheduler.effects import NodeChange, NodeChanged, SlotFreed, TaskChange, TaskChanged
from raftd.scheduler.model import AttemptOutcome, Health, NodeRole, TaskState
from raftd.scheduler.replies import Lost, Registered
from tests.scheduler.world import World, registration


def test_a_node_registers_and_its_slots_are_free() -> None:
    world = World()
    assert world.register("n1", slots=3) == Registered("n1", 1)
    assert world.free() == {"n1": 3}
    assert [change.change for change in world.caused(NodeChanged)] == [NodeChange.UP]


def test_the_same_incarnation_registering_again_keeps_what_it_runs() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    assert world.register("n1") == Registered("n1", 1, repeated=True)
    assert not world.effects
    assert world.executing() == {("n1", 0): task_id}


def test_the_same_incarnation_may_offer_other_kinds_but_keeps_its_slots() -> None:
    world = World(["n1"])
    world.register("n1", kinds=("noop", "brand-new"), slots=9)
    assert world.state.nodes["n1"].kinds == ("brand-new", "noop")
    assert world.free() == {"n1": 1}
    assert [change.change for change in world.caused(NodeChanged)] == [NodeChange.UPDATED]
    assert world.submit("brand-new")


def test_a_lost_node_gives_its_tasks_back_at_their_old_place_and_uses_up_no_retries() -> None:
    world = World(["n1", "n2"])
    first, second, third = world.submit(), world.submit(), world.submit()
    token = world.occupy(first).token
    assert world.lose("n1") == Lost("n1", 1)
    assert world.queue() == [first, second, third]
    task = world.task(first)
    assert (task.state, task.failures, task.crashes) == (TaskState.PENDING, 0, 1)
    assert task.attempts[0].outcome is AttemptOutcome.LOST
    assert world.free() == {"n2": 1}
    assert world.caused(SlotFreed)[0].token == token
    assert world.caused(TaskChanged)[0].change is TaskChange.RETRYING


def test_the_loss_of_an_incarnation_that_is_over_ends_nothing_of_the_next_one() -> None:
    """A leader proposed it, and then the node came back."""
    world = World(["n1"])
    world.register("n1", incarnation=2)
    task_id = world.submit()
    world.occupy(task_id)
    for incarnation in (1, 3):
        assert world.refused(NodeLost("n1", incarnation)) == "incarnation_lost"
    assert world.executing() == {("n1", 0): task_id}


def test_a_lost_incarnation_is_over_and_must_be_raised() -> None:
    world = World(["n1"])
    world.lose("n1")
    assert world.refused(registration("n1", 1)) == "incarnation_lost"
    assert world.register("n1", 2) == Registered("n1", 2)
    assert world.free() == {"n1": 1}


def test_an_older_incarnation_is_refused() -> None:
    world = World()
    world.register("n1", 5)
    assert world.refused(registration("n1", 4)) == "incarnation_lost"


def test_a_restarted_node_gives_up_what_its_old_self_ran() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.register("n1", 2, slots=2)
    assert world.executing() == {}
    assert world.free() == {"n1": 2}
    assert world.queue() == [task_id]
    assert world.attempt(task_id).reason == "node n1 was restarted"


def test_a_node_lost_twice_is_lost_once() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.lose("n1")
    world.lose("n1")
    assert world.state.nodes["n1"].health is Health.LOST
    assert world.task(task_id).crashes == 1


def test_another_store_cannot_take_a_name() -> None:
    world = World(["n1"])
    stranger = registration("n1", 9)
    for store_id, code in ((77, "wrong_identity"), (2, "wrong_identity")):
        changed = type(stranger)("n1", store_id, 9, NodeRole.VOTER, 1, (), ("noop",), "")
        assert world.refused(changed) == code


def test_a_worker_that_is_no_founding_member_may_register_and_then_owns_its_name() -> None:
    world = World()
    world.register("w77", kinds=("sleep",))
    worker = registration("w77", 2)
    assert world.refused(type(worker)("w77", 78, 2, NodeRole.WORKER, 1, (), ("noop",), "")) == "name_taken"
    assert (
        world.refused(type(worker)("w78", 77, 2, NodeRole.WORKER, 1, (), ("noop",), "")) == "wrong_identity"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "n" * 65},
        {"store_id": 0},
        {"store_id": 2**64},
        {"incarnation": 0},
        {"incarnation": 2**64},
        {"slots": -1},
        {"slots": 1_025},
        {"kinds": tuple(map(str, range(257)))},
        {"kinds": ("",)},
        {"kinds": ("k" * 65,)},
        {"labels": tuple((str(number), "") for number in range(65))},
        {"labels": (("zone", "z" * 257),)},
        {"address": "a" * 257},
    ],
)
def test_a_node_that_describes_itself_beyond_the_limits_is_refused(changes: dict[str, object]) -> None:
    world = World()
    plain = registration("n1")
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__} | changes
    assert world.refused(type(plain)(**fields)) == "invalid_request"


def test_a_node_without_slots_takes_no_work() -> None:
    world = World()
    world.register("n1", slots=0)
    world.submit()
    assert world.free() == {}
    assert world.plan() == ()


def test_killing_all_nodes_at_once_loses_no_task() -> None:
    names = [f"n{number}" for number in range(1, 6)]
    world = World(names)
    tasks = [world.submit("sleep") for _ in range(100)]
    for incarnation in range(2, 5):
        world.place()
        for name in names:
            world.register(name, incarnation)
    ends = 0
    while world.queue():
        world.place()
        for task_id in list(world.executing().values()):
            world.end(task_id)
            ends += 1
    assert ends == 100
    assert {world.task(task_id).state for task_id in tasks} == {TaskState.SUCCEEDED}
