"""A snapshot on its way to another node: whole, or not at all, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import grpc
import pytest

from raftd.codec.peer import encode_message
from raftd.errors import NotLeader, PeerUnreachable, RaftdError, StoreRemoved, WrongIdentity
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.types import Configuration, Snapshot
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller
from raftd.transport.peer import peer_header
from raftd.transport.reads import PeerReads
from raftd.transport.snapshot_stream import SnapshotSender
from tests.support import eventually
from tests.transport.streams import Receiver, Sender, connected, vote

PIECES = [bytes([number]) * 70_000 for number in range(12)]
WHOLE = b"".join(PIECES)
SNAPSHOT = Snapshot(9, 3, Configuration((1, 2, 3), (4,), (1, 2)), len(WHOLE))
ANNOUNCEMENT = InstallSnapshot(1, 2, 5, SNAPSHOT)


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def pieces(stop_at: int | None = None, then: Callable[[], None] = lambda: None) -> AsyncIterator[bytes]:
    for number, piece in enumerate(PIECES):
        if number == stop_at:
            then()
        yield piece


class Ends:
    """A sender of snapshots and the node that takes them in."""

    def __init__(self, path: Path, sender: dict[str, Any], receiver: dict[str, Any]) -> None:
        self.sender = Sender(path, **sender)
        self.receiver = Receiver(path, **receiver)
        self.caller = Caller(self.sender.local, self.sender.faults)
        self.snapshots = SnapshotSender(self.caller, 1, self.remote, stall_s=0.5)
        self.reads = PeerReads(self.caller, self.remote)

    def remote(self, store_id: int) -> RemoteNode | None:
        return self.receiver.remote if store_id == 2 else None

    async def failure(self, announcement: InstallSnapshot, chunks: AsyncIterator[bytes]) -> RaftdError:
        try:
            await self.snapshots.send(announcement, chunks)
        except RaftdError as error:
            return error
        raise AssertionError("it was taken")


def between(
    path: Path,
    scenario: Callable[[Ends], Any],
    *,
    sender: dict[str, Any] | None = None,
    receiver: dict[str, Any] | None = None,
) -> None:
    async def whole() -> None:
        ends = Ends(path, sender or {}, receiver or {})
        async with connected(ends.sender, ends.receiver):
            try:
                await scenario(ends)
            finally:
                await ends.caller.close()

    run(whole())


def test_a_snapshot_arrives_whole_and_in_order(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        await ends.snapshots.send(ANNOUNCEMENT, pieces())
        (intake,) = ends.receiver.intakes
        assert intake.announcement == ANNOUNCEMENT
        assert intake.data == WHOLE
        assert intake.finished

    between(tmp_path, scenario)


@pytest.mark.parametrize("at", [0, 1, 6, 11])
def test_a_cut_amid_the_stream_breaks_it_off_and_leaves_nothing(tmp_path: Path, at: int) -> None:
    async def scenario(ends: Ends) -> None:
        def cut() -> None:
            ends.sender.faults.change([("n1", "n2")], [], heal=False)

        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces(at, cut)), PeerUnreachable)
        await eventually(lambda: all(i.aborted for i in ends.receiver.intakes), 10, "it is given up")
        ends.sender.faults.change([], [], heal=True)
        await ends.snapshots.send(ANNOUNCEMENT, pieces())
        assert ends.receiver.intakes[-1].finished

    between(tmp_path, scenario)


def test_a_cut_on_the_receivers_side_breaks_it_off_too(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        def cut() -> None:
            ends.receiver.faults.change([("n1", "n2")], [], heal=False)

        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces(3, cut)), PeerUnreachable)
        assert not any(intake.finished for intake in ends.receiver.intakes)

    between(tmp_path, scenario)


def test_a_source_that_fails_breaks_it_off(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        def fail() -> None:
            raise WrongIdentity("damaged")

        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces(5, fail)), WrongIdentity)
        await eventually(lambda: ends.receiver.intakes[0].aborted, 10, "it is given up")

    between(tmp_path, scenario)


def test_a_receiver_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(250_000)

    async def scenario(ends: Ends) -> None:
        begin = ends.receiver.begin

        def held(announcement: InstallSnapshot) -> Any:
            intake = begin(announcement)
            intake.hold.clear()
            return intake

        ends.receiver.begin = held  # type: ignore[method-assign]  # for this test
        huge = InstallSnapshot(1, 2, 5, Snapshot(9, 3, Configuration((1, 2)), 1 << 40))
        assert isinstance(await ends.failure(huge, endless()), PeerUnreachable)
        ends.receiver.intakes[0].hold.set()

    between(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sender", "receiver", "error"),
    [
        ({"cluster": 0xBAD}, {}, WrongIdentity),
        ({}, {"store_id": 9}, WrongIdentity),
        ({}, {"members": {"n8": 1}}, WrongIdentity),
        ({"store_id": 2}, {"members": {"n1": 2}}, WrongIdentity),
        ({}, {"removed": (1,)}, StoreRemoved),
    ],
    ids=["cluster", "receiver", "name", "copy", "removed"],
)
def test_who_is_not_meant_is_refused(
    tmp_path: Path, sender: dict[str, Any], receiver: dict[str, Any], error: type[RaftdError]
) -> None:
    async def scenario(ends: Ends) -> None:
        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces()), error)
        assert not ends.receiver.intakes

    between(tmp_path, scenario, sender=sender, receiver=receiver)


def a_chunk(offset: int, data: bytes, checksum: int | None = None) -> pb.SnapshotChunk:
    return pb.SnapshotChunk(offset=offset, data=data, crc32=crc32(data) if checksum is None else checksum)


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([a_chunk(0, WHOLE[:1000])], "the stream ends after 1000 of"),
        ([], "the stream ends after 0 of"),
        ([a_chunk(1, WHOLE[:1000])], "for offset 1 of a snapshot, where 0 must follow"),
        ([a_chunk(0, WHOLE[:1000]), a_chunk(0, WHOLE[:1000])], "where 1000 must follow"),
        ([a_chunk(0, WHOLE[:1000], 1)], "bad checksum"),
        ([a_chunk(0, WHOLE), a_chunk(len(WHOLE), b"x")], "is longer than"),
    ],
)
def test_what_is_not_whole_is_refused_and_never_handed_on(
    tmp_path: Path, chunks: list[pb.SnapshotChunk], reason: str
) -> None:
    async def scenario(ends: Ends) -> None:
        assert reason in await refusal(ends, ANNOUNCEMENT, chunks)
        assert [intake.finished for intake in ends.receiver.intakes] == [False]
        assert ends.receiver.intakes[0].aborted

    between(tmp_path, scenario)


def test_a_stream_begins_with_its_announcement(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        assert "begins with what announces it" in await refusal(ends, vote(1), [])
        assert not ends.receiver.intakes

    between(tmp_path, scenario)


async def refusal(ends: Ends, first: Message, chunks: list[pb.SnapshotChunk]) -> str:
    remote = ends.receiver.remote
    async with grpc.aio.insecure_channel(remote.address) as channel:
        call = ConsensusStub(channel).InstallSnapshot(metadata=ends.caller.metadata(remote))
        header = peer_header(ends.sender.local, 1, remote)
        try:
            await call.write(pb.SnapshotChunk(header=header, announcement=encode_message(first)))
            for chunk in chunks:
                await call.write(chunk)
            await call.done_writing()
            await call
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await call.details() or ""
    raise AssertionError("it was taken")


def test_a_follower_asks_for_a_read_index(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        assert await ends.reads.read_index(2, 5.0) == 77
        with pytest.raises(PeerUnreachable):
            await ends.reads.read_index(3, 5.0)
        with pytest.raises(NotLeader):
            await ends.reads.read_index(2, 500.0)
        ends.sender.faults.change([("n1", "n2")], [], heal=False)
        with pytest.raises(PeerUnreachable):
            await ends.reads.read_index(2, 5.0)

    between(tmp_path, scenario)
