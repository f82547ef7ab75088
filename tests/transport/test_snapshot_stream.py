"""A snapshot on its way to another node: whole, or not at all, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import grpc
import pytest

from raftd.codec.peer import encode_message
from raftd.errors import (
    DiskFull,
    NotLeader,
    PeerUnreachable,
    RaftdError,
    ShuttingDown,
    StorageError,
    StoreRemoved,
    WrongIdentity,
)
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusStub
from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.types import Configuration, Snapshot
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller
from raftd.transport.peer import peer_header
from raftd.transport.reads import PeerReads
from raftd.transport.snapshot_stream import CHUNK_BYTES, SnapshotSender
from tests.services.hosts import failure_of
from tests.support import eventually
from tests.transport.streams import Detour, Receiver, Sender, connected, vote

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


async def given(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def announcing(size_bytes: int) -> InstallSnapshot:
    return InstallSnapshot(1, 2, 5, Snapshot(9, 3, Configuration((1, 2)), size_bytes))


class Ends:
    """A sender of snapshots and the node that takes them in."""

    def __init__(self, path: Path, sender: dict[str, Any], receiver: dict[str, Any]) -> None:
        self.sender = Sender(path, **sender)
        self.receiver = Receiver(path, **receiver)
        self.caller = Caller(self.sender.local, self.sender.faults)
        self.snapshots = SnapshotSender(self.caller, 1, self.remote, stall_s=1.0, finish_s=2.0)
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


class Interruptions:
    """What can break a stream off while it is under way: each is done at a chunk, and undone before the next try."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.sending: asyncio.Task[None] | None = None
        self._stopped: asyncio.Task[None] | None = None

    def cut_at_the_sender(self) -> None:
        self.ends.sender.faults.change([("n1", "n2")], [], heal=False)

    def cut_at_the_receiver(self) -> None:
        self.ends.receiver.faults.change([("n1", "n2")], [], heal=False)

    def answer_cut(self) -> None:
        self.ends.receiver.faults.change([("n2", "n1")], [], heal=False)

    def sender_gives_up(self) -> None:
        assert self.sending is not None
        self.sending.cancel()
        # It is a while until the receiver hears of that; it takes nothing more until then.
        self.ends.receiver.intakes[-1].hold.clear()

    def receiver_ends(self) -> None:
        self._stopped = asyncio.ensure_future(self.ends.receiver.stop())
        self.ends.receiver.intakes[-1].hold.clear()

    def disk_full(self) -> None:
        raise StorageError("no room")

    async def undo(self) -> None:
        for faults in (self.ends.sender.faults, self.ends.receiver.faults):
            faults.change([], [], heal=True)
        if self._stopped is not None:
            await self._stopped
            await self.ends.receiver.start()


FAILURES: dict[Callable[[Interruptions], None], type[BaseException]] = {
    Interruptions.sender_gives_up: asyncio.CancelledError,
    Interruptions.disk_full: StorageError,
}
LOST_BY_GRPC = "Internal error from Core"
"""What gRPC makes of a refusal that meets a chunk which is just being written: it loses it (seen once)."""


@pytest.mark.parametrize("at", range(len(PIECES) + 1))
@pytest.mark.parametrize(
    "how",
    [
        Interruptions.cut_at_the_sender,
        Interruptions.cut_at_the_receiver,
        Interruptions.answer_cut,
        Interruptions.sender_gives_up,
        Interruptions.receiver_ends,
        Interruptions.disk_full,
    ],
)
def test_what_is_interrupted_at_any_chunk_leaves_nothing_and_is_sent_again(
    tmp_path: Path, how: Callable[[Interruptions], None], at: int
) -> None:
    """The last one comes when all bytes are there, and only the answer is missing."""

    async def scenario(ends: Ends) -> None:
        interruptions = Interruptions(ends)
        ends.receiver.on_chunk = lambda number: how(interruptions) if number == at else None
        interruptions.sending = asyncio.ensure_future(ends.snapshots.send(ANNOUNCEMENT, pieces()))
        (failure,) = await asyncio.gather(interruptions.sending, return_exceptions=True)
        (intake,) = ends.receiver.intakes
        await eventually(lambda: intake.aborted or intake.finished, 10, "it is given up, or was complete")
        ends.receiver.on_chunk = lambda _: None
        if how is Interruptions.cut_at_the_receiver and at == len(PIECES):
            assert failure is None, "nothing was left to be cut off"
        else:
            lost = isinstance(failure, PeerUnreachable) and failure.message == LOST_BY_GRPC
            assert lost or isinstance(failure, FAILURES.get(how, PeerUnreachable))
        # Where only the answer is lost, the receiver has all of it. It is sent once more, which changes nothing.
        assert intake.data == WHOLE if intake.finished else intake.aborted
        if how not in (Interruptions.cut_at_the_sender, Interruptions.answer_cut):
            assert at == len(PIECES) or len(intake.data) <= sum(map(len, PIECES[: at + 1])), (
                "nothing after it"
            )
        await interruptions.undo()
        await ends.snapshots.send(ANNOUNCEMENT, pieces())
        assert ends.receiver.intakes[-1].finished
        assert ends.receiver.intakes[-1].data == WHOLE

    between(tmp_path, scenario)


@pytest.mark.parametrize("at", [0, 5, len(PIECES) - 1])
def test_a_connection_that_falls_silent_is_given_up_and_the_next_try_has_another(
    tmp_path: Path, at: int
) -> None:
    async def scenario(ends: Ends) -> None:
        detour = Detour()
        await detour.start(ends.receiver.port)
        ends.receiver.at_port = detour.port
        try:
            ends.receiver.on_chunk = lambda number: detour.fall_silent() if number == at else None
            many = [*PIECES, *[bytes(100_000)] * 200]
            huge = announcing(sum(map(len, many)))
            assert isinstance(await ends.failure(huge, given(many)), PeerUnreachable)
            ends.receiver.on_chunk = lambda _: None
            await ends.snapshots.send(ANNOUNCEMENT, pieces())
            assert ends.receiver.intakes[-1].finished
            assert detour.connections_count == 2
        finally:
            await detour.stop()

    between(tmp_path, scenario)


def test_a_receiver_that_never_answers_is_given_up(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        def hold(number: int) -> None:
            if number == len(PIECES):
                ends.receiver.intakes[0].hold.clear()

        ends.receiver.on_chunk = hold
        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces()), PeerUnreachable)
        await eventually(lambda: ends.receiver.intakes[0].aborted, 10, "it is given up")

    between(tmp_path, scenario)


def test_a_sender_that_sends_nothing_more_is_given_up(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        await ends.receiver.stop()
        ends.receiver.idle_s = 0.3
        await ends.receiver.start()
        remote = ends.receiver.remote
        async with grpc.aio.insecure_channel(remote.address) as channel:
            for count in (0, 1, 2):
                call = ConsensusStub(channel).InstallSnapshot(metadata=ends.caller.metadata(remote))
                header = peer_header(ends.sender.local, 1, remote)
                first = pb.SnapshotChunk(header=header, announcement=encode_message(ANNOUNCEMENT))
                for chunk in [first, ALL_CHUNKS[0]][:count]:
                    await call.write(chunk)
                assert (await failure_of(call))[1]["raftd-error"] == "deadline_passed"
        assert len(ends.receiver.intakes) == 2
        assert all(intake.aborted for intake in ends.receiver.intakes)

    between(tmp_path, scenario)


@pytest.mark.parametrize("error", [ShuttingDown("it stops"), DiskFull("no room")])
def test_a_receiver_that_takes_none_now_says_why(tmp_path: Path, error: RaftdError) -> None:
    async def scenario(ends: Ends) -> None:
        ends.receiver.taking_none = error
        failure = await ends.failure(ANNOUNCEMENT, pieces())
        assert type(failure) is type(error)
        assert not ends.receiver.intakes

    between(tmp_path, scenario)


def test_what_does_not_hold_together_in_the_end_is_said_so(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        def damage(_: int) -> None:
            ends.receiver.intakes[0].damage = StorageError("a block is damaged")

        ends.receiver.on_chunk = damage
        failure = await ends.failure(ANNOUNCEMENT, pieces())
        assert isinstance(failure, StorageError)
        assert "a block is damaged" in failure.message
        assert ends.receiver.intakes[0].aborted

    between(tmp_path, scenario)


def test_large_pieces_travel_in_chunks_of_bounded_size(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        await ends.snapshots.send(ANNOUNCEMENT, given([WHOLE]))
        (intake,) = ends.receiver.intakes
        assert intake.data == WHOLE
        assert max(intake.sizes) == CHUNK_BYTES

    between(tmp_path, scenario)


def test_a_source_that_fails_breaks_it_off(tmp_path: Path) -> None:
    async def scenario(ends: Ends) -> None:
        def fail() -> None:
            raise WrongIdentity("damaged")

        assert isinstance(await ends.failure(ANNOUNCEMENT, pieces(5, fail)), WrongIdentity)
        await eventually(lambda: all(i.aborted for i in ends.receiver.intakes), 10, "it is given up")

    between(tmp_path, scenario)


@pytest.mark.parametrize("cut", [("n1", "n2"), ("n2", "n1")])
def test_a_cut_ends_a_stream_that_would_go_on(tmp_path: Path, cut: tuple[str, str]) -> None:
    async def scenario(ends: Ends) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)

        ends.receiver.on_chunk = lambda number: (
            ends.sender.faults.change([cut], [], heal=False) if number == 20 else None
        )
        failure = await asyncio.wait_for(ends.failure(announcing(1 << 40), endless()), 20)
        assert isinstance(failure, PeerUnreachable)
        await eventually(lambda: ends.receiver.intakes[0].aborted, 10, "it is given up")

    between(tmp_path, scenario)


def test_a_receiver_that_takes_nothing_holds_up_neither_memory_nor_raft_and_is_given_up(
    tmp_path: Path,
) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        while True:
            sent_bytes += 250_000
            yield bytes(250_000)

    async def scenario(ends: Ends) -> None:
        ends.receiver.on_chunk = lambda _: ends.receiver.intakes[0].hold.clear()
        sending = asyncio.ensure_future(ends.failure(announcing(1 << 40), endless()))
        await eventually(
            lambda: ends.receiver.intakes and not ends.receiver.intakes[0].hold.is_set(), 10, "it is stuck"
        )
        ends.sender.network.send([vote(1)])
        await eventually(lambda: ends.receiver.terms == [1], 10, "a message meanwhile")
        assert isinstance(await sending, PeerUnreachable)
        assert sent_bytes < 32 * 1024 * 1024, "what is on the way is bounded, however much there is"
        await eventually(lambda: ends.receiver.intakes[0].aborted, 10, "it is given up")

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


ALL_CHUNKS = [
    a_chunk(start, WHOLE[start : start + CHUNK_BYTES]) for start in range(0, len(WHOLE), CHUNK_BYTES)
]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([a_chunk(0, WHOLE[:1000])], "the stream ends after 1000 of"),
        ([], "the stream ends after 0 of"),
        ([a_chunk(1, WHOLE[:1000])], "for offset 1 of a snapshot, where 0 must follow"),
        ([a_chunk(0, WHOLE[:1000]), a_chunk(0, WHOLE[:1000])], "where 1000 must follow"),
        ([a_chunk(0, WHOLE[:1000], 1)], "bad checksum"),
        ([*ALL_CHUNKS, a_chunk(len(WHOLE), b"x")], "is longer than"),
        ([a_chunk(0, WHOLE[: CHUNK_BYTES + 1])], f"a chunk of {CHUNK_BYTES + 1} bytes"),
        ([a_chunk(0, b"")], "a chunk of 0 bytes"),
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
