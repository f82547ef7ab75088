"""Asking the leader for an index from which on a state is fresh.

What may live here: one small call (thesis §6.4: what a follower asks before it serves a linearizable read itself).
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.errors import PeerUnreachable
from raftd.pb import consensus_pb2 as pb
from raftd.raft.types import NodeId
from raftd.transport.base import RemoteNode
from raftd.transport.caller import Caller, CallFailed

METHOD = "/raftd.v1.Consensus/GetReadIndex"


class PeerReads:
    """Read indices of another node (``raftd.node.ports.LeaderReads``).

    Args:
        caller: the way to other nodes.
        remote: the node of a store id; None where it is not known.
    """

    def __init__(self, caller: Caller, remote: Callable[[NodeId], RemoteNode | None]) -> None:
        self._caller = caller
        self._remote = remote

    async def read_index(self, leader: NodeId, timeout_s: float) -> int:
        """Ask that node, as the leader.

        Raises:
            PeerUnreachable: it is not reached.
            Unavailable: it takes no calls from this node.
            RaftdError: it does not lead, or no quorum confirms it in time.
        """
        remote = self._remote(leader)
        if remote is None:
            raise PeerUnreachable(f"nobody knows where store {leader:016x} is")
        request = pb.ReadIndexRequest().SerializeToString()
        try:
            answer = await self._caller.unary(remote, METHOD, request, timeout_s)
        except CallFailed as failed:
            raise failed.error_here(self._caller.local.name, remote.name) from None
        return pb.ReadIndexResponse.FromString(answer).index
