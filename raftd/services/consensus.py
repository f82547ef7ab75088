"""Raft's incoming streams: whose they are, and on to the loop.

What may live here: the check of every batch's header. Who is not of this cluster, does not mean this store, or is no
member is refused and told so, never guessed around: a Raft message from the wrong log must not reach the core.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence

from raftd.codec.peer import decode_batch
from raftd.errors import WrongIdentity
from raftd.pb import consensus_pb2 as pb
from raftd.pb.consensus_pb2_grpc import ConsensusServicer
from raftd.raft.messages import Message
from raftd.raft.types import NodeId
from raftd.services.status import Context, served
from raftd.transport.base import ACCEPTED_KEY, LocalNode, hex_id
from raftd.transport.faults import FaultTable

log = logging.getLogger(__name__)

REASONS_KEPT = 64


class ConsensusService(ConsensusServicer):
    """Receives what peers send.

    Args:
        local: this node.
        is_member: whether a store belongs to the configuration that is in force here.
        faults: what must not come in.
        deliver: takes the messages, in order (``Node.deliver``).
    """

    def __init__(
        self,
        local: LocalNode,
        is_member: Callable[[NodeId], bool],
        faults: FaultTable,
        deliver: Callable[[Sequence[Message]], None],
    ) -> None:
        self._local = local
        self._is_member = is_member
        self._faults = faults
        self._deliver = deliver
        self._reasons: set[str] = set()

    @served
    async def Stream(
        self, request_iterator: AsyncIterator[pb.PeerBatch], context: Context
    ) -> pb.StreamClosed:
        """Take batches until the sender ends the stream; see consensus.proto."""
        # Tells the sender that it has reached a node that takes its stream, before there is anything to answer.
        await context.send_initial_metadata(((ACCEPTED_KEY, hex_id(self._local.store_id)),))
        async for batch in request_iterator:
            self._check(batch.header)
            if not self._faults.drops_from(batch.header.sender_name):
                self._deliver(decode_batch(batch))
        return pb.StreamClosed()

    def _check(self, header: pb.PeerHeader) -> None:
        local = self._local
        if header.cluster_id != local.cluster_id:
            self._refuse(
                f"{header.sender_name} is of cluster {hex_id(header.cluster_id)}, "
                f"{local.name} of cluster {hex_id(local.cluster_id)}"
            )
        if header.receiver_store_id != local.store_id:
            self._refuse(
                f"{header.sender_name} means {header.receiver_name}, store {hex_id(header.receiver_store_id)}; "
                f"this is {local.name}, store {hex_id(local.store_id)}"
            )
        if not self._is_member(header.sender_store_id):
            self._refuse(
                f"{header.sender_name}, store {hex_id(header.sender_store_id)}, is no member of cluster "
                f"{hex_id(local.cluster_id)}"
            )

    def _refuse(self, reason: str) -> None:
        """Log it once, however often the peer dials, and refuse the stream."""
        if reason not in self._reasons:
            if len(self._reasons) >= REASONS_KEPT:
                self._reasons.clear()
            self._reasons.add(reason)
            log.error("refused a peer's stream: %s", reason)
        raise WrongIdentity(reason, try_="look at which data directory runs at which address")
