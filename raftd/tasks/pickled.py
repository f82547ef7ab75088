"""The kind ``python``: a function of the submitter's, pickled with cloudpickle, called in a slot.

What may live here: what comes in, what goes out, and the two errors of it. Unpickling runs whatever the submitter
wrote, so only slots of nodes that allow the kind do it, and the SDK for what comes back; raftd never does.

- Arguments: the submitter's Python version (``3.11``) and, where the pickle is no payload, the digest of its blob.
- Payload: ``cloudpickle.dumps((function, args, kwargs))``.
- Result: ``cloudpickle.dumps(value)``; of a failed attempt ``cloudpickle.dumps((exception, traceback as text))``.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from raftd.errors import InvalidArguments
from raftd.tasks.context import LimitExceeded, TaskCancelled, TaskContext, TaskFailed

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Code objects, which pickled functions hold, differ between minor versions."""

_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class RemoteError(Exception):
    """Stands for an exception that cannot be pickled.

    Args:
        name: of its type, with the module.
        text: what it said.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.text else self.name


def check(args: Sequence[str]) -> None:
    """Refuses arguments that are not of this kind, or of another Python.

    Raises:
        InvalidArguments: they are.
    """
    if not 1 <= len(args) <= 2 or not _VERSION.fullmatch(args[0]):
        raise InvalidArguments(
            "python takes the version of the Python that pickled the function, and perhaps a blob's digest",
            try_="submit Python functions with the SDK: Client().submit or RaftExecutor()",
        )
    if args[0] != VERSION:
        raise InvalidArguments(
            f"the function was pickled by Python {args[0]}, and this node runs Python {VERSION}",
            try_=f"submit it from Python {VERSION}",
        )
    if len(args) == 2 and not _DIGEST.fullmatch(args[1]):
        raise InvalidArguments("python: a blob's digest has 64 lower-case hex digits")


def run(ctx: TaskContext, args: Sequence[str]) -> bytes:
    """Calls the function; what it returns, pickled.

    Raises:
        TaskFailed: it raised, or something cannot be pickled; brings the exception.
    """
    check(args)  # the node that took the submission may run another Python than this one
    import cloudpickle  # only here: servers load this module to check submissions

    try:
        data = ctx.blobs.get(args[1]).read_bytes() if len(args) == 2 else ctx.payload
        function, positional, named = cloudpickle.loads(data)
        del data
        return bytes(cloudpickle.dumps(function(*positional, **named)))
    except (TaskCancelled, LimitExceeded):
        raise
    except BaseException as error:  # also SystemExit: the caller waits for an answer
        # Without the step that is this function.
        steps = error.__traceback__.tb_next if error.__traceback__ is not None else None
        text = "".join(traceback.format_exception(type(error), error, steps))
        print(text, end="", file=sys.stderr)
        reason = f"{type(error).__name__}: {error}"
        raise TaskFailed(reason, _pickled_error(cloudpickle, error, text)) from error


def _pickled_error(cloudpickle: Any, error: BaseException, text: str) -> bytes:
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        data = bytes(cloudpickle.dumps((error, text)))
        # Many an exception can be pickled, but not made again from that.
        if isinstance(cloudpickle.loads(data)[0], BaseException):
            return data
    except (
        Exception
    ) as why:  # whatever a foreign class does when it is pickled; it is said, and shown in its stead
        print(f"raftd: {name} cannot be pickled: {type(why).__name__}: {why}", file=sys.stderr)
    return bytes(cloudpickle.dumps((RemoteError(name, str(error)), text)))
