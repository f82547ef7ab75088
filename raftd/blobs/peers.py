"""What the blob store needs of the rest of the node: the other nodes' stores, and the replicated directory.

What may live here: Protocols. ``raftd.transport`` and ``raftd.node`` fulfil them; wiring hands them in.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from raftd.scheduler.model import BlobRecord


class PeerBlobs(Protocol):
    """The blob stores of other nodes, by node name."""

    async def push(self, node: str, digest: str) -> None:
        """Copy this node's blob there; return when that node says it is verified, pinned and fsynced.

        Raises ``RaftdError``.
        """

    def pull(self, node: str, digest: str) -> AsyncGenerator[bytes, None]:
        """The frames of that node's own copy.

        Raises ``RaftdError`` from the iteration; ``BlobNotFound`` where it has none.
        """


class BlobDirectory(Protocol):
    """The applied state, as far as blobs go. May lag behind the leader's."""

    def record(self, digest: str) -> BlobRecord | None:
        """What the directory says of a blob, None where it does not know it."""

    def voters(self) -> Sequence[str]:
        """The names of the voters."""

    def is_up(self, node: str) -> bool:
        """Whether there is reason to think that a node can be reached: a hint about whom to ask first."""
