"""The SDK: a client that finds the leader, remembers it and retries with the same request id.

This package knows a cluster only by its `raftctl.endpoints.Endpoints`. ``raftctl.Client``, ``raftctl.AsyncClient``
and ``raftctl.RaftExecutor`` are these classes with a cluster's name in front. Names are looked up when they are
used: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftctl.client.async_client import AsyncClient
    from raftctl.client.executor import RaftExecutor
    from raftctl.client.sync_client import Client

__all__ = ["AsyncClient", "Client", "RaftExecutor"]

_HOMES = {
    "AsyncClient": "raftctl.client.async_client",
    "Client": "raftctl.client.sync_client",
    "RaftExecutor": "raftctl.client.executor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
