"""The plan of a leader: what it proposes, in which order, and that it costs what it makes and not what waits."""

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler import queries
from raftd.scheduler.commands import Batch, Command, Header, MarkStopping, NodeLost, Occupy
from raftd.scheduler.indexes import class_of
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    Health,
    Placement,
    Settings,
    StopReason,
    TaskSpec,
)
from raftd.scheduler.planner import (
    RUN_TIMEOUT_GRACE_MS,
    InFlight,
    Observations,
    PlanningView,
    next_wakeup_ms,
    plan,
)
from raftd.scheduler.replies import Refused
from tests.scheduler.world import World, registration, submission


def placements(commands: tuple[Command, ...]) -> list[tuple[int, str, int]]:
    return [
        (command.task_id, command.node, command.slot) for command in commands if isinstance(command, Occupy)
    ]


def test_nothing_to_do_is_an_empty_plan() -> None:
    world = World(["n1"])
    assert world.plan() == ()
    world.submit()
    world.place()
    assert world.plan() == ()


def test_tasks_spread_over_the_nodes_before_any_node_takes_a_second() -> None:
    world = World(["n1", "n2", "n3"], slots=2)
    tasks = [world.submit() for _ in range(7)]
    assert placements(world.plan()) == [
        (tasks[0], "n1", 0),
        (tasks[1], "n2", 0),
        (tasks[2], "n3", 0),
        (tasks[3], "n1", 1),
        (tasks[4], "n2", 1),
        (tasks[5], "n3", 1),
    ]


def test_a_node_of_many_slots_takes_more() -> None:
    world = World()
    world.register("n1", slots=1)
    world.register("n2", slots=4)
    for _ in range(3):
        world.submit()
    assert [node for _, node, _ in placements(world.plan())] == ["n1", "n2", "n2"]


def test_higher_priority_goes_first_across_kinds() -> None:
    world = World(["n1"], slots=3)
    world.submit("noop", priority=1)
    high = world.submit("sleep", priority=9)
    middle = world.submit("render-tile", priority=5)
    first = world.submit("noop", priority=9)
    assert [task_id for task_id, _, _ in placements(world.plan())] == [high, first, middle]


def test_a_task_that_no_node_can_take_now_does_not_block_the_rest() -> None:
    world = World()
    world.register("n1", kinds=("gpu", "noop"))
    world.register("n2", kinds=("noop",))
    blocked = world.submit("gpu", priority=9)
    world.lose("n1")
    free = world.submit("noop")
    assert placements(world.plan()) == [(free, "n2", 0)]
    assert world.queue() == [blocked, free]


def test_each_task_goes_to_a_node_that_offers_its_kind() -> None:
    world = World()
    world.register("n1", kinds=("sleep",), slots=2)
    world.register("n2", kinds=("noop", "sleep"), slots=2)
    world.register("n3", kinds=("noop",), slots=2)
    sleeps = [world.submit("sleep") for _ in range(5)]
    noops = [world.submit("noop") for _ in range(5)]
    placed = placements(world.plan())
    assert len(placed) == 6
    for task_id, node, _ in placed:
        assert node in (("n1", "n2") if task_id in sleeps else ("n2", "n3"))
    assert sorted(sleeps + noops)[0] in [task_id for task_id, _, _ in placed]


def test_what_is_on_its_way_is_not_proposed_again() -> None:
    world = World(["n1", "n2"], slots=2)
    for _ in range(4):
        world.submit()
    in_flight = InFlight()
    first = world.plan(in_flight, max_commands=3)
    in_flight.proposed(first)
    second = world.plan(in_flight)
    in_flight.proposed(second)
    assert world.plan(in_flight) == ()
    assert len({task_id for task_id, _, _ in placements(first + second)}) == 4
    assert len({place[1:] for place in placements(first + second)}) == 4
    world.apply(*first, *second)
    in_flight.settled(first + second)
    assert in_flight == InFlight()
    assert world.plan(in_flight) == ()


def test_a_leader_that_steps_down_forgets_what_it_proposed() -> None:
    world = World(["n1"])
    world.submit()
    in_flight = InFlight()
    in_flight.proposed((*world.plan(), NodeLost("n1", 1)))
    in_flight.clear()
    assert len(world.plan(in_flight)) == 1


def test_a_task_whose_backoff_is_over_is_placed_though_no_entry_has_released_it() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.run(task_id, AttemptOutcome.FAILED)
    due_ms = world.task(task_id).not_before_ms
    assert world.plan() == ()
    assert next_wakeup_ms(world.state, world.now_ms) == due_ms
    world.later(due_ms - world.now_ms)
    assert placements(world.plan()) == [(task_id, "n1", 0)]
    assert next_wakeup_ms(world.state, world.now_ms) is None
    world.place()
    assert world.executing() == {("n1", 0): task_id}


def test_a_retry_that_is_due_goes_before_what_was_submitted_after_it() -> None:
    world = World(["n1"])
    first = world.submit(retries=1)
    world.run(first, AttemptOutcome.FAILED)
    world.submit()
    world.later(1_000)
    assert [task_id for task_id, _, _ in placements(world.plan())] == [first]


def test_a_node_whose_lease_has_run_out_is_proposed_as_lost_once_and_takes_nothing() -> None:
    world = World(["n1", "n2"])
    world.submit()
    world.submit()
    in_flight = InFlight()
    view = PlanningView(world.state, in_flight)
    observations = Observations(expired=(("n1", 1),))
    first = plan(view, observations, world.now_ms)
    assert first == (NodeLost("n1", 1), Occupy(1, "n2", 1, 0))
    in_flight.proposed(first)
    assert plan(view, observations, world.now_ms) == ()
    world.apply(*first)
    in_flight.settled(first)
    assert world.state.nodes["n1"].health is Health.LOST
    assert plan(view, observations, world.now_ms) == ()


def test_an_expired_lease_of_an_incarnation_that_is_over_is_nothing() -> None:
    world = World()
    world.register("n1", 3)
    observations = Observations(expired=(("n1", 2), ("n9", 1)))
    assert plan(PlanningView(world.state, InFlight()), observations, world.now_ms) == ()


def test_nothing_new_is_placed_on_a_node_that_the_leader_does_not_hear() -> None:
    world = World(["n1", "n2"])
    world.submit()
    observations = Observations(silent=frozenset({"n1"}))
    commands = plan(PlanningView(world.state, InFlight()), observations, world.now_ms)
    assert placements(commands) == [(1, "n2", 0)]


def test_a_run_timeout_that_passes_in_silence_is_marked_after_a_grace() -> None:
    world = World(["n1"])
    task_id = world.submit(run_timeout_ms=1_000)
    token = world.occupy(task_id).token
    assert next_wakeup_ms(world.state, world.now_ms) == world.now_ms + 1_000 + RUN_TIMEOUT_GRACE_MS
    world.later(1_000 + RUN_TIMEOUT_GRACE_MS - 1)
    assert world.plan() == ()
    world.later(1)
    in_flight = InFlight()
    commands = world.plan(in_flight)
    assert commands == (MarkStopping(task_id, 1, token, StopReason.TIMED_OUT),)
    in_flight.proposed(commands)
    assert world.plan(in_flight) == ()
    world.apply(*commands)
    in_flight.settled(commands)
    assert world.plan(in_flight) == ()


def test_a_plan_is_bounded_and_the_next_goes_on() -> None:
    world = World(["n1"], slots=9)
    world.submit_array(9)
    assert len(world.plan(max_commands=4)) == 4


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sets(st.sampled_from("abc")), st.sampled_from(("", "x", "y"))),
        max_size=8,
    ),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.sampled_from(("", "", "x", "z"))),
        max_size=40,
    ),
    st.integers(0, 40),
    st.integers(0, 30),
    st.sampled_from(Placement),
)
def test_any_plan_is_accepted_whole_keeps_the_order_and_leaves_no_slot_idle(
    nodes: list[tuple[int, set[str], str]],
    tasks: list[tuple[str, int, str]],
    already: int,
    limit: int,
    placement: Placement,
) -> None:
    world = World(settings=Settings(placement=placement))
    world.register("n100", slots=0, kinds=("a", "b", "c"))
    for number, (slots, kinds, zone) in enumerate(nodes, 1):
        world.register(f"n{number}", slots=slots, kinds=tuple(kinds), labels=(("zone", zone),))
    for kind, priority, zone in tasks:
        world.submit(kind, priority=priority, require=(("zone", zone),) if zone else ())
    world.apply(*world.plan(max_commands=already))
    in_flight = InFlight()
    in_flight.proposed(world.plan(max_commands=3))
    on_the_way = world.plan(max_commands=3)
    commands = world.plan(in_flight, max_commands=limit)
    waiting = world.queue()
    assert not [reply for reply in world.apply(*on_the_way, *commands).replies if isinstance(reply, Refused)]
    placed = [task_id for task_id, _, _ in placements(commands)]
    assert placed == [task_id for task_id in waiting if task_id in placed]
    if len(commands) < limit:
        # Whoever still waits could not have been placed.
        for task_id in world.queue():
            spec = world.task(task_id).spec
            for name in world.free():
                node = world.state.nodes[name]
                assert spec.kind not in node.kinds or not {*spec.require} <= {*node.all_labels}
    chosen = set(placed)
    for task_id in waiting:
        if task_id not in chosen:
            wanted = class_of(world.task(task_id).spec)
            assert not [
                other
                for other in placed
                if class_of(world.task(other).spec) == wanted
                and waiting.index(other) > waiting.index(task_id)
            ] or task_id in {command.task_id for command in on_the_way if isinstance(command, Occupy)}


def calls_of(function: Callable[[], Any]) -> int:
    """How many Python and C functions a call enters: its cost, without a clock."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def world_with(pending: int, nodes: int) -> World:
    world = World()
    commands: list[Command] = [registration(f"n{number + 10}") for number in range(nodes)]
    commands += [
        submission(f"bulk-{part}", TaskSpec("noop"), ArraySpec(0, 9_999)) for part in range(pending // 10_000)
    ]
    small = pending % 10_000
    if small:
        commands.append(submission("bulk", TaskSpec("noop"), ArraySpec(0, small - 1)))
    apply_unchecked(world, *commands)
    assert queries.counts(world.state).pending == pending
    return world


def apply_unchecked(world: World, *commands: Command) -> None:
    """Straight to the machine: walking over 100,000 records to check them is not what is measured here."""
    world.machine.apply(world.state.applied_index + 1, Batch(Header(world.now_ms, 0), commands))


@pytest.mark.parametrize("limit", [1, 5])
def test_a_placement_costs_the_same_with_ten_or_a_hundred_thousand_pending_and_five_or_a_thousand_nodes(
    limit: int,
) -> None:
    costs = {}
    for pending, nodes in ((10, 5), (1_000, 5), (100_000, 5), (10, 1_000), (100_000, 1_000)):
        world = world_with(pending, nodes)
        costs[pending, nodes] = calls_of(partial(world.plan, max_commands=limit))
    assert max(costs.values()) <= 2 * min(costs.values()), costs


def test_looking_at_a_queue_that_nothing_can_take_costs_nothing() -> None:
    costs = []
    for pending in (10, 100_000):
        world = world_with(pending, 1)
        apply_unchecked(world, NodeLost("n10", 1))
        costs.append(calls_of(world.plan))
    assert costs[1] <= costs[0]
