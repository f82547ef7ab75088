"""Going to a store before it is let in: whether it is there, and is what it is said to be.

What may live here: one small call. Once a change is in the log it is too late: a stranger would be a learner that never
catches up, and its store id would be given away for good when it is removed.
"""

from __future__ import annotations

from raftd.errors import PeerUnreachable, WrongIdentity
from raftd.pb import admin_pb2 as pb
from raftd.transport.base import RemoteNode, hex_id
from raftd.transport.caller import Caller, CallFailed

METHOD = "/raftd.v1.Admin/NodeInfo"
PATIENCE_S = 5.0


class Greeting:
    """Asks other nodes who they are (``raftd.node.membership.Greet``).

    Args:
        caller: the way to other nodes.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def greet(self, name: str, store_id: int, address: str, timeout_s: float) -> None:
        """Return if the node at that address is of this cluster and has that name and that store.

        Raises:
            PeerUnreachable: nobody answers there.
            WrongIdentity: it is of another cluster, or another node or store.
            RaftdError: it does not answer the question.
        """
        request = pb.NodeInfoRequest().SerializeToString()
        remote = RemoteNode(name, store_id, address)
        try:
            answer = await self._caller.unary_afresh(remote, METHOD, request, min(timeout_s, PATIENCE_S))
        except PeerUnreachable as error:
            raise PeerUnreachable(error.message, try_=f"start {name} first: raftd run") from None
        except CallFailed as failed:
            # It is the one that compares, with what every call between nodes says.
            raise failed.error() from None
        found = pb.NodeInfoResponse.FromString(answer)
        wanted = (name, hex_id(store_id), hex_id(self._caller.local.cluster_id))
        if (found.name, found.store_id, found.cluster_id) != wanted:
            raise WrongIdentity(
                f"at {address} is {found.name}, store {found.store_id} of cluster {found.cluster_id}, "
                f"and not {name}, store {wanted[1]} of cluster {wanted[2]}",
                try_="look at which data directory runs at which address",
            )
