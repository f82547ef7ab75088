"""The lease of a node: until when its attempts may run, seen from both ends.

What may live here: arithmetic, and the leader's book of deadlines. No clock: both ends hand in readings of their own
monotonic clock in milliseconds, and readings of two machines are never compared.

Safety is one inequality: the executor's lease ends before the leader's does. The executor counts from when it *sent*
the heartbeat that was renewed, the leader from when it *received* it, which is never earlier; the leader adds what two
clocks can drift apart, a margin, and every stall of its own loop, in which a heartbeat may have waited unread.
Liveness is the converse: a new leader gives every node its full lease, from when it applied its first entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NodeKey = tuple[str, int]
"""Name and incarnation."""


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How long leases are.

    Attributes:
        lease_ms: of the executor (``Settings.lease_ms``).
        drift_permille: how far two clocks may drift apart, in thousandths of the time that passes.
        margin_ms: what the supervisor may be late by.
    """

    lease_ms: int = 6_000
    drift_permille: int = 10
    margin_ms: int = 500

    @property
    def heartbeat_ms(self) -> int:
        """How often an executor asks for renewal: two may be lost."""
        return self.lease_ms // 3

    @property
    def leader_lease_ms(self) -> int:
        """How long the leader waits after the receipt of a heartbeat; rounded up."""
        return -(-self.lease_ms * (1000 + self.drift_permille) // 1000) + self.margin_ms


def executor_deadline_ms(sent_ms: int, lease_ms: int) -> int:
    """When the executor must have killed everything, by its own clock, given when it sent the renewed heartbeat."""
    return sent_ms + lease_ms


class LeaseBook:
    """The leader's deadlines, from when it applied its own first entry until it steps down.

    A deadline is kept relative to the stalls that were known when it was set, so that one later stall moves all of
    them. ``_soonest_ms`` is never later than the earliest deadline: looking for expired leases is free until then.
    """

    def __init__(self, policy: LeasePolicy, nodes: Iterable[NodeKey], now_ms: int) -> None:
        """
        Args:
            nodes: those that are up in the state.
            now_ms: when the leader's first entry of its term was applied.
        """
        self._policy = policy
        self._stalls_ms = 0
        self._given_up: set[NodeKey] = set()
        self._deadlines: dict[NodeKey, int] = {}
        self._soonest_ms = now_ms + policy.leader_lease_ms
        for node in nodes:
            self.grant(node, now_ms)

    @property
    def policy(self) -> LeasePolicy:
        """How long leases are."""
        return self._policy

    def grant(self, node: NodeKey, now_ms: int) -> None:
        """A node has registered: its lease starts. Not for one that was given up: its NodeLost is on the way."""
        if node not in self._given_up:
            self._set(node, now_ms)

    def renew(self, node: NodeKey, received_ms: int) -> bool:
        """Extend the lease of a node whose heartbeat was received then, *after* a quorum round begun since.

        Returns:
            Whether the executor may be told. Not if the node was given up: its attempts may run elsewhere by now.
        """
        if node in self._given_up or node not in self._deadlines:
            return False
        self._set(node, received_ms)
        return True

    def stalled(self, stall_ms: int) -> None:
        """The leader's loop stood still for so long: heartbeats may have waited for it."""
        self._stalls_ms += max(0, stall_ms)

    def give_up(self, node: NodeKey) -> None:
        """NodeLost was proposed for this incarnation: it is never renewed again by this leader."""
        self._given_up.add(node)

    def forget(self, node: NodeKey) -> None:
        """The incarnation is over in the state."""
        self._deadlines.pop(node, None)

    def deadline_ms(self, node: NodeKey) -> int | None:
        """When the node's lease ends for the leader, or None where it has none."""
        relative_ms = self._deadlines.get(node)
        return None if relative_ms is None else relative_ms + self._stalls_ms

    def expired(self, now_ms: int) -> tuple[NodeKey, ...]:
        """Nodes whose lease has run out, in order of name; given-up ones are among them until forgotten."""
        if now_ms <= self._soonest_ms:
            return ()
        bound_ms = now_ms - self._stalls_ms
        late = tuple(sorted(node for node, relative_ms in self._deadlines.items() if relative_ms < bound_ms))
        self._soonest_ms = self._stalls_ms + min(
            self._deadlines.values(), default=now_ms + self._policy.leader_lease_ms
        )
        return late

    def _set(self, node: NodeKey, from_ms: int) -> None:
        relative_ms = from_ms + self._policy.leader_lease_ms - self._stalls_ms
        # A heartbeat that overtook another must not shorten a lease that the executor may be counting on.
        self._deadlines[node] = max(relative_ms, self._deadlines.get(node, relative_ms))
        self._soonest_ms = min(self._soonest_ms, relative_ms + self._stalls_ms)
