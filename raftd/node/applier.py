"""From committed entries to the state machine, and from its outcomes to whoever waits or watches.

What may live here: decoding, applying in order, telling. An entry that this build cannot read ends the process: a
replica that skips what the others apply is not a replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftd.codec.commands import decode_batch
from raftd.codec.genesis import decode_genesis
from raftd.node.clock import ClusterClock
from raftd.raft.types import Entry, EntryType
from raftd.scheduler.effects import Effect
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.replies import Reply

EffectsListener = Callable[[int, Sequence[Effect]], None]
"""Called with the index and the effects of one applied entry, on the loop."""


class Applier:
    """Feeds the state machine.

    Args:
        machine: the replicated state machine, at the state of ``last_applied``.
        clock: learns the cluster's time from the entries.
    """

    def __init__(self, machine: StateMachine, clock: ClusterClock) -> None:
        self._machine = machine
        self._clock = clock
        self._listeners: list[EffectsListener] = []
        self.last_applied = 0
        self.last_applied_term = 0

    @property
    def machine(self) -> StateMachine:
        """The state machine; read it, never write it."""
        return self._machine

    def on_effects(self, listener: EffectsListener) -> None:
        """Call ``listener`` for every entry that had effects."""
        self._listeners.append(listener)

    def apply(self, entry: Entry) -> tuple[Reply, ...]:
        """Apply one committed entry; the replies to its commands, in order.

        Raises:
            UnknownFormat: the entry is of a newer version; the process must end.
        """
        replies: tuple[Reply, ...] = ()
        effects: Sequence[Effect] = ()
        if entry.type is EntryType.CONFIGURATION:
            outcome = self._machine.apply_genesis(entry.index, decode_genesis(entry.data))
            effects = outcome.effects
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
