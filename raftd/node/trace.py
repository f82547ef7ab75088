"""The transition trace: one line of JSON for each thing that happens to a node's consensus, to see Raft at work.

What may live here: writing the lines. When there is something to trace is the core's to say; without a writer it costs
nothing. A trace never stops a node: what cannot be written is dropped, and said once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from raftd.node.clock import Clock
from raftd.raft.ready import Transition
from raftd.raft.types import NodeId

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Then the file is moved aside to ``NAME.1``, where the one before it was, and a new one begun."""


class Output(Protocol):
    """A file that is only appended to, without a buffer: a line is written or it is not."""

    def write(self, data: bytes, /) -> int | None:
        """Append; answers how much of it got there."""

    def truncate(self, size: int | None = ..., /) -> int:
        """Cut it to this size."""

    def tell(self) -> int:
        """Its size."""

    def close(self) -> None:
        """Close it."""


def _open(file: Path) -> Output:
    return file.open("ab", buffering=0)


class TraceWriter:
    """Writes transitions to a file. Two files of ``max_bytes`` are the most there will be.

    Args:
        file: appended to.
        name_of: the name of a store, or empty.
        clock: time.
        max_bytes: of the file.
        open_file: opens it to append.
    """

    def __init__(
        self,
        file: Path,
        name_of: Callable[[NodeId], str],
        clock: Clock,
        max_bytes: int = MAX_BYTES,
        open_file: Callable[[Path], Output] = _open,
    ) -> None:
        self._path = file
        self._name_of = name_of
        self._clock = clock
        self._max_bytes = max_bytes
        self._open = open_file
        self._dropped = 0
        self._closed = False
        self._file: Output | None = open_file(file)
        self._size = self._file.tell()

    def __call__(self, transition: Transition) -> None:
        """Write one line, or drop it."""
        if self._closed:
            return
        line = json.dumps(self._words(transition)).encode() + b"\n"
        try:
            self._write(line)
        except OSError as error:
            if not self._dropped:
                log.error("the trace %s cannot be written, lines are missing in it: %s", self._path, error)
            self._dropped += 1
        else:
            if self._dropped:
                log.info("the trace %s goes on; %d lines are missing in it", self._path, self._dropped)
            self._dropped = 0

    def close(self) -> None:
        """Close the file. What happens from now on is dropped."""
        self._closed = True
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: bytes) -> None:
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
        if self._file is None:
            self._file = self._open(self._path)
            self._size = self._file.tell()
        written = self._file.write(line) or 0
        if written < len(line):
            # A disk that is nearly full takes a part. Readers go line by line: better none than half of one.
            self._file.truncate(self._size)
            raise OSError(f"no room for a line of {len(line)} bytes")
        self._size += written

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._size = 0

    def _words(self, transition: Transition) -> dict[str, object]:
        configuration, message = transition.configuration, transition.message
        words: dict[str, object] = {
            "time_ms": self._clock.wall_ms(),
            "node": self._name(transition.node),
            "event": transition.event,
            "role": transition.role,
            "term": transition.term,
            "vote": self._name(transition.vote),
            "leader": self._name(transition.leader),
            "last_index": transition.last_index,
            "commit_index": transition.commit,
            "message": "",
            "voters": self._names(configuration.voters),
        }
        if message is not None:
            kind, sender = type(message).__name__, self._name(message.sender)
            words["message"] = f"{kind} of term {message.term} from {sender}"
        # Rare, and so only where there is something to say.
        if configuration.outgoing:
            words["outgoing"] = self._names(configuration.outgoing)
        if configuration.learners:
            words["learners"] = self._names(configuration.learners)
        if transition.transfer_target:
            words["transfer_target"] = self._name(transition.transfer_target)
        return words

    def _names(self, store_ids: tuple[NodeId, ...]) -> list[str]:
        return [self._name(store_id) for store_id in store_ids]

    def _name(self, store_id: NodeId) -> str:
        return self._name_of(store_id) or (f"{store_id:016x}" if store_id else "")
