"""What follows from the records and is kept beside them, so that no question costs a walk over all tasks.

What may live here: derived order and counts. Nothing of it is in a snapshot: it is rebuilt from the records and is
then equal, because it depends on them alone and not on the path that led to them.

A key of a task is one integer: what it is ordered by, shifted left, over its id (so ties fall in order of submission).
A task that comes back to the queue has its old key: its place does not change.
"""

from __future__ import annotations

from raftd.scheduler.model import MAX_TIME_MS, Eligibility, Health, Node, Task, TaskSpec, TaskState
from raftd.scheduler.ordered import OrderedKeys

_ID_BITS = 64
_ID_MASK = (1 << _ID_BITS) - 1
_LOAD_UNIT = 1 << 16

TaskClass = tuple[str, tuple[tuple[str, str], ...], int]
"""What decides which nodes can run a task: its kind, the labels that it requires, how many slots it needs."""


def class_of(spec: TaskSpec) -> TaskClass:
    """The class of a task."""
    return spec.kind, spec.require, spec.slots


def task_key(order: int, task_id: int) -> int:
    """The key of a task in one of the orders below."""
    return (order << _ID_BITS) | task_id


def queue_key(task: Task) -> int:
    """A task's place in the queue: higher priority first, then order of submission."""
    return task_key(-task.spec.priority, task.id)


def task_of(key: int) -> int:
    """The id in a key."""
    return key & _ID_MASK


def order_of(key: int) -> int:
    """What the key is ordered by."""
    return key >> _ID_BITS


def load_of(executing: int, slots: int) -> int:
    """How busy a node is, comparable between nodes of different sizes, as an integer."""
    return executing * _LOAD_UNIT // slots


class Indexes:
    """Orders and counts over all tasks and nodes.

    Attributes:
        queue: by class, pending tasks that may start. By class, so that tasks that no node can take now are not even
            looked at when others are placed.
        delayed: pending tasks whose ``not_before_ms`` is after the cluster time, by ``not_before_ms``.
        run_deadlines: running tasks that have a run timeout and are not stopping yet, by the end of it.
        ended: tasks in a terminal state, by when they ended.
        free: nodes that take work, by the kinds they offer, then (load, name).
        labelled: the names of the nodes that have a label, by its name and value.
        unready: nodes that are up, cordoned or draining, and not empty yet, by (end of the drain, name).
    """

    __slots__ = (
        "_counts",
        "delayed",
        "ended",
        "free",
        "labelled",
        "now_ms",
        "queue",
        "run_deadlines",
        "unready",
    )

    def __init__(self) -> None:
        self.queue: dict[TaskClass, OrderedKeys[int]] = {}
        self.delayed: OrderedKeys[int] = OrderedKeys()
        self.run_deadlines: OrderedKeys[int] = OrderedKeys()
        self.ended: OrderedKeys[int] = OrderedKeys()
        self.free: dict[tuple[str, ...], OrderedKeys[tuple[int, str]]] = {}
        self.labelled: dict[tuple[str, str], dict[str, None]] = {}
        self.unready: OrderedKeys[tuple[int, str]] = OrderedKeys()
        self.now_ms = 0
        self._counts = [0] * (max(TaskState) + 1)

    def count(self, state: TaskState) -> int:
        """How many tasks in the record are in this state."""
        return self._counts[state]

    def add_task(self, task: Task) -> None:
        """Take note of a record."""
        state = task.state
        self._counts[state] += 1
        if state is TaskState.PENDING:
            if task.not_before_ms > self.now_ms:
                self.delayed.add(task_key(task.not_before_ms, task.id))
            else:
                self._enqueue(task)
        elif state is TaskState.RUNNING:
            deadline_ms = run_deadline_ms(task)
            if deadline_ms is not None:
                self.run_deadlines.add(task_key(deadline_ms, task.id))
        else:
            self.ended.add(task_key(task.finished_at_ms, task.id))

    def remove_task(self, task: Task) -> None:
        """Forget a record that was added."""
        state = task.state
        self._counts[state] -= 1
        if state is TaskState.PENDING:
            if task.not_before_ms > self.now_ms:
                self.delayed.remove(task_key(task.not_before_ms, task.id))
            else:
                wanted = class_of(task.spec)
                keys = self.queue[wanted]
                keys.remove(queue_key(task))
                if not keys:
                    del self.queue[wanted]
        elif state is TaskState.RUNNING:
            deadline_ms = run_deadline_ms(task)
            if deadline_ms is not None:
                self.run_deadlines.remove(task_key(deadline_ms, task.id))
        else:
            self.ended.remove(task_key(task.finished_at_ms, task.id))

    def due(self, now_ms: int) -> int | None:
        """The id of a delayed task that may start at that time, or None."""
        key = self.delayed.first
        return None if key is None or order_of(key) > now_ms else task_of(key)

    def release(self, task: Task) -> None:
        """Move a delayed task that is due to the queue."""
        self.delayed.remove(task_key(task.not_before_ms, task.id))
        self._enqueue(task)

    def add_node(self, node: Node) -> None:
        """Take note of a record."""
        if node.takes_work:
            ranked = self.free.get(node.kinds)
            if ranked is None:
                ranked = self.free[node.kinds] = OrderedKeys()
            ranked.add(_rank(node))
        elif _is_unready(node):
            self.unready.add(_unready_key(node))

    def remove_node(self, node: Node) -> None:
        """Forget a record that was added."""
        if node.takes_work:
            ranked = self.free[node.kinds]
            ranked.remove(_rank(node))
            if not ranked:
                del self.free[node.kinds]
        elif _is_unready(node):
            self.unready.remove(_unready_key(node))

    def relabel(self, old: Node | None, new: Node | None) -> None:
        """Take note of the labels of a node: they change seldom, so this is not done with every record of it."""
        if old is not None:
            for label in old.all_labels:
                names = self.labelled[label]
                del names[old.name]
                if not names:
                    del self.labelled[label]
        if new is not None:
            for label in new.all_labels:
                self.labelled.setdefault(label, {})[new.name] = None

    def _enqueue(self, task: Task) -> None:
        wanted = class_of(task.spec)
        keys = self.queue.get(wanted)
        if keys is None:
            keys = self.queue[wanted] = OrderedKeys()
        keys.add(queue_key(task))


def run_deadline_ms(task: Task) -> int | None:
    """When the run timeout of a running task passes, by cluster time; None: it has none, or is stopping already."""
    attempt = task.attempts[-1]
    if not task.spec.run_timeout_ms or attempt.stopping is not None:
        return None
    return attempt.occupied_at_ms + task.spec.run_timeout_ms


def _rank(node: Node) -> tuple[int, str]:
    slots = node.slots
    return load_of(slots - node.slots_free, slots), node.name


def _is_unready(node: Node) -> bool:
    return (
        node.health is Health.UP
        and node.eligibility is not Eligibility.READY
        and (node.slots_free < node.slots or any(node.reserved))
    )


def _unready_key(node: Node) -> tuple[int, str]:
    return node.drain_deadline_ms or MAX_TIME_MS, node.name
