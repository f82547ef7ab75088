"""What a committed entry caused, for those who act on it or watch.

What may live here: frozen dataclasses. Each carries the records as they are after the change, so that nobody has to
compare states. Only the leader acts on ``Assigned``, ``StopRequested`` and ``SlotFreed``; replay acts on nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from raftd.scheduler.model import Attempt, FencingToken, Job, MemberRecord, Node, StopReason, Task


class TaskChange(StrEnum):
    """What happened to a task, in the words of the Watch stream."""

    SUBMITTED = "submitted"
    RELEASED = "released"
    """All that it comes after has ended. That it waits for less than before is not told."""
    RUNNING = "running"
    RETRYING = "retrying"
    """Back to pending, for whatever reason."""
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NodeChange(StrEnum):
    """What happened to a node, in the words of the Watch stream."""

    UP = "node_up"
    """Registered under this incarnation."""
    UPDATED = "node_updated"
    LOST = "node_lost"


class JobChange(StrEnum):
    """What happened to a job."""

    SUBMITTED = "submitted"
    STOPPING = "stopping"
    """Cancelled, or over its max_failures."""
    FINISHED = "finished"
    """Every task of it has ended."""


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A task is now as given. ``node`` is where that happened, empty where it happened on none."""

    index: int
    time_ms: int
    change: TaskChange
    task: Task
    node: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node is now as given."""

    index: int
    time_ms: int
    change: NodeChange
    node: Node


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job is now as given. There is none for each task: follow ``TaskChanged``."""

    index: int
    time_ms: int
    change: JobChange
    job: Job


@dataclass(frozen=True, slots=True)
class Assigned:
    """A slot is occupied: its node is to start this attempt."""

    index: int
    node: str
    incarnation: int
    task: Task
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A node is to end an attempt: TERM, then KILL after the grace."""

    index: int
    node: str
    incarnation: int
    task_id: int
    token: FencingToken
    reason: StopReason


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """An attempt is over in the record: its node may forget it, and its slot may be occupied again."""

    index: int
    node: str
    incarnation: int
    slot: int
    task_id: int
    token: FencingToken


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """The members are now as given; ``removed`` are those that have just left for good."""

    index: int
    members: tuple[MemberRecord, ...]
    removed: tuple[MemberRecord, ...] = ()


Effect: TypeAlias = (
    TaskChanged | NodeChanged | JobChanged | Assigned | StopRequested | SlotFreed | MembersChanged
)
