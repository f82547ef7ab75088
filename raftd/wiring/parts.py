"""What every node has, whatever else it is: an identity, cuts, a way to other nodes, blobs, and an executor.

What may live here: construction of what members and workers share.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

from raftd.blobs.disk import DiskBlobs
from raftd.blobs.fetch import Fetcher
from raftd.blobs.local import LocalBlobs
from raftd.blobs.peers import BlobDirectory
from raftd.blobs.replicate import Replicator
from raftd.config import Config, read_token
from raftd.errors import OldCopy, StorageError, StoreTwice
from raftd.executor.config import ExecutorConfig, limits_of
from raftd.executor.executor import Executor
from raftd.executor.protocols import BlobStore, LeaderWatch, ResultStore
from raftd.storage.identity import Identity
from raftd.tasks import registry
from raftd.transport.attach import GrpcAttachTransport
from raftd.transport.base import LocalNode, RemoteNode
from raftd.transport.blobs import GrpcPeerBlobs
from raftd.transport.caller import Caller
from raftd.transport.faults import FaultTable

log = logging.getLogger(__name__)

SERVER_GRACE_S = 1.0

FAULTS_FILE = "faults.json"
BLOBS_DIRECTORY = "blobs"

Fatal = Callable[[BaseException], None]
"""Called, from any thread, when the node cannot go on: the process must end without acknowledging anything."""


class Directory(Protocol):
    """An open data directory, a member's or a worker's."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def incarnation(self) -> int:
        """The highest that it has given out."""

    def next_incarnation(self) -> int:
        """Raise the incarnation, durably, and return it."""

    def condemn(self, reason: str) -> None:
        """Have every later start refuse it."""

    def close(self) -> None:
        """Give the lock up."""


class Parts:
    """The parts of one node, put together but not started.

    Args:
        config: its settings.
        directory: its open data directory.
        fatal: what to do when it cannot go on.

    Raises:
        ConfigError: the token cannot be read, or what is allowed is no kind that must be.
        StorageError: the cuts of an earlier life cannot be read.
    """

    def __init__(self, config: Config, directory: Directory, fatal: Fatal) -> None:
        identity = directory.identity
        self.config = config
        self.directory = directory
        self.fatal = fatal
        self.started_at_ms = time.time_ns() // 1_000_000
        self.local = LocalNode(
            identity.cluster_id,
            identity.store_id,
            identity.name,
            read_token(config.token_file),
            config.address,
            secrets.randbits(64),
        )
        self.registry = registry.load()
        self.registry.check_allowed(config.allow)
        for name, why in self.registry.broken.items():
            log.warning("the entry point %s of %s is not used: %s", name, registry.GROUP, why)
        self.faults = FaultTable(identity.name, config.data_dir / FAULTS_FILE, config.fault_injection)
        self.caller = Caller(self.local, self.faults)
        self.blobs = LocalBlobs(DiskBlobs(config.data_dir / BLOBS_DIRECTORY))

    def peer_blobs(self, remote: Callable[[str], RemoteNode | None]) -> GrpcPeerBlobs:
        """The blobs of other nodes."""
        return GrpcPeerBlobs(self.caller, self.blobs, remote)

    def replicator(self, peers: GrpcPeerBlobs, directory: BlobDirectory) -> Replicator:
        """Makes copies on other nodes."""
        return Replicator(self.local.name, self.blobs, peers, directory.is_up)

    def fetcher(self, peers: GrpcPeerBlobs, directory: BlobDirectory) -> Fetcher:
        """Brings copies here."""
        return Fetcher(self.local.name, self.blobs, peers, directory)

    def executor(self, role: str, leaders: LeaderWatch, results: ResultStore, blobs: BlobStore) -> Executor:
        """Runs attempts for whoever leads."""
        config, local = self.config, self.local
        return Executor(
            ExecutorConfig(
                data_dir=config.data_dir,
                cluster_id=local.cluster_id,
                store_id=local.store_id,
                name=local.name,
                role=role,
                address=config.address,
                slots=config.slots,
                kinds=self.registry.offered(config.allow),
                labels=config.labels,
                stop_grace_ms=config.stop_grace_ms,
                nice=config.slot_nice,
                output_limit_bytes=config.output_limit_bytes,
                output_over_bytes=config.task_output_bytes,
                limits=limits_of(config),
            ),
            incarnation=self.directory.incarnation,
            next_incarnation=self._next_incarnation,
            leaders=leaders,
            transport=GrpcAttachTransport(self.caller),
            results=results,
            blobs=blobs,
            fatal=self.halt,
        )

    def halt(self, error: BaseException) -> None:
        """This node must not go on; where its store is not the only one of its kind, it must never again."""
        if isinstance(error, OldCopy | StoreTwice):
            try:
                self.directory.condemn(error.message)
            except StorageError as failure:
                log.error("%s", failure.message)
        self.fatal(error)

    def is_ready(self, executor: Executor) -> bool:
        """Every slot process is warm, and the executor is attached to a leader."""
        return bool(executor.attached_to) and executor.slots_ready == self.config.slots

    def watch(self, work: asyncio.Task[None], started: AsyncExitStack) -> None:
        """End the node if this task fails, and cancel it when the node is stopped."""
        work.add_done_callback(self._on_ended)
        started.push_async_callback(_cancel, work)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fatal(error)

    async def _next_incarnation(self) -> int:
        return await asyncio.to_thread(self.directory.next_incarnation)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
