"""The command line and the Python SDK of the scheduler; it knows a node only by its gRPC interface.

``from raftctl import Client`` (or `AsyncClient`, or `RaftExecutor`) imports gRPC; ``import raftctl`` does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftctl.client.futures import Future
    from raftctl.client.models import ArrayRange, Submission
    from raftctl.sdk import AsyncClient, Client, RaftExecutor

__version__ = "0.1.0"

__all__ = ["ArrayRange", "AsyncClient", "Client", "Future", "RaftExecutor", "Submission", "__version__"]

_HOMES = {
    "ArrayRange": "raftctl.client.models",
    "AsyncClient": "raftctl.sdk",
    "Client": "raftctl.sdk",
    "Future": "raftctl.client.futures",
    "RaftExecutor": "raftctl.sdk",
    "Submission": "raftctl.client.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
