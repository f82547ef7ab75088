"""Asking a member who leads and who the members are, for those who hold no log.

What may live here: one stream to one node, as values. Whom to ask, and whom to believe, is ``raftd.node.discovery``'s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import grpc

from raftd.errors import RaftdError
from raftd.pb import admin_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.scheduler.model import Member
from raftd.transport.base import RemoteNode, open_channel
from raftd.transport.caller import CONNECT_TIMEOUT_S, Caller, call_failed

ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Word:
    """What a member says.

    Attributes:
        node: who says so.
        leader: name and address; None while it knows of none.
        term: of that leader.
        members: all of them.
        removed_stores: never let in again.
    """

    node: str
    leader: tuple[str, str] | None
    term: int
    members: tuple[Member, ...]
    removed_stores: frozenset[int]


class GrpcGuides:
    """Members who are asked (``raftd.node.discovery.Guides``).

    Args:
        caller: the way to other nodes.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def words(self, name: str, store_id: int, address: str) -> AsyncGenerator[Word, None]:
        """What this member says, now and whenever it changes; on a connection of its own.

        Args:
            name: empty where only the address is known.
            store_id: 0 where only the address is known.

        Raises:
            PeerUnreachable: nobody answers there, or a cut stands between.
            RaftdError: it refuses.
        """
        remote = RemoteNode(name, store_id, address)
        async with self._caller.connection(remote, CONNECT_TIMEOUT_S) as channel:
            call = AdminStub(channel).WatchMembers(
                pb.WatchMembersRequest(), metadata=self._caller.metadata(remote)
            )
            try:
                async for response in call:
                    self._caller.check(RemoteNode(response.node, store_id, address))
                    yield _word(response)
            except grpc.aio.AioRpcError as error:
                raise call_failed(error).error() from None
            finally:
                call.cancel()


async def ask_cluster_id(address: str, token: str) -> int:
    """The id of the cluster that the node at this address belongs to; asked as a client, for who asks has none yet.

    Raises:
        PeerUnreachable: nobody answers there.
        RaftdError: it refuses.
    """
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with open_channel(address) as channel:
        try:
            answer = await AdminStub(channel).NodeInfo(
                pb.NodeInfoRequest(), metadata=metadata, timeout=ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise call_failed(error).error() from None
    try:
        return int(answer.cluster_id, 16)
    except ValueError:
        raise RaftdError(f"{address} names no cluster that it belongs to") from None


def _word(response: pb.WatchMembersResponse) -> Word:
    said = response.members
    return Word(
        node=response.node,
        leader=(response.leader, response.leader_address) if response.leader else None,
        term=response.term,
        members=tuple(
            Member(member.name, int(member.store_id, 16), member.address, member.voter)
            for member in said.members
        ),
        removed_stores=frozenset(int(store, 16) for store in said.removed_stores),
    )
