"""A whole node in this process: it starts, serves, and ends, whoever is still waiting for it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftd.config import Config
from raftd.errors import ConfigError, PeerUnreachable, StoreRemoved, StoreTwice, Unavailable, WrongIdentity
from raftd.executor.executor import Executor
from raftd.founding import found, join
from raftd.pb import scheduler_pb2 as pb
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from raftd.storage.directory import DataDirectory
from raftd.storage.errors import Condemned
from raftd.tasks import registry
from raftd.wiring.member import Server
from tests.services.hosts import channel_to, failure_of, run
from tests.support import eventually, free_ports

SEGMENT_BYTES = 256 * 1024


class Failed(Exception):
    """The node said that it cannot go on."""


def fatal(error: BaseException) -> None:
    raise Failed(str(error)) from error


def founded(path: Path, founders: int, **changes: Any) -> Config:
    """Settings of the first of so many founders; the others are never there."""
    ports = free_ports(founders)
    members = [f"n{number}={number}@127.0.0.1:{port}" for number, port in enumerate(ports, 1)]
    found(path / "data", "n1", "c1", members, SEGMENT_BYTES)
    return Config(path / "data", listen=f"127.0.0.1:{ports[0]}", segment_bytes=SEGMENT_BYTES, **changes)


def opened(config: Config) -> DataDirectory:
    return DataDirectory.open(str(config.data_dir), segment_bytes=config.segment_bytes)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Server, SchedulerStub]]:
    server = Server(config, opened(config), fatal)
    await server.start()
    try:
        async with channel_to(config.listen) as channel:
            yield server, SchedulerStub(channel)
    finally:
        await asyncio.wait_for(server.stop(), 30)


def test_a_node_alone_leads_runs_a_task_and_comes_back_with_its_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = founded(tmp_path, 1)
        async with running(config) as (server, stub):
            await eventually(lambda: server.slots_ready, 30, "its slot")
            answer = await stub.Submit(
                pb.SubmitRequest(submissions=[pb.Submission(kind="noop", request_id="a")]), timeout=20
            )
            task_id = answer.replies[0].accepted.task_id

            async def succeeded() -> bool:
                got = await stub.Get(pb.GetRequest(task_id=task_id), timeout=20)
                return got.task.state == pb.TASK_STATE_SUCCEEDED

            def has_succeeded() -> bool | Awaitable[bool]:
                return succeeded()

            await eventually(has_succeeded, 30, "the task's end")
        async with running(config) as (server, stub):
            await eventually(lambda: server.node.leads, 30, "it leads again")
            got = await stub.Get(pb.GetRequest(task_id=task_id), timeout=20)
            assert got.task.task_id == task_id

    run(scenario())


def test_each_of_its_lives_is_traced_where_that_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = founded(tmp_path, 1, trace=tmp_path / "trace")
        for _ in range(2):
            async with running(config) as (server, _):
                await eventually(lambda server=server: server.node.leads, 30, "it leads")  # type: ignore[misc]  # bound now

    run(scenario())
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert [(line["node"], line["event"], line["term"]) for line in lines] == [
        ("n1", "started", 1),
        ("n1", "asks for pre-votes", 1),
        ("n1", "stands for election", 2),
        ("n1", "won the election", 2),
        ("n1", "started", 2),
        ("n1", "asks for pre-votes", 2),
        ("n1", "stands for election", 3),
        ("n1", "won the election", 3),
    ]


def test_it_ends_with_calls_of_every_kind_waiting(tmp_path: Path) -> None:
    """Two of three founders are missing: nothing that needs a leader can ever be answered."""

    async def scenario() -> None:
        config = founded(tmp_path, 3)
        async with running(config) as (server, stub):
            watch = stub.Watch(pb.WatchRequest())
            assert await watch.read()
            waiting: list[Any] = [
                stub.Submit(pb.SubmitRequest(submissions=[pb.Submission(kind="noop")]), timeout=60),
                stub.Status(pb.StatusRequest(), timeout=60),
                watch.read(),
            ]
            stale = await stub.Status(pb.StatusRequest(options=pb.ReadOptions(stale=True)), timeout=20)
            assert (stale.leader, stale.quorum.ok) == ("", False)
            pending = [asyncio.ensure_future(failure_of(call)) for call in waiting]
            await asyncio.wait_for(server.stop(), 30)
            for call in pending:
                code, _ = await asyncio.wait_for(call, 30)
                assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    run(scenario())


def test_it_ends_while_an_executor_and_watchers_hold_streams_to_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = founded(tmp_path, 1)
        async with running(config) as (server, stub):
            await eventually(lambda: server.slots_ready, 30, "its slot")
            watch = stub.Watch(pb.WatchRequest())
            assert await watch.read()
            attach = stub.Attach()
            hello = pb.Hello(
                cluster_id=0xC1, store_id=9, name="w9", incarnation=1, role="worker", slots=1, kinds=["noop"]
            )
            await attach.write(pb.AttachRequest(hello=hello))
            assert isinstance(await attach.read(), pb.AttachResponse)
            await asyncio.wait_for(server.stop(), 30)
            for call in (watch, attach):
                code, _ = await asyncio.wait_for(failure_of(_until_the_end(call)), 30)
                assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    run(scenario())


async def _until_the_end(call: Any) -> None:
    while await call.read():
        pass


def test_what_had_started_is_stopped_when_the_rest_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot(_: Executor) -> None:
        raise Unavailable("the supervisor does not start")

    async def scenario() -> None:
        config = founded(tmp_path, 1)
        server = Server(config, opened(config), fatal)
        with monkeypatch.context() as patch:
            patch.setattr(Executor, "start", cannot)
            with pytest.raises(Unavailable, match="the supervisor does not start"):
                await server.start()
        # Port, lock and storage are free again, in this very process.
        async with running(config) as (again, _):
            await eventually(lambda: again.node.leads, 30, "it leads")

    run(scenario())


@pytest.mark.parametrize("token", ["", "two words", "\n\n", "smörgås"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, token: str) -> None:
    async def scenario() -> None:
        file = tmp_path / "token"
        file.write_text(token, encoding="utf-8")
        config = founded(tmp_path, 1, token_file=file)
        directory = opened(config)
        with pytest.raises(ConfigError, match="token file"):
            Server(config, directory, fatal)
        directory.close()

    run(scenario())


def joined(path: Path, number: int, **changes: Any) -> Config:
    """Settings of a node that is to join the cluster of ``founded``; its store id is its number."""
    (port,) = free_ports(1)
    join(path / f"data{number}", f"n{number}", "c1", f"{number}", SEGMENT_BYTES)
    return Config(path / f"data{number}", listen=f"127.0.0.1:{port}", segment_bytes=SEGMENT_BYTES, **changes)


@pytest.mark.parametrize("by_snapshot", [False, True])
def test_a_node_joins_over_the_wire_votes_executes_takes_over_and_is_removed(
    tmp_path: Path, by_snapshot: bool
) -> None:
    async def scenario() -> None:
        settings = {"snapshot_entries": 20, "kept_entries": 0} if by_snapshot else {}
        first, second = founded(tmp_path, 1, **settings), joined(tmp_path, 2, **settings)
        async with running(first) as (founder, stub):
            await eventually(lambda: founder.slots_ready, 30, "its slot")
            for _ in range(30 if by_snapshot else 1):
                await stub.Submit(pb.SubmitRequest(submissions=[pb.Submission(kind="noop")]), timeout=20)
            if by_snapshot:
                await eventually(lambda: founder.node.status().first_index > 1, 30, "a compacted log")
            async with running(second) as (newcomer, _):
                await founder.membership.add("n2", 2, second.address, learner=False, replaces="", timeout=20)
                await eventually(lambda: newcomer.slots_ready, 30, "it executes")
                await eventually(lambda: newcomer.node.configuration.voters == (1, 2), 30, "it votes")
                assert bool(newcomer.node.status().snapshot_index) is by_snapshot
                assert await founder.membership.transfer("n2", timeout=20) == (
                    "n2",
                    newcomer.node.status().term,
                )
                await eventually(lambda: newcomer.node.leads, 30, "it leads")
                await newcomer.membership.remove("n1", timeout=20)
                await asyncio.wait_for(founder.removed(), 30)
                assert newcomer.node.configuration.voters == (2,)
        # Its log says so, and then its snapshot. It goes when the others say so too.
        for _ in range(2):
            async with running(first) as (again, _):
                removed = asyncio.ensure_future(again.removed())
                await eventually(lambda: again.node.status().configuration.voters == (2,), 30, "it knows")
                assert not removed.done()
                async with running(second):
                    with pytest.raises(StoreRemoved, match="n1, store 0000000000000001"):
                        await asyncio.wait_for(removed, 30)
                await again.snapshots.take_snapshot()
                assert again.node.status().snapshot_index == again.node.status().applied

    run(scenario())


def test_a_learner_that_was_removed_while_it_was_down_ends_when_the_others_refuse_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = founded(tmp_path, 1), joined(tmp_path, 2)
        async with running(first) as (founder, _):
            await eventually(lambda: founder.node.leads, 30, "it leads")
            async with running(second) as (newcomer, _):
                await founder.membership.add("n2", 2, second.address, learner=True, replaces="", timeout=20)
                await eventually(lambda: newcomer.node.configuration.learners == (2,), 30, "it knows")
            await founder.membership.remove("n2", timeout=20)
            async with running(second) as (again, _):
                with pytest.raises(StoreRemoved, match="n2, store 0000000000000002, was removed"):
                    await asyncio.wait_for(again.removed(), 30)

    run(scenario())


def test_a_compacted_log_is_not_taken_into_memory_again(tmp_path: Path) -> None:
    """Its segment is purged only as a whole, and holds the old entries still."""

    async def scenario() -> None:
        config = founded(tmp_path, 1, snapshot_entries=20, kept_entries=0)
        async with running(config) as (server, stub):
            await eventually(lambda: server.slots_ready, 30, "its slot")
            for _ in range(30):
                await stub.Submit(pb.SubmitRequest(submissions=[pb.Submission(kind="noop")]), timeout=20)
            await eventually(lambda: server.node.status().first_index > 1, 30, "a compacted log")
            await server.snapshots.take_snapshot()
        assert opened_once(config) == 1, "on the disk nothing is gone yet"
        async with running(config) as (server, _):
            assert server.node.status().first_index > 20

    run(scenario())


def opened_once(config: Config) -> int:
    """Where the log on the disk begins."""
    directory = opened(config)
    directory.log.close()
    directory.close()
    return directory.recovered.base_index + 1


def test_an_old_copy_of_a_data_directory_does_not_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = founded(tmp_path, 1)
        async with running(config) as (server, _):
            await eventually(lambda: server.slots_ready, 30, "its incarnation is in the record")
        counter = config.data_dir / "incarnation.json"
        old = counter.read_bytes()
        async with running(config) as (server, _):
            await eventually(lambda: server.slots_ready, 30, "a later one is")
        async with running(config) as (server, _):
            await eventually(lambda: server.slots_ready, 30, "and a later one still")
        counter.write_bytes(old)
        ended: list[BaseException] = []
        server = Server(config, opened(config), ended.append)
        await server.start()
        await eventually(lambda: bool(ended), 30, "it notices")
        await asyncio.wait_for(server.stop(), 30)
        assert "is an old copy" in str(ended[0])
        with pytest.raises(Condemned, match="must not be used any more: this data directory is an old copy"):
            opened(config)

    run(scenario())


def test_only_who_is_there_and_of_this_cluster_is_let_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = founded(tmp_path, 1), joined(tmp_path, 2)
        (port,) = free_ports(1)
        join(tmp_path / "stranger", "n3", "c2", "3", SEGMENT_BYTES)
        stranger = Config(tmp_path / "stranger", listen=f"127.0.0.1:{port}", segment_bytes=SEGMENT_BYTES)
        async with running(first) as (founder, _), running(stranger):
            await eventually(lambda: founder.node.leads, 30, "it leads")
            for store_id, name, address, error, said in (
                (2, "n2", second.address, PeerUnreachable, f"cannot reach n2 at {second.address}"),
                (
                    3,
                    "n3",
                    stranger.address,
                    WrongIdentity,
                    "n1 is of cluster 00000000000000c1, n3 of cluster",
                ),
            ):
                with pytest.raises(error, match=said):
                    await founder.membership.add(
                        name, store_id, address, learner=True, replaces="", timeout=20
                    )
            async with running(second):
                for store_id, name, said in ((7, "n2", "n1 means store"), (2, "n9", "and not n9, store")):
                    with pytest.raises(WrongIdentity, match=said):
                        await founder.membership.add(
                            name, store_id, second.address, learner=True, replaces="", timeout=20
                        )
                assert not founder.node.configuration.learners
                await founder.membership.add("n2", 2, second.address, learner=True, replaces="", timeout=20)
                assert founder.node.configuration.learners == (2,)

    run(scenario())


def test_a_copy_that_is_exactly_one_life_old_does_not_go_on_nor_start_again(tmp_path: Path) -> None:
    """Its incarnation and its address are those of the life that it has missed."""

    async def scenario() -> None:
        first, second = founded(tmp_path, 1), joined(tmp_path, 2)
        async with running(first) as (founder, _):
            await eventually(lambda: founder.node.leads, 30, "it leads")
            async with running(second) as (newcomer, _):
                await founder.membership.add("n2", 2, second.address, learner=True, replaces="", timeout=20)
                await eventually(lambda: newcomer.slots_ready, 30, "it executes")
            copy = replace(second, data_dir=tmp_path / "copy")
            shutil.copytree(second.data_dir, copy.data_dir)
            async with running(second) as (newcomer, _):
                await eventually(lambda: newcomer.slots_ready, 30, "its next life")
            ended: list[BaseException] = []
            server = Server(copy, opened(copy), ended.append)
            await server.start()
            await eventually(lambda: ended, 30, "it is refused")
            await asyncio.wait_for(server.stop(), 30)
            assert isinstance(ended[0], StoreTwice)
            with pytest.raises(Condemned, match="a copy of the other's"):
                opened(copy)

    run(scenario())


def test_a_kind_that_cannot_be_allowed_is_refused_at_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = founded(tmp_path, 1, allow=("shell", "render"))
        directory = opened(config)
        try:
            with pytest.raises(ConfigError, match="'render' is not a kind that must be allowed"):
                Server(config, directory, fatal)
        finally:
            directory.close()

    run(scenario())


def test_what_a_node_leaves_out_is_logged_and_said_to_who_submits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = registry.Registry(
        registry.load().kinds, {"count": "ModuleNotFoundError: No module named 'abacus'"}
    )
    monkeypatch.setattr(registry, "load", lambda: broken)

    async def scenario() -> None:
        async with running(founded(tmp_path, 1)) as (server, stub):
            assert "the entry point count of raftd.tasks is not used: ModuleNotFoundError" in caplog.text
            await eventually(lambda: server.slots_ready, 60, "the node is ready")
            request = pb.SubmitRequest(submissions=[pb.Submission(kind="count", request_id="a")])
            [reply] = (await stub.Submit(request, timeout=20)).replies
            assert "it cannot be loaded: ModuleNotFoundError" in reply.refusal.message

    run(scenario())
