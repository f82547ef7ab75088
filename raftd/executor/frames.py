"""What raftd and a slot say to each other: frames of a JSON head and raw bytes on a socket pair.

What may live here: the framing and the names in the heads. Both ends are of one build, so nothing is versioned.

From raftd (``t``): ``run`` (see ``RunRequest``), ``stop`` (``token``), ``blob`` (``digest``, ``path``, ``error``: the
answer to the ``want`` or ``keep`` of the same ``question``). From the slot: ``ready``; ``progress`` (``token``,
``fraction``, ``message``); ``want`` (``question``, ``digest``: fetch that blob); ``keep`` (``question``, ``path``:
store that file as a blob); ``ended`` (see ``EndReport``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

from raftd.executor.limits import NONE, Limits

_SIZES = struct.Struct("!II")

Head: TypeAlias = dict[str, Any]

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode
_loads = json.loads


def encode(head: Head, body: bytes = b"") -> bytes:
    """The bytes of one frame."""
    text = _dumps(head).encode()
    return b"".join((_SIZES.pack(len(text), len(body)), text, body))


class Decoder:
    """Puts frames together from whatever pieces arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Head, bytes]]:
        """Yields the frames that ``data`` completes; exhaust it before feeding again."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _SIZES.size:
            head_bytes, body_bytes = _SIZES.unpack_from(buffer, start)
            head_start = start + _SIZES.size
            end = head_start + head_bytes + body_bytes
            if len(buffer) < end:
                break
            head = _loads(buffer[head_start : head_start + head_bytes])
            body = bytes(buffer[head_start + head_bytes : end])
            start = end
            yield head, body
        del buffer[:start]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One attempt for a slot; the payload is the frame's body.

    Attributes:
        token: as people see it; names the attempt in every later frame.
        deadline_ms: boot time; at or after it the slot refuses to start.
        inline_bytes: larger results come by file.
    """

    task_id: int
    attempt: int
    token: str
    kind: str
    args: tuple[str, ...]
    env: dict[str, str]
    array_index: int | None
    deadline_ms: int
    inline_bytes: int
    result_limit_bytes: int
    limits: Limits = NONE

    def head(self) -> Head:
        """As the head of a ``run`` frame."""
        return {
            "t": "run",
            "task_id": self.task_id,
            "attempt": self.attempt,
            "token": self.token,
            "kind": self.kind,
            "args": self.args,
            "env": self.env,
            "array_index": self.array_index,
            "deadline_ms": self.deadline_ms,
            "inline_bytes": self.inline_bytes,
            "result_limit_bytes": self.result_limit_bytes,
            "limits": astuple(self.limits),
        }


def run_request(head: Head) -> RunRequest:
    """Reads the head of a ``run`` frame."""
    fields = {name: value for name, value in head.items() if name != "t"}
    fields["args"] = tuple(fields["args"])
    fields["limits"] = Limits(*fields["limits"])
    return RunRequest(**fields)


@dataclass(frozen=True, slots=True)
class EndReport:
    """How an attempt ended on its slot; a small result is the frame's body.

    Attributes:
        outcome: ``succeeded``, ``failed``, ``stopped`` (a stop reached it while it ran) or ``not_started``.
        reason: one line, where it did not succeed.
        result: of a success, or what a failure brings: ``none``; ``inline``: the body; ``file``: the file at ``path``,
            which raftd removes; ``stdout``: the end of what was captured.
        mode: of the kind, as in ``raftd.tasks.registry``: ``auto``, ``inline`` or ``blob``.
        started_at_ms, ended_at_ms: Unix time; both 0 if it was not started.
        spent: the slot's process cannot be used again (a task left a thread behind, or went over a limit).
    """

    token: str
    outcome: str
    reason: str = ""
    result: str = "none"
    mode: str = "auto"
    path: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    spent: bool = False

    def head(self) -> Head:
        """As the head of an ``ended`` frame."""
        return {
            "t": "ended",
            "token": self.token,
            "outcome": self.outcome,
            "reason": self.reason,
            "result": self.result,
            "mode": self.mode,
            "path": self.path,
            "started_at_ms": self.started_at_ms,
            "ended_at_ms": self.ended_at_ms,
            "spent": self.spent,
        }


def end_report(head: Head) -> EndReport:
    """Reads the head of an ``ended`` frame."""
    return EndReport(**{name: value for name, value in head.items() if name != "t"})
