"""What a node grants one attempt, and how going over it is said.

What may live here: the numbers and the words. This process is held to them by ``slot_fence``, processes of their own
by ``usage`` and ``slot_isolated``, output by raftd itself. They guard a node against mistakes, not against malice:
whatever runs as raftd's user can do what that user can.
"""

from __future__ import annotations

import errno
import signal
from dataclasses import astuple, dataclass

FENCE_S = 1
"""CPU time from the exception that says so to the signal that ends a task which does not listen."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one attempt; 0: none. The names of the settings are these with ``task_`` before them.

    Attributes:
        cpu_ms: CPU time.
        memory_bytes: what the slot's process may grow by, or what processes of their own have resident together.
        file_bytes: of each file that is written.
        processes: that an attempt with a process of its own runs at once.
    """

    cpu_ms: int = 0
    memory_bytes: int = 0
    file_bytes: int = 0
    processes: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def cpu(self) -> str:
        """That the CPU time is used up."""
        return over(self.cpu_ms, "ms of CPU time", "task_cpu_ms")

    def memory(self) -> str:
        """That it took more memory."""
        return over(self.memory_bytes, "bytes of memory", "task_memory_bytes")

    def file(self) -> str:
        """That a file grew too large."""
        return over(self.file_bytes, "bytes in one file", "task_file_bytes")

    def process_count(self) -> str:
        """That it ran too many processes."""
        return over(self.processes, "processes at once", "task_processes")

    def of_error(self, error: BaseException) -> str:
        """The limit that an exception, or one that it came from, is about; empty if it is about none."""
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            if self.memory_bytes and isinstance(link, MemoryError):
                return self.memory()
            if self.file_bytes and isinstance(link, OSError) and link.errno == errno.EFBIG:
                return self.file()
            link = link.__cause__ or link.__context__
        return ""

    def of_signal(self, number: int) -> str:
        """The limit that a process which died of this signal went over, or may have; empty if it is about none."""
        if self.cpu_ms and number == signal.SIGXCPU:
            return self.cpu()
        if self.file_bytes and number == signal.SIGXFSZ:
            return self.file()
        if self.memory_bytes and number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
            return f"perhaps for want of memory: {granted(self.memory_bytes, 'bytes', 'task_memory_bytes')}"
        return ""

    def of_status(self, status: int) -> str:
        """The same for a wait status; a shell's 128 + N says that what it ran died of signal N."""
        number = status & 0x7F
        exit_status = status >> 8
        if not number and exit_status > 128:
            number = exit_status - 128
        return self.of_signal(number) if number else ""


NONE = Limits()


def over(limit: int, what: str, setting: str) -> str:
    """That an attempt used more than it is granted."""
    return f"over this node's limit of {limit} {what} ({setting})"


def granted(limit: int, what: str, setting: str) -> str:
    """What an attempt is granted."""
    return f"this node's limit is {limit} {what} ({setting})"
