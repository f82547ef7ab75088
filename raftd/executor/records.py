"""What raftd and its supervisor say to each other: records of one fixed size on a socket pair.

What may live here: the record and its bytes. The supervisor loads this module, so it imports next to nothing.
"""

from __future__ import annotations

import struct
from enum import IntEnum

_LAYOUT = struct.Struct("!BBHIIxxxxq")

RECORD_BYTES = _LAYOUT.size

FDS_COUNT = 3
"""A ``SPAWNED`` record carries three descriptors: the slot's socket, and the read ends of its stdout and stderr."""


class Op(IntEnum):
    """What a record says. From raftd: ``LEASE`` to ``QUIT``; from the supervisor: ``READY`` to ``EXITED``."""

    LEASE = 1
    """``value``: kill everything at this boot time, in ms; one that has passed kills at once."""
    TERM = 2
    """Send this slot process SIGTERM, so that it looks at its socket."""
    KILL = 3
    """Kill this slot's whole tree and start a new slot in its place."""
    QUIT = 4
    """Kill everything and exit."""
    READY = 16
    """The lock is held, and nothing that an earlier supervisor started is left."""
    SPAWNED = 17
    """A slot process was started."""
    EXITED = 18
    """A slot process has ended, and nothing of its tree is left; ``value``: its wait status."""


class Cause(IntEnum):
    """Why a slot ended."""

    ITSELF = 0
    KILLED = 1
    """raftd asked for it."""
    LAPSED = 2
    """The lease ran out."""
    CLOSED = 3
    """The supervisor ends."""


class Record:
    """One message. ``serial`` names a slot process among all that this supervisor has started.

    Not a dataclass: that module alone would cost the supervisor a quarter of its memory and half of its start.
    """

    __slots__ = ("cause", "op", "pid", "serial", "slot", "value")

    def __init__(
        self,
        op: Op,
        slot: int = 0,
        serial: int = 0,
        pid: int = 0,
        value: int = 0,
        cause: Cause = Cause.ITSELF,
    ) -> None:
        self.op = op
        self.slot = slot
        self.serial = serial
        self.pid = pid
        self.value = value
        self.cause = cause

    def encode(self) -> bytes:
        """The record's bytes, ``RECORD_BYTES`` of them."""
        return _LAYOUT.pack(self.op, self.cause, self.slot, self.serial, self.pid, self.value)


def decode(data: bytes) -> Record:
    """Reads what ``encode`` wrote. Both ends are of one build, so anything else is a bug and raises."""
    op, cause, slot, serial, pid, value = _LAYOUT.unpack(data)
    return Record(Op(op), slot, serial, pid, value, Cause(cause))
