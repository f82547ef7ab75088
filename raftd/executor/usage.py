"""What the processes below a slot use together, and whether that is more than their attempt is granted.

What may live here: reading /proc, and the comparison. A sum over a tree is nothing that the system limits for an
ordinary user, so the slot looks several times a second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from raftd.executor.limits import Limits
from raftd.executor.process_tree import descendants

_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    lives: bool  # or has ended, and nobody has waited for it yet
    cpu_ms: int  # that of children it has waited for included
    memory_bytes: int


class Watch:
    """The processes below this one, from now on.

    Args:
        limits: of the attempt that they are.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._reaped_before_ms = _reaped_ms()

    def over(self) -> str:
        """The limit that they are over, in words; empty while they are over none."""
        limits = self._limits
        table = _processes()
        tree = [
            table[pid] for pid in descendants((os.getpid(),), {pid: one.parent for pid, one in table.items()})
        ]
        if limits.processes and sum(one.lives for one in tree) > limits.processes:
            return limits.process_count()
        if limits.memory_bytes and sum(one.memory_bytes for one in tree) > limits.memory_bytes:
            return limits.memory()
        cpu_ms = sum(one.cpu_ms for one in tree) + _reaped_ms() - self._reaped_before_ms
        return limits.cpu() if limits.cpu_ms and cpu_ms > limits.cpu_ms else ""


def _reaped_ms() -> int:
    times = os.times()
    return int(1000 * (times.children_user + times.children_system))


def _processes() -> dict[int, _Process]:
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                stat = file.read(1024)
        except OSError:  # it ended meanwhile
            continue
        # proc(5), from the third field on: the command, which is the second, may hold spaces and brackets.
        fields = stat[stat.rindex(b")") + 2 :].split()
        ticks = sum(int(field) for field in fields[11:15])
        found[int(name)] = _Process(
            int(fields[1]), fields[0] not in (b"Z", b"X"), ticks * _TICK_MS, int(fields[21]) * _PAGE_BYTES
        )
    return found
