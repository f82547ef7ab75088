"""The Blobs service and the streams between nodes: three real stores behind three real servers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from raftd import errors
from raftd.blobs.disk import DiskBlobs
from raftd.blobs.fetch import Fetcher
from raftd.blobs.local import LocalBlobs
from raftd.blobs.ref import FRAME_BYTES
from raftd.blobs.replicate import Replicator
from raftd.node.results import ResultBlobs
from raftd.pb import blobs_pb2 as pb
from raftd.pb import scheduler_pb2
from raftd.pb.blobs_pb2_grpc import BlobsStub
from raftd.scheduler.commands import Command, RecordBlob
from raftd.scheduler.model import BlobRecord
from raftd.scheduler.replies import Recorded, Reply
from raftd.services.blobs import BlobsService
from raftd.services.forwarding import Forwarder
from raftd.transport.base import LocalNode, RemoteNode, call_metadata
from raftd.transport.blobs import GrpcPeerBlobs
from raftd.transport.caller import Caller
from tests.services.hosts import CLUSTER, Host, channel_to, failure_of, make_host, run, serving
from tests.support import eventually

Code = grpc.StatusCode
DATA = bytes(range(256)) * 2_500  # three frames
DIGEST = hashlib.sha256(DATA).hexdigest()
NAMES = ("n1", "n2", "n3")


@dataclass
class Log:
    """The replicated directory: what is committed, and what this node has applied of it."""

    committed: dict[str, BlobRecord]
    applied: dict[str, BlobRecord] = field(default_factory=dict)
    lags: bool = False

    def catch_up(self) -> None:
        """Apply what is committed."""
        self.applied.update(self.committed)

    async def propose(
        self, commands: Sequence[Command], *, timeout: float, size_bytes: int = 0
    ) -> tuple[Reply, ...]:
        """See ``Node.propose``."""
        (command,) = commands
        assert isinstance(command, RecordBlob)
        known = self.committed.get(command.ref.digest)
        holders = tuple(sorted({*command.holders, *(known.holders if known else ())}))
        self.committed[command.ref.digest] = BlobRecord(command.ref, holders)
        self.catch_up()
        return (Recorded(command.ref.digest, holders),)

    async def read_barrier(self, *, timeout: float) -> int:
        """See ``Node.read_barrier``."""
        self.catch_up()
        return 1

    def record(self, digest: str) -> BlobRecord | None:
        """See ``BlobDirectory``."""
        if not self.lags:
            self.catch_up()
        return self.applied.get(digest)

    def voters(self) -> Sequence[str]:
        """See ``BlobDirectory``."""
        return NAMES

    def is_up(self, node: str) -> bool:
        """See ``BlobDirectory``."""
        return True


@dataclass
class BlobNode:
    """One node of a test: its server, its blobs, its log."""

    host: Host
    path: Path
    blobs: LocalBlobs
    log: Log
    peers: GrpcPeerBlobs
    replicator: Replicator
    service: BlobsService

    def results(self) -> ResultBlobs:
        """What its executor stores and fetches with."""
        fetcher = Fetcher(self.host.local.name, self.blobs, self.peers, self.log)
        return ResultBlobs(self.blobs, self.replicator, fetcher, self.log, self.service)

    def files(self) -> list[str]:
        """Everything that is on its disk."""
        return sorted(
            file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()
        )


def blob_node(path: Path, number: int, committed: dict[str, BlobRecord]) -> BlobNode:
    log = Log(committed)
    store = path / f"blobs-{number}"
    parts: list[tuple[LocalBlobs, GrpcPeerBlobs, Replicator, BlobsService]] = []

    def service(
        local: LocalNode, forwarder: Forwarder, caller: Caller, others: dict[int, RemoteNode]
    ) -> BlobsService:
        blobs = LocalBlobs(DiskBlobs(store))
        peers = GrpcPeerBlobs(
            caller, blobs, lambda name: next((node for node in others.values() if node.name == name), None)
        )
        replicator = Replicator(local.name, blobs, peers, log.is_up)
        service = BlobsService(
            local=local,
            blobs=blobs,
            replicator=replicator,
            fetcher=Fetcher(local.name, blobs, peers, log),
            directory=log,
            node=log,
            forwarder=forwarder,
        )
        parts.append((blobs, peers, replicator, service))
        return service

    host = make_host(path, number, blobs=service)
    blobs, peers, replicator, made = parts[0]
    return BlobNode(host, store, blobs, log, peers, replicator, made)


@asynccontextmanager
async def three(path: Path) -> AsyncIterator[tuple[BlobNode, BlobNode, BlobNode]]:
    """Three nodes; n1 leads."""
    committed: dict[str, BlobRecord] = {}
    n1, n2, n3 = (blob_node(path, number, committed) for number in (1, 2, 3))
    async with serving(n1.host, n2.host, n3.host):
        n1.host.node.follow(1, leads=True)
        for follower in (n2, n3):
            follower.host.node.follow(1)
        yield n1, n2, n3


def requests(
    data: bytes = DATA,
    *,
    digest: str = "",
    size_bytes: int | None = None,
    replicas: int = 0,
    replica_only: bool = False,
    frame_bytes: int = FRAME_BYTES,
) -> list[pb.PutRequest]:
    if size_bytes is None:
        size_bytes = 0 if digest else len(data)
    header = pb.PutHeader(digest=digest, size_bytes=size_bytes, replicas=replicas, replica_only=replica_only)
    frames = [data[start : start + frame_bytes] for start in range(0, len(data), frame_bytes)]
    return [pb.PutRequest(header=header), *(pb.PutRequest(data=frame) for frame in frames)]


async def put(node: BlobNode, messages: Iterable[pb.PutRequest], *, peer: bool = False) -> pb.PutResponse:
    metadata = call_metadata(LocalNode(CLUSTER, 9, "n9", ""), RemoteNode("", 0, "")) if peer else ()
    async with channel_to(node.host.address) as channel:
        return await BlobsStub(channel).Put(iter(messages), timeout=30, metadata=metadata)


async def get(node: BlobNode, digest: str = DIGEST, *, local_only: bool = False) -> tuple[int, bytes, int]:
    """Announced size, bytes, number of frames."""
    async with channel_to(node.host.address) as channel:
        request = pb.GetBlobRequest(digest=digest, local_only=local_only)
        responses = [response async for response in BlobsStub(channel).Get(request, timeout=30)]
    assert all(len(response.data) <= FRAME_BYTES for response in responses)
    return responses[0].size_bytes, b"".join(response.data for response in responses), len(responses)


async def stat(node: BlobNode, digest: str = DIGEST) -> pb.StatBlobResponse:
    async with channel_to(node.host.address) as channel:
        return await BlobsStub(channel).Stat(pb.StatBlobRequest(digest=digest), timeout=30)


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "follower"])
def test_a_put_is_on_a_majority_and_in_the_directory(tmp_path: Path, asked: int) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as nodes:
            answer = await put(nodes[asked], requests())
            assert (answer.blob.digest, answer.blob.size_bytes) == (DIGEST, len(DATA))
            assert len(answer.holders) == 2
            assert nodes[asked].host.local.name in answer.holders
            for node in nodes:
                holds = node.host.local.name in answer.holders
                assert node.files() == ([f"pinned/{DIGEST}"] if holds else [])
            assert tuple(answer.holders) == nodes[0].log.committed[DIGEST].holders

    run(scenario())


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "follower"])
@pytest.mark.parametrize("data", [DATA, b""], ids=["frames", "nothing"])
def test_what_a_task_puts_is_on_a_majority_and_in_the_directory(
    tmp_path: Path, asked: int, data: bytes
) -> None:
    async def scenario() -> None:
        file = tmp_path / "made"
        file.write_bytes(data)
        async with three(tmp_path) as nodes:
            ref = await nodes[asked].results().put_file(file)
            assert (ref.digest, ref.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
            holders = nodes[0].log.committed[ref.digest].holders
            assert len(holders) == 2
            for node in nodes:
                assert (f"pinned/{ref.digest}" in node.files()) == (node.host.local.name in holders)
            assert await nodes[asked].results().put_file(file) == ref, "once more is the same"

    run(scenario())


def test_what_a_task_puts_must_be_a_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, *_):
            for path in (tmp_path, Path("/dev/zero")):
                with pytest.raises(OSError, match="it is no file"):
                    await n1.results().put_file(path)
            with pytest.raises(FileNotFoundError):
                await n1.results().put_file(tmp_path / "nothing")

    run(scenario())


def test_any_node_serves_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as nodes:
            answer = await put(nodes[1], requests(digest=DIGEST, size_bytes=len(DATA)))
            for node in nodes:
                told = await stat(node)
                assert tuple(told.holders) == tuple(answer.holders)
                assert told.local == (node.host.local.name in answer.holders)
                assert await get(node) == (len(DATA), DATA, 3)

    run(scenario())


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES, FRAME_BYTES + 1])
def test_sizes_at_the_edges(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, _, n3):
            data = b"x" * size
            answer = await put(n1, requests(data, digest=hashlib.sha256(data).hexdigest(), replicas=1))
            assert (answer.blob.size_bytes, list(answer.holders)) == (size, ["n1"])
            announced, data, _ = await get(n3, answer.blob.digest)
            assert (announced, len(data)) == (size, size)

    run(scenario())


def test_a_replica_is_put_without_touching_the_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, _):
            answer = await put(n2, requests(digest=DIGEST, replica_only=True), peer=True)
            assert list(answer.holders) == ["n2"]
            assert n2.files() == [f"pinned/{DIGEST}"]
            assert not n1.log.committed
            assert await get(n2, local_only=True) == (len(DATA), DATA, 3)

    run(scenario())


@pytest.mark.parametrize(
    ("messages", "code", "word"),
    [
        (requests(digest="0" * 64), Code.INVALID_ARGUMENT, "invalid_request"),
        (requests(digest="not a digest"), Code.INVALID_ARGUMENT, "invalid_arguments"),
        (requests(size_bytes=len(DATA) + 1), Code.INVALID_ARGUMENT, "invalid_request"),
        (requests(size_bytes=len(DATA) - 1), Code.INVALID_ARGUMENT, "invalid_request"),
        (requests(size_bytes=1 << 50), Code.INVALID_ARGUMENT, "payload_too_large"),
        (requests(frame_bytes=FRAME_BYTES + 1), Code.INVALID_ARGUMENT, "payload_too_large"),
        (requests(replicas=4), Code.INVALID_ARGUMENT, "invalid_arguments"),
        (requests(digest=DIGEST, replica_only=True), Code.INVALID_ARGUMENT, "invalid_request"),
        (requests()[1:], Code.INVALID_ARGUMENT, "invalid_request"),
        (requests() + requests(), Code.INVALID_ARGUMENT, "invalid_request"),
        ([], Code.INVALID_ARGUMENT, "invalid_request"),
        (requests(size_bytes=0), Code.INVALID_ARGUMENT, "invalid_request"),
    ],
    ids=[
        "digest",
        "no-digest",
        "short",
        "long",
        "huge",
        "frame",
        "replicas",
        "client",
        "headless",
        "twice",
        "empty",
        "unannounced",
    ],
)
def test_bad_puts_are_refused_by_name(
    tmp_path: Path, messages: list[pb.PutRequest], code: grpc.StatusCode, word: str
) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as nodes:
            found, trailing = await failure_of(put(nodes[0], messages))
            assert (found, trailing["raftd-error"]) == (code, word)
            assert not nodes[0].log.committed
            for node in nodes[1:]:
                assert node.files() == []

    run(scenario())


def test_a_put_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, _, _), channel_to(n1.host.address) as channel:
            call = BlobsStub(channel).Put()
            for message in requests()[:3]:
                await call.write(message)
            await eventually(n1.files, 10, "the upload has begun")
            call.cancel()
            await eventually(lambda: not n1.files(), 10, "it is gone")
            assert not n1.log.committed

    run(scenario())


def test_without_a_majority_a_put_is_not_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, _, _):
            n1.host.faults.change([("n1", "n2"), ("n3", "n1")], [], heal=False)
            code, trailing = await failure_of(put(n1, requests()))
            assert (code, trailing["raftd-error"]) == (Code.UNAVAILABLE, "unavailable")
            assert not n1.log.committed
            assert list((await put(n1, requests(replicas=1))).holders) == ["n1"], "fewer may be asked for"

    run(scenario())


def test_a_follower_whose_directory_lags_asks_the_leader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, n3):
            for follower in (n2, n3):
                follower.log.lags = True
            holders = (await put(n1, requests())).holders
            other = n3 if "n2" in holders else n2
            assert other.log.record(DIGEST) is None
            assert await get(other) == (len(DATA), DATA, 3)
            assert tuple((await stat(other)).holders) == tuple(holders)
            assert not (await stat(other)).local

    run(scenario())


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "follower"])
def test_what_nobody_has_is_not_found(tmp_path: Path, asked: int) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as nodes:
            for ask in (get(nodes[asked]), stat(nodes[asked]), get(nodes[asked], local_only=True)):
                code, trailing = await failure_of(ask)
                assert (code, trailing["raftd-error"]) == (Code.NOT_FOUND, "blob_not_found")
            for ask in (get(nodes[asked], "../../etc"), stat(nodes[asked], "A" * 64)):
                code, trailing = await failure_of(ask)
                assert (code, trailing["raftd-error"]) == (Code.INVALID_ARGUMENT, "invalid_arguments")

    run(scenario())


def test_holders_can_be_recorded_through_any_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, _), channel_to(n2.host.address) as channel:
            record = BlobsStub(channel).Record
            blob = scheduler_pb2.BlobRef(digest=DIGEST, size_bytes=len(DATA))
            await record(pb.RecordBlobRequest(blob=blob, holders=["n1"]))
            answer = await record(pb.RecordBlobRequest(blob=blob, holders=["n3"]))
            assert list(answer.holders) == ["n1", "n3"]
            assert n1.log.committed[DIGEST].holders == ("n1", "n3")

    run(scenario())


def test_a_damaged_copy_is_not_served_while_a_good_one_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as nodes:
            answer = await put(nodes[0], requests())
            victim = next(node for node in nodes[1:] if node.host.local.name in answer.holders)
            (victim.path / "pinned" / DIGEST).write_bytes(DATA[:-1] + b"?")
            assert (await failure_of(get(victim, local_only=True)))[1]["raftd-error"] == "blob_not_found"
            assert await get(victim) == (len(DATA), DATA, 3)

    run(scenario())


def test_a_cut_ends_a_push_and_a_pull(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, _):
            await n1.blobs.put_bytes(DATA)
            await n1.peers.push("n2", DIGEST)
            for cut in (("n1", "n2"), ("n2", "n1")):
                n1.host.faults.change([cut], [], heal=True)
                with pytest.raises(errors.PeerUnreachable):
                    await n1.peers.push("n2", DIGEST)
                with pytest.raises(errors.PeerUnreachable):
                    await anext(n1.peers.pull("n2", DIGEST))
            n1.host.faults.change([], [], heal=True)
            pull = n1.peers.pull("n2", DIGEST)
            await anext(pull)
            n1.host.faults.change([("n2", "n1")], [], heal=True)
            with pytest.raises(errors.PeerUnreachable):
                await anext(pull)
            n1.host.faults.change([], [], heal=True)
            n2.host.faults.change([("n1", "n2")], [], heal=True)
            with pytest.raises(errors.PeerUnreachable):
                await n1.peers.push("n2", DIGEST)

    run(scenario())


def test_peers_say_what_is_wrong(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, n3):
            with pytest.raises(errors.BlobNotFound):
                await anext(n1.peers.pull("n2", DIGEST))
            with pytest.raises(errors.BlobNotFound):
                await n1.peers.push("n2", DIGEST)
            with pytest.raises(errors.PeerUnreachable, match="n7"):
                await n1.peers.push("n7", DIGEST)
            await n1.blobs.put_bytes(DATA)
            await n2.host.server.stop(0)
            with pytest.raises(errors.PeerUnreachable, match="n2"):
                await n1.peers.push("n2", DIGEST)
            assert await n1.replicator.replicate(DIGEST, replicas=2, candidates=NAMES, timeout_ms=20_000) == (
                "n1",
                "n3",
            ), "another is tried"
            assert n3.files() == [f"pinned/{DIGEST}"]

    run(scenario())


def test_an_abandoned_push_leaves_nothing_at_the_other_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (n1, n2, _):
            await n1.blobs.put_bytes(b"x" * 64 * FRAME_BYTES)
            (held,) = n1.blobs.list()
            push = asyncio.create_task(n1.peers.push("n2", held.ref.digest))
            await eventually(n2.files, 10, "it has begun")
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
            await eventually(
                lambda: not any("temp" in name for name in n2.files()), 10, "nothing half done is left"
            )

    run(scenario())
