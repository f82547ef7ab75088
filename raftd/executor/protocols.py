"""What the executor needs of others: clocks, the way to a leader, the blob store, the next incarnation.

What may live here: Protocols and the small values in them. Wiring hands in what fulfils them (``raftd.transport`` and
``raftd.blobs`` are siblings that the executor must not import); tests hand in fakes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from raftd.scheduler.attach import AttachDown, AttachUp
from raftd.scheduler.model import BlobRef

NextIncarnation: TypeAlias = Callable[[], Awaitable[int]]
"""Raises this store's incarnation by one, makes it durable, returns it."""


class Clock(Protocol):
    """Where the executor gets time from."""

    def boottime_ms(self) -> int:
        """Milliseconds that never go back and count suspension; comparable between processes of one machine."""

    def wall_ms(self) -> int:
        """Unix milliseconds; may jump."""


class ResultStore(Protocol):
    """Where large results go."""

    async def put(self, data: bytes) -> tuple[BlobRef, tuple[str, ...]]:
        """Stores the bytes; returns when a majority of the voters holds them, fsynced.

        Returns:
            what names the bytes, and the names of the nodes that hold them.

        Raises:
            RaftdError: a retryable one is tried again until the lease is lost or a stop is asked for; any other
                fails the attempt.
        """
        ...


class BlobStore(Protocol):
    """Where tasks get blobs from, and put some."""

    async def fetch(self, digest: str) -> Path:
        """A local file with the bytes of this SHA-256 (64 lower-case hex digits), pulled from a peer if need be.

        Raises:
            RaftdError: nobody who can be reached has it.
        """
        ...

    async def put_file(self, path: Path) -> BlobRef:
        """Stores a file's bytes; returns when a majority of the voters holds them, and the cluster knows of them.

        Raises:
            RaftdError: as for ``ResultStore.put``.
            OSError: the file cannot be read.
        """
        ...


class AttachStream(Protocol):
    """One open stream to a leader."""

    async def send(self, message: AttachUp) -> None:
        """Sends one message.

        Raises:
            RaftdError: the stream is over.
        """
        ...

    async def receive(self) -> AttachDown | None:
        """The next message; None when the leader has ended the stream.

        Raises:
            IncarnationLost: the cluster has given this incarnation up, or knows a later one.
            WrongIdentity: this node does not belong to that cluster.
            RaftdError: the stream failed.
        """
        ...

    async def close(self) -> None:
        """Ends the stream; may be called twice."""
        ...


class AttachTransport(Protocol):
    """Dials leaders."""

    async def connect(self, leader_name: str, address: str, /) -> AttachStream:
        """Opens a stream; may return before anybody has answered.

        Raises:
            RaftdError: it cannot be opened.
        """
        ...


Leader: TypeAlias = tuple[str, str]
"""A leader's name and its address."""


class LeaderWatch(Protocol):
    """Who leads, as far as this node knows."""

    def leader(self) -> Leader | None:
        """The leader's name and address, or None while none is known."""
        ...

    async def changed(self, seen: Leader | None, /) -> Leader | None:
        """Waits until ``leader()`` is other than ``seen``, and returns it (at once, if it is so already)."""
        ...

    def failed(self, leader: Leader, /) -> None:
        """This leader could not be reached, or did not renew the lease. Who knows by itself who leads ignores it."""

    def worked(self, leader: Leader, /) -> None:
        """This leader has renewed the lease, which only a leader can."""
