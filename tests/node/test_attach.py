"""The leader's end of the Attach streams: registration, assignment, renewal, loss."""

from __future__ import annotations

from dataclasses import replace

from raftd.errors import IncarnationLost, NoLeader, OldCopy, WrongIdentity
from raftd.scheduler.commands import Cancel
from raftd.scheduler.model import AttemptOutcome, Health, TaskState
from raftd.scheduler.replies import Accepted
from tests.node.cluster import Cluster, Member
from tests.node.executors import FakeExecutor
from tests.node.test_node import run, submit
from tests.support import eventually


def shorten_lease(cluster: Cluster, lease_ms: int) -> None:
    """Every node's replicated settings get a short lease, as a SetSettings would do on all of them at once."""
    for member in cluster.members:
        member.state.settings = replace(member.state.settings, lease_ms=lease_ms)


async def submitted(member: Member, request_id: str) -> int:
    reply = await submit(member, request_id)
    assert isinstance(reply, Accepted)
    return reply.first_task_id


def test_a_task_runs_on_an_attached_executor_and_its_end_is_recorded() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("n2", 2).attach(leader)
            await eventually(lambda: "n2" in leader.state.nodes, 10, "registration")
            task_id = await submitted(leader, "a")
            await eventually(lambda: executor.started, 10, "assignment")
            (assignment,) = executor.started.values()
            assert assignment.task_id == task_id
            executor.end(assignment, AttemptOutcome.SUCCEEDED, b"done")
            await eventually(lambda: assignment.token in executor.recorded, 10, "the record")
            assert leader.state.tasks[task_id].result == b"done"
            await executor.detach()

    run(scenario())


def test_nothing_is_placed_on_a_node_that_has_not_answered_the_welcome() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            ready = FakeExecutor("n1", 1).attach(leader)
            await eventually(lambda: "n1" in leader.state.nodes, 10, "registration")
            await ready.detach()
            silent = FakeExecutor("n1", 1).attach(leader, silent=True)
            await eventually(lambda: silent.welcomed, 10, "the welcome")
            task_id = await submitted(leader, "a")
            await leader.node.read_barrier(timeout=5)
            assert leader.state.tasks[task_id].state is TaskState.PENDING
            silent.beat(1)
            await eventually(lambda: silent.started, 10, "assignment")
            await silent.detach()

    run(scenario())


def test_heartbeats_are_renewed_only_while_a_quorum_follows() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("n1", 1).attach(leader)
            await eventually(lambda: 1 in executor.renewals, 10, "a renewal")
            cluster.wire.isolate(leader.store_id)
            executor.beat(2)
            await eventually(lambda: executor.error, 20, "the stream ends with leadership")
            assert 2 not in executor.renewals
            assert isinstance(executor.error, NoLeader)

    run(scenario())


def test_a_node_that_falls_silent_is_lost_and_its_task_runs_elsewhere() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            shorten_lease(cluster, 200)
            leader.leadership.begin(leader.node.status().term)
            first = FakeExecutor("w1", 101).attach(leader)
            await eventually(lambda: "w1" in leader.state.nodes, 10, "registration")
            task_id = await submitted(leader, "a")
            await eventually(lambda: first.started, 10, "assignment")
            await first.detach()
            second = FakeExecutor("w2", 102)
            second.keeps_beating = True
            second.attach(leader)
            await eventually(lambda: leader.state.nodes["w1"].health is Health.LOST, 20, "the loss")
            await eventually(lambda: second.started, 10, "the task elsewhere")
            task = leader.state.tasks[task_id]
            assert [attempt.node for attempt in task.attempts] == ["w1", "w2"]
            assert task.attempts[0].token < task.attempts[1].token
            assert task.failures == 0

            late = first.attach(leader)
            await eventually(lambda: late.error, 10, "the refusal")
            assert type(late.error) is IncarnationLost

            (assignment,) = first.started.values()
            returned = FakeExecutor("w1", 101, incarnation=2)
            returned.keeps_beating = True
            returned.attach(leader)
            await eventually(lambda: leader.state.nodes["w1"].health is Health.UP, 10, "the return")
            late = first.attach(leader)
            await eventually(lambda: late.error, 10, "the refusal of an old copy")
            assert isinstance(late.error, OldCopy)
            returned.end(assignment, AttemptOutcome.SUCCEEDED, b"stale")
            await eventually(lambda: assignment.token in returned.recorded, 10, "the stale end is answered")
            assert leader.state.tasks[task_id].state is TaskState.RUNNING
            await second.detach()
            await returned.detach()

    run(scenario())


def test_a_new_leader_tells_a_reattached_executor_what_it_should_be_running() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("w1", 101).attach(leader)
            await eventually(lambda: "w1" in leader.state.nodes, 10, "registration")
            await submitted(leader, "a")
            await eventually(lambda: executor.started, 10, "assignment")
            (token,) = executor.started
            await leader.stop()
            other = await cluster.leader()
            await eventually(lambda: executor.error, 10, "the old stream ends")
            executor.attach(other)
            await eventually(lambda: executor.welcomed, 10, "the new welcome")
            assert [assignment.token for assignment in executor.desired] == [token]
            executor.end(executor.desired[0], AttemptOutcome.SUCCEEDED)
            await eventually(lambda: token in executor.recorded, 10, "the record")
            await executor.detach()

    run(scenario())


def test_cancelling_a_running_task_asks_its_executor_to_stop() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            executor = FakeExecutor("n1", 1).attach(leader)
            await eventually(lambda: "n1" in leader.state.nodes, 10, "registration")
            task_id = await submitted(leader, "a")
            await eventually(lambda: executor.started, 10, "assignment")
            await leader.node.propose([Cancel(task_id=task_id)], timeout=5)
            await eventually(lambda: executor.stopped, 10, "the stop")
            (assignment,) = executor.started.values()
            assert leader.state.tasks[task_id].state is TaskState.RUNNING
            executor.end(assignment, AttemptOutcome.CANCELLED)
            await eventually(lambda: leader.state.tasks[task_id].state is TaskState.CANCELLED, 10, "the end")
            await executor.detach()

    run(scenario())


def test_foreign_executors_are_refused() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            follower = next(member for member in cluster.members if member is not leader)
            foreign = FakeExecutor("n1", 1)
            foreign.hello = replace(foreign.hello, cluster_id=0xBAD)
            foreign.attach(leader)
            await eventually(lambda: foreign.error, 10, "the refusal")
            assert isinstance(foreign.error, WrongIdentity)

            wrong_store = FakeExecutor("n1", 77).attach(leader)
            await eventually(lambda: wrong_store.error, 10, "the refusal")
            assert isinstance(wrong_store.error, WrongIdentity)

            misled = FakeExecutor("n1", 1).attach(follower)
            await eventually(lambda: misled.error, 10, "the refusal")
            assert isinstance(misled.error, NoLeader)

    run(scenario())
