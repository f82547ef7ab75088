"""Changes of the membership and of the leadership, asked of a cluster that misbehaves."""

from __future__ import annotations

import pytest

from raftctl.client import errors
from raftctl.client.async_client import AsyncClient
from tests.raftctl.conftest import with_client
from tests.raftctl.fake_server import Failure, FakeCluster

NEW = ("n4", "00000000000000d4", "127.0.0.1:9")


def test_the_membership_is_the_leaders(cluster: FakeCluster) -> None:
    cluster.lead("n2")

    async def use(client: AsyncClient) -> None:
        found = await client.members()
        assert (found.answered_by, found.leads, found.joint) == ("n2", True, False)
        assert [member.role for member in found.members] == ["voter"] * 3

    with_client(cluster, use)


def test_without_a_leader_the_node_that_knows_most_answers(cluster: FakeCluster) -> None:
    cluster.no_leader()

    async def use(client: AsyncClient) -> None:
        assert (await client.members()).leads is False

    with_client(cluster, use)


def test_one_address_is_enough_to_find_the_leader(cluster: FakeCluster) -> None:
    only = cluster.nodes["n3"]

    async def use(_: AsyncClient) -> None:
        from raftctl.endpoints import Endpoints

        async with AsyncClient(Endpoints((("", only.address),), cluster.token)) as client:
            found = await client.members()
            assert (found.answered_by, found.leads) == ("n1", True)

    with_client(cluster, use)


def test_a_member_is_added_promoted_and_removed(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        assert await client.add_member(*NEW, learner=True) == 11
        added = (await client.members()).member("n4")
        assert added is not None
        assert (added.role, added.promote) == ("learner", False)
        assert await client.promote_member("n4") == 12
        assert await client.remove_member("n2") == 13
        found = await client.members()
        assert [member.name for member in found.voters] == ["n1", "n3", "n4"]
        assert len(found.removed_stores) == 1

    with_client(cluster, use)


def test_a_change_is_repeated_where_nothing_has_happened_and_only_there(cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.failures["RemoveMember"] = [Failure("no_leader"), Failure("not_leader")]
    cluster.nodes["n1"].failures["RemoveMember"] += [Failure("change_pending")]

    async def use(client: AsyncClient) -> None:
        assert await client.remove_member("n2") == 13

    with_client(cluster, use)
    assert "n2" not in cluster.membership.members


def test_another_change_under_way_is_waited_for_and_then_said(cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.always["AddMember"] = Failure("change_pending", "n9 is being added")

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.ChangePending, match="n9 is being added"):
            await client.add_member(*NEW)

    with_client(cluster, use, timeout_s=0.5)
    assert sum(node.calls["AddMember"] for node in cluster.nodes.values()) > 1


@pytest.mark.parametrize("code", ["invalid_change", "name_taken", "store_removed", "transfer_failed"])
def test_what_trying_again_would_not_change_is_said_at_once(cluster: FakeCluster, code: str) -> None:
    cluster.nodes["n1"].always["TransferLeadership"] = Failure(code, "no")

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.ClientError, match=r"^no$") as caught:
            await client.transfer_leadership()
        assert caught.value.code == code

    with_client(cluster, use)
    assert sum(node.calls["TransferLeadership"] for node in cluster.nodes.values()) == 1


@pytest.mark.parametrize(
    "failure", [Failure("outcome_unknown", after_applying=True), Failure("", after_applying=True)]
)
def test_a_change_whose_answer_is_lost_is_not_repeated(cluster: FakeCluster, failure: Failure) -> None:
    cluster.nodes["n1"].failures["RemoveMember"] = [failure]

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.OutcomeUnknown, match="whether this was done is not known") as caught:
            await client.remove_member("n2")
        assert caught.value.try_ == "raftctl raft members"

    with_client(cluster, use)
    assert sum(node.calls["RemoveMember"] for node in cluster.nodes.values()) == 1


@pytest.mark.usefixtures("_impatient")
def test_a_node_that_hangs_is_given_no_change(cluster: FakeCluster) -> None:
    cluster.nodes["n1"].hangs.add("NodeInfo")

    async def use(client: AsyncClient) -> None:
        assert await client.remove_member("n2") == 13

    with_client(cluster, use)
    assert cluster.nodes["n1"].calls["RemoveMember"] == 0


@pytest.mark.usefixtures("_impatient")
def test_without_a_quorum_a_change_says_so(five: FakeCluster) -> None:
    for name in ("n3", "n4", "n5"):
        five.stop(name)
    five.no_leader("n1", "n2")

    async def use(client: AsyncClient) -> None:
        with pytest.raises(errors.NoQuorum, match="2 of 5 voters are up"):
            await client.add_member(*NEW)

    with_client(five, use, timeout_s=0.5)


def test_leadership_goes_where_it_is_sent_or_somewhere_else(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        assert (await client.transfer_leadership("n3")).leader == "n3"
        found = await client.transfer_leadership()
        assert (found.leader, found.term > 1) == ("n1", True)

    with_client(cluster, use)


def test_a_snapshot_is_taken_by_the_node_that_is_asked(cluster: FakeCluster) -> None:
    async def use(client: AsyncClient) -> None:
        taken = await client.take_snapshot("n2")
        assert (taken.node, taken.index, taken.size_bytes, taken.first_index) == ("n2", 900, 4200, 401)

    with_client(cluster, use)
    assert cluster.nodes["n2"].calls["TakeSnapshot"] == 1
