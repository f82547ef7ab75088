"""Raft's streams end to end: order, batches, bounds, refusals, cuts, restarts."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from raftd.errors import OldCopy, RaftdError, StoreRemoved, StoreTwice, WrongIdentity
from raftd.transport.base import RemoteNode
from raftd.transport.network import LEARNED_KEPT
from raftd.transport.peer import BATCH_BYTES, QUEUE_BYTES
from tests.services.hosts import run
from tests.support import eventually, free_port
from tests.transport.streams import Receiver, Sender, append, connected, vote


def test_messages_arrive_in_order_and_in_batches(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(term) for term in range(1, 501)])
            await eventually(lambda: len(receiver.terms) == 500, 10, "all messages")
            assert receiver.terms == list(range(1, 501))
            assert len(receiver.batches) == 1, "what queued together leaves together"
            assert receiver.batches[0][0] == vote(1)

    run(scenario())


def test_batches_are_cut_by_bytes_and_a_large_message_goes_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            third = b"x" * (BATCH_BYTES // 3)
            sender.network.send(
                [append(1, third), append(2, third), append(3, third), append(4, b"y" * 2 * BATCH_BYTES)]
            )
            sender.network.send([vote(5)])
            await eventually(lambda: len(receiver.terms) == 5, 10, "all messages")
            assert [[message.term for message in batch] for batch in receiver.batches] == [
                [1, 2],
                [3],
                [4],
                [5],
            ]

    run(scenario())


def test_the_queue_for_a_peer_is_bounded_and_the_loss_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            data = b"x" * BATCH_BYTES
            count = QUEUE_BYTES // BATCH_BYTES + 8
            # All at once, so that nothing has left yet.
            sender.network.send([append(term, data) for term in range(1, count + 1)])
            assert sender.unreachable == [2]
            await eventually(lambda: receiver.terms and receiver.terms[-1] == count, 20, "the latest message")
            assert len(receiver.terms) < QUEUE_BYTES // BATCH_BYTES
            assert receiver.terms == sorted(receiver.terms)

    run(scenario())


def test_a_stream_is_found_again_after_the_peer_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the first message")
            await receiver.stop()
            await eventually(lambda: sender.unreachable, 10, "the loss is told")
            await receiver.start()

            def heartbeat_arrives() -> bool:
                sender.network.send([vote(2)])
                return 2 in receiver.terms

            await eventually(heartbeat_arrives, 10, "a message after the restart")

    run(scenario())


def test_a_peer_that_is_down_at_first_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        receiver.port = free_port()
        await sender.network.set_members([receiver.remote])
        sender.network.send([vote(1)])
        await eventually(lambda: sender.unreachable, 10, "the first refusal")
        async with connected(sender, receiver):

            def arrives() -> bool:
                sender.network.send([vote(2)])
                return 2 in receiver.terms

            await eventually(arrives, 10, "a message")

    run(scenario())


def test_a_cut_drops_what_is_sent_and_leaves_the_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the first message")
            # This end only: each alone is enough.
            sender.faults.change([("n1", "n2")], [], heal=False)
            sender.network.send([vote(2)])
            sender.faults.change([], [], heal=True)
            sender.network.send([vote(3)])
            await eventually(lambda: 3 in receiver.terms, 10, "a message after the heal")
            assert receiver.terms == [1, 3]
            assert not sender.unreachable, "the stream stayed"

    run(scenario())


def test_a_cut_drops_what_comes_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the first message")
            receiver.faults.change([("n1", "n2")], [], heal=False)
            asked = receiver.faults.asked_count
            sender.network.send([vote(2)])
            await eventually(lambda: receiver.faults.asked_count > asked, 10, "the message has come in")
            receiver.faults.change([], [], heal=True)
            sender.network.send([vote(3)])
            await eventually(lambda: 3 in receiver.terms, 10, "a message after the heal")
            assert receiver.terms == [1, 3]
            assert not sender.unreachable, "the stream stayed"

    run(scenario())


def test_the_other_direction_is_not_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, receiver):
            for faults in (sender.faults, receiver.faults):
                faults.change([("n2", "n1")], [], heal=False)
            sender.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the message")

    run(scenario())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"cluster": 0xBAD}, "is of cluster 0000000000000bad"),
        ({"store_id": 9}, "means store 0000000000000002"),
        ({"members": {"n8": 1}}, "but that is the store of n8"),
        ({"sender": 0}, "does not say which node and which store it is"),
        ({"removed": (1,)}, "was removed from cluster"),
    ],
    ids=["cluster", "receiver", "name", "nobody", "removed"],
)
def test_who_is_not_meant_is_refused_and_told_once(
    tmp_path: Path, wrong: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        of_sender = {"cluster": "cluster", "sender": "store_id"}
        sender = Sender(tmp_path, **{of_sender[key]: wrong[key] for key in wrong if key in of_sender})
        receiver = Receiver(tmp_path, **{key: wrong[key] for key in wrong if key not in of_sender})
        async with connected(sender, receiver):

            def refused_again() -> bool:
                sender.network.send([vote(1)])
                return len(sender.unreachable) >= 3

            await eventually(refused_again, 20, "three refusals")
            assert receiver.terms == []

    run(scenario())
    told = [record for record in caplog.records if "no stream to n2" in record.getMessage()]
    assert len(told) == 1
    assert reason in told[0].getMessage()
    assert "connected" not in caplog.text
    loud = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(loud) == 1, "the receiver's log says it too, once"
    assert reason in loud[0].getMessage()


def test_members_that_leave_or_move_are_dialled_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender, old, new = Sender(tmp_path), Receiver(tmp_path / "a"), Receiver(tmp_path / "b")
        await new.start()
        async with connected(sender, old):
            sender.network.send([vote(1)])
            await eventually(lambda: old.terms == [1], 10, "the first message")
            await sender.network.set_members([new.remote, RemoteNode("n1", 1, "ourselves:1")])
            assert sender.network.by_name("n2") == new.remote
            assert sender.network.remote(2) == new.remote
            assert sender.network.remotes == (new.remote,), "this node is no peer of its own"
            sender.network.send([vote(2)])
            await eventually(lambda: new.terms == [2], 10, "a message at the new address")
            await sender.network.set_members([])
            sender.network.send([vote(3)])
            assert sender.network.remote(2) is None
            assert old.terms == [1]
        await new.stop()

    run(scenario())


def streams() -> list[asyncio.Task[Any]]:
    """The senders that run."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("peer ")]


def test_a_peer_that_left_hears_the_last_and_is_left_alone_then(tmp_path: Path) -> None:
    """A removed node learns of its removal from what was queued for it (thesis, section 4.2.2)."""

    async def scenario() -> None:
        sender, receiver = Sender(tmp_path, linger_s=0.5), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(1)])
            await sender.network.set_members([])
            sender.network.send([vote(2)])
            assert sender.network.remote(2) is None
            await eventually(lambda: receiver.terms == [1, 2], 10, "the last messages")
            await eventually(lambda: not streams(), 10, "the end of the stream")
            sender.network.send([vote(3)])
            assert not streams()

    run(scenario())


@pytest.mark.parametrize("again", ["member", "learned"])
def test_a_peer_that_left_and_is_back_is_found_where_it_is_now(tmp_path: Path, again: str) -> None:
    async def scenario() -> None:
        sender, old, new = Sender(tmp_path, linger_s=0.5), Receiver(tmp_path / "a"), Receiver(tmp_path / "b")
        await new.start()
        async with connected(sender, old):
            sender.network.send([vote(1)])
            await eventually(lambda: old.terms == [1], 10, "the first message")
            third = RemoteNode("n3", 3, "127.0.0.1:1")
            await sender.network.set_members([old.remote, third])
            await sender.network.set_members([third])
            await sender.network.set_members([new.remote] if again == "member" else [])
            if again == "learned":
                sender.network.learn(new.remote)
            sender.network.send([vote(2)])
            await eventually(lambda: new.terms == [2], 10, "a message at the new address")
            # n3 left after n2 did: when it is let go, n2 would be too.
            await eventually(lambda: len(streams()) == 1, 10, "the end of the others")
            sender.network.send([vote(3)])
            await eventually(lambda: new.terms == [2, 3], 10, "it goes on")
            assert old.terms == [1]
        await new.stop()

    run(scenario())


def test_members_change_under_load_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """Peers come, move and go while messages are sent: each gets what was sent while it was there, in order."""

    async def scenario() -> None:
        sender = Sender(tmp_path, linger_s=0.05)
        receivers = [
            Receiver(tmp_path / str(store_id), store_id=store_id, members={}) for store_id in (2, 3, 4)
        ]
        for receiver in receivers:
            await receiver.start()
        everybody = [
            RemoteNode(f"n{store_id}", store_id, receiver.remote.address)
            for store_id, receiver in zip((2, 3, 4), receivers, strict=True)
        ]
        term = 0
        for turn in range(40):
            there = [remote for number, remote in enumerate(everybody) if (turn >> number) & 1]
            await sender.network.set_members(there)
            if turn % 3 == 0:
                sender.network.learn(everybody[turn % 2])
            for _ in range(5):
                term += 1
                sender.network.send([vote(term, receiver=remote.store_id) for remote in everybody])
                await asyncio.sleep(0)
        await sender.network.set_members(everybody)
        last = term + 1

        def arrived() -> bool:
            sender.network.send([vote(last, receiver=remote.store_id) for remote in everybody])
            return all(last in receiver.terms for receiver in receivers)

        await eventually(arrived, 20, "everybody is spoken to")
        assert all(receiver.terms == sorted(receiver.terms) for receiver in receivers)
        await sender.network.close()
        assert not streams()
        for receiver in receivers:
            await receiver.stop()

    run(scenario())


def test_a_network_that_closes_ends_also_the_streams_that_were_about_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        sender = Sender(tmp_path)
        for number in range(100, 100 + LEARNED_KEPT + 3):
            sender.network.learn(RemoteNode(f"n{number}", number, "127.0.0.1:1"))
        await sender.network.set_members([RemoteNode("n2", 2, "127.0.0.1:1")])
        await sender.network.set_members([])
        await sender.network.close()
        assert not streams()

    run(scenario())


def test_a_store_that_is_no_member_here_is_heard_and_can_be_answered(tmp_path: Path) -> None:
    """A node that is behind does not know who has joined, and one that joins knows nobody (the paper, section 6)."""

    async def scenario() -> None:
        sender, receiver = Sender(tmp_path), Receiver(tmp_path, members={})
        async with connected(sender, receiver):
            sender.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the message")
            assert receiver.learned == [RemoteNode("n1", 1, "n1:1")]

    run(scenario())


def test_a_new_store_is_heard_by_who_still_knows_its_name_as_the_old_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three, n1 was removed and came back as store 7, which n2 has not applied yet; then the third dies. The two
    that are left are a majority, and n2 learns of it only if it hears n1."""

    async def scenario() -> None:
        sender, receiver = Sender(tmp_path, store_id=7), Receiver(tmp_path)
        async with connected(sender, receiver):
            sender.network.send([vote(1, 7), vote(2, 7)])
            await eventually(lambda: receiver.terms == [1, 2], 10, "the messages")
            sender.network.send([vote(3, 7)])
            await eventually(lambda: receiver.terms == [1, 2, 3], 10, "another batch")
            assert receiver.learned[-1] == RemoteNode("n1", 7, "n1:1")

    run(scenario())
    told = [record for record in caplog.records if record.name == "raftd.services.identity"]
    assert [record.levelno for record in told] == [logging.WARNING], "once, and loudly"
    assert "the member of that name is store 0000000000000001" in told[0].getMessage()


def test_who_has_spoken_is_answered_until_others_have(tmp_path: Path) -> None:
    async def scenario() -> None:
        joiner, leader = Sender(tmp_path), Receiver(tmp_path)
        await leader.start()
        network = joiner.network
        try:
            network.send([vote(1)])
            network.learn(leader.remote)
            network.learn(RemoteNode("n1", 1, "ourselves:1"))
            network.learn(RemoteNode("n9", 9, ""))
            assert network.remote(2) == leader.remote
            assert network.remote(1) is None
            assert network.remote(9) is None
            network.send([vote(2)])
            await eventually(lambda: leader.terms == [2], 10, "the answer")
            await network.set_members([leader.remote])
            network.send([vote(3)])
            await eventually(lambda: leader.terms == [2, 3], 10, "the same stream, to a member by now")
            for number in range(100, 100 + LEARNED_KEPT + 1):
                network.learn(RemoteNode(f"n{number}", number, "127.0.0.1:1"))
            assert network.remote(100) is None, "no more than so many are kept"
            assert network.remote(2) == leader.remote
        finally:
            await network.close()
            await leader.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        ({"incarnation": 1}, None),
        ({"incarnation": 1, "start": 0}, None),
        ({"incarnation": 2, "address": "n1:9", "start": 12}, None),
        ({"incarnation": 1, "start": 12}, StoreTwice),
        ({"incarnation": 1, "address": "n1:9", "start": 12}, StoreTwice),
        ({"incarnation": 1, "address": "n1:9", "start": 0}, StoreTwice),
        ({"incarnation": 0, "start": 12}, OldCopy),
    ],
    ids=[
        "redialled",
        "older version",
        "restarted",
        "copied",
        "copied elsewhere",
        "copied, older version",
        "restored",
    ],
)
def test_a_copy_of_a_data_directory_gives_itself_away(
    tmp_path: Path, second: dict[str, Any], refused: type[RaftdError] | None
) -> None:
    async def scenario() -> None:
        first, receiver = Sender(tmp_path / "a"), Receiver(tmp_path)
        async with connected(first, receiver):
            first.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the first")
            again = Sender(tmp_path / "b", **second)
            await again.network.set_members([receiver.remote])

            def settled() -> bool:
                again.network.send([vote(2)])
                return 2 in receiver.terms or bool(again.refusals)

            await eventually(settled, 20, "it is taken or refused")
            assert (2 not in receiver.terms) is (refused is not None)
            assert {type(error) for error in again.refusals} == ({refused} if refused else set())
            await again.network.close()

    run(scenario())


def test_what_was_copied_is_told_so_when_the_copy_has_been_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, receiver = Sender(tmp_path / "a"), Receiver(tmp_path)
        async with connected(first, receiver):
            first.network.send([vote(1)])
            await eventually(lambda: receiver.terms == [1], 10, "the first")
            copy = Sender(tmp_path / "b", incarnation=2, start=12, address="n1:9")
            await copy.network.set_members([receiver.remote])
            copy.network.send([vote(2)])
            await eventually(lambda: receiver.terms == [1, 2], 10, "the copy")

            def refused() -> bool:
                first.network.send([vote(3)])
                return bool(first.refusals)

            await eventually(refused, 20, "the refusal")
            (error,) = {type(error): error for error in first.refusals}.values()
            assert isinstance(error, OldCopy)
            assert "comes as incarnation 1 from n1:1, and incarnation 2 from n1:9 was heard" in error.message
            assert "end every process of this store" in error.try_
            assert 3 not in receiver.terms
            await copy.network.close()

    run(scenario())


def test_who_is_connected_learns_by_knocking_that_it_was_removed_meanwhile(tmp_path: Path) -> None:
    """Nothing else would be said on that stream."""

    async def scenario() -> None:
        sender, peer = Sender(tmp_path), Receiver(tmp_path)
        async with connected(sender, peer):
            sender.network.send([vote(1)])
            await eventually(lambda: peer.terms == [1], 10, "it is heard")
            peer.stores.removed.add(1)
            knocking = asyncio.create_task(sender.network.knock_while(lambda: True, every_s=0.01))
            await eventually(lambda: sender.refusals, 10, "the refusal")
            knocking.cancel()
            await asyncio.gather(knocking, return_exceptions=True)
            assert {type(error) for error in sender.refusals} == {StoreRemoved}
            assert peer.terms == [1]

    run(scenario())


@pytest.mark.parametrize(
    ("receiver", "reason"),
    [({"removed": (1,)}, StoreRemoved), ({"removed": (1,), "cluster": 0xC2}, WrongIdentity)],
    ids=["removed", "a stray of another cluster"],
)
def test_who_has_nothing_to_say_learns_all_the_same_that_it_is_refused(
    tmp_path: Path, receiver: dict[str, Any], reason: type[RaftdError]
) -> None:
    async def scenario() -> None:
        sender, peer = Sender(tmp_path), Receiver(tmp_path, **receiver)
        looked: list[bool] = []
        lonely = False

        def is_lonely() -> bool:
            looked.append(lonely)
            return lonely

        async with connected(sender, peer):
            knocking = asyncio.create_task(sender.network.knock_while(is_lonely, every_s=0.01))
            await eventually(lambda: len(looked) > 5, 10, "it has looked around")
            assert not sender.unreachable, "nobody was asked"
            lonely = True
            await eventually(lambda: sender.refusals, 10, "the refusal")
            knocking.cancel()
            await asyncio.gather(knocking, return_exceptions=True)
            assert {type(error) for error in sender.refusals} == {reason}
            assert sender.refusals[0].try_

    run(scenario())
