"""The transition trace: a line of JSON for each change of role, term, vote or leader, to see Raft at work.

What may live here: writing the lines. When there is something to trace is the core's to say; without a writer it costs
nothing. A trace never stops a node: what cannot be written is dropped, and said once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from raftd.node.clock import Clock
from raftd.raft.ready import Transition
from raftd.raft.types import NodeId

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Then the file is moved aside to ``NAME.1``, where the one before it was, and a new one begun."""


class TraceWriter:
    """Writes transitions to a file.

    Args:
        file: appended to.
        name_of: the name of a store, or empty.
        clock: time.
        max_bytes: of the file.
    """

    def __init__(
        self, file: Path, name_of: Callable[[NodeId], str], clock: Clock, max_bytes: int = MAX_BYTES
    ) -> None:
        self._path = file
        self._name_of = name_of
        self._clock = clock
        self._max_bytes = max_bytes
        self._failed = False
        self._file = file.open("a", encoding="utf-8", buffering=1)

    def __call__(self, transition: Transition) -> None:
        """Write one line."""
        line = json.dumps(
            {
                "time_ms": self._clock.wall_ms(),
                "node": self._name(transition.node),
                "event": transition.event,
                "role": str(transition.role),
                "term": transition.term,
                "vote": self._name(transition.vote),
                "leader": self._name(transition.leader),
                "last_index": transition.last_index,
                "commit_index": transition.commit,
                "message": transition.message,
            }
        )
        try:
            if self._file.tell() > self._max_bytes:
                self._rotate()
            self._file.write(line + "\n")
        except OSError as error:
            if not self._failed:
                log.error("the trace %s cannot be written, lines are missing in it: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("a", encoding="utf-8", buffering=1)

    def _name(self, store_id: NodeId) -> str:
        return self._name_of(store_id) or (f"{store_id:016x}" if store_id else "")
