"""``status --watch``: the status that goes on.

What may live here: the loop that joins a stream of changes with a fresh look at the cluster, and its two
faces: a picture that is redrawn on a terminal, lines elsewhere. A look follows a change within
`LOOK_PAUSE_S`, and comes every `LOOK_EVERY_S` anyway, so that what no change tells (a silent node, a lost
quorum) is seen too.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from raftctl import output
from raftctl.client.errors import Unavailable
from raftctl.client.models import Change
from raftctl.client.overview import ClusterView
from raftctl.context import Invocation
from raftctl.sdk import AsyncClient, connect
from raftctl.views import changes, data
from raftctl.views import status as views
from raftctl.views.times import clock, now_ms

if TYPE_CHECKING:
    from raftctl.client.models import WatchBatch

LOOK_EVERY_S = 1.0
LOOK_PAUSE_S = 0.15
LOOK_TIMEOUT_S = 2.0
REDRAW_S = 0.25
LINES_BELOW = 6
NOTES_BELOW = 3


@dataclass(slots=True)
class _Watched:
    """What is known so far.

    Invariants: `view` is the latest look and `viewed_ms` when it was taken; `unseen` are the changes that
    came after the last line or document was printed; `recent` are the last few of them as lines, `notes` the
    same about the cluster itself, which would otherwise scroll away among them.
    """

    cluster: str
    view: ClusterView | None = None
    viewed_ms: int = 0
    problem: str | None = None
    unseen: list[Change] = field(default_factory=list)
    recent: deque[Text] = field(default_factory=lambda: deque(maxlen=LINES_BELOW))
    notes: deque[Text] = field(default_factory=lambda: deque(maxlen=NOTES_BELOW))
    stirred: asyncio.Event = field(default_factory=asyncio.Event)

    def take_batch(self, batch: WatchBatch) -> list[Text]:
        """Takes in what the stream says; returns it as lines."""
        lines = [changes.line(change) for change in batch.changes]
        self.recent += lines
        notes: list[Text] = []
        if batch.interruption is not None:
            notes.append(changes.note(f"{batch.interruption}: looking for another node", now_ms()))
        if batch.gap:
            notes.append(changes.note("some changes are gone from the cluster's memory", now_ms()))
        self.notes += notes
        self.unseen += batch.changes
        self.stirred.set()
        return lines + notes

    def take_view(self, view: ClusterView) -> list[Text]:
        """Takes in a fresh look; returns what is different about the cluster itself as lines."""
        before = self.view
        self.view, self.viewed_ms, self.problem = view, now_ms(), None
        lines: list[Text] = []
        if before is not None:
            was, now = before.status.leader, view.status.leader
            if now is not None and now != was:
                after = f" after {was}" if was else ""
                lines.append(changes.note(f"{now} leads{after}, term {view.status.term}", self.viewed_ms))
            elif now is None and was is not None:
                lines.append(changes.note(f"{was} no longer leads, and nobody else does yet", self.viewed_ms))
            quorum = view.status.quorum
            if quorum != before.status.quorum:
                enough = "" if quorum.ok else ", not enough"
                lines.append(
                    changes.note(f"{quorum.up} of {quorum.voters} voters are up{enough}", self.viewed_ms)
                )
        self.notes += lines
        return lines


async def watch_status(asked: Invocation, *, stale: bool) -> None:
    """Shows the status until it is interrupted."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(asked, timeout_s=LOOK_TIMEOUT_S))
        watched = _Watched(client.cluster)
        face: _Face
        if asked.machine:
            face = _Documents(watched)
        elif output.interactive():
            face = _Picture(watched, stack, output.console())
        else:
            face = _Lines(watched)
        async with asyncio.TaskGroup() as group:
            group.create_task(_follow(client, watched, face))
            group.create_task(_look(client, watched, face, stale=stale))
            if isinstance(face, _Picture):
                group.create_task(face.tick())


async def _follow(client: AsyncClient, watched: _Watched, face: _Face) -> None:
    async for batch in client.watch():
        face.changed(watched.take_batch(batch))


async def _look(client: AsyncClient, watched: _Watched, face: _Face, *, stale: bool) -> None:
    loop = asyncio.get_running_loop()
    while True:
        looked_at = loop.time()
        watched.stirred.clear()
        try:
            view = await client.cluster_view(timeout_s=LOOK_TIMEOUT_S, stale=stale)
        except Unavailable as error:
            watched.problem = error.message
            face.seen([])
        else:
            face.seen(watched.take_view(view))
        pause_s = LOOK_PAUSE_S - (loop.time() - looked_at)
        await asyncio.sleep(max(pause_s, 0))
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await watched.stirred.wait()
        except TimeoutError:
            continue


class _Face:
    """How it is shown."""

    def changed(self, lines: list[Text]) -> None:
        """The stream said something."""

    def seen(self, lines: list[Text]) -> None:
        """A fresh look was taken, or none could be."""


class _Lines(_Face):
    """A line for each change: for a pipe, a file, a dumb terminal."""

    def __init__(self, watched: _Watched) -> None:
        self._watched = watched
        self._console = output.console()
        self._begun = False
        self._problem: str | None = None

    def changed(self, lines: list[Text]) -> None:
        for line in lines:
            self._print(line)

    def seen(self, lines: list[Text]) -> None:
        if self._watched.view is not None and not self._begun:
            self._begun = True
            self._print(views.summary(self._watched.view, self._watched.cluster))
        if self._watched.problem != self._problem:
            self._problem = self._watched.problem
            if self._problem is not None:
                self._print(changes.note(self._problem, now_ms()))
        self.changed(lines)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)
        sys.stdout.flush()


class _Documents(_Face):
    """NDJSON: the whole status whenever it differs, with the ``changes`` since the line before."""

    def __init__(self, watched: _Watched) -> None:
        self._watched = watched
        self._before: dict[str, Any] | None = None

    def seen(self, lines: list[Text]) -> None:
        if self._watched.view is None or self._watched.problem is not None:
            return
        document = data.status(self._watched.view, self._watched.cluster)
        shape = _without_clocks(document)
        if shape == self._before and not self._watched.unseen:
            return
        self._before = shape
        document["changes"] = [data.change(one) for one in self._watched.unseen]
        self._watched.unseen.clear()
        output.json_line(document)


def _without_clocks(document: dict[str, Any]) -> dict[str, Any]:
    """The status without what changes by itself: no line is worth printing because time went by."""
    ticking = ("elapsed_ms", "last_seen_ms")
    whose = ("answered_by", "applied_index", "commit_index")
    keyless = {key: value for key, value in document.items() if key not in whose}
    for key in ("executing", "free_nodes", "nodes"):
        keyless[key] = [{k: v for k, v in row.items() if k not in ticking} for row in document[key]]
    return keyless


class _Picture(_Face):
    """Redrawn in place; counts on by itself between two looks."""

    def __init__(self, watched: _Watched, stack: AsyncExitStack, console: Console) -> None:
        self._watched = watched
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop", screen=False)
        stack.enter_context(self._live)

    def changed(self, lines: list[Text]) -> None:
        self._redraw()

    def seen(self, lines: list[Text]) -> None:
        self._redraw()

    async def tick(self) -> None:
        """Lets the clocks run."""
        while True:
            await asyncio.sleep(REDRAW_S)
            self._redraw()

    def _redraw(self) -> None:
        self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> RenderableType:
        watched = self._watched
        if watched.view is None:
            return Text(
                watched.problem or "asking the nodes ...", style="yellow" if watched.problem else "dim"
            )
        now = now_ms()
        below: list[RenderableType] = []
        if watched.problem is not None:
            since = clock(watched.viewed_ms)
            below.append(Text(f"no answer since {since}: {watched.problem}", style="bold red"))
        for heading, lines in (("Cluster", watched.notes), ("Changes", watched.recent)):
            if lines:
                below.append(Text("\n").join([Text(heading, style="bold"), *lines]))
        room = max((self._console.height - 20 - len(watched.recent) - len(watched.notes)) // 3, 3)
        return views.page(
            watched.view, watched.cluster, now, since_ms=now - watched.viewed_ms, limit=room, below=below
        )
