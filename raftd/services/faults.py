"""The part of the Admin service that every node serves alike: which faults it injects.

What may live here: reading and changing the table of a node's cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from raftd.errors import InvalidRequest, NodeNotFound
from raftd.pb import admin_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminServicer
from raftd.services.status import Context, served
from raftd.transport.faults import Cut, FaultTable


class FaultControl(AdminServicer):
    """Sets and lifts the cuts of one node.

    Args:
        faults: the cuts in force.
        known: the nodes that there are; empty where this node does not know them all, and takes any name.
    """

    def __init__(self, faults: FaultTable, known: Callable[[], Collection[str]]) -> None:
        self.faults = faults
        self._known = known

    @served
    async def SetFaults(self, request: pb.SetFaultsRequest, context: Context) -> pb.SetFaultsResponse:
        """Set and lift cuts; see admin.proto."""
        add, remove = _cuts(request.add), _cuts(request.remove)
        known = self._known()
        unknown = sorted({name for cut in add for name in cut} - set(known))
        if unknown and known:
            raise NodeNotFound(
                f"there is no node {unknown[0]}", try_=f"the nodes are {', '.join(sorted(known))}"
            )
        self.faults.change(add, remove, request.heal)
        return pb.SetFaultsResponse(cuts=self._pairs())

    @served
    async def GetFaults(self, request: pb.GetFaultsRequest, context: Context) -> pb.GetFaultsResponse:
        """The cuts in force here."""
        return pb.GetFaultsResponse(fault_injection=self.faults.enabled, cuts=self._pairs())

    def _pairs(self) -> list[pb.Cut]:
        return [pb.Cut(from_node=source, to_node=target) for source, target in self.faults.cuts]


def _cuts(cuts: Iterable[pb.Cut]) -> list[Cut]:
    for cut in cuts:
        if not cut.from_node or not cut.to_node or cut.from_node == cut.to_node:
            raise InvalidRequest(f"a cut is between two nodes, not from {cut.from_node!r} to {cut.to_node!r}")
    return [(cut.from_node, cut.to_node) for cut in cuts]
