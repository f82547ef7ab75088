"""A whole worker in this process, beside a member: it finds it, executes for it, and serves what a worker serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftd.config import Config
from raftd.errors import ConfigError, NameTaken
from raftd.founding import employ
from raftd.pb import admin_pb2, blobs_pb2
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.pb.blobs_pb2_grpc import BlobsStub
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.scheduler import queries
from raftd.storage.worker import WorkerDirectory
from raftd.wiring import build
from raftd.wiring.worker import WorkerServer
from tests.services.hosts import channel_to, failure_of, run
from tests.support import eventually, free_port
from tests.test_wiring import fatal, founded, running

CLUSTER = 0xC1


def worker_config(path: Path, join: str, name: str = "w1", **changes: Any) -> Config:
    employ(path / name, name, CLUSTER, None)
    return Config(
        path / name, role="worker", join=(join,), listen=f"127.0.0.1:{free_port()}", slot_nice=0, **changes
    )


@asynccontextmanager
async def working(config: Config, on_fatal: Any = fatal) -> AsyncIterator[WorkerServer]:
    worker = build(config, WorkerDirectory.open(str(config.data_dir)), on_fatal)
    assert isinstance(worker, WorkerServer)
    await worker.start()
    try:
        yield worker
    finally:
        await asyncio.wait_for(worker.stop(), 30)


async def until(ask: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until asking says so."""

    def asked() -> bool | Awaitable[bool]:
        return ask()

    await eventually(asked, 60, what)


async def done(stub: SchedulerStub, kind: str, *args: str) -> pb.Task:
    """A task of this kind, run to its end."""
    submission = pb.Submission(kind=kind, args=args)
    answer = await stub.Submit(pb.SubmitRequest(submissions=[submission]), timeout=20)
    task_id = answer.replies[0].accepted.task_id
    found = pb.Task()

    async def ended() -> bool:
        nonlocal found
        found = (await stub.Get(pb.GetRequest(task_id=task_id), timeout=20)).task
        return found.finished_at_ms > 0

    await until(ended, f"the end of {kind}")
    assert found.state == pb.TASK_STATE_SUCCEEDED, found
    return found


async def log_of(stub: SchedulerStub, task_id: str, attempt: int) -> bytes:
    call = stub.Logs(pb.LogsRequest(task_id=task_id, attempt=attempt), timeout=20)
    return b"".join([response.data async for response in call])


def test_a_worker_runs_tasks_and_its_output_is_read_from_any_member(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = founded(tmp_path, 1, allow=("shell",), slots=1)
        config = worker_config(tmp_path, member.listen, allow=("shell",))
        async with running(member) as (_, stub), working(config) as worker:
            await eventually(lambda: worker.slots_ready, 30, "its slot")
            await eventually(lambda: worker.members.leader_known, 30, "its leader")
            # The member's own slot is busy: what follows runs on the worker.
            held = pb.Submission(kind="sleep", args=["60"])
            answer = await stub.Submit(pb.SubmitRequest(submissions=[held]), timeout=20)
            holder = answer.replies[0].accepted.task_id

            async def holds() -> bool:
                task = (await stub.Get(pb.GetRequest(task_id=holder), timeout=20)).task
                return task.state == pb.TASK_STATE_RUNNING

            await until(holds, "one slot is busy")
            first = (await stub.Get(pb.GetRequest(task_id=holder), timeout=20)).task.attempts[0].node
            task = await done(stub, "shell", "echo", "hello")
            assert {first, task.attempts[0].node} == {"n1", "w1"}
            async with channel_to(config.listen) as channel:
                on_worker = task.task_id if task.attempts[0].node == "w1" else holder
                if on_worker == task.task_id:
                    assert await log_of(stub, on_worker, 0) == b"hello\n"
                    assert await log_of(SchedulerStub(channel), on_worker, 1) == b"hello\n"
                code, trailing = await failure_of(
                    SchedulerStub(channel).Get(pb.GetRequest(task_id="t1"), timeout=20)
                )
                assert code is grpc.StatusCode.UNAVAILABLE
                assert trailing["raftd-leader"] == f"n1={member.listen}"
                info = await AdminStub(channel).NodeInfo(admin_pb2.NodeInfoRequest(), timeout=20)
                assert (info.name, info.role, info.leader, info.slots_ready) == ("w1", "worker", "n1", True)
            status = await stub.Status(pb.StatusRequest(), timeout=20)
            assert {row.name: row.role for row in status.nodes} == {"n1": "voter", "w1": "worker"}
            await stub.Cancel(pb.CancelRequest(ids=[holder]), timeout=20)

    run(scenario())


def test_a_cut_keeps_a_worker_from_its_leader_until_it_is_lifted(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = founded(tmp_path, 1, fault_injection=True)
        config = worker_config(tmp_path, member.listen, fault_injection=True)
        async with (
            running(member) as (_, stub),
            working(config) as worker,
            channel_to(member.listen) as at_member,
            channel_to(config.listen) as at_worker,
        ):
            await eventually(lambda: worker.executor.attached_to == "n1", 30, "it is attached")

            async def registered() -> bool:
                status = await stub.Status(pb.StatusRequest(), timeout=20)
                return any(row.name == "w1" and row.health == "up" for row in status.nodes)

            await until(registered, "it is registered")
            one_way = admin_pb2.SetFaultsRequest(add=[admin_pb2.Cut(from_node="w1", to_node="n1")])
            # Whichever of the two knows of the cut: it holds.
            for admin in (AdminStub(at_member), AdminStub(at_worker)):
                await admin.SetFaults(one_way, timeout=20)
                await eventually(lambda: not worker.executor.attached_to, 30, "it is cut off")
                await admin.SetFaults(admin_pb2.SetFaultsRequest(heal=True), timeout=20)
                await eventually(lambda: worker.executor.attached_to == "n1", 30, "it is back")

    run(scenario())


def test_blobs_are_read_from_members_and_results_are_theirs_to_keep(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = founded(tmp_path, 1, slots=1)
        config = worker_config(tmp_path, member.listen)
        async with (
            running(member) as (server, _),
            working(config) as worker,
            channel_to(member.listen) as channel,
        ):
            await eventually(lambda: worker.slots_ready, 30, "its slot")
            content = b"scene" * 10_000
            header = blobs_pb2.PutHeader(size_bytes=len(content))

            async def frames() -> AsyncIterator[blobs_pb2.PutRequest]:
                yield blobs_pb2.PutRequest(header=header, data=content)

            put = await BlobsStub(channel).Put(frames(), timeout=20)
            path = await worker.blobs.fetch(put.blob.digest)
            assert path.read_bytes() == content
            made = tmp_path / "made"
            made.write_bytes(b"put by a task" * 1_000)
            kept = await worker.blobs.put_file(made)
            known = queries.blob(server._machine.state, kept.digest)
            assert known is not None
            assert known.holders == ("n1",), "the directory knows of it, and counts on members only"
            ref, holders = await worker.blobs.put(b"result" * 10_000)
            assert holders == ("n1",), "its own copy is not one of those that are counted on"
            here = {path.name: path.parent.name for path in (config.data_dir / "blobs").glob("*/*")}
            assert here == dict.fromkeys((put.blob.digest, kept.digest, ref.digest), "cache")
            got = [frame.data async for frame in BlobsStub(channel).Get(_local(ref.digest), timeout=20)]
            assert b"".join(got) == b"result" * 10_000

    run(scenario())


def _local(digest: str) -> blobs_pb2.GetBlobRequest:
    return blobs_pb2.GetBlobRequest(digest=digest, local_only=True)


def test_a_second_worker_of_a_name_that_is_taken_ends_and_the_first_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = founded(tmp_path, 1)
        first = worker_config(tmp_path, member.listen)
        second = replace(worker_config(tmp_path / "again", member.listen), name="w1")
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        def end(error: BaseException) -> None:
            if not ended.done():
                ended.set_result(error)

        async with running(member) as (_, stub), working(first) as worker:
            await eventually(lambda: worker.executor.attached_to == "n1", 30, "it is attached")

            async def registered() -> bool:
                status = await stub.Status(pb.StatusRequest(), timeout=20)
                return any(row.name == "w1" and row.health == "up" for row in status.nodes)

            await until(registered, "it is registered")
            async with working(second, end):
                assert isinstance(await asyncio.wait_for(ended, 30), NameTaken)
            await eventually(lambda: worker.executor.attached_to == "n1", 30, "the first is still attached")

    run(scenario())


def test_a_worker_that_is_told_of_nobody_says_so(tmp_path: Path) -> None:
    config = replace(worker_config(tmp_path, "127.0.0.1:1"), join=())
    directory = WorkerDirectory.open(str(config.data_dir))

    async def scenario() -> None:
        with pytest.raises(ConfigError, match="no node of the cluster is named"):
            WorkerServer(config, directory, fatal)
        directory.close()

    run(scenario())
