"""What can be asked: the two tables, pages, counts, and what a node should be running."""

from hypothesis import given
from hypothesis import strategies as st

from raftd.scheduler import queries
from raftd.scheduler.model import ArraySpec, AttemptOutcome, NodeRole, StopReason, TaskSpec, TaskState
from raftd.scheduler.queries import FreeNodeRow
from tests.scheduler.world import World, submission


def test_the_two_tables() -> None:
    world = World(["n2", "n1"], slots=2)
    task_id = world.submit()
    world.occupy(task_id, "n2", 1)
    (row,) = queries.executing(world.state)
    assert (row.node, row.slot, row.task.id, row.attempt.number) == ("n2", 1, task_id, 1)
    assert queries.free_nodes(world.state) == (
        FreeNodeRow("n1", NodeRole.VOTER, 2, 2),
        FreeNodeRow("n2", NodeRole.VOTER, 1, 2),
    )


def test_counts_follow_the_states() -> None:
    world = World(["n1"])
    a, b, c, d = (world.submit() for _ in range(4))
    world.run(a)
    world.run(b, AttemptOutcome.FAILED)
    world.cancel(c)
    assert queries.counts(world.state) == queries.Counts(
        pending=1, running=0, succeeded=1, failed=1, cancelled=1
    )
    world.occupy(d)
    assert queries.counts(world.state).running == 1


@given(st.integers(1, 7), st.sets(st.sampled_from(TaskState)), st.booleans())
def test_pages_put_together_are_the_whole_list(limit: int, states: set[TaskState], of_job: bool) -> None:
    world = World(["n1", "n2"])
    world.submit()
    job = world.submit_array(9)
    for _ in range(3):
        world.submit()
    first, second, third = job.task_ids[:3]
    world.run(first)
    world.run(second, AttemptOutcome.FAILED)
    world.cancel(third)
    world.occupy(job.task_ids[4], "n1")
    world.occupy(1, "n2")
    found, after, rounds = [], 0, 0
    while True:
        page = queries.task_page(
            world.state, after=after, limit=limit, states=states, job_id=job.job_id if of_job else None
        )
        found += [task.id for task in page.tasks]
        rounds += 1
        assert len(page.tasks) <= limit
        if page.next_after is None:
            break
        after = page.next_after
    assert found == [
        task.id
        for task in world.state.tasks.values()
        if (not states or task.state in states) and (not of_job or task.job_id == job.job_id)
    ]
    assert rounds <= len(found) // limit + 1


def test_a_page_of_something_rare_looks_at_a_bounded_number_of_records() -> None:
    world = World(["n1"])
    for _ in range(2):
        world.accept(submission(world.new_request_id(), TaskSpec("noop"), ArraySpec(0, 9_999)))
    rare = world.submit()
    world.cancel(rare)
    pages, after = 1, 0
    while not (page := queries.task_page(world.state, after=after, states=[TaskState.CANCELLED])).tasks:
        assert page.next_after is not None
        assert page.next_after - after <= queries.MAX_SCANNED
        pages, after = pages + 1, page.next_after
    assert [task.id for task in page.tasks] == [rare]
    assert pages == -(-20_001 // queries.MAX_SCANNED)


def test_pages_of_what_is_not_there_are_empty() -> None:
    world = World(["n1"])
    assert queries.task_page(world.state, job_id=5).tasks == ()
    assert queries.task_page(world.state, after=10**9).tasks == ()
    assert queries.job(world.state, 5) is None
    assert queries.task(world.state, 5) is None
    assert queries.assignments(world.state, "n9") == ()


def test_the_next_pending_are_in_the_order_in_which_they_are_placed() -> None:
    world = World(["n1"], slots=1)
    low = world.submit("sleep", priority=-1)
    first, second = world.submit("noop"), world.submit("sleep")
    assert [task.id for task in queries.next_pending(world.state, 2)] == [first, second]
    assert world.queue() == [first, second, low]


def test_the_latest_ended_come_first() -> None:
    world = World(["n1"])
    tasks = [world.submit() for _ in range(4)]
    for task_id in (tasks[2], tasks[0], tasks[3]):
        world.later(1)
        world.run(task_id)
    assert [task.id for task in queries.recently_ended(world.state, 2)] == [tasks[3], tasks[0]]


def test_an_assignment_has_all_that_a_node_needs_with_the_array_index_put_in() -> None:
    world = World(["n1"], slots=2)
    spec = TaskSpec(
        "render-tile", ("{}", "--seed={}{}", "plain"), b"scene", (("A", "1"),), run_timeout_ms=5_000
    )
    job = world.accept(submission("job", spec, ArraySpec(7, 9)))
    task_id = job.task_ids[1]
    token = world.occupy(task_id, slot=1).token
    (found,) = queries.assignments(world.state, "n1")
    assert found.args == ("8", "--seed=88", "plain")
    assert (found.task_id, found.attempt, found.token, found.slot) == (task_id, 1, token, 1)
    assert (found.payload, found.env, found.array_index, found.job_id) == (
        b"scene",
        {"A": "1"},
        8,
        job.job_id,
    )
    assert found.stop is None
    world.cancel(task_id)
    assert queries.assignments(world.state, "n1")[0].stop is StopReason.CANCELLED


def test_braces_stay_as_they_are_in_a_task_that_is_no_array() -> None:
    world = World(["n1"])
    task_id = world.submit(args=("{}",))
    assert queries.task_args(world.task(task_id)) == ("{}",)
