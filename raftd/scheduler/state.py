"""The replicated state: its tables, its counters, and the one way to change each.

What may live here: storage of records and the upkeep of what is derived from them. No rule of the scheduler: those are
in the modules that ``machine`` dispatches to. Only they may call the methods that change something.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftd.scheduler.indexes import Indexes
from raftd.scheduler.model import (
    BlobRecord,
    Genesis,
    Job,
    MemberRecord,
    Node,
    Settings,
    Task,
)
from raftd.scheduler.packing import PackedTask, TaskTable, as_task
from raftd.scheduler.request_table import RequestTable
from raftd.scheduler.table import Table

_BLOB_BUCKETS = 251
"""A prime, as it should be for buckets; there are fewer blobs than requests."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What is counted for ever.

    Attributes:
        token: the counter of the last fencing token that was given out; it only grows.
        next_request: the number of the next request record; ``oldest_request`` is that of the oldest one kept.
    """

    token: int = 0
    next_task_id: int = 1
    next_job_id: int = 1
    next_request: int = 1
    oldest_request: int = 1


@dataclass(frozen=True, slots=True)
class FrozenState:
    """The state of one moment, for as long as a snapshot needs: the chunks are shared and must not be written to."""

    genesis: Genesis
    applied_index: int
    cluster_time_ms: int
    counters: Counters
    settings: Settings
    kinds: tuple[str, ...]
    nodes: tuple[Node, ...]
    jobs: tuple[dict[int, Job], ...]
    tasks: tuple[dict[int, Task | PackedTask], ...]
    requests: tuple[dict[int, bytes], ...]
    blobs: tuple[dict[int, BlobRecord], ...]
    members: tuple[MemberRecord, ...]
    removed_stores: tuple[int, ...]


class State:
    """All that is replicated.

    Attributes:
        cluster_time_ms: the latest that any entry carried; it never goes back.
        kinds: every kind of task that a node has ever offered, in order of appearance.
        members: the stores that take part in consensus, in the order in which they came.
        removed_stores: tombstones; none of them is ever a member or an executor again.
        nodes: by name, in order of registration.
    """

    __slots__ = (
        "applied_index",
        "blobs",
        "cluster_time_ms",
        "genesis",
        "indexes",
        "jobs",
        "kinds",
        "members",
        "next_job_id",
        "next_task_id",
        "nodes",
        "removed_stores",
        "requests",
        "settings",
        "tasks",
        "token_counter",
    )

    def __init__(self, settings: Settings | None = None) -> None:
        self.genesis = Genesis(cluster_id=0, epoch=0, members=())
        self.members: tuple[MemberRecord, ...] = ()
        self.removed_stores: frozenset[int] = frozenset()
        self.settings = settings or Settings()
        self.applied_index = 0
        self.cluster_time_ms = 0
        self.token_counter = 0
        self.next_task_id = 1
        self.next_job_id = 1
        self.kinds: dict[str, None] = {}
        self.nodes: dict[str, Node] = {}
        self.jobs: Table[Job] = Table()
        self.tasks = TaskTable()
        self.requests = RequestTable()
        self.blobs: Table[BlobRecord] = Table(buckets=_BLOB_BUCKETS)
        self.indexes = Indexes(self.settings.ageing_ms)

    @property
    def cluster_id(self) -> int:
        """The cluster's id; 0 before the genesis entry is applied."""
        return self.genesis.cluster_id

    @property
    def epoch(self) -> int:
        """The first half of every fencing token."""
        return self.genesis.epoch

    def advance_clock(self, time_ms: int) -> None:
        """Move the cluster time forward, never back, and release the tasks that become due."""
        if time_ms <= self.cluster_time_ms:
            return
        indexes = self.indexes
        while (task_id := indexes.due(time_ms)) is not None:
            indexes.release(self.tasks[task_id])
        self.cluster_time_ms = indexes.now_ms = time_ms

    def add_task(self, task: Task) -> None:
        """Take in a new task."""
        self.tasks.put(task.id, task)
        self.indexes.add_task(task)

    def replace_task(self, old: Task, new: Task) -> None:
        """Put a task's new record in the place of the old."""
        self.indexes.remove_task(old)
        self.tasks.put(new.id, new)
        self.indexes.add_task(new)

    def meet_dependency(self, new: Task, target: int, job: bool) -> None:
        """Put a waiting task's new record, which does not name this one any more, in the place of the old."""
        self.tasks.put(new.id, new)
        self.indexes.met(new, target, job)

    def forget_task(self, task: Task) -> None:
        """Drop the record of an ended task."""
        self.indexes.remove_task(task)
        self.tasks.remove(task.id)

    def put_node(self, node: Node) -> None:
        """Take in a node, or put its new record in the place of the old."""
        old = self.nodes.get(node.name)
        if old is not None:
            self.indexes.remove_node(old)
        self.nodes[node.name] = node
        self.indexes.add_node(node)
        if old is None or old.labels is not node.labels or old.operator_labels is not node.operator_labels:
            self.indexes.relabel(old, node)

    def change_settings(self, settings: Settings) -> None:
        """Put other settings in the place of the old."""
        ageing_ms, self.settings = self.settings.ageing_ms, settings
        if settings.ageing_ms != ageing_ms:
            self.indexes.rebuild_queue(settings.ageing_ms, self.tasks)

    def member(self, store_id: int) -> MemberRecord | None:
        """The member of this store, or None."""
        return next((member for member in self.members if member.store_id == store_id), None)

    def node_of(self, store_id: int) -> Node | None:
        """The node of this store, or None."""
        return next((node for node in self.nodes.values() if node.store_id == store_id), None)

    def forget_node(self, node: Node) -> None:
        """Drop the record of a node that executes nothing."""
        self.indexes.remove_node(node)
        self.indexes.relabel(node, None)
        del self.nodes[node.name]

    def blob(self, digest: str) -> BlobRecord | None:
        """The directory's entry for these bytes, or None."""
        return self.blobs.get(int(digest, 16))

    def put_blob(self, record: BlobRecord) -> None:
        """Take in an entry of the directory, or put the new one in the place of the old."""
        self.blobs.put(int(record.ref.digest, 16), record)

    def freeze(self) -> FrozenState:
        """This moment, for a snapshot. Cost: one reference for each node and each chunk of a table."""
        return FrozenState(
            genesis=self.genesis,
            applied_index=self.applied_index,
            cluster_time_ms=self.cluster_time_ms,
            counters=Counters(
                token=self.token_counter,
                next_task_id=self.next_task_id,
                next_job_id=self.next_job_id,
                next_request=self.requests.next_number,
                oldest_request=self.requests.oldest_number,
            ),
            settings=self.settings,
            kinds=tuple(self.kinds),
            nodes=tuple(self.nodes.values()),
            jobs=self.jobs.freeze(),
            tasks=self.tasks.freeze(),
            requests=self.requests.freeze(),
            blobs=self.blobs.freeze(),
            members=self.members,
            removed_stores=tuple(sorted(self.removed_stores)),
        )

    @classmethod
    def thaw(cls, frozen: FrozenState) -> State:
        """A state equal to the one that was frozen; what is derived is built anew."""
        state = cls(frozen.settings)
        state.genesis = frozen.genesis
        state.members = frozen.members
        state.removed_stores = frozenset(frozen.removed_stores)
        state.applied_index = frozen.applied_index
        state.cluster_time_ms = state.indexes.now_ms = frozen.cluster_time_ms
        state.token_counter = frozen.counters.token
        state.next_task_id = frozen.counters.next_task_id
        state.next_job_id = frozen.counters.next_job_id
        state.kinds = dict.fromkeys(frozen.kinds)
        for node in frozen.nodes:
            state.put_node(node)
        for jobs in frozen.jobs:
            for job in jobs.values():
                state.jobs.put(job.id, job)
        for tasks in frozen.tasks:
            for task_id, task in tasks.items():
                state.add_task(as_task(task_id, task))
        state.requests = RequestTable.thaw(
            frozen.requests, frozen.counters.oldest_request, frozen.counters.next_request
        )
        for blobs in frozen.blobs:
            for blob in blobs.values():
                state.put_blob(blob)
        return state
