"""Placing tasks that require labels or several slots, by either policy; and draining nodes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler.commands import Command, MarkStopping, Occupy
from raftd.scheduler.model import AttemptOutcome, Eligibility, Placement, Settings, StopReason, TaskState
from raftd.scheduler.planner import InFlight, Observations, PlanningView, next_wakeup_ms, plan
from tests.scheduler.world import World

BINPACK = Settings(placement=Placement.BINPACK)


def places(commands: tuple[Command, ...]) -> list[tuple[int, str, tuple[int, ...]]]:
    return [
        (command.task_id, command.node, (command.slot, *command.extra_slots))
        for command in commands
        if isinstance(command, Occupy)
    ]


# --- labels -------------------------------------------------------------------------------------------------------


def test_a_task_goes_only_where_every_label_is_that_it_requires() -> None:
    world = World()
    world.register("n1", slots=4)
    world.register("n2", slots=4, labels=(("gpu", "a100"),))
    world.register("n3", slots=4, labels=(("gpu", "a100"), ("zone", "b")))
    either = world.submit(require=(("gpu", "a100"),))
    both = world.submit(require=(("gpu", "a100"), ("zone", "b")))
    none = world.submit(require=(("gpu", "a100"), ("zone", "c")))
    assert places(world.plan()) == [(either, "n2", (0,)), (both, "n3", (0,))]
    world.set_labels("n1", ("gpu", "a100"), ("zone", "c"))
    assert (none, "n1") in [place[:2] for place in places(world.plan())]


def test_tasks_that_no_node_meets_do_not_block_the_rest() -> None:
    world = World(["n1"], slots=2)
    world.submit(require=(("gpu", "a100"),), priority=9)
    world.submit(slots=3, priority=8)
    plain = [world.submit(), world.submit()]
    assert [task_id for task_id, _, _ in places(world.plan())] == plain


def test_those_with_a_label_spread_too() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.register(name, slots=2, labels=(("zone", "a"),))
    world.register("n3", slots=9)
    for _ in range(3):
        world.submit(require=(("zone", "a"),))
    assert [place[1:] for place in places(world.plan())] == [("n1", (0,)), ("n2", (0,)), ("n1", (1,))]


# --- policies -----------------------------------------------------------------------------------------------------


def test_binpack_fills_one_node_before_it_opens_the_next() -> None:
    world = World(["n1", "n2", "n3"], slots=2, settings=BINPACK)
    for _ in range(5):
        world.submit()
    nodes = [node for _, node, _ in places(world.plan())]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3] != nodes[4]


def test_binpack_counts_what_is_on_its_way() -> None:
    world = World(["n1", "n2", "n3"], slots=3, settings=BINPACK)
    in_flight = InFlight()
    world.submit()
    world.submit("sleep")
    first = world.plan(in_flight, max_commands=1)
    in_flight.proposed(first)
    second = world.plan(in_flight)
    assert places(first)[0][1] == places(second)[0][1]


def test_binpack_prefers_the_busiest_node_of_another_kind_of_task_too() -> None:
    world = World(["n1", "n2", "n3"], slots=4, settings=BINPACK)
    world.occupy(world.submit(), "n2")
    world.submit("sleep")
    world.submit("noop", require=())
    assert {node for _, node, _ in places(world.plan())} == {"n2"}


def test_a_change_of_the_policy_counts_from_the_next_plan_on() -> None:
    world = World(["n1", "n2"], slots=2)
    world.occupy(world.submit(), "n1")
    world.submit()
    assert places(world.plan())[0][1] == "n2"
    world.state.change_settings(replace(world.state.settings, placement=Placement.BINPACK))
    assert places(world.plan())[0][1] == "n1"


# --- several slots ------------------------------------------------------------------------------------------------


def test_a_task_of_several_slots_gets_them_on_one_node() -> None:
    world = World(["n1", "n2"], slots=2)
    world.register("n3", slots=4)
    world.occupy(world.submit(), "n3", 1)
    big = world.submit(slots=3)
    assert places(world.plan()) == [(big, "n3", (0, 2, 3))]


def test_slots_are_held_back_for_the_first_task_of_several_so_that_smaller_ones_do_not_starve_it() -> None:
    world = World(["n1", "n2"], slots=2)
    first = [world.submit() for _ in range(4)]
    world.place()
    big = world.submit(slots=2)
    small = [world.submit() for _ in range(6)]
    world.end(first[0])
    assert places(world.plan()) == []
    world.end(first[1])
    # n1 is held back now; n2, which has a free slot too, is not.
    assert [task_id for task_id, _, _ in places(world.plan())] == [small[0]]
    world.place()
    world.end(first[2])
    assert [task_id for task_id, _, _ in places(world.plan())] == [big]


def test_what_goes_before_a_task_of_several_slots_is_not_held_back_for_it() -> None:
    world = World(["n1"], slots=2)
    running = world.submit()
    world.occupy(running)
    world.submit(slots=2)
    urgent = world.submit(priority=5)
    assert [task_id for task_id, _, _ in places(world.plan())] == [urgent]


def test_nothing_is_held_back_on_a_node_that_could_never_run_it() -> None:
    world = World(["n1"], slots=2)
    world.register("n2", slots=4, kinds=("sleep",))
    world.register("n3", slots=4)
    world.set_eligibility("n3", Eligibility.CORDONED)
    world.submit(slots=3)
    small = [world.submit(), world.submit()]
    assert [task_id for task_id, _, _ in places(world.plan())] == small
    silent = Observations(silent=frozenset({"n1"}))
    world.submit(slots=2)
    assert not places(plan(PlanningView(world.state, InFlight()), silent, world.now_ms))


@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 12), st.sampled_from(Placement))
def test_a_task_of_all_slots_of_a_node_runs_however_many_small_ones_keep_coming(
    nodes: int, slots: int, before: int, placement: Placement
) -> None:
    names = [f"n{number}" for number in range(1, nodes + 1)]
    world = World(names, slots=slots, settings=Settings(placement=placement))
    total = nodes * slots
    for _ in range(total + before):
        world.submit()
    world.place()
    big = world.submit(slots=slots)
    for _ in range(before + total):
        world.submit()
        # The oldest one ends: what runs when the node is held back has ended after one round of all slots.
        world.end(min(world.executing().values()))
        world.place()
        if big in world.executing().values():
            return
    raise AssertionError(f"t{big} still waits: {world.executing()}")


# --- drain --------------------------------------------------------------------------------------------------------


def test_what_a_drained_node_runs_is_stopped_at_the_deadline_and_goes_elsewhere() -> None:
    world = World(["n1", "n2"], slots=2)
    task_id = world.submit(slots=2)
    world.occupy(task_id, "n1", 0, 1)
    deadline_ms = world.now_ms + 5_000
    world.set_eligibility("n1", Eligibility.DRAINING, deadline_ms)
    assert next_wakeup_ms(world.state, world.now_ms) == deadline_ms
    world.later(4_999)
    assert world.plan() == ()
    world.later(1)
    in_flight = InFlight()
    commands = world.plan(in_flight)
    token = world.attempt(task_id).token
    assert commands == (MarkStopping(task_id, 1, token, StopReason.DRAINED),)
    in_flight.proposed(commands)
    assert world.plan(in_flight) == ()
    world.apply(*commands)
    assert world.plan() == ()
    assert next_wakeup_ms(world.state, world.now_ms) is None
    world.end(task_id, AttemptOutcome.CANCELLED)
    assert places(world.plan()) == [(task_id, "n2", (0, 1))]


def test_a_drain_without_a_deadline_and_a_cordon_wait_for_ever() -> None:
    world = World(["n1", "n2"])
    for node, eligibility in (("n1", Eligibility.DRAINING), ("n2", Eligibility.CORDONED)):
        world.occupy(world.submit(), node)
        world.set_eligibility(node, eligibility)
    world.later(10**9)
    assert world.plan() == ()
    assert next_wakeup_ms(world.state, world.now_ms) is None


def test_what_is_stopping_already_is_not_asked_again_by_a_drain() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.cancel(task_id)
    world.set_eligibility("n1", Eligibility.DRAINING, world.now_ms)
    assert world.plan() == ()
    world.end(task_id, AttemptOutcome.CANCELLED)
    assert world.task(task_id).state is TaskState.CANCELLED


def test_a_drain_is_over_when_the_node_is_empty_and_lasts() -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    world.set_eligibility("n1", Eligibility.DRAINING, world.now_ms + 5_000)
    world.end(task_id)
    assert next_wakeup_ms(world.state, world.now_ms) is None
    world.submit()
    assert world.plan() == ()
