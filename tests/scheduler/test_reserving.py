"""Who waits for a turn behind whom, and who is taken back: the planner's side of reservations."""

from __future__ import annotations

import pytest

from raftd.scheduler.commands import Command, MarkStopping, Occupy, OccupyNew
from raftd.scheduler.effects import Effect
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    Eligibility,
    Settings,
    StopReason,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.planner import InFlight, Observations, PlanningView, plan
from raftd.scheduler.replies import Refused
from raftd.scheduler.reserving import OVERDUE_MS, Lines, RunTimes, withdrawals
from raftd.scheduler.riding import ride
from tests.scheduler.world import World, submission


class Leader:
    """Plans for a world, and learns from what is applied."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.in_flight = InFlight()
        self.lines = Lines()
        self.lines.begin(world.state.nodes)
        self.silent: frozenset[str] = frozenset()

    def plan(self) -> tuple[Command, ...]:
        view = PlanningView(self.world.state, self.in_flight, self.lines)
        commands = plan(view, Observations(silent=self.silent), self.world.now_ms)
        self.in_flight.proposed(commands)
        return commands

    def applied(self, *commands: Command) -> None:
        outcome = self.world.apply(*commands)
        assert not [reply for reply in outcome.replies if isinstance(reply, Refused)]
        self.in_flight.settled(commands)
        self.learn(self.world.effects)

    def learn(self, effects: list[Effect]) -> None:
        self.lines.learn(effects)

    def place(self) -> None:
        """Plan and apply, until there is nothing to do."""
        while commands := self.plan():
            self.applied(*commands)

    def seen(self, kind: str, *run_ms: int) -> None:
        """Tasks of this kind have taken so long."""
        for each_ms in run_ms:
            task_id = self.world.submit(kind)
            self.world.occupy(task_id)
            self.learn(self.world.effects)
            self.world.later(each_ms)
            self.end(task_id, each_ms)

    def end(self, task_id: int, run_ms: int = 1) -> None:
        self.world.end(task_id, started_at_ms=self.world.now_ms - run_ms)
        self.learn(self.world.effects)

    def withdrawals(self) -> list[int]:
        """The tasks that should wait no longer."""
        commands = withdrawals(
            self.world.state,
            self.lines.run_times,
            self.in_flight.stopping,
            self.silent,
            self.world.now_ms,
        )
        assert all(command.reason is StopReason.WITHDRAWN for command in commands)
        return [command.task_id for command in commands]


def reserved(commands: tuple[Command, ...]) -> list[tuple[int, str, int]]:
    return [
        (command.task_id, command.node, command.slot)
        for command in commands
        if isinstance(command, Occupy) and command.reserve
    ]


def leading(*names: str, slots: int = 1, reserve_depth: int = 4) -> tuple[World, Leader]:
    world = World(names or ("n1",), slots=slots, settings=Settings(reserve_depth=reserve_depth))
    return world, Leader(world)


def test_nothing_waits_behind_a_kind_that_has_never_been_seen() -> None:
    world, leader = leading()
    for _ in range(3):
        world.submit()
    leader.place()
    assert len(world.line()) == 1


def test_behind_a_short_kind_as_many_wait_as_may() -> None:
    world, leader = leading(reserve_depth=3)
    leader.seen("noop", 1)
    tasks = [world.submit() for _ in range(6)]
    leader.place()
    assert world.line() == tasks[:4]
    assert world.queue() == tasks[4:]
    leader.end(tasks[0])
    leader.place()
    assert world.line() == tasks[1:5]


def test_only_so_many_wait_as_have_their_turn_soon() -> None:
    world, leader = leading(reserve_depth=100)
    leader.seen("noop", 20)
    tasks = [world.submit() for _ in range(6)]
    leader.place()
    assert world.line() == tasks[:3]


def test_behind_a_long_kind_nothing_waits_and_a_long_one_waits_behind_nothing() -> None:
    world, leader = leading()
    leader.seen("sleep", 500)
    leader.seen("noop", 1)
    first = world.submit("sleep")
    world.submit("noop")
    leader.place()
    assert world.line() == [first]
    leader.end(first, 500)
    leader.place()
    world.submit("sleep")
    leader.place()
    assert len(world.line()) == 1


def test_one_long_run_makes_a_kind_long_and_it_takes_several_short_ones_to_make_it_short_again() -> None:
    times, world = RunTimes(), World(["n1"])
    history = []
    for run_ms in (1, 1, 400, 1, 1, *(1,) * 20):
        task_id = world.submit()
        world.occupy(task_id)
        world.end(task_id, started_at_ms=world.now_ms - run_ms)
        times.observe(world.task(task_id))
        history.append(times.short_us("noop") is not None)
    assert history[:5] == [True, True, False, False, False]
    assert history[-1]


def test_an_attempt_that_did_not_run_says_nothing_of_its_kind() -> None:
    times, world = RunTimes(), World(["n1"])
    task_id = world.submit()
    for outcome in (AttemptOutcome.NOT_STARTED, AttemptOutcome.CRASHED, AttemptOutcome.LOST):
        world.later(100_000)
        world.occupy(task_id)
        world.end(task_id, outcome, started_at_ms=world.now_ms - 1)
        times.observe(world.task(task_id))
    assert times.short_us("noop") is None


def test_free_slots_come_first_and_then_the_shortest_line() -> None:
    world, leader = leading("n1", "n2", reserve_depth=2)
    leader.seen("noop", 1)
    tasks = [world.submit() for _ in range(5)]
    leader.place()
    assert world.line("n1") == [tasks[0], tasks[2], tasks[4]]
    assert world.line("n2") == [tasks[1], tasks[3]]


@pytest.mark.parametrize("why", ["cordoned", "silent", "lost", "stopping", "overdue"])
def test_nothing_waits_where_it_would_not_have_its_turn_soon(why: str) -> None:
    world, leader = leading()
    leader.seen("noop", 1)
    head = world.submit()
    leader.place()
    match why:
        case "cordoned":
            world.set_eligibility("n1", Eligibility.CORDONED)
        case "silent":
            leader.silent = frozenset({"n1"})
        case "lost":
            world.lose("n1")
        case "stopping":
            world.cancel(head)
        case "overdue":
            world.later(OVERDUE_MS + 1)
    leader.learn(world.effects)
    world.submit()
    assert reserved(leader.plan()) == []


def test_what_is_on_its_way_to_a_line_counts_as_waiting_there() -> None:
    world, leader = leading(reserve_depth=2)
    leader.seen("noop", 1)
    leader.applied(submission("head", TaskSpec("noop")))
    leader.place()
    tasks = [world.submit() for _ in range(4)]
    first = leader.plan()
    assert [task_id for task_id, _, _ in reserved(first)] == tasks[:2]
    assert leader.plan() == ()
    leader.applied(*first)
    assert leader.in_flight == InFlight()
    assert leader.plan() == ()


def test_a_plan_that_was_dropped_is_made_anew() -> None:
    world, leader = leading(reserve_depth=2)
    leader.seen("noop", 1)
    tasks = [world.submit() for _ in range(3)]
    first = leader.plan()
    leader.in_flight.settled(first)
    leader.lines.touch("n1")
    assert leader.plan() == first
    assert [task_id for task_id, _, _ in reserved(first)] == tasks[1:]


def test_one_that_cannot_wait_in_line_is_not_overtaken_for_ever() -> None:
    """A slot with a line is never free: whoever must have a free one stops the line, and has its turn after it."""
    world, leader = leading(reserve_depth=2)
    leader.seen("noop", 1)
    first = world.submit("noop")
    world.occupy(first)
    leader.learn(world.effects)
    long = world.submit("sleep")  # nobody knows how long it takes
    later = [world.submit("noop") for _ in range(3)]
    leader.place()
    assert world.line() == [first]
    leader.end(first)
    leader.place()
    assert world.line() == [long]
    assert world.queue() == later


def test_a_task_that_has_been_tried_waits_in_no_line_so_that_a_poison_task_comes_to_its_limit() -> None:
    world, leader = leading()
    leader.seen("noop", 1)
    tried, head = world.submit(retries=3), world.submit()
    world.run(tried, AttemptOutcome.CRASHED)
    world.occupy(head)
    leader.learn(world.effects)
    leader.place()
    assert world.line() == [head]


def test_while_a_slot_is_idle_nobody_waits_long_for_another() -> None:
    world, leader = leading("n1", "n2", reserve_depth=8)
    leader.seen("noop", 9)
    head, second, third = (world.submit() for _ in range(3))
    world.occupy(head, "n1")
    world.reserve(second, "n1")
    world.reserve(third, "n1")
    assert leader.withdrawals() == [third]
    leader.silent = frozenset({"n2"})
    assert leader.withdrawals() == []
    leader.silent = frozenset()
    world.submit()
    assert leader.withdrawals() == [], "something else waits for it already"


@pytest.mark.parametrize("why", ["stopping", "overdue"])
def test_who_would_wait_longer_than_was_thought_is_taken_back(why: str) -> None:
    world, leader = leading()
    leader.seen("noop", 1)
    head, second = world.submit(), world.submit()
    leader.place()
    assert leader.withdrawals() == []
    match why:
        case "stopping":
            world.cancel(head)
        case "overdue":
            world.later(OVERDUE_MS + 1)
    assert leader.withdrawals() == [second]
    attempt = world.attempt(second)
    stop = MarkStopping(second, attempt.number, attempt.token, StopReason.WITHDRAWN)
    leader.in_flight.proposed([stop])
    assert leader.withdrawals() == []
    leader.applied(stop)
    assert leader.withdrawals() == []


def test_a_node_that_is_cordoned_gives_back_what_waits_there() -> None:
    world, leader = leading()
    leader.seen("noop", 1)
    _, second = world.submit(), world.submit()
    leader.place()
    world.set_eligibility("n1", Eligibility.CORDONED)
    leader.learn(world.effects)
    attempt = world.attempt(second)
    stop = MarkStopping(second, attempt.number, attempt.token, StopReason.WITHDRAWN)
    assert leader.plan() == (stop,)
    assert leader.withdrawals() == []


def test_a_task_waits_only_where_its_labels_are() -> None:
    world, leader = leading("n1", "n2")
    leader.seen("noop", 1)
    world.set_labels("n2", ("gpu", "yes"))
    leader.learn(world.effects)
    heads = [world.submit() for _ in range(2)]
    leader.place()
    spec = TaskSpec("noop", require=(("gpu", "yes"),))
    wanting = [world.accept(submission(f"gpu {n}", spec)).first_task_id for n in range(2)]
    leader.place()
    assert [world.line("n1"), world.line("n2")] == [heads[:1], [heads[1], *wanting]]


def test_while_a_task_of_several_slots_waits_for_a_node_nobody_waits_in_line_there() -> None:
    world, leader = leading(slots=2)
    leader.seen("noop", 1)
    first = [world.submit() for _ in range(2)]
    leader.place()
    wide = world.submit("noop", slots=2)
    later = [world.submit() for _ in range(2)]
    leader.place()
    assert world.line() == first[:1]
    for task_id in first:
        leader.end(task_id)
        leader.place()
    assert world.executing() == {("n1", 0): wide, ("n1", 1): wide}
    assert world.queue() == later


def riders(leader: Leader, *batch: Command) -> list[tuple[int, int, str, int]]:
    view = PlanningView(leader.world.state, leader.in_flight)
    commands = ride(view, Observations(silent=leader.silent), batch)
    leader.in_flight.proposed(commands)
    return [(each.position, each.offset, each.node, each.slot) for each in commands]


def test_what_a_free_slot_can_take_starts_with_the_entry_of_its_submission() -> None:
    _, leader = leading("n1", "n2", slots=2)
    single = submission("a", TaskSpec("noop"))
    array = submission("b", TaskSpec("render-tile"), ArraySpec(5, 9))
    assert riders(leader, single, array) == [
        (0, 0, "n1", 0),
        (1, 0, "n2", 0),
        (1, 1, "n1", 1),
        (1, 2, "n2", 1),
    ]
    assert riders(leader, submission("c", TaskSpec("noop"))) == [], "what is on its way counts"


def test_of_one_entry_the_more_urgent_rides() -> None:
    _, leader = leading()
    low, high = submission("a", TaskSpec("noop")), submission("b", TaskSpec("noop", priority=1))
    assert riders(leader, low, high) == [(1, 0, "n1", 0)]


def test_nobody_rides_past_an_older_one_that_waits() -> None:
    world, leader = leading("n1", "n2")
    older = world.submit()
    batch = (submission("a", TaskSpec("noop")), submission("b", TaskSpec("sleep", ("1",))))
    assert riders(leader, *batch) == [(1, 0, "n1", 0)]
    leader.in_flight.clear()
    leader.in_flight.proposed((Occupy(older, "n1", 1, 0),))
    assert riders(leader, *batch) == [(0, 0, "n2", 0)]


@pytest.mark.parametrize(
    "spec", [TaskSpec("noop", delay_ms=5), TaskSpec("noop", slots=5), TaskSpec("unheard-of")]
)
def test_what_cannot_start_at_once_on_any_slot_does_not_ride(spec: TaskSpec) -> None:
    _, leader = leading("n1", slots=4)
    assert riders(leader, submission("a", spec)) == []


def test_a_rider_gives_its_slot_back_when_its_entry_is_settled() -> None:
    _, leader = leading()
    command = OccupyNew(0, 0, "n1", 1, 0)
    leader.in_flight.proposed((command,))
    assert leader.in_flight.slots == {"n1": {0}}
    leader.in_flight.settled((command,))
    assert leader.in_flight == InFlight()


def test_lines_of_several_nodes_may_be_full_at_once() -> None:
    world, leader = leading("n1", "n2", "n3", reserve_depth=1)
    leader.seen("noop", 1)
    tasks = [world.submit() for _ in range(12)]
    leader.place()
    while world.executing():
        for (node, _), task_id in world.executing().items():
            assert len(world.line(node)) <= 2
            leader.end(task_id)
        leader.place()
    assert all(world.task(task_id).state is TaskState.SUCCEEDED for task_id in tasks)
