"""What the end of a process means.

What may live here: wait statuses in words, for the slot that reaps a program and for raftd that hears of a slot's end.
"""

from __future__ import annotations

import os
import signal

from raftd.executor.limits import NONE, Limits


def describe_status(status: int, limits: Limits = NONE) -> str:
    """What a wait status means, in words, with the limit that it is about; empty for success."""
    code = os.waitstatus_to_exitcode(status)
    if not code:
        return ""
    words = f"exit status {code}"
    if code < 0:
        try:
            name = f" ({signal.Signals(-code).name})"
        except ValueError:
            name = ""
        words = f"killed by signal {-code}{name}"
    over = limits.of_status(status)
    return f"{words}: {over}" if over else words
