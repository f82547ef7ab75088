"""Tasks as clients see them: whole in lists, and no more of them in a page than a message holds."""

import pytest

from raftd.codec.api import decode_graph, decode_submission, encode_job, encode_page, encode_task
from raftd.errors import InvalidRequest
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.commands import GraphEdge, GraphTask
from raftd.scheduler.model import Condition, Dependency, TaskSpec, TaskState
from tests.scheduler.world import World, graph, submission

PAGE_BYTES = 100_000


def test_a_listed_task_has_every_attempt_and_its_environment() -> None:
    world = World(["n1", "n2"])
    job = world.accept(submission("r1", TaskSpec("noop", env=(("LIGHT", "dim"),))))
    task_id = job.first_task_id
    world.occupy(task_id, "n1")
    world.lose("n1")
    world.occupy(task_id, "n2")
    [task], more = encode_page([world.state.tasks[task_id]], PAGE_BYTES)
    assert not more
    assert [(one.number, one.node) for one in task.attempts] == [(1, "n1"), (2, "n2")]
    assert dict(task.env) == {"LIGHT": "dim"}


def test_a_page_of_large_tasks_ends_in_time_and_the_rest_follows() -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", args=("x" * 20_000,))
    tasks = [world.state.tasks[world.accept(submission(f"r{n}", spec)).first_task_id] for n in range(9)]
    left, told = list(tasks), []
    while left:
        page, more = encode_page(left, PAGE_BYTES)
        assert 0 < sum(task.ByteSize() for task in page) < PAGE_BYTES + 21_000
        assert more == (len(page) < len(left))
        told += [task.task_id for task in page]
        left = left[len(page) :]
    assert told == [encode_task(task).task_id for task in tasks]


def test_a_task_larger_than_a_page_is_a_page() -> None:
    world = World(["n1"])
    huge = world.state.tasks[world.accept(submission("r", TaskSpec("noop", args=("x" * 500,)))).first_task_id]
    assert encode_page([huge, huge], 100) == ([encode_task(huge)], True)
    assert encode_page([], 100) == ([], False)


def test_a_task_that_waits_for_its_turn_is_pending_and_says_which_attempt_waits() -> None:
    world = World(["n1"])
    head, task_id = world.submit(), world.submit()
    world.occupy(head)
    world.reserve(task_id)
    task = encode_task(world.state.tasks[task_id])
    assert (int(task.state), task.attempts[0].reserved) == (int(TaskState.PENDING), True)
    world.end(head)
    task = encode_task(world.state.tasks[task_id])
    assert (int(task.state), task.attempts[0].reserved) == (int(TaskState.RUNNING), False)


def test_what_a_submission_comes_after_is_read_and_is_part_of_its_digest() -> None:
    ended = pb.Dependency(id="j3", condition=pb.DEPENDENCY_CONDITION_ANY)
    wanted = pb.Submission(kind="noop", after=[pb.Dependency(id="t17"), ended])
    submit = decode_submission(wanted, "r")
    assert submit.after == (Dependency(17), Dependency(3, job=True, condition=Condition.ANY))
    assert submit.digest == submission("r", TaskSpec("noop"), None, submit.after).digest
    assert submit.digest != decode_submission(pb.Submission(kind="noop"), "r").digest


@pytest.mark.parametrize("name", ["", "17x", "x17", "jt1"])
def test_a_submission_after_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_submission(pb.Submission(kind="noop", after=[pb.Dependency(id=name)]), "r")


def test_a_graph_is_read_with_what_comes_after_what() -> None:
    noop = pb.Submission(kind="noop", after=[pb.Dependency(id="t17")])
    last = pb.GraphTask(
        submission=pb.Submission(kind="noop"),
        after=[pb.GraphEdge(position=0), pb.GraphEdge(position=0, condition=pb.DEPENDENCY_CONDITION_ANY)],
    )
    wanted = pb.Graph(
        request_id="r", name="graph", tasks=[pb.GraphTask(submission=noop), last], max_failures=2
    )
    command = decode_graph(wanted)
    assert command == graph(
        "r",
        GraphTask(TaskSpec("noop"), (), (Dependency(17),)),
        GraphTask(TaskSpec("noop"), (GraphEdge(0), GraphEdge(0, Condition.ANY))),
        max_failures=2,
    )


@pytest.mark.parametrize(
    "task", [pb.Submission(kind="noop", array=pb.Array()), pb.Submission(kind="noop", request_id="r")]
)
def test_a_task_of_a_graph_has_no_array_and_no_request_id(task: pb.Submission) -> None:
    with pytest.raises(InvalidRequest, match="task 0 of the graph"):
        decode_graph(pb.Graph(tasks=[pb.GraphTask(submission=task)]))


def test_a_task_says_what_it_waits_for_and_a_job_whether_it_is_a_graph() -> None:
    world = World(["n1"])
    first, job = world.submit(), world.submit_array(1)
    after = (Dependency(first), Dependency(job.job_id or 0, job=True, condition=Condition.ANY))
    waiting = encode_task(world.task(world.submit_after(*after).first_task_id))
    assert [(one.id, one.condition) for one in waiting.waiting_for] == [("t1", 1), ("j1", 2)]
    world.accept(graph("g", GraphTask(TaskSpec("noop"))))
    assert [encode_job(world.state.jobs[job_id]).graph for job_id in (1, 2)] == [False, True]
