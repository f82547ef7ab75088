"""What this node does while it leads: it plans, keeps the leases, and lets executors attach.

What may live here: the leader's volatile knowledge, made when leadership begins and dropped when it ends. Whatever
must outlive a leader is in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from raftd.errors import NoLeader, RaftdError
from raftd.node.applier import Applier
from raftd.node.clock import Clock, ClusterClock
from raftd.scheduler.commands import Command, NodeLost, Occupy
from raftd.scheduler.effects import Effect, NodeChange, NodeChanged
from raftd.scheduler.lease import LeaseBook, LeasePolicy
from raftd.scheduler.model import Health
from raftd.scheduler.planner import InFlight, Observations, PlanningView, next_wakeup_ms, plan
from raftd.scheduler.reserving import Lines, withdrawals
from raftd.scheduler.riding import ride

log = logging.getLogger(__name__)

LEASE_CHECK_MS = 100
"""How often expired leases are looked for when nothing else makes the leader plan."""

WITHDRAW_CHECK_MS = 50
"""How often it is asked whether what waits for its turn should go elsewhere."""


class AttachedExecutors(Protocol):
    """The sessions, as leadership uses them."""

    def on_effects(self, index: int, effects: Sequence[Effect]) -> None:
        """See ``Sessions.on_effects``."""

    def end_all(self, error: RaftdError) -> None:
        """See ``Sessions.end_all``."""


class Leadership:
    """Planning and leases of one node, active while it leads.

    Args:
        applier: the applied state.
        clock: monotonic time, for leases.
        cluster_clock: the cluster's time, for timers that are state.
    """

    def __init__(self, applier: Applier, clock: Clock, cluster_clock: ClusterClock) -> None:
        self._applier = applier
        self._clock = clock
        self._cluster_clock = cluster_clock
        self._sessions: AttachedExecutors | None = None
        self._policy = LeasePolicy()
        self._book: LeaseBook | None = None
        self._in_flight = InFlight()
        self._lines = Lines()
        self._attached: frozenset[str] = frozenset()
        self._given_up: set[tuple[str, int]] = set()
        self._incarnations: dict[str, int] = {}
        self._dirty = False
        self._next_check_ms = 0
        self._next_withdrawals_ms = 0
        self._wakeup_ms: int | None = None
        applier.on_effects(self._on_effects)

    def bind(self, sessions: AttachedExecutors) -> None:
        """The sessions are made after this, for they need the leases."""
        self._sessions = sessions

    # --- raftd.node.node.Leading --------------------------------------------------------------------------------

    def begin(self, term: int) -> None:
        """Every node that is up gets its full lease from now on, whoever led before."""
        state = self._applier.machine.state
        self._policy = LeasePolicy(lease_ms=state.settings.lease_ms)
        up = [(node.name, node.incarnation) for node in state.nodes.values() if node.health is Health.UP]
        self._book = LeaseBook(self._policy, up, self._clock.monotonic_ms())
        self._incarnations = dict(up)
        self._in_flight.clear()
        self._lines.begin(state.nodes)
        self._given_up.clear()
        self._attached = frozenset()
        self._dirty = True
        log.info("leads in term %d", term)

    def end(self) -> None:
        """Drop what only a leader knows; executors look for the next one."""
        self._book = None
        self._in_flight.clear()
        self._attached = frozenset()
        if self._sessions is not None:
            self._sessions.end_all(NoLeader("this node does not lead any more"))
        log.info("leads no more")

    def plan(self, now_ms: int) -> Sequence[Command]:
        """What to propose now; nothing unless something has changed or a timer is due."""
        if self._book is None:
            return ()
        cluster_ms = self._cluster_clock.stamp_ms()
        withdrawn = self._withdrawals(now_ms, cluster_ms)
        due = self._wakeup_ms is not None and cluster_ms >= self._wakeup_ms
        if not (self._dirty or due or now_ms >= self._next_check_ms):
            return withdrawn
        self._dirty = False
        self._next_check_ms = now_ms + LEASE_CHECK_MS
        state = self._applier.machine.state
        observations = Observations(expired=self._book.expired(now_ms), silent=self._silent())
        commands = plan(PlanningView(state, self._in_flight, self._lines), observations, cluster_ms)
        self._wakeup_ms = next_wakeup_ms(state, cluster_ms)
        self._in_flight.proposed(commands)
        for command in commands:
            if isinstance(command, NodeLost):
                # Before it is even proposed: from here on this incarnation is never renewed again.
                self._book.give_up((command.name, command.incarnation))
                self._given_up.add((command.name, command.incarnation))
                log.warning(
                    "node %s (incarnation %d) is lost: its lease ran out", command.name, command.incarnation
                )
        return (*withdrawn, *commands)

    def ride(self, batch: Sequence[Command]) -> Sequence[Command]:
        """What to propose in the same entry as these."""
        if self._book is None:
            return ()
        view = PlanningView(self._applier.machine.state, self._in_flight)
        riders = ride(view, Observations(silent=self._silent()), batch)
        self._in_flight.proposed(riders)
        return riders

    def planned(self, commands: Sequence[Command], error: RaftdError | None) -> None:
        """The state speaks for these now; what was not appended is planned anew."""
        self._in_flight.settled(commands)
        for command in commands:
            if isinstance(command, Occupy):
                self._lines.touch(command.node)
        if error is None:
            self._dirty = True
        else:
            # Not at once: what refused it (too much that waits for the quorum) would refuse it again, turn after turn.
            log.debug("%d planned commands were not applied: %s", len(commands), error)

    def stalled(self, stall_ms: int) -> None:
        """Heartbeats may have waited while the loop stood still: every lease of the leader's book grows by it."""
        if self._book is not None:
            self._book.stalled(stall_ms)

    # --- raftd.node.sessions.Leases -----------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether this node leads."""
        return self._book is not None

    @property
    def lease_ms(self) -> int:
        """The executors' lease."""
        return self._policy.lease_ms

    @property
    def heartbeat_ms(self) -> int:
        """How often executors ask for renewal."""
        return self._policy.heartbeat_ms

    def given_up(self, name: str, incarnation: int) -> bool:
        """Whether this leader has proposed the loss of this incarnation."""
        return (name, incarnation) in self._given_up

    def renew(self, name: str, incarnation: int, received_ms: int) -> bool:
        """Extend a lease; False if the executor must not be told so."""
        return self._book is not None and self._book.renew((name, incarnation), received_ms)

    def attached(self, names: frozenset[str]) -> None:
        """These nodes can be told what to run."""
        if self._book is not None:
            self._attached = names
            self._dirty = True

    def _silent(self) -> frozenset[str]:
        return frozenset(name for name in self._applier.machine.state.nodes if name not in self._attached)

    def _withdrawals(self, now_ms: int, cluster_ms: int) -> Sequence[Command]:
        state = self._applier.machine.state
        if now_ms < self._next_withdrawals_ms or not state.indexes.reserving:
            return ()
        self._next_withdrawals_ms = now_ms + WITHDRAW_CHECK_MS
        commands = withdrawals(
            state, self._lines.run_times, self._in_flight.stopping, self._silent(), cluster_ms
        )
        self._in_flight.proposed(commands)
        return commands

    # --- the state's side ---------------------------------------------------------------------------------------

    def _on_effects(self, index: int, effects: Sequence[Effect]) -> None:
        if self._book is None:
            return
        self._dirty = True
        self._lines.learn(effects)
        for effect in effects:
            if isinstance(effect, NodeChanged):
                self._on_node(self._book, effect)
        if self._sessions is not None:
            self._sessions.on_effects(index, effects)

    def _on_node(self, book: LeaseBook, effect: NodeChanged) -> None:
        node = effect.node
        if effect.change is NodeChange.LOST:
            book.forget((node.name, node.incarnation))
        elif effect.change is NodeChange.UP:
            before = self._incarnations.get(node.name)
            if before is not None:
                book.forget((node.name, before))
            self._incarnations[node.name] = node.incarnation
            book.grant((node.name, node.incarnation), self._clock.monotonic_ms())
