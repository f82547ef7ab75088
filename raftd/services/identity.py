"""Whom this node takes calls from: one rule for every call of another node, and for every batch of Raft's streams.

What may live here: comparing what a sender says of itself, and of whom it means, with what this node is and knows. Who
is not of this cluster, does not mean this store, was removed, or has another member's store is refused and told so,
never guessed around: a message from the wrong log must not reach the core.

Only what is certain is refused. This node's knowledge may be old: a store that is no member here may be one by now,
also under the name of a member that has left meanwhile, and the majority that is left may need it (the paper, §6).
"""

from __future__ import annotations

import logging
from typing import Never, Protocol

from raftd.errors import OldCopy, RaftdError, StoreRemoved, StoreTwice, WrongIdentity
from raftd.raft.types import NO_NODE, NodeId
from raftd.transport.base import CallerIdentity, LocalNode, hex_id

log = logging.getLogger(__name__)

REASONS_KEPT = 64

COPIED = (
    "end every process of this store: none knows what the others have promised. Remove the node, and bring it back "
    "with a new data directory: raftd init --join"
)


class Stores(Protocol):
    """What this node knows of stores, from its applied state."""

    def name_of(self, store_id: NodeId) -> str:
        """The member of this store id; empty for none."""

    def store_of(self, name: str) -> NodeId:
        """The member of this name; 0 for none."""

    def is_removed(self, store_id: NodeId) -> bool:
        """Whether it was removed from the cluster, for good."""


class Told:
    """What was logged already: a peer that dials again and again is told off once."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def once(self, level: int, reason: str) -> None:
        """Log it, unless it was."""
        if reason in self._reasons:
            return
        if len(self._reasons) >= REASONS_KEPT:
            self._reasons.clear()
        self._reasons.add(reason)
        log.log(level, "%s", reason)


class Identity:
    """Checks the senders of calls.

    Args:
        local: this node.
        stores: the members and the stores that were removed.
    """

    def __init__(self, local: LocalNode, stores: Stores) -> None:
        self._local = local
        self._stores = stores
        self._told = Told()

    def check(self, sender: CallerIdentity, *, means_store: bool = True) -> None:
        """Refuse a sender that does not belong here.

        Args:
            sender: what it says.
            means_store: whether it must say which store it means; a call for whoever leads need not.

        Raises:
            WrongIdentity: wrong cluster, wrong store, or a name and a store that do not belong together.
            StoreRemoved: it was a member once.
        """
        local, store_id, name = self._local, sender.store_id, sender.name
        if not name or store_id == NO_NODE:
            self.refuse(f"a peer of {local.name} does not say which node and which store it is")
        if sender.cluster_id != local.cluster_id:
            self.refuse(
                f"{name} is of cluster {hex_id(sender.cluster_id)}, "
                f"{local.name} of cluster {hex_id(local.cluster_id)}"
            )
        if sender.receiver_store_id != local.store_id and (means_store or sender.receiver_store_id):
            self.refuse(
                f"{name} means store {hex_id(sender.receiver_store_id)}; "
                f"this is {local.name}, store {hex_id(local.store_id)}"
            )
        if self._stores.is_removed(store_id):
            self._raise(
                StoreRemoved(
                    f"{name}, store {hex_id(store_id)}, was removed from cluster {hex_id(local.cluster_id)}",
                    try_="bring it back with a new data directory: raftd init --join",
                )
            )
        member = self._stores.name_of(store_id)
        if member and member != name:
            self.refuse(f"{name} comes with store {hex_id(store_id)}, but that is the store of {member}")

    def is_member(self, sender: CallerIdentity) -> bool:
        """Whether it is one, as far as this node knows; the first time that one is not, the log says so."""
        if self._stores.name_of(sender.store_id):
            return True
        known = self._stores.store_of(sender.name)
        also = f"; the member of that name is store {hex_id(known)}" if known else ""
        self._told.once(
            logging.WARNING if known else logging.INFO,
            f"hears {sender.name}, store {hex_id(sender.store_id)}, which is no member that {self._local.name} "
            f"knows of{also}",
        )
        return False

    def refuse(self, reason: str) -> Never:
        """Log it once, however often the peer tries, and refuse it."""
        self._raise(WrongIdentity(reason, try_="look at which data directory runs at which address"))

    def refuse_copy(self, kind: type[OldCopy | StoreTwice], reason: str) -> Never:
        """The same, of one of two processes that are one store."""
        self._raise(kind(reason, try_=COPIED))

    def _raise(self, error: RaftdError) -> Never:
        self._told.once(logging.ERROR, f"refused a peer: {error.message}")
        raise error
