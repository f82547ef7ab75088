"""Calls of Python functions as bytes, and what comes back.

What may live here: the format of the task kind ``python``, as its two ends agree on it. A call is the pickled
``(function, args, kwargs)``, and the interpreter's minor version as the first argument, for pickled code does not
run on another one. A value comes back pickled; an exception as ``(exception, traceback as text)``. Results are
unpickled in the caller's process: they come from functions that the caller has sent itself. Light to import, and
imported by slots too.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from raftctl.client.errors import ResultUnreadable

T = TypeVar("T")

KIND = "python"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

INLINE_BYTES = 64 * 1024
"""A larger call travels as a blob, and its task names the blob: the log is for small things."""


class RemoteTraceback(Exception):
    """Where an exception was raised on the cluster: the cause of one that came back from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """A call as bytes; functions and classes of the main program travel with it, those of modules by their name."""
    import cloudpickle  # only those who call functions pay for it

    data: bytes = cloudpickle.dumps((fn, args, kwargs))
    return data


def load_value(task_id: str, data: bytes) -> Any:
    """What a call returned.

    Raises:
        ResultUnreadable: this process cannot unpickle it.
    """
    try:
        return pickle.loads(data)
    except Exception as error:  # whatever a foreign class raises while it is made
        raise ResultUnreadable(
            f"the result of {task_id} cannot be unpickled here: {type(error).__name__}: {error}"
        ) from error


def load_error(task_id: str, data: bytes) -> BaseException:
    """What a call raised, with its traceback on the cluster as its cause.

    Raises:
        ResultUnreadable: this process cannot unpickle it.
    """
    match load_value(task_id, data):
        case (BaseException() as error, str(text)):
            error.__cause__ = RemoteTraceback(text)
            return error
        case found:
            raise ResultUnreadable(f"the error of {task_id} is not one: {type(found).__name__}")


def call_each(fn: Callable[..., T], rows: Iterable[tuple[Any, ...]]) -> list[T]:
    """Some calls of one function as one call: a chunk of ``RaftExecutor.map``."""
    return [fn(*row) for row in rows]
