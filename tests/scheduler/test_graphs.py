"""Graphs: one job of tasks that wait for each other, accepted whole, or refused with what is wrong named."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler import dependencies
from raftd.scheduler.commands import GraphEdge, GraphTask, SubmitGraph
from raftd.scheduler.effects import JobChanged
from raftd.scheduler.graphs import find_cycle
from raftd.scheduler.model import AttemptOutcome, Condition, Dependency, Settings, TaskSpec, TaskState
from raftd.scheduler.replies import Accepted, Refused
from tests.scheduler.world import World, graph

NOOP = TaskSpec("noop")
P, S, F, C = TaskState.PENDING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED


def after(*positions: int, spec: TaskSpec = NOOP, others: tuple[Dependency, ...] = ()) -> GraphTask:
    return GraphTask(spec, tuple(GraphEdge(position) for position in positions), others)


DIAMOND = (after(), after(0), after(0), after(1, 2))


def message_of(world: World, command: SubmitGraph) -> str:
    reply = world.do(command)
    assert isinstance(reply, Refused)
    return reply.message


def test_a_diamond_runs_from_its_top_to_its_bottom_as_one_job() -> None:
    world = World(["n1"])
    world.submit()
    reply = world.accept(graph("d", *DIAMOND))
    assert reply == Accepted(first_task_id=2, count=4, job_id=1)
    job = world.state.jobs[1]
    assert (job.name, job.kind, job.total, job.pending) == ("graph", "", 4, 4)
    top, left, right, bottom = reply.task_ids
    assert world.task(bottom).after == (Dependency(left), Dependency(right))
    assert {world.task(task_id).job_id for task_id in reply.task_ids} == {1}
    assert {world.task(task_id).array_index for task_id in reply.task_ids} == {None}
    assert world.queue() == [1, top]
    world.run(top)
    assert world.queue() == [1, left, right]
    world.run(right)
    world.run(left)
    assert world.queue() == [1, bottom]
    world.run(bottom)
    assert [effect.change for effect in world.caused(JobChanged)] == ["finished"]
    assert world.state.jobs[1].succeeded == 4


def test_a_later_position_may_come_first() -> None:
    world = World(["n1"])
    reply = world.accept(graph("d", after(2), after(0), after()))
    assert world.queue() == [reply.task_ids[2]]


def test_a_failure_in_a_graph_cancels_what_needs_it_and_nothing_else() -> None:
    world = World(["n1"])
    tasks = (after(), after(0), GraphTask(NOOP, (GraphEdge(0, Condition.ANY),)), after(1), after())
    ids = world.accept(graph("d", *tasks)).task_ids
    world.run(ids[0], AttemptOutcome.FAILED)
    assert [world.task(task_id).state for task_id in ids] == [F, C, P, C, P]
    assert world.queue() == [ids[2], ids[4]]
    job = world.state.jobs[1]
    assert (job.failed, job.cancelled, job.pending) == (1, 2, 2)


def test_a_graph_stops_at_its_limit_of_failures_and_by_a_cancel() -> None:
    world = World(["n1"])
    ids = world.accept(graph("d", after(), after(), after(1), max_failures=1)).task_ids
    world.run(ids[0], AttemptOutcome.FAILED)
    assert [world.task(task_id).state for task_id in ids] == [F, C, C]
    other = world.accept(graph("e", *DIAMOND))
    world.cancel_job(other.job_id or 0)
    assert {world.task(task_id).state for task_id in other.task_ids} == {C}
    assert not world.state.indexes.dependents


def test_a_graph_may_come_after_what_is_outside_of_it_and_others_after_the_graph() -> None:
    world = World(["n1"])
    gate, bad = world.submit(), world.submit()
    world.run(bad, AttemptOutcome.FAILED)
    others = (Dependency(gate),)
    ids = world.accept(
        graph("d", after(others=others), after(0), after(others=(Dependency(bad),)), after(2))
    ).task_ids
    assert [world.task(task_id).state for task_id in ids] == [P, P, C, C]
    last = world.submit_after(Dependency(1, job=True, condition=Condition.ANY)).first_task_id
    assert world.queue() == [gate]
    for task_id in (gate, ids[0], ids[1]):
        world.run(task_id)
    assert world.queue() == [last]


def test_the_same_graph_twice_is_one_and_another_under_its_id_is_a_conflict() -> None:
    world = World(["n1"])
    first = world.accept(graph("d", *DIAMOND))
    assert world.accept(graph("d", *DIAMOND)) == Accepted(first.first_task_id, 4, 1, duplicate=True)
    assert world.refused(graph("d", *DIAMOND[:3])) == "request_id_conflict"
    assert world.refused(graph("d", *DIAMOND[:3], after(1))) == "request_id_conflict"
    assert world.refused(graph("d", *DIAMOND, max_failures=1)) == "request_id_conflict"


@pytest.mark.parametrize(
    ("tasks", "named"),
    [
        ((after(0),), "0, 0"),
        ((after(1), after(0)), "0, 1, 0"),
        ((after(), after(0, 3), after(1), after(2)), "1, 3, 2, 1"),
        ((after(), after(2, spec=TaskSpec("noop", name="build")), after(1)), "1 ('build'), 2, 1 ('build')"),
    ],
)
def test_a_graph_that_waits_for_itself_is_refused_and_its_cycle_named(
    tasks: tuple[GraphTask, ...], named: str
) -> None:
    world = World(["n1"])
    assert world.refused(graph("d", *tasks)) == "invalid_request"
    assert (
        message_of(world, graph("d", *tasks)) == f"the graph has a cycle; each comes after the next: {named}"
    )


def test_of_a_long_cycle_the_beginning_is_named() -> None:
    world = World(["n1"])
    tasks = tuple(after((position + 1) % 500) for position in range(500))
    message = message_of(world, graph("d", *tasks))
    assert message.endswith("6, 7, 492 more, and so on")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("tasks", "code", "named"),
    [
        ((), "invalid_request", "1 to 5"),
        ((after(),) * 6, "invalid_request", "1 to 5"),
        ((after(), after(2)), "invalid_request", "task 1 of the graph: .* 0 to 1"),
        ((after(), after(2**32 - 1)), "invalid_request", "task 1"),
        ((after(), after(spec=TaskSpec("unheard-of"))), "unknown_kind", "task 1"),
        ((after(), after(spec=TaskSpec("noop", slots=0))), "invalid_request", "task 1"),
        ((after(spec=TaskSpec("noop", payload=bytes(11))),), "payload_too_large", "task 0"),
        ((after(), after(0, 0, 0, 0)), "invalid_request", "task 1 .* comes after 4 others, the limit is 3"),
        ((after(), after(others=(Dependency(77),))), "task_not_found", "task 1"),
        # Its own ids and its own job are not there yet.
        ((after(), after(others=(Dependency(1),))), "task_not_found", "task 1"),
        ((after(), after(others=(Dependency(1, job=True),))), "job_not_found", "task 1"),
    ],
)
def test_a_graph_over_a_limit_is_refused_whole_and_says_which_task_is_wrong(
    tasks: tuple[GraphTask, ...], code: str, named: str
) -> None:
    world = World(["n1"], settings=Settings(max_graph=5, max_dependencies=3, max_payload_bytes=10))
    assert world.refused(graph("d", *tasks)) == code
    assert re.search(named, message_of(world, graph("d", *tasks)))


def test_a_graph_that_does_not_fit_into_the_queue_is_refused_whole_and_may_be_retried() -> None:
    world = World(["n1"], settings=Settings(max_queue=4))
    first = world.submit()
    assert world.refused(graph("d", *DIAMOND)) == "queue_full"
    world.run(first)
    assert world.accept(graph("d", *DIAMOND)).count == 4


def test_a_graph_with_too_many_dependencies_in_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "MAX_EDGES", 3)
    assert World(["n1"]).refused(graph("d", *DIAMOND)) == "invalid_request"


def test_a_graph_has_a_request_id_and_a_limit_of_failures_that_is_a_count() -> None:
    world = World(["n1"])
    for request_id in ("", "x" * 129):
        assert world.refused(graph(request_id, after())) == "invalid_request"
    assert world.refused(graph("d", after(), max_failures=2**63)) == "invalid_request"


def test_equal_specs_of_a_graph_are_kept_once() -> None:
    world = World(["n1"])
    tasks = tuple(after(spec=TaskSpec("noop", args=("x",))) for _ in range(9))
    ids = world.accept(graph("d", *tasks)).task_ids
    assert len({id(world.task(task_id).spec) for task_id in ids}) == 1


@given(
    st.integers(1, 30).flatmap(
        lambda count: st.lists(
            st.lists(st.integers(0, count - 1), max_size=3), min_size=count, max_size=count
        )
    )
)
def test_a_cycle_is_found_if_there_is_one_and_is_one(edges: list[list[int]]) -> None:
    cycle = find_cycle(edges)
    if cycle:
        assert all(following in edges[one] for one, following in pairwise((*cycle, cycle[0])))
        assert len(set(cycle)) == len(cycle)
        return
    # Without one, somebody can always go next.
    left = set(range(len(edges)))
    while left:
        free = {position for position in left if not left & set(edges[position])}
        assert free
        left -= free


def test_a_chain_and_a_fan_of_thousands_cost_what_they_are_long() -> None:
    """A chain must not recurse, a fan must not be looked through for each end: both would be felt here at once."""
    settings = Settings(max_queue=50_000)
    world = World(["n1"], settings=settings)
    machine = world.machine
    chain = world.accept(graph("chain", after(), *(after(position) for position in range(3_000))))
    fan = world.accept(graph("fan", *(after() for _ in range(1_000)), after(*range(1_000))))
    assert machine.state.indexes.count(P) == chain.count + fan.count
    world.cancel(chain.first_task_id)
    assert world.state.jobs[1].cancelled == chain.count
    for task_id in fan.task_ids[:3]:
        world.run(task_id)
    assert len(world.task(fan.task_ids[-1]).after) == 997
