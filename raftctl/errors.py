"""Exit codes and the root of every error that a user may see.

What may live here: the table of exit codes (a contract: see ``docs/cli.md``) and exceptions that carry one.
Whatever derives from `RaftctlError` is printed by ``raftctl.app`` as ``error: ...`` and ``try: ...``;
everything else is a bug and is printed as one. The SDK's own tree, made from the codes that nodes send, is
``raftctl.client.errors``.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script can learn from the exit code of a command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4  # no leader, no quorum, or nobody answers
    TASK_FAILED = 5  # the task that was waited for failed or was cancelled
    REJECTED = 6  # queue full, request id conflict, name taken
    DEGRADED = 7  # status --check
    WAIT_TIMED_OUT = 124
    INTERRUPTED = 130


class RaftctlError(Exception):
    """An expected failure.

    Args:
        message: what happened and to what, one line.
        try_: what the reader can do next, one line, usually a command; empty where there is nothing.
        exit_code: what ``raftctl`` exits with when nobody catches it.
    """

    def __init__(self, message: str, try_: str = "", exit_code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.try_ = try_
        self.exit_code = exit_code


class CliError(RaftctlError):
    """A failure that the command line itself found: a bad word, a missing cluster, a wait that ran out."""


class UsageError(CliError):
    """What was typed cannot be meant: exit code 2."""

    def __init__(self, message: str, try_: str = "") -> None:
        super().__init__(message, try_, ExitCode.USAGE)
