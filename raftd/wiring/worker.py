"""A worker: it executes, and holds no log.

It has those parts of a member that have nothing to do with consensus, and one more: it finds the leader by asking.

What may live here: construction, start and stop, in order. No decision of the worker's is taken here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from raftd.config import Config
from raftd.errors import ConfigError
from raftd.node.discovery import Discovery
from raftd.node.results import AskedDirectory, WorkerBlobs
from raftd.services.server import ServerHost, Services
from raftd.services.worker import WorkerAdmin, WorkerScheduler
from raftd.storage.worker import WorkerDirectory
from raftd.transport.guides import GrpcGuides
from raftd.wiring.parts import SERVER_GRACE_S, Fatal, Parts

log = logging.getLogger(__name__)


class WorkerServer:
    """A whole worker. ``start`` and ``stop``, once each, on one event loop.

    Args:
        config: its settings.
        directory: its open data directory; closed by ``stop``.
        fatal: what to do when it cannot go on.

    Raises:
        ConfigError: the token cannot be read, the port is in use, or there is no member to ask.
        StorageError: a file of an earlier life cannot be read.
    """

    def __init__(self, config: Config, directory: WorkerDirectory, fatal: Fatal) -> None:
        self._config = config
        self._directory = directory
        self._parts = parts = Parts(config, directory, fatal)
        known = directory.nodes()
        if not known and not config.join:
            raise ConfigError(
                "no node of the cluster is named, and none is known from before",
                try_="--join HOST:PORT,... of some members",
            )
        self.members = Discovery(GrpcGuides(parts.caller), config.join, known, directory.remember)
        peers = parts.peer_blobs(self.members.remote)
        asked = AskedDirectory(self.members, peers)
        self.blobs = WorkerBlobs(
            parts.blobs, parts.replicator(peers, asked), parts.fetcher(peers, asked), asked
        )
        self.executor = parts.executor("worker", self.members, self.blobs, self.blobs)
        services = Services(
            scheduler=WorkerScheduler(parts.local.name, self.executor.open_logs, self.members),
            admin=WorkerAdmin(
                local=parts.local,
                incarnation=lambda: self.executor.incarnation,
                address=config.address,
                started_at_ms=parts.started_at_ms,
                members=self.members,
                slots_ready=lambda: self.slots_ready,
                faults=parts.faults,
            ),
            stores=self.members,
        )
        self._host = ServerHost(config.listen, parts.local, parts.faults, self.members, services)
        self._started = AsyncExitStack()

    async def start(self) -> None:
        """Serve, look for the leader, and execute. What was started is stopped again if a later part cannot be."""
        async with AsyncExitStack() as started:
            started.callback(self._directory.close)
            started.push_async_callback(self._parts.caller.close)
            self._parts.watch(asyncio.create_task(self.members.run(), name="discovery"), started)
            started.push_async_callback(self._host.stop, SERVER_GRACE_S)
            await self._host.start()
            started.push_async_callback(self.executor.stop, self._config.stop_grace_ms)
            await self.executor.start()
            self._started = started.pop_all()
        local = self._parts.local
        log.info(
            "%s (worker, store %016x of cluster %016x, incarnation %d) serves on %s",
            local.name,
            local.store_id,
            local.cluster_id,
            self._directory.incarnation,
            self._config.listen,
        )

    @property
    def slots_ready(self) -> bool:
        """Every slot process is warm, and the executor is attached to a leader."""
        return self._parts.is_ready(self.executor)

    async def removed(self) -> None:
        """Never returns: the leader tells a worker that was removed, and its process ends then."""
        await asyncio.Event().wait()

    async def stop(self, *, hand_over: bool = True) -> None:
        """Stop what runs, report what can be reported, and let the data directory go; bounded in time.

        Args:
            hand_over: of no meaning here: a worker leads nothing.
        """
        # In the opposite order of the start, and each part also when another has failed to stop.
        await self._started.aclose()
        log.info("%s has stopped", self._parts.local.name)
