"""Who is asked, how often, and what a failure means."""

from __future__ import annotations

import asyncio
import inspect

import grpc
import pytest

import raftd.errors
from raftctl.client import channel, errors
from raftctl.client.async_client import AsyncClient
from raftctl.client.channel import more_telling
from raftctl.client.models import Submission
from raftctl.client.request_ids import new_request_id
from raftctl.endpoints import Endpoints
from raftctl.errors import ExitCode
from tests.raftctl.conftest import with_client
from tests.raftctl.fake_server import Failure, FakeCluster

NOOP = Submission("noop")


def asked(cluster: FakeCluster, method: str) -> dict[str, int]:
    return {name: node.calls[method] for name, node in cluster.nodes.items()}


def test_a_hint_leads_to_the_leader_and_is_remembered(cluster: FakeCluster) -> None:
    cluster.lead("n3")
    for name in ("n1", "n2"):
        cluster.nodes[name].always["Submit"] = Failure("not_leader")

    async def use(client: AsyncClient) -> None:
        await client.submit(NOOP)
        assert asked(cluster, "Submit") == {"n1": 1, "n2": 0, "n3": 1}
        await client.submit(NOOP)
        assert asked(cluster, "Submit") == {"n1": 1, "n2": 0, "n3": 2}

    with_client(cluster, use)


def test_a_node_that_is_slow_to_let_a_client_in_is_reached_at_the_first_try(cluster: FakeCluster) -> None:
    host, _, port = cluster.nodes["n1"].address.rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold_s: float) -> None:
        """Passes on what comes, the first of it late."""
        held = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(hold_s, held.set_result, None)
        try:
            while data := await reader.read(65_536):
                await held
                writer.write(data)
        finally:
            writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, outer, 0.0), carry(inner, writer, 0.3), return_exceptions=True)

    async def use() -> None:
        async with await asyncio.start_server(meet, "127.0.0.1", 0) as slow:
            address = f"127.0.0.1:{slow.sockets[0].getsockname()[1]}"
            async with AsyncClient(Endpoints((("n1", address),), cluster.token)) as client:
                assert (await client.node_info("n1", timeout_s=20.0)).name == "n1"

    asyncio.run(use())


def test_a_leader_that_was_not_known_is_asked_who_else_there_is(cluster: FakeCluster) -> None:
    """The cluster has grown and moved on since this client was made; soon nobody is left of those it knew."""
    cluster.nodes["n2"].failures["Submit"] = [Failure("not_leader")]
    first = Endpoints((("n2", cluster.nodes["n2"].address),), cluster.token)

    async def use() -> None:
        async with AsyncClient(first) as client:
            await client.submit(NOOP)
            cluster.stop("n1")
            cluster.stop("n2")
            cluster.lead("n3")
            assert (await client.submit(NOOP)).task_id == "t2"
            assert sum(node.calls["Members"] for node in cluster.nodes.values()) == 1

    asyncio.run(use())


def test_a_client_that_lives_on_learns_who_has_come(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows the one node that the cluster was founded with, which leads until it goes for good."""
    first = Endpoints((("n1", cluster.nodes["n1"].address),), cluster.token)

    async def use() -> None:
        async with AsyncClient(first) as client:
            await client.submit(NOOP)
            assert sum(asked(cluster, "Members").values()) == 0, "who asks once need not know everybody"
            monkeypatch.setattr(channel, "MEET_EVERY_S", 0.0)
            await client.submit(NOOP)
            monkeypatch.undo()
            await client.submit(NOOP)
            assert sum(asked(cluster, "Members").values()) == 1
            cluster.stop("n1")
            cluster.lead("n3")
            assert (await client.submit(NOOP)).task_id == "t4"

    asyncio.run(use())


def test_an_unknown_outcome_is_asked_again_under_the_same_id(cluster: FakeCluster) -> None:
    lost = Failure("outcome_unknown", status=grpc.StatusCode.ABORTED, after_applying=True)
    cluster.nodes["n1"].failures["Submit"] = [lost]

    async def use(client: AsyncClient) -> None:
        accepted = await client.submit(NOOP)
        assert accepted.duplicate
        assert list(cluster.tasks) == [accepted.task_id]

    with_client(cluster, use)


def test_a_node_that_is_gone_is_passed_over(cluster: FakeCluster) -> None:
    cluster.stop("n1")

    async def use(client: AsyncClient) -> None:
        assert (await client.submit(NOOP)).task_id == "t1"

    with_client(cluster, use)


@pytest.mark.usefixtures("_impatient")
def test_a_node_that_hangs_takes_a_part_of_the_time_only(cluster: FakeCluster) -> None:
    cluster.nodes["n1"].hangs.add("Submit")

    async def use(client: AsyncClient) -> None:
        await client.submit(NOOP)
        await client.submit(NOOP)
        assert cluster.nodes["n1"].calls["Submit"] == 1, "who hung is asked last"

    with_client(cluster, use)


@pytest.mark.parametrize("was_heard", [False, True])
def test_a_paused_node_is_not_waited_for(cluster: FakeCluster, was_heard: bool) -> None:
    """It comes first in the list, and lets everybody connect: without a look whether it is there it would take all of
    the time, and get requests that it might carry out when it is resumed."""
    cluster.lead("n2")

    async def use(client: AsyncClient) -> None:
        if was_heard:
            assert (await client.node_info("n1")).name == "n1"
        cluster.pause("n1")
        assert not (await client.cluster_view()).stale
        assert (await client.submit(NOOP)).task_id == "t1"
        assert (await client.transfer_leadership("n3")).leader == "n3"
        assert asked(cluster, "Submit")["n1"] == 0
        assert asked(cluster, "TransferLeadership")["n1"] == 0

    # One that was heard costs one try: it might only be slow.
    with_client(cluster, use, timeout_s=channel.FIRST_TRY_S * (2 if was_heard else 1))


def test_bytes_come_and_go_beside_a_paused_node(cluster: FakeCluster) -> None:
    cluster.lead("n2")
    cluster.pause("n1")

    async def put(client: AsyncClient) -> None:
        await client.blob_put(b"x" * 600_000)

    async def get(client: AsyncClient) -> None:
        (digest,) = cluster.blobs
        assert await client.blob_get(digest) == b"x" * 600_000

    async def logs(client: AsyncClient) -> None:
        await client.submit(NOOP)
        cluster.logs["t1"] = [(False, b"a line\n")]
        async for chunk in client.logs("t1"):
            assert chunk.data == b"a line\n"

    for use in (put, get, logs):  # each by a client that knows nothing yet
        with_client(cluster, use)


def test_leadership_that_is_found_late_is_waited_for(cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.failures["Submit"] = [Failure("no_leader")] * 3

    async def use(client: AsyncClient) -> None:
        assert (await client.submit(NOOP)).task_id == "t1"

    with_client(cluster, use)


def test_what_no_other_node_would_change_is_raised_at_once(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.UnknownKind) as raised:
            await client.submit(Submission("no-such-kind"))
        assert raised.value.exit_code is ExitCode.USAGE
        with pytest.raises(errors.TaskNotFound):
            await client.task("t99")

    with_client(cluster, use)
    assert sum(asked(cluster, "Submit").values()) == 1
    assert sum(asked(cluster, "Get").values()) == 1


def test_a_wrong_token_is_no_reason_to_try_elsewhere(cluster: FakeCluster) -> None:
    async def main() -> None:
        stranger = Endpoints(cluster.endpoints.addresses, "not-the-token")
        async with AsyncClient(stranger) as client:
            with pytest.raises(errors.Unauthenticated):
                await client.submit(NOOP)

    asyncio.run(main())
    assert sum(node.calls.total() for node in cluster.nodes.values()) == 1
    assert not cluster.tasks


@pytest.mark.usefixtures("_impatient")
def test_without_a_quorum_it_says_how_many_are_up_and_whom_to_start(five: FakeCluster) -> None:
    for name in ("n3", "n4", "n5"):
        five.stop(name)
    five.no_leader("n1", "n2")

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.NoQuorum) as raised:
            await client.submit(NOOP)
        assert raised.value.message == "no quorum: 2 of 5 voters are up"
        assert raised.value.try_ == "raftctl node start n3"
        assert raised.value.exit_code is ExitCode.UNAVAILABLE

    with_client(five, use, timeout_s=0.5)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("full", "message"),
    [
        (("n2",), "no leader: 3 of 3 voters are up, but no majority of them can agree"),
        (("n1", "n3"), "the disks of n1, n3 are full: 1 of 3 voters can write"),
    ],
)
def test_without_room_for_a_majority_it_says_whose_disk_is_full(
    cluster: FakeCluster, full: tuple[str, ...], message: str
) -> None:
    cluster.no_leader()
    for name in full:
        cluster.nodes[name].disk_full = True

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.Unavailable) as raised:
            await client.submit(NOOP)
        assert raised.value.message == message
        assert isinstance(raised.value, errors.DiskFull) is (len(full) > 1)

    with_client(cluster, use, timeout_s=0.5)


@pytest.mark.usefixtures("_impatient")
def test_a_cluster_that_is_cut_to_pieces_is_told_to_heal(five: FakeCluster) -> None:
    five.no_leader()
    five.nodes["n2"].cuts = [("n1", "n2")]

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.NoLeader) as raised:
            await client.submit(NOOP)
        assert "5 of 5 voters are up" in raised.value.message
        assert raised.value.try_ == "raftctl heal"

    with_client(five, use, timeout_s=0.5)


def test_a_cluster_that_is_down_is_told_to_start(cluster: FakeCluster) -> None:
    for name in cluster.nodes:
        cluster.stop(name)

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.NodeUnreachable) as raised:
            await client.submit(NOOP)
        assert raised.value.message == "no node answers (3 asked)"
        assert raised.value.try_ == "raftctl cluster start"

    with_client(cluster, use, timeout_s=0.3)


def test_submissions_that_come_together_travel_together(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        answers = await asyncio.gather(*(client.submit(NOOP) for _ in range(200)))
        assert len({accepted.task_id for accepted in answers}) == 200
        assert sum(cluster.batches) == 200
        assert len(cluster.batches) <= 3

    with_client(cluster, use)


def test_one_refusal_in_a_batch_is_its_own(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        good, bad, fine = await client.submit_many([NOOP, Submission("nonsense"), NOOP])
        assert isinstance(bad, errors.UnknownKind)
        assert not isinstance(good, Exception)
        assert not isinstance(fine, Exception)

    with_client(cluster, use)


def test_lists_come_page_by_page(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftctl.client.async_client.PAGE_COUNT", 10)

    async def use(client: AsyncClient) -> None:
        await client.submit_many([NOOP] * 25)
        assert [task.task_id async for task in client.tasks()] == [f"t{n}" for n in range(1, 26)]
        assert sum(asked(cluster, "List").values()) == 3
        assert [task.task_id async for task in client.tasks(limit=12)] == [f"t{n}" for n in range(1, 13)]

    with_client(cluster, use)


def test_every_code_of_a_node_has_its_error_here() -> None:
    """The two trees are written apart, for the packages do not import each other; here they are held together."""
    theirs = [
        kind
        for _, kind in inspect.getmembers(raftd.errors, inspect.isclass)
        if issubclass(kind, raftd.errors.RaftdError)
    ]
    exits = {
        raftd.errors.InvalidRequest: ExitCode.USAGE,
        raftd.errors.NotFound: ExitCode.NOT_FOUND,
        raftd.errors.Unavailable: ExitCode.UNAVAILABLE,
        raftd.errors.Rejected: ExitCode.REJECTED,
    }
    at_start = {
        "config",
        "storage",
        "unknown_format",
    }  # said by a node that does not start, never to a client
    for kind in theirs:
        made = errors.from_code(kind.code, "message", "try")
        assert (made.message, made.try_) == ("message", "try")
        expected = next((exits[parent] for parent in kind.__mro__ if parent in exits), ExitCode.ERROR)
        if kind.code not in at_start:
            assert made.exit_code is expected, kind
        if issubclass(kind, raftd.errors.Unavailable):
            assert made.retryable


def test_the_most_telling_failure_is_reported() -> None:
    silent, leaderless, torn = errors.NodeUnreachable("a"), errors.NoLeader("b"), errors.NoQuorum("c")
    assert more_telling(silent, leaderless) is leaderless
    assert more_telling(leaderless, silent) is leaderless
    assert more_telling(leaderless, torn) is torn
    assert more_telling(torn, leaderless) is torn


def test_request_ids_carry_their_time_and_differ() -> None:
    first, second = new_request_id(), new_request_id()
    assert first != second
    stamp, _, random = first.partition("-")
    assert len(stamp) == 12
    assert len(random) == 20
    assert int(stamp, 16) > 1_700_000_000_000


@pytest.mark.usefixtures("_impatient")
def test_an_outcome_that_stays_unknown_says_so_beside_what_is_missing(five: FakeCluster) -> None:
    for name in ("n3", "n4", "n5"):
        five.stop(name)
    five.no_leader("n1", "n2")
    lost = Failure("outcome_unknown", "leadership was lost", grpc.StatusCode.ABORTED, "the same again")
    five.nodes["n1"].failures["Submit"] = [lost]

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.OutcomeUnknown) as raised:
            await client.submit(NOOP)
        assert raised.value.message == (
            "no quorum: 2 of 5 voters are up; whether this was accepted is not known"
        )
        assert raised.value.try_ == "raftctl node start n3"

    with_client(five, use, timeout_s=0.5)
