"""What an operator says of nodes: cordon and drain, labels, forgetting; and that it outlives their incarnations."""

import pytest

from raftd.scheduler.commands import (
    Batch,
    ForgetNode,
    Header,
    Occupy,
    RecordBlob,
    RegisterNode,
    SetEligibility,
    SetLabels,
)
from raftd.scheduler.effects import NodeChange, NodeChanged
from raftd.scheduler.model import AttemptOutcome, BlobRef, Eligibility, NodeRole, StopReason, TaskState
from raftd.scheduler.replies import Marked, NodeForgotten, NodeSet, Refused
from tests.scheduler.world import World

READY, CORDONED, DRAINING = Eligibility.READY, Eligibility.CORDONED, Eligibility.DRAINING


@pytest.mark.parametrize("eligibility", [CORDONED, DRAINING])
def test_a_node_that_is_not_ready_takes_nothing_new_and_goes_on_with_what_it_runs(
    eligibility: Eligibility,
) -> None:
    world = World(["n1"], slots=2)
    running, waiting = world.submit(), world.submit()
    world.occupy(running)
    assert world.set_eligibility("n1", eligibility) == NodeSet("n1", 1)
    assert [change.change for change in world.caused(NodeChanged)] == [NodeChange.UPDATED]
    assert world.free() == {}
    assert world.plan() == ()
    assert world.refused(Occupy(waiting, "n1", 1, 1)) == "rejected"
    assert world.executing() == {("n1", 0): running}
    world.end(running)
    world.set_eligibility("n1", READY)
    assert world.free() == {"n1": 2}


def test_to_say_what_is_so_already_changes_nothing() -> None:
    world = World(["n1"])
    world.set_eligibility("n1", DRAINING, 5_000)
    before = world.state.nodes["n1"]
    assert world.set_eligibility("n1", DRAINING, 5_000) == NodeSet("n1", 0)
    assert world.state.nodes["n1"] == before
    assert not world.effects
    world.set_labels("n1", ("zone", "a"))
    assert world.set_labels("n1", ("zone", "a"), remove=("gpu",)) == NodeSet("n1", 0)
    assert not world.effects


def test_another_deadline_replaces_the_first_and_only_a_drain_has_one() -> None:
    world = World(["n1"])
    world.set_eligibility("n1", DRAINING, 5_000)
    world.set_eligibility("n1", DRAINING, 9_000)
    assert world.state.nodes["n1"].drain_deadline_ms == 9_000
    world.set_eligibility("n1", CORDONED, 9_000)
    assert world.state.nodes["n1"].drain_deadline_ms == 0


def test_an_unknown_node_cannot_be_spoken_of() -> None:
    world = World(["n1"])
    for command in (SetEligibility("n9", CORDONED), SetLabels("n9", (("a", "b"),)), ForgetNode("n9")):
        assert world.refused(command) == "node_not_found"


def test_what_an_operator_said_outlives_a_restart_and_a_loss() -> None:
    world = World(["n1"])
    world.set_eligibility("n1", DRAINING, 5_000)
    world.set_labels("n1", ("zone", "a"))
    world.register("n1", 2)
    world.lose("n1")
    world.register("n1", 3)
    node = world.state.nodes["n1"]
    assert (node.eligibility, node.drain_deadline_ms) == (DRAINING, 5_000)
    assert node.all_labels == (("zone", "a"),)


def test_labels_from_outside_go_before_those_that_a_node_brings() -> None:
    def labels() -> dict[str, str]:
        return dict(world.state.nodes["n1"].all_labels)

    world = World()
    world.register("n1", labels=(("disk", "ssd"), ("zone", "a")))
    world.set_labels("n1", ("zone", "b"), ("gpu", ""))
    assert labels() == {"disk": "ssd", "gpu": "", "zone": "b"}
    world.set_labels("n1", remove=("zone", "disk"))
    assert labels() == {"disk": "ssd", "gpu": "", "zone": "a"}
    world.register("n1", labels=(("zone", "c"),))
    assert labels() == {"gpu": "", "zone": "c"}


@pytest.mark.parametrize(
    ("labels", "remove"),
    [
        ((("", "x"),), ()),
        ((("a", "x" * 257),), ()),
        ((("a" * 257, "x"),), ()),
        ((("a", "x"), ("a", "y")), ()),
        ((("a", "x"),), ("a",)),
        (tuple((str(number), "") for number in range(65)), ()),
    ],
)
def test_labels_beyond_the_limits_are_refused(
    labels: tuple[tuple[str, str], ...], remove: tuple[str, ...]
) -> None:
    assert World(["n1"]).refused(SetLabels("n1", labels, remove)) == "invalid_request"


def test_a_node_that_was_removed_from_the_cluster_is_not_made_ready_again() -> None:
    world = World(["n1"])
    batch = Batch(Header(world.now_ms, 0), (SetEligibility("n1", READY),))
    world.set_eligibility("n1", DRAINING)
    world.state.members = world.state.members[1:]
    world.state.removed_stores |= {1}
    reply = world.machine.apply(world.state.applied_index + 1, batch).replies[0]
    assert isinstance(reply, Refused)
    assert reply.code == "store_removed"


def worker(name: str, store_id: int, incarnation: int = 1) -> RegisterNode:
    return RegisterNode(name, store_id, incarnation, NodeRole.WORKER, 1, (), ("noop",), "")


def test_a_lost_worker_is_forgotten_with_the_blobs_that_it_held() -> None:
    world = World(["n1"])
    world.do(worker("w7", 77))
    world.do(RecordBlob(BlobRef("ab" * 32, 7), ("n1", "w7")))
    assert world.refused(ForgetNode("w7")) == "rejected"
    world.lose("w7")
    assert world.do(ForgetNode("w7")) == NodeForgotten("w7")
    assert "w7" not in world.state.nodes
    record = world.state.blob("ab" * 32)
    assert record is not None
    assert record.holders == ("n1",)
    # Its name is free for another.
    world.do(worker("w7", 78))
    assert world.state.nodes["w7"].store_id == 78


def test_a_member_is_not_forgotten_lost_or_not() -> None:
    world = World(["n1"])
    world.lose("n1")
    assert world.refused(ForgetNode("n1")) == "rejected"


@pytest.mark.parametrize("outcome", list(AttemptOutcome))
def test_what_a_drain_stopped_goes_back_free_of_charge_unless_it_had_succeeded(
    outcome: AttemptOutcome,
) -> None:
    world = World(["n1"])
    task_id = world.submit()
    world.occupy(task_id)
    assert world.stop(task_id, StopReason.DRAINED) == Marked(task_id)
    world.end(task_id, outcome)
    task = world.task(task_id)
    if outcome is AttemptOutcome.SUCCEEDED:
        assert task.state is TaskState.SUCCEEDED
        return
    assert task.state is TaskState.PENDING
    assert (task.failures, task.crashes, task.returns) == (0, 0, 0)
    assert task.not_before_ms <= world.now_ms
    assert task.attempts[-1].reason == "its node is drained"


def test_a_cancel_and_a_timeout_override_a_drain_and_not_the_other_way() -> None:
    world = World(["n1", "n2"])
    for node, reason, state in (
        ("n1", StopReason.CANCELLED, TaskState.CANCELLED),
        ("n2", StopReason.TIMED_OUT, TaskState.FAILED),
    ):
        task_id = world.submit()
        world.occupy(task_id, node)
        world.stop(task_id, StopReason.DRAINED)
        world.stop(task_id, reason)
        world.stop(task_id, StopReason.DRAINED)
        assert world.attempt(task_id).stopping is reason
        world.end(task_id, AttemptOutcome.CANCELLED)
        assert world.task(task_id).state is state
