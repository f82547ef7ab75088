"""The only composition root: a Config and an open data directory become a running node, a member or a worker.

What may live here: which of the two it is. How each is put together is in ``member`` and ``worker``, out of what they
share in ``parts``; the process around it (signals, logging, exit codes) is ``raftd.process``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from raftd.config import Config
from raftd.storage.worker import WorkerDirectory
from raftd.wiring.parts import Fatal

if TYPE_CHECKING:
    from raftd.storage.directory import DataDirectory


class Node(Protocol):
    """A whole node. ``start`` and ``stop``, once each, on one event loop."""

    async def start(self) -> None:
        """Do what it is there for; what was started is stopped again if a later part cannot be."""

    async def removed(self) -> None:
        """Return when it was removed from the cluster."""

    async def stop(self, *, hand_over: bool = True) -> None:
        """Stop in good order, bounded in time; with ``hand_over``, have another lead first."""


def build(config: Config, directory: DataDirectory | WorkerDirectory, fatal: Fatal) -> Node:
    """Put a node together, without starting it.

    Args:
        config: its settings.
        directory: its open data directory; closed by its ``stop``.
        fatal: what to do when it cannot go on.

    Raises ``RaftdError`` where it cannot be put together; the type says why.
    """
    # Only one of the two is imported: a worker needs neither the cores nor the log.
    if isinstance(directory, WorkerDirectory):
        from raftd.wiring.worker import WorkerServer

        return WorkerServer(config, directory, fatal)
    from raftd.wiring.member import Server

    return Server(config, directory, fatal)
