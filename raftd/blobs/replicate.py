"""Making enough replicas of a blob: whom to push to, when to try another, when to give up.

What may live here: the choice and the supervision of pushes. How bytes reach a peer is behind ``PeerBlobs``.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from raftd.blobs.local import LocalBlobs
from raftd.blobs.peers import PeerBlobs
from raftd.blobs.ref import NotEnoughReplicas, check_digest
from raftd.errors import InvalidArguments, RaftdError

HEDGE_MS = 1_000
"""A push that takes longer gets company: one more candidate is tried beside it. A paused node refuses nothing."""


class Replicator:
    """Sees to it that a blob of this node is on as many nodes as it must be.

    Args:
        local_name: this node.
        local: its blobs.
        peers: those of the others.
        is_up: a hint about whom to try first.
        hedge_ms: after how long without an answer one more candidate is tried.
    """

    def __init__(
        self,
        local_name: str,
        local: LocalBlobs,
        peers: PeerBlobs,
        is_up: Callable[[str], bool],
        *,
        hedge_ms: int = HEDGE_MS,
    ) -> None:
        self._local_name = local_name
        self._local = local
        self._peers = peers
        self._is_up = is_up
        self._hedge_ms = hedge_ms

    async def replicate(
        self,
        digest: str,
        *,
        replicas: int,
        candidates: Sequence[str],
        timeout_ms: int,
        known: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Have ``replicas`` of the candidates hold the blob, fsynced and pinned; this node counts if it is one.

        Args:
            digest: a blob that this node has; it is pinned here first.
            replicas: how many candidates must hold it.
            candidates: the nodes that count, usually the voters.
            timeout_ms: when to give up.
            known: candidates that hold it already.

        Returns:
            the candidates that hold it, sorted; at least ``replicas``.

        Raises ``NotEnoughReplicas``, ``BlobNotFound`` where it is not here, ``InvalidArguments`` where there are fewer
        candidates than replicas, ``StorageError``.
        """
        check_digest(digest)
        names = dict.fromkeys(candidates)
        if not 0 < replicas <= len(names):
            raise InvalidArguments(f"{replicas} replicas cannot be made on {len(names)} nodes")
        await self._local.pin(digest)
        holders = {name for name in names if name in known or name == self._local_name}
        waiting = self._in_order(digest, [name for name in names if name not in holders])
        round_ = _Round(self._peers, digest, replicas, holders, waiting)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await round_.run(self._hedge_ms / 1000)
        except TimeoutError:
            round_.note_unanswered(timeout_ms)
        finally:
            await round_.cancel()
        if len(holders) < replicas:
            raise NotEnoughReplicas(digest, replicas, tuple(sorted(holders)), round_.failures)
        return tuple(sorted(holders))

    def _in_order(self, digest: str, names: list[str]) -> list[str]:
        """Nodes that are up first; among equals by a hash with the digest, so that blobs spread evenly."""
        return sorted(
            names, key=lambda name: (not self._is_up(name), zlib.crc32(f"{digest}{name}".encode()), name)
        )


class _Round:
    """The pushes of one blob."""

    def __init__(
        self, peers: PeerBlobs, digest: str, replicas: int, holders: set[str], waiting: list[str]
    ) -> None:
        self._peers = peers
        self._digest = digest
        self._replicas = replicas
        self._holders = holders
        self._waiting = waiting
        self._pushes: dict[asyncio.Task[None], str] = {}
        self.failures: dict[str, str] = {}

    async def run(self, hedge_s: float) -> None:
        """Push until enough hold it or nobody is left to try."""
        while len(self._holders) < self._replicas:
            while self._waiting and len(self._holders) + len(self._pushes) < self._replicas:
                self._start_one()
            if not self._pushes:
                return
            done, _ = await asyncio.wait(
                self._pushes, timeout=hedge_s if self._waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for push in done:
                self._settle(push)
            if not done:
                self._start_one()

    def note_unanswered(self, timeout_ms: int) -> None:
        """The time is over: say of whom nothing was heard."""
        for name in self._pushes.values():
            self.failures.setdefault(name, f"no answer within {timeout_ms} ms")
        for name in self._waiting:
            self.failures.setdefault(name, "not tried in time")

    async def cancel(self) -> None:
        """End what is still under way; a copy that arrives all the same does no harm."""
        for push in self._pushes:
            push.cancel()
        for push in self._pushes:
            with suppress(asyncio.CancelledError, RaftdError, OSError):
                await push

    def _start_one(self) -> None:
        name = self._waiting.pop(0)
        self._pushes[asyncio.create_task(self._peers.push(name, self._digest))] = name

    def _settle(self, push: asyncio.Task[None]) -> None:
        name = self._pushes.pop(push)
        try:
            push.result()
        except (RaftdError, OSError) as error:
            self.failures[name] = str(error)
        else:
            self._holders.add(name)
