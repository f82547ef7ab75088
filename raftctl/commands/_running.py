"""What the commands share: running a coroutine to its end, and what to say when a wait is interrupted.

What may live here: nothing that a user types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from raftctl import output
from raftctl.context import Invocation

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine on a loop of its own; Ctrl-C cancels it and comes out as KeyboardInterrupt."""
    return asyncio.run(coroutine)


def say_goes_on(asked: Invocation, ids: tuple[str, ...]) -> None:
    """After Ctrl-C during a wait: what was submitted goes on, and how to cancel it."""
    shown = " ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
    verb = "goes" if len(ids) == 1 else "go"
    output.say(asked, f"{shown} {verb} on; to cancel: raftctl task cancel {shown}")


def only_timeout_s(asked: Invocation) -> float | None:
    """``--timeout`` for a wait, which has no default: None waits for ever."""
    return None if asked.timeout_ms is None else asked.timeout_ms / 1000
