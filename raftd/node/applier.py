"""From committed entries to the state machine, and from its outcomes to whoever waits or watches.

What may live here: decoding, applying in order, telling. An entry that this build cannot read ends the process: a
replica that skips what the others apply is not a replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from raftd.codec.commands import decode_batch
from raftd.codec.conf_change import decode_conf_change, to_core
from raftd.codec.genesis import decode_genesis
from raftd.node.clock import ClusterClock
from raftd.raft.membership import LEAVE_JOINT, ConfChange
from raftd.raft.types import Configuration, Entry, EntryType
from raftd.scheduler.effects import Effect
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State

EffectsListener = Callable[[int, Sequence[Effect]], None]
"""Called with the index and the effects of one applied entry, on the loop."""


class Core(Protocol):
    """The core, where a configuration takes effect (``raftd.raft.raw_node.RawNode``)."""

    def apply_conf_change(self, change: ConfChange) -> Configuration:
        """A change takes effect; the configuration in force from now on."""

    def apply_configuration(self, configuration: Configuration) -> None:
        """This configuration is in force from now on."""


class Applier:
    """Feeds the state machine.

    Args:
        machine: the replicated state machine, at the state of ``applied``.
        clock: learns the cluster's time from the entries.
        applied: the index and the term of the last entry that is in the machine's state.
    """

    def __init__(self, machine: StateMachine, clock: ClusterClock, applied: tuple[int, int] = (0, 0)) -> None:
        self._machine = machine
        self._clock = clock
        self._listeners: list[EffectsListener] = []
        self._restored: list[Callable[[], None]] = []
        self._core: Core | None = None
        self.last_applied, self.last_applied_term = applied
        clock.observe(machine.state.cluster_time_ms)

    def bind(self, core: Core) -> None:
        """The core is told of every change of the configuration."""
        self._core = core

    @property
    def machine(self) -> StateMachine:
        """The state machine; read it, never write it."""
        return self._machine

    def on_effects(self, listener: EffectsListener) -> None:
        """Call ``listener`` for every entry that had effects."""
        self._listeners.append(listener)

    def on_restored(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a snapshot has taken the place of the state: what it was told before may be old."""
        self._restored.append(listener)

    def restore(self, state: State, index: int, term: int) -> None:
        """A snapshot takes the place of the applied state."""
        self._machine.state = state
        self._clock.observe(state.cluster_time_ms)
        self.last_applied = index
        self.last_applied_term = term
        for listener in self._restored:
            listener()

    def apply(self, entry: Entry) -> tuple[Reply, ...]:
        """Apply one committed entry; the replies to its commands, in order.

        Raises:
            UnknownFormat: the entry is of a newer version; the process must end.
        """
        replies: tuple[Reply, ...] = ()
        effects: Sequence[Effect] = ()
        if entry.type is EntryType.CONFIGURATION:
            effects = self._apply_genesis(entry)
        elif entry.type is EntryType.CONF_CHANGE:
            effects = self._apply_conf_change(entry)
        elif not entry.data:
            self._machine.apply_noop(entry.index)
        else:
            batch = decode_batch(entry.data)
            outcome = self._machine.apply(entry.index, batch)
            replies, effects = outcome.replies, outcome.effects
            self._clock.observe(batch.header.cluster_time_ms)
        self.last_applied = entry.index
        self.last_applied_term = entry.term
        if effects:
            for listener in self._listeners:
                listener(entry.index, effects)
        return replies

    def _apply_genesis(self, entry: Entry) -> Sequence[Effect]:
        genesis = decode_genesis(entry.data)
        if self._core is not None:
            # A founder was started with it already; who joins learns only now whom the cluster was founded with.
            voters = tuple(member.store_id for member in genesis.members if member.voter)
            self._core.apply_configuration(Configuration(voters))
        return self._machine.apply_genesis(entry.index, genesis).effects

    def _apply_conf_change(self, entry: Entry) -> Sequence[Effect]:
        changes = decode_conf_change(entry.data) if entry.data else ()
        if self._core is None:
            raise RuntimeError("a change of the membership, but no core to tell")
        now = self._core.apply_conf_change(to_core(changes) if changes else LEAVE_JOINT)
        outcome = self._machine.apply_conf_change(
            entry.index, changes, frozenset(now.voters), frozenset(now.learners), frozenset(now.outgoing)
        )
        return outcome.effects
