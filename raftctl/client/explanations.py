"""Why tasks are where they are, and what became of their records: values of the SDK, as in ``models``."""

from __future__ import annotations

from dataclasses import dataclass

from raftctl.client.models import ReadInfo, Task


@dataclass(frozen=True, slots=True)
class Purged:
    """How many records were forgotten, and why others that were named were not."""

    count: int
    refused: tuple[tuple[str, Exception], ...]


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What one node says to a task that waits.

    Attributes:
        fits: it could run it, now or when slots become free.
        available: it could run it now.
        reasons: why not, one requirement each.
    """

    node: str
    fits: bool
    available: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task is where it is.

    Attributes:
        waits: what it waits for, in the order in which it must happen.
        ahead_count: tasks before it in the queue that the same nodes could run.
    """

    task: Task
    summary: str
    waits: tuple[str, ...]
    ahead_count: int
    nodes: tuple[NodeVerdict, ...]
    read: ReadInfo
