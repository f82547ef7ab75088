"""The changes of the latest entries, in log order, for whoever watches.

What may live here: a bounded window over what the applier told, and waiting for more. Every node keeps its own from its
own applied log, so a watch is served by any node and survives a change of leader: it goes on by index.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from raftd.scheduler.effects import Effect, JobChanged, NodeChanged, TaskChanged

DEFAULT_CHANGES_KEPT = 20_000

Changed = TaskChanged | NodeChanged | JobChanged


@dataclass(frozen=True, slots=True)
class Page:
    """Changes from an index on.

    Attributes:
        changes: in log order, whole entries only.
        next_index: where to go on.
        gap: changes below the first one were asked for and are not kept any more.
    """

    changes: tuple[Changed, ...]
    next_index: int
    gap: bool


class History:
    """A window over the applied changes.

    Args:
        changes_kept: the oldest entries go when there are more changes than this.
    """

    def __init__(self, changes_kept: int = DEFAULT_CHANGES_KEPT) -> None:
        self._kept = changes_kept
        self._entries: deque[tuple[int, tuple[Changed, ...]]] = deque()
        self._count = 0
        self._floor = 1
        self._last_index = 0
        self._more = asyncio.Event()

    @property
    def next_index(self) -> int:
        """The index after the last entry that changed anything."""
        return self._last_index + 1

    def on_effects(self, index: int, effects: Sequence[Effect]) -> None:
        """Take what an applied entry changed."""
        changes = tuple(
            effect for effect in effects if isinstance(effect, TaskChanged | NodeChanged | JobChanged)
        )
        if not changes:
            return
        self._last_index = index
        self._entries.append((index, changes))
        self._count += len(changes)
        while self._count > self._kept and len(self._entries) > 1:
            oldest, dropped = self._entries.popleft()
            self._count -= len(dropped)
            self._floor = oldest + 1
        more, self._more = self._more, asyncio.Event()
        more.set()

    def restart(self, index: int) -> None:
        """A snapshot of that entry took the place of the state: what changed up to it is not known here."""
        self._entries.clear()
        self._count = 0
        self._floor = index + 1
        self._last_index = index
        more, self._more = self._more, asyncio.Event()
        more.set()

    def page(self, from_index: int, limit: int) -> Page:
        """Changes with an index >= ``from_index``: whole entries, until ``limit`` changes are reached."""
        taken: list[Changed] = []
        position = self._position(from_index)
        for index, changes in islice(self._entries, position, None):
            taken.extend(changes)
            if len(taken) >= limit:
                return Page(tuple(taken), index + 1, from_index < self._floor)
        return Page(tuple(taken), max(from_index, self.next_index), from_index < self._floor)

    async def wait(self, from_index: int) -> None:
        """Return when there is a change with an index >= ``from_index``."""
        while self._last_index < from_index:
            await self._more.wait()

    def _position(self, from_index: int) -> int:
        """Where in the window the first entry with an index >= ``from_index`` is; most ask for the end."""
        position = len(self._entries)
        for index, _ in reversed(self._entries):
            if index < from_index:
                break
            position -= 1
        return position
