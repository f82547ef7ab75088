"""Injected partitions: which traffic between nodes this node drops.

What may live here: the table of cuts, its persistence, and nothing about gRPC. Cuts are directed pairs of node
names; a node acts on those that name it at either end, so that a message is dropped at both. They live on disk as
well as in memory, because a partition that a restart heals would not be a partition.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from raftd.errors import FaultInjectionOff, StorageError

Cut = tuple[str, str]
"""(from, to): traffic from the first node to the second is dropped."""

_FORMAT = 1


class _Listener:
    """One subscription: equal only to itself, so that the same function may be subscribed twice."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call


class FaultTable:
    """The cuts that this node acts on.

    Args:
        local: this node's name.
        file: where the cuts are kept over a restart; read at once if fault injection is on.
        enabled: whether cuts may be set; where they may not, an old file is ignored.

    Raises:
        StorageError: the file cannot be read or is not of a known form.
    """

    def __init__(self, local: str, file: Path, enabled: bool) -> None:
        self._local = local
        self._file = file
        self._enabled = enabled
        self._cuts: frozenset[Cut] = _load(file) if enabled else frozenset()
        self._listeners: dict[_Listener, None] = {}

    @property
    def enabled(self) -> bool:
        """Whether this node was started with fault injection."""
        return self._enabled

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """All cuts in force here, sorted."""
        return tuple(sorted(self._cuts))

    def drops_to(self, peer: str) -> bool:
        """Whether what this node says to ``peer`` is dropped."""
        return (self._local, peer) in self._cuts

    def drops_from(self, peer: str) -> bool:
        """Whether what ``peer`` says to this node is dropped."""
        return (peer, self._local) in self._cuts

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after every change; returns what ends that, and may be called twice."""
        entry = _Listener(listener)
        self._listeners[entry] = None

        def stop() -> None:
            self._listeners.pop(entry, None)

        return stop

    def change(self, add: Iterable[Cut], remove: Iterable[Cut], heal: bool) -> None:
        """Set and lift cuts, durably, then tell the listeners.

        Args:
            add: cuts to set, after the removals.
            remove: cuts to lift.
            heal: lift every cut first.

        Raises:
            FaultInjectionOff: the node was not started with fault injection.
            StorageError: the table could not be written; nothing was changed.
        """
        if not self._enabled:
            raise FaultInjectionOff(
                f"{self._local} was started without fault injection", try_="start it with --fault-injection"
            )
        cuts = frozenset() if heal else self._cuts - frozenset(remove)
        cuts |= frozenset(cut for cut in add if self._local in cut and cut[0] != cut[1])
        if cuts != self._cuts:
            _store(self._file, cuts)
            self._cuts = cuts
            for entry in tuple(self._listeners):
                if entry in self._listeners:
                    entry.call()


def _load(file: Path) -> frozenset[Cut]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cannot read the injected faults in {file}: {error}", try_=f"remove {file}"
        ) from None
    cuts = document.get("cuts") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(cuts, list) or not all(_is_cut(cut) for cut in cuts):
        raise StorageError(f"{file} is not a fault table that this version knows", try_=f"remove {file}")
    return frozenset((source, target) for source, target in cuts)


def _is_cut(cut: object) -> bool:
    return isinstance(cut, list) and len(cut) == 2 and all(isinstance(name, str) for name in cut)


def _store(file: Path, cuts: frozenset[Cut]) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump({"format": _FORMAT, "cuts": sorted(cuts)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageError(f"cannot write the injected faults to {file}: {error.strerror}") from None
