"""Finding and killing whole process trees: sessions of their own, stopped processes and daemons included.

What may live here: the process table, what is below whom, and signals to many. One blow is not enough, for processes
fork while one looks: callers repeat it until nothing is left. The supervisor loads this module, so it imports next
to nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping

Table = dict[int, int]
"""Process id -> parent's process id, of every process that is alive (zombies are not)."""


def process_table() -> Table:
    """Every living process that can be seen."""
    table: Table = {}
    try:
        names = os.listdir("/proc")
    except FileNotFoundError:
        return _table_from_ps()
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                stat = file.read(1024)
        except OSError:  # it ended meanwhile
            continue
        # "pid (command) state ppid ...": the command may hold spaces and brackets, so look from its end.
        state, parent = stat[stat.rindex(b")") + 2 :].split(None, 2)[:2]
        if state not in (b"Z", b"X"):
            table[int(name)] = int(parent)
    return table or _table_from_ps()


def _table_from_ps() -> Table:
    """The same through ps, where there is no /proc (macOS)."""
    import subprocess  # not at the top: the supervisor loads this module, and on Linux never comes here

    table: Table = {}
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,state="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, parent, state = line.split()[:3]
        if not state.startswith("Z"):
            table[int(pid)] = int(parent)
    return table


def descendants(roots: Iterable[int], table: Mapping[int, int]) -> set[int]:
    """Everything below these processes, without themselves."""
    children: dict[int, list[int]] = {}
    for pid, parent in table.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def children(parent: int, table: Mapping[int, int]) -> set[int]:
    """The processes whose parent this is."""
    return {pid for pid, its_parent in table.items() if its_parent == parent}


def send(pids: Iterable[int], number: signal.Signals) -> set[int]:
    """Signals each of them; those that have ended are passed over.

    A process id could in theory be taken by another process between the look at the table and this call; the kernel
    hands ids out in turn, so that a wrap-around within these microseconds is not to be expected.

    Returns:
        those that may not be signalled, because they have become another user's (a program like sudo).
    """
    refused: set[int] = set()
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.add(pid)
    return refused


def marked(mark: str) -> set[int]:
    """Processes whose environment, at their start, had ``mark`` (``NAME=value``); empty where there is no /proc."""
    wanted = mark.encode()
    found: set[int] = set()
    for pid in process_table():
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                environ = file.readall()
        except OSError:
            continue
        if wanted in environ.split(b"\0"):
            found.add(pid)
    return found
