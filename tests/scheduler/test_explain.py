"""What is said of a task: what a pending one waits for, and what each node says to it."""

from dataclasses import replace

from raftd.scheduler.explain import Explanation, explain
from raftd.scheduler.model import AttemptOutcome, Condition, Dependency, Eligibility, StopReason, TaskSpec
from tests.scheduler.world import World, submission


def explained(world: World, task_id: int, *silent: str) -> Explanation:
    return explain(world.state, world.task(task_id), world.now_ms, frozenset(silent))


def reasons(explanation: Explanation) -> dict[str, tuple[str, ...]]:
    return {verdict.node: verdict.reasons for verdict in explanation.nodes}


def after(world: World, *dependencies: Dependency, delay_ms: int = 0) -> int:
    command = submission(world.new_request_id(), TaskSpec("noop", delay_ms=delay_ms))
    return world.accept(replace(command, after=dependencies)).first_task_id


def test_of_a_task_that_runs_or_has_ended_it_says_so() -> None:
    world = World(["n1"], slots=2)
    task_id = world.submit(slots=2)
    world.occupy(task_id, "n1", 0, 1)
    assert explained(world, task_id) == Explanation(
        world.task(task_id), "t1 runs on n1, slots 0, 1, attempt 1"
    )
    world.stop(task_id, StopReason.DRAINED)
    assert explained(world, task_id).summary.endswith("asked to end: its node is drained")
    world.end(task_id)
    assert explained(world, task_id).summary == "t1 has succeeded"
    failed = world.submit()
    world.run(failed, AttemptOutcome.FAILED)
    assert explained(world, failed).summary == "t2 has failed: boom"
    cancelled = world.submit()
    world.cancel(cancelled)
    assert explained(world, cancelled).summary == "t3 was cancelled: cancelled"


def test_a_task_that_comes_after_others_names_them_with_their_states() -> None:
    world = World(["n1"])
    first, second = world.submit(), world.submit()
    world.occupy(first)
    waiting = after(world, Dependency(first), Dependency(second, condition=Condition.ANY), delay_ms=2_500)
    explanation = explained(world, waiting)
    assert explanation.waits == (
        "t1 (running) to succeed",
        "t2 (pending) to end",
        "the end of its delay, in 2.5 s",
    )
    assert explanation.summary == "t3 waits for t1 (running) to succeed, and 2 more"


def test_a_task_that_comes_after_a_job_says_how_much_of_it_is_left() -> None:
    world = World(["n1"])
    job = world.submit_array(3)
    waiting = after(world, Dependency(job.job_id or 0, job=True))
    world.run(job.first_task_id)
    assert explained(world, waiting).waits == ("the 2 tasks of j1 that have not ended to succeed",)


def test_a_task_that_is_to_be_tried_again_says_when_and_why() -> None:
    world = World(["n1"])
    task_id = world.submit(retries=1)
    world.run(task_id, AttemptOutcome.FAILED)
    wait = explained(world, task_id).waits[0]
    assert wait.startswith("its next try after attempt 1 (failed), in ")


def test_each_node_says_every_requirement_that_it_does_not_meet() -> None:
    world = World()
    world.register("n1", slots=1, kinds=("sleep",))
    world.register("n2", slots=2, labels=(("gpu", "h100"),))
    world.register("n3", slots=2, labels=(("gpu", "a100"),))
    world.register("n4", slots=2, labels=(("gpu", "a100"),))
    world.register("n5", slots=2, labels=(("gpu", "a100"),))
    world.register("n7", slots=2, labels=(("gpu", "a100"),))
    world.set_eligibility("n3", Eligibility.CORDONED)
    world.lose("n4")
    world.set_eligibility("n4", Eligibility.DRAINING)
    world.occupy(world.submit(), "n7")
    task_id = world.submit(require=(("gpu", "a100"),), slots=2)
    explanation = explained(world, task_id, "n5")
    assert reasons(explanation) == {
        "n1": (
            "it does not offer tasks of kind noop",
            "label gpu=a100 is missing",
            "it has 1 slot, 2 are needed",
        ),
        "n2": ("label gpu is h100, not a100",),
        "n3": ("it is cordoned",),
        "n4": ("it is lost", "it is draining"),
        "n5": ("it has no working stream to the leader",),
        "n7": ("1 of its 2 slots is free, 2 are needed",),
    }
    assert [verdict.node for verdict in explanation.nodes if verdict.fits] == ["n7"]
    assert not [verdict for verdict in explanation.nodes if verdict.available]
    assert explanation.summary == "t2 waits for 2 slots of one node to become free"


def test_a_task_that_no_node_can_run_says_so() -> None:
    world = World(["n1", "n2"])
    task_id = world.submit(require=(("gpu", ""),))
    assert explained(world, task_id).summary == "t1 waits for a node that could run it: of 2 none can"


def test_it_says_how_many_go_before_it_that_the_same_nodes_could_run() -> None:
    world = World(["n1"])
    world.register("n2", kinds=("other",))
    world.occupy(world.submit())
    world.submit("other")
    world.submit(slots=7)
    world.submit(priority=5)
    world.submit("sleep")
    task_id = world.submit()
    world.submit()
    explanation = explained(world, task_id)
    assert explanation.ahead == 2
    assert explanation.summary == f"t{task_id} waits for a slot to become free; 2 go before it"
    assert reasons(explanation)["n1"] == ("all its slots are busy",)


def test_a_task_that_could_run_now_says_that_it_is_about_to() -> None:
    world = World(["n1"])
    explanation = explained(world, world.submit())
    assert explanation.summary == "t1 is about to be placed"
    assert explanation.waits == ()
    assert explanation.nodes[0].available


def test_slots_that_are_held_back_for_another_are_no_secret() -> None:
    world = World(["n1"], slots=2)
    world.occupy(world.submit())
    big = world.submit(slots=2)
    small = world.submit()
    assert reasons(explained(world, small)) == {
        "n1": (f"its free slots are held back for t{big}, which needs 2",)
    }
    assert reasons(explained(world, big)) == {"n1": ("1 of its 2 slots is free, 2 are needed",)}
    urgent = world.submit(priority=9)
    assert explained(world, urgent).nodes[0].available


def test_a_reserved_task_says_behind_whom_it_waits() -> None:
    world = World(["n1"])
    first, second, third = world.submit(), world.submit(), world.submit()
    world.occupy(first)
    world.reserve(second)
    world.reserve(third)
    assert explained(world, third).waits == ("its turn on slot 0 of n1, after t1, t2",)


def test_to_explain_changes_nothing() -> None:
    world = World(["n1"], slots=3)
    tasks = [world.submit(slots=2), world.submit(), world.submit(slots=3)]
    before = world.state.freeze()
    for task_id in tasks:
        explained(world, task_id)
    assert world.state.freeze() == before
