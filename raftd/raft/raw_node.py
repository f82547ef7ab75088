"""The one door into the core: calls go in, a :class:`Ready` comes out. Single-threaded, no I/O, no clock.

A core is driven by one loop: ``tick`` and ``step`` and ``propose`` as things happen, then ``while has_ready():
ready()`` once for the whole batch. Appends are cut when the Ready is made, so that proposals made between two Readys
travel together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftd.raft.log import LogReader
from raftd.raft.messages import Message
from raftd.raft.ready import Ready, Status, Transition
from raftd.raft.types import Config, Configuration, HardState, NodeId, Proposed, ReadContext


class RawNode:
    """One consensus participant, started from its hard state, its configuration and its log.

    Raises :class:`InvariantViolation` when the log is shorter than the hard state's commit: acknowledged entries
    are missing.
    """

    def __init__(
        self,
        config: Config,
        configuration: Configuration,
        hard_state: HardState,
        log: LogReader,
        applied: int = 0,
        on_transition: Callable[[Transition], None] | None = None,
    ) -> None: ...

    def tick(self) -> None:
        """Time passed. The only clock; its length is the host's (default 50 ms)."""

    def step(self, message: Message) -> None:
        """A message came in. Total: what is stale, misdirected or absurd is ignored."""

    def campaign(self) -> None:
        """Stand for election now. Nothing happens on a leader, on a node that may not vote, or while a committed
        CONFIGURATION entry is not applied."""

    def propose(self, data: bytes) -> Proposed:
        """Append one NORMAL entry. Raises NotLeader, EntryTooLarge, UncommittedLimit."""

    def propose_batch(self, datas: Sequence[bytes]) -> Proposed:
        """Append several, all or none. Raises as :meth:`propose`; ValueError when there are none."""

    def read_index(self, context: ReadContext) -> None:
        """Ask for a linearizable read (thesis §6.4); answered in ``read_states`` or ``reads_dropped`` of a later
        Ready. Raises NotLeader, ReadContextInUse."""

    def report_unreachable(self, node: NodeId) -> None:
        """The transport lost messages to the node: go back from streaming to probing it."""

    def has_ready(self) -> bool:
        """Whether :meth:`ready` would carry anything."""

    def ready(self) -> Ready:
        """Take everything there is to do. May be called again before the last one is durable."""

    def persisted(self, number: int) -> None:
        """The Ready of that number and all before it are durable. Repeats and older numbers change nothing."""

    def applied(self, index: int) -> None:
        """Committed entries up to the index are applied. Raises InvariantViolation beyond what was handed out."""

    def status(self) -> Status:
        """A snapshot for people and metrics."""
