"""A watch, and a wait, outlive the node that they hang on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from raftctl.client import errors
from raftctl.client.async_client import AsyncClient
from raftctl.client.models import ArrayRange, LogChunk, OutputStream, Submission, WatchBatch
from raftctl.client.sync_client import Client
from raftctl.errors import ExitCode
from raftd.pb import scheduler_pb2 as pb
from tests.raftctl.conftest import with_client
from tests.raftctl.fake_server import Failure, FakeCluster
from tests.support import eventually, wait_until

NOOP = Submission("noop")


def titles(batches: list[WatchBatch]) -> list[str]:
    return [
        f"{change.change} {change.task.task_id}"
        for batch in batches
        for change in batch.changes
        if change.task
    ]


@pytest.mark.usefixtures("_impatient")
def test_a_watch_goes_on_where_it_stopped_when_its_node_dies(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        seen: list[WatchBatch] = []
        take = seen.append

        async def follow() -> None:
            async with aclosing(client.watch()) as batches:
                async for batch in batches:
                    take(batch)

        following = asyncio.create_task(follow())
        await eventually(lambda: cluster.all_watched() == 1, 5, "a watch is open")
        await client.submit(NOOP)
        await eventually(lambda: titles(seen) == ["submitted t1"], 5, "the first change")
        cluster.lead("n2")
        await asyncio.to_thread(cluster.stop, "n1")
        await client.submit(NOOP)
        await asyncio.to_thread(cluster.end, "t1")
        await eventually(lambda: len(titles(seen)) >= 3, 5, "the later changes")
        following.cancel()
        assert titles(seen) == ["submitted t1", "submitted t2", "succeeded t1"], "none lost, none twice"
        assert len([batch for batch in seen if batch.interruption is not None]) == 1

    with_client(cluster, use)


@pytest.mark.usefixtures("_impatient")
def test_a_watch_leaves_a_node_that_fell_silent(cluster: FakeCluster) -> None:
    cluster.nodes["n1"].silent_watch = True

    async def use(client: AsyncClient) -> None:
        async with aclosing(client.watch()) as batches:
            first = asyncio.ensure_future(anext(batches))
            await eventually(lambda: cluster.nodes["n1"].watches == 1, 5, "the watch hangs on n1")
            cluster.lead("n2")
            await client.submit(NOOP)
            assert titles([await first]) == ["submitted t1"]
            assert cluster.nodes["n2"].watches == 1

    with_client(cluster, use)


def test_a_gap_is_told(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        await client.submit_many([NOOP] * 5)
        cluster.forgotten_before = 5
        async with aclosing(client.watch(from_index=2)) as batches:
            first = await anext(batches)
            assert first.gap
            assert titles([await anext(batches)])[0] == "submitted t4"

    with_client(cluster, use)


@pytest.mark.usefixtures("_impatient")
def test_a_wait_outlives_the_leader(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        await client.submit_many([NOOP] * 3)
        cluster.end("t2")
        ended: list[str] = []
        waiting = asyncio.create_task(
            client.wait(["t1", "t2", "t3"], on_ended=lambda task: ended.append(task.task_id))
        )
        await eventually(lambda: cluster.all_watched() == 1, 5, "a watch is open")
        cluster.end("t1")
        await eventually(lambda: ended == ["t2", "t1"], 5, "two have ended")
        cluster.lead("n3")
        await asyncio.to_thread(cluster.stop, "n1")
        cluster.end("t3", pb.TASK_STATE_FAILED, reason="boom")
        tasks = await waiting
        assert [(task.task_id, str(task.state)) for task in tasks] == [
            ("t1", "succeeded"),
            ("t2", "succeeded"),
            ("t3", "failed"),
        ]

    with_client(cluster, use)


def test_a_wait_reads_again_after_a_gap(cluster: FakeCluster) -> None:
    """The end of t1 falls into the gap: only reading again can show it."""

    async def use(client: AsyncClient) -> None:
        await client.submit(NOOP)
        cluster.nodes["n1"].failures["Watch"] = [Failure("unavailable")]
        waiting = asyncio.create_task(client.wait(["t1"]))
        await eventually(lambda: cluster.nodes["n1"].calls["Watch"] > 0, 5, "the first stream was refused")
        with cluster.changed:
            cluster.end("t1")
            cluster.changes.clear()
            cluster.forgotten_before = cluster.index + 1
        [task] = await waiting
        assert task.state == "succeeded"

    with_client(cluster, use)


def test_a_wait_that_takes_too_long_leaves_the_task_alone(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        await client.submit(NOOP)
        with pytest.raises(errors.WaitTimedOut) as raised:
            await client.wait(["t1"], timeout_s=0.2)
        assert raised.value.exit_code is ExitCode.WAIT_TIMED_OUT
        assert cluster.tasks["t1"].state == pb.TASK_STATE_PENDING
        with pytest.raises(errors.TaskNotFound):
            await client.wait(["t1", "t7"], timeout_s=5)

    with_client(cluster, use)


def test_a_job_is_waited_for(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        accepted = await client.submit(Submission("noop", args=("{}",), array=ArrayRange(0, 3)))
        assert accepted.task_ids == ("t1", "t2", "t3", "t4")
        waiting = asyncio.create_task(client.wait_job(accepted.job_id))
        await eventually(lambda: cluster.all_watched() == 1, 5, "a watch is open")
        for task_id in accepted.task_ids:
            cluster.end(task_id)
        job = await waiting
        assert (job.total, job.succeeded) == (4, 4)
        assert job.task_ids == accepted.task_ids

    with_client(cluster, use)


def test_results_come_inline_or_as_proved_blobs(cluster: FakeCluster) -> None:
    picture = bytes(range(256)) * 20

    async def use(client: AsyncClient) -> None:
        await client.submit_many([NOOP] * 3)
        cluster.end("t1", inline=b"hello")
        cluster.end("t2", blob=picture)
        cluster.end("t3", pb.TASK_STATE_FAILED, reason="boom")
        assert await client.result("t1") == b"hello"
        digest = cluster.tasks["t2"].result.blob.digest
        cluster.nodes["n1"].damaged.add(digest)
        assert await client.result("t2") == picture, "n1 sends others, n2 does not"
        with pytest.raises(errors.TaskFailed, match="boom"):
            await client.result("t3")
        with pytest.raises(errors.BlobNotFound):
            await client.blob_get("0" * 64)
        reference = await client.blob_put(b"x" * 600_000)
        assert reference.size_bytes == 600_000
        assert await client.blob_get(reference.digest) == b"x" * 600_000

    with_client(cluster, use)


def test_logs_that_break_off_are_taken_up_without_repetition(cluster: FakeCluster) -> None:
    cluster.logs["t1"] = [(False, b"one\n"), (True, b"oops\n"), (False, b"two\n")]
    cluster.nodes["n1"].failures["Logs"] = [Failure("unavailable")]

    async def use(client: AsyncClient) -> None:
        await client.submit(NOOP)
        chunks: list[LogChunk] = [chunk async for chunk in client.logs("t1", follow=True)]
        text = {
            stream: b"".join(chunk.data for chunk in chunks if chunk.stream is stream)
            for stream in OutputStream
        }
        assert text == {OutputStream.STDOUT: b"one\ntwo\n", OutputStream.STDERR: b"oops\n"}

    with_client(cluster, use)
    assert sum(node.calls["LogsStart"] for node in cluster.nodes.values()) == 2


def test_the_sync_client_is_the_same(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        accepted = client.submit(NOOP)
        cluster.end(accepted.task_id, inline=b"done")
        assert client.result(accepted.task_id) == b"done"
        assert [task.task_id for task in client.tasks()] == ["t1"]
        watching = client.watch(from_index=1)
        assert next(watching).changes[0].change == "submitted"
        watching.close()  # type: ignore[attr-defined]  # a generator, as the loop over it needs
        with pytest.raises(errors.TaskNotFound):
            client.task("t9")
    wait_until(lambda: cluster.all_watched() == 0, 5, "its streams are closed")
    client.close()
