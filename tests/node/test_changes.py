"""The node around snapshots, changes of the members, handovers and a full disk: over real cores and loops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from raftd.errors import (
    ChangePending,
    DiskFull,
    InvalidChange,
    NameTaken,
    NodeNotFound,
    NotLeader,
    StorageError,
    StoreRemoved,
    TransferFailed,
    Unavailable,
)
from raftd.node.snapshots import Policy
from raftd.raft.types import HardState, Role, Snapshot
from raftd.scheduler import invariants
from raftd.scheduler.commands import Submit
from raftd.scheduler.model import Standing, TaskSpec
from raftd.scheduler.replies import Accepted
from raftd.scheduler.requests import request_digest
from raftd.storage.errors import DamagedLog, StorageFull
from tests.node.cluster import Cluster, Member
from tests.node.snapshot_files import BytesReader
from tests.node.test_node import propose_somewhere, register
from tests.support import eventually

EAGER = Policy(entries=10, log_bytes=1 << 40, kept_entries=3)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run one test on a fresh event loop, in bounded time."""
    asyncio.run(asyncio.wait_for(test, 60))


async def submit_many(cluster: Cluster, prefix: str, count: int) -> list[int]:
    """One entry each; the task ids."""
    ids = []
    for number in range(count):
        reply = await propose_somewhere(cluster, f"{prefix}{number}")
        assert isinstance(reply, Accepted)
        ids.append(reply.first_task_id)
    return ids


def holds(member: Member, task_ids: list[int]) -> bool:
    """Nothing that was acknowledged is missing."""
    return all(task_id in member.state.tasks for task_id in task_ids)


def hashes(cluster: Cluster) -> set[str]:
    return {invariants.state_hash(member.state) for member in cluster.members}


# --- snapshots ----------------------------------------------------------------------------------------------------


def test_the_log_is_compacted_behind_a_snapshot_and_a_tail_is_kept() -> None:
    async def scenario() -> None:
        async with Cluster(3, policy=EAGER) as cluster:
            await submit_many(cluster, "r", 25)
            await cluster.agree()

            def compacted() -> bool:
                return all(
                    (newest := member.files.newest) is not None
                    and member.view.first_index == newest.index - EAGER.kept_entries + 1
                    for member in cluster.members
                )

            await eventually(compacted, 20, "every log is compacted")
            assert len(hashes(cluster)) == 1

    run(scenario())


def test_a_node_comes_back_from_its_snapshot_and_the_tail_of_its_log() -> None:
    async def scenario() -> None:
        async with Cluster(3, policy=EAGER) as cluster:
            ids = await submit_many(cluster, "r", 25)
            follower = next(member for member in cluster.members if not member.node.leads)
            await eventually(lambda: follower.view.first_index > 5, 20, "a compacted log")
            await follower.stop()
            ids += await submit_many(cluster, "s", 2)
            again = cluster.start(follower.store_id)
            assert again.applier.last_applied > 5, "it begins where its snapshot ends"
            await cluster.agree()
            assert holds(again, ids)
            assert len(hashes(cluster)) == 1
            assert again.history.page(1, 10).gap, (
                "a watch from before the snapshot is told that it missed something"
            )

    run(scenario())


@pytest.mark.parametrize("break_after", [None, 0])
def test_a_follower_that_missed_a_compaction_is_sent_a_snapshot(break_after: int | None) -> None:
    async def scenario() -> None:
        async with Cluster(3, policy=EAGER) as cluster:
            await submit_many(cluster, "r", 3)
            follower = next(member for member in cluster.members if not member.node.leads)
            await follower.stop()
            ids = await submit_many(cluster, "s", 40)
            leader = await cluster.leader()
            await eventually(lambda: leader.view.first_index > 10, 20, "a compacted log")
            cluster.wire.streams.break_after = break_after
            again = cluster.start(follower.store_id)
            if break_after is not None:
                await eventually(lambda: len(cluster.wire.streams.sent) >= 2, 20, "it is tried again")
                cluster.wire.streams.break_after = None
            more = await submit_many(cluster, "t", 3)
            await cluster.agree()
            assert cluster.wire.streams.sent
            assert holds(again, ids + more)
            assert len(hashes(cluster)) == 1
            assert again.files.newest is not None
            # It may be about to take one of its own.
            await eventually(
                lambda: all(file.finished or file.aborted for file in again.files.made),
                10,
                "none is left open",
            )

    run(scenario())


def test_a_snapshot_that_is_damaged_on_the_disk_halts_its_node_instead_of_travelling() -> None:
    async def scenario() -> None:
        async with Cluster(3, policy=EAGER) as cluster:
            leader = await cluster.leader()
            follower = next(member for member in cluster.members if member is not leader)
            await follower.stop()
            await submit_many(cluster, "s", 30)
            await eventually(lambda: leader.view.first_index > 10, 20, "a compacted log")

            def damaged(snapshot: Snapshot) -> BytesReader:
                raise DamagedLog("/data/snapshots/x", 7, "a block with a bad checksum")

            leader.files.open = damaged  # type: ignore[method-assign]  # what the disk answers from here on
            cluster.start(follower.store_id)
            await eventually(lambda: bool(leader.fatal), 20, "the leader halts")
            assert isinstance(leader.fatal.pop(), DamagedLog)
            leader.fatal.clear()

    run(scenario())


def test_a_snapshot_is_taken_on_demand_and_the_next_call_finds_it() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            await submit_many(cluster, "r", 4)
            leader = await cluster.leader()
            first, same = await asyncio.gather(
                leader.snapshots.take_snapshot(), leader.snapshots.take_snapshot()
            )
            assert first == same == await leader.snapshots.take_snapshot()
            assert first.index == leader.applier.last_applied
            assert leader.node.status().snapshot_index == first.index

    run(scenario())


def test_a_snapshot_that_cannot_be_written_stops_nothing_and_is_tried_again() -> None:
    async def scenario() -> None:
        async with Cluster(1, policy=EAGER) as cluster:
            leader = await cluster.leader()
            leader.files.full = True
            await submit_many(cluster, "r", 12)
            with pytest.raises(StorageError):
                await leader.snapshots.take_snapshot()
            assert leader.files.newest is None
            assert leader.view.first_index == 1, "nothing is compacted that no snapshot covers"
            leader.files.full = False
            # One that was begun before there was room may still be failing.
            await asyncio.gather(leader.snapshots.take_snapshot(), return_exceptions=True)
            taken = await leader.snapshots.take_snapshot()
            assert taken.index >= 12
            assert all(file.aborted for file in leader.files.made if file.place[0] != taken.index)

    run(scenario())


# --- members ------------------------------------------------------------------------------------------------------


async def add(cluster: Cluster, store_id: int, **options: Any) -> Member:
    member = cluster.join(store_id)
    leader = await cluster.leader()
    await leader.membership.add(
        f"n{store_id}",
        store_id,
        f"127.0.0.1:{7000 + store_id}",
        learner=options.get("learner", False),
        replaces=options.get("replaces", ""),
        timeout=10,
    )
    return member


def standing(member: Member) -> dict[str, Standing]:
    return {record.name: record.standing for record in member.state.members}


async def votes(cluster: Cluster, *names: str) -> None:
    """Exactly these vote, as every one of them knows."""

    def agreed() -> bool:
        return all(
            {name for name, where in standing(member).items() if where is not Standing.LEARNER} == set(names)
            for member in cluster.members
            if member.name in names
        )

    await eventually(agreed, 20, f"{names} vote")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_cluster_grows_from_one_to_three_and_shrinks_again(compacted: bool) -> None:
    async def scenario() -> None:
        async with Cluster(1, policy=EAGER if compacted else None) as cluster:
            ids = await submit_many(cluster, "r", 30 if compacted else 3)
            await add(cluster, 2)
            await votes(cluster, "n1", "n2")
            ids += await submit_many(cluster, "s", 3)
            await add(cluster, 3)
            await votes(cluster, "n1", "n2", "n3")
            await cluster.agree()
            assert len(hashes(cluster)) == 1
            for name in ("n1", "n2"):
                ids += await submit_many(cluster, name, 3)
                leader = await cluster.leader()
                await leader.membership.remove(name, timeout=10)
            await votes(cluster, "n3")
            last = await cluster.leader()
            assert last.name == "n3"
            ids += await submit_many(cluster, "t", 3)
            assert holds(last, ids)
            assert last.state.removed_stores == {1, 2}

    run(scenario())


def test_a_learner_stays_one_until_it_is_promoted() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            learner = await add(cluster, 2, learner=True)
            await eventually(lambda: "n2" in standing(learner), 20, "it has the log")
            await submit_many(cluster, "r", 3)
            assert standing(leader)["n2"] is Standing.LEARNER
            await leader.membership.promote("n2", timeout=10)
            await votes(cluster, "n1", "n2")
            with pytest.raises(InvalidChange):
                await leader.membership.promote("n2", timeout=10)
            with pytest.raises(NodeNotFound):
                await leader.membership.promote("n9", timeout=10)

    run(scenario())


def test_a_voter_is_replaced_in_one_step_the_leader_too() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            ids = await submit_many(cluster, "r", 3)
            old = await cluster.leader()
            others = {f"n{store}" for store in cluster.voters} - {old.name}
            await add(cluster, 7, replaces=old.name)
            await votes(cluster, "n7", *others)
            new = await cluster.leader(but=old.store_id)
            assert old.store_id in new.state.removed_stores
            ids += await submit_many(cluster, "s", 3)
            assert holds(new, ids)

    run(scenario())


def test_who_was_removed_never_comes_back_and_what_makes_no_sense_is_refused() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            gone = next(member for member in cluster.members if member is not leader)
            await leader.membership.remove(gone.name, timeout=10)
            with pytest.raises(NodeNotFound):
                await leader.membership.remove(gone.name, timeout=10)
            with pytest.raises(StoreRemoved):
                await leader.membership.add(
                    gone.name, gone.store_id, "h:1", learner=False, replaces="", timeout=10
                )
            with pytest.raises(NameTaken):
                await leader.membership.add(leader.name, 9, "h:1", learner=False, replaces="", timeout=10)
            with pytest.raises(NodeNotFound):
                await leader.membership.add("n9", 9, "h:1", learner=False, replaces="n8", timeout=10)
            follower = next(m for m in cluster.members if m not in (leader, gone))
            with pytest.raises(NotLeader):
                await follower.membership.remove(leader.name, timeout=10)

    run(scenario())


def test_one_change_at_a_time() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            results = await asyncio.gather(
                *(
                    leader.membership.add(f"n{n}", n, f"h:{n}", learner=True, replaces="", timeout=10)
                    for n in (6, 7, 8)
                ),
                return_exceptions=True,
            )
            done = [result for result in results if isinstance(result, int)]
            assert done
            assert all(isinstance(result, int | ChangePending) for result in results)
            assert len([name for name in standing(leader) if name in ("n6", "n7", "n8")]) == len(done)
            repeated = await leader.membership.add("n6", 6, "h:6", learner=True, replaces="", timeout=10)
            assert repeated >= done[0], "an answer that was lost is given again"

    run(scenario())


# --- handing over -------------------------------------------------------------------------------------------------


def test_the_leadership_is_handed_to_whom_it_was_asked_for_and_to_anybody() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            await submit_many(cluster, "r", 3)
            leader = await cluster.leader()
            target = next(member for member in cluster.members if member is not leader)
            term = leader.node.status().term
            assert await leader.membership.transfer(target.name, timeout=10) == (target.name, term + 1)
            assert (await cluster.leader()).name == target.name
            assert await target.membership.transfer(target.name, timeout=10) == (target.name, term + 1)
            name, _ = await target.membership.transfer("", timeout=10)
            assert name != target.name
            with pytest.raises(NotLeader):
                await target.membership.transfer(name, timeout=10)

    run(scenario())


def test_a_handover_to_somebody_who_is_cut_off_fails_and_the_leader_goes_on() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            target = next(member for member in cluster.members if member is not leader)
            cluster.wire.isolate(target.store_id)
            with pytest.raises(TransferFailed):
                await leader.membership.transfer(target.name, timeout=10)
            cluster.wire.heal()
            await submit_many(cluster, "r", 2)
            with pytest.raises(NodeNotFound):
                await leader.membership.transfer("n9", timeout=10)

    run(scenario())


def test_a_leader_alone_has_nobody_to_hand_over_to() -> None:
    async def scenario() -> None:
        async with Cluster(1) as cluster:
            leader = await cluster.leader()
            with pytest.raises(InvalidChange):
                await leader.membership.transfer("", timeout=10)
            await leader.membership.hand_over(1)
            assert leader.node.leads

    run(scenario())


# --- a full disk --------------------------------------------------------------------------------------------------


def a_submit(request_id: str) -> Submit:
    spec = TaskSpec(kind="noop")
    return Submit(request_id, request_digest(spec, None), 0, spec)


def test_a_leader_without_room_hands_over_and_takes_no_submissions_until_there_is() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            await submit_many(cluster, "r", 2)
            full = await cluster.leader()
            full.node.storage_full(True)
            other = await cluster.leader(but=full.store_id)
            await submit_many(cluster, "s", 2)
            await other.membership.transfer(full.name, timeout=10)
            await eventually(lambda: full.node.leads, 10, "it leads again")
            with pytest.raises(DiskFull):
                await full.node.propose([a_submit("x")], timeout=5)
            assert full.node.leads, "handing over in a circle would help nobody"
            full.node.storage_full(False)
            await eventually(lambda: not full.node.disk_full, 10, "there is room")
            await full.node.propose([a_submit("x")], timeout=5)

    run(scenario())


def test_a_disk_that_stands_still_costs_the_leadership_and_nothing_else() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            ids = await submit_many(cluster, "r", 2)
            stuck = await cluster.leader()
            blocked = stuck.directory.log.append

            def refuse(hard_state: HardState | None, entries: Any, *, sync: bool) -> None:
                raise StorageFull("/log")

            stuck.directory.log.append = refuse  # type: ignore[method-assign]  # the disk stands still
            new = await cluster.leader(but=stuck.store_id)
            assert stuck.node.status().role is not Role.LEADER
            ids += await submit_many(cluster, "s", 2)
            stuck.directory.log.append = blocked  # type: ignore[method-assign]  # and goes on
            await cluster.agree()
            assert holds(new, ids)
            assert len(hashes(cluster)) == 1

    run(scenario())


def test_proposals_are_refused_while_the_leadership_is_handed_over_and_nothing_happened() -> None:
    async def scenario() -> None:
        async with Cluster(3) as cluster:
            leader = await cluster.leader()
            await leader.node.propose([register()], timeout=10)
            target = next(member for member in cluster.members if member is not leader)
            cluster.wire.isolate(target.store_id)
            leader.node.transfer_leadership(target.store_id)
            with pytest.raises(Unavailable):
                await leader.node.propose([a_submit("a")], timeout=10)
            cluster.wire.heal()
            reply = await propose_somewhere(cluster, "a")
            assert isinstance(reply, Accepted)
            assert not reply.duplicate

    run(scenario())
