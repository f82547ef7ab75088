"""What follows from the records and is kept beside them, so that no question costs a walk over all tasks.

What may live here: derived order and counts. Nothing of it is in a snapshot: it is rebuilt from the records and is
then equal, because it depends on them alone and not on the path that led to them.

A key of a task is one integer: what it is ordered by, shifted left, over its id (so ties fall in order of submission).
A task that comes back to the queue has its old key: its place does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge

from raftd.scheduler.model import MAX_TIME_MS, Eligibility, Health, Node, Task, TaskSpec, TaskState
from raftd.scheduler.ordered import OrderedKeys
from raftd.scheduler.packing import TaskTable

_ID_BITS = 64
_ID_MASK = (1 << _ID_BITS) - 1
_LOAD_UNIT = 1 << 16
_MAX_ORDER = 1 << 62
_ENDS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)

TaskClass = tuple[str, tuple[tuple[str, str], ...], int]
"""What decides which nodes can run a task: its kind, the labels that it requires, how many slots it needs."""


def class_of(spec: TaskSpec) -> TaskClass:
    """The class of a task."""
    return spec.kind, spec.require, spec.slots


def task_key(order: int, task_id: int) -> int:
    """The key of a task in one of the orders below."""
    return (order << _ID_BITS) | task_id


def queue_key(task: Task, ageing_ms: int) -> int:
    """A task's place in the queue: higher priority first, then order of submission.

    With ageing, one step of priority is worth ``ageing_ms`` of waiting. Everybody ages alike, so that the order of two
    tasks never changes and a place is a number.
    """
    if not ageing_ms:
        return task_key(-task.spec.priority, task.id)
    order = task.submitted_at_ms - task.spec.priority * ageing_ms
    return task_key(min(max(order, -_MAX_ORDER), _MAX_ORDER), task.id)


def dependency_key(target: int, job: bool, dependent: int) -> int:
    """The key of a task that comes after another, or after a job."""
    return task_key(target << 1 | job, dependent)


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
        dependents: pending tasks that wait for others, by what they wait for (``dependency_key``), one key for each;
            they are in no other order.
        queue_deadlines: pending tasks that have a queue timeout and have not started yet, by the end of it.
        run_deadlines: running tasks that have a run timeout and are not stopping yet, by the end of it.
        ended: by terminal state, tasks in it, by when they ended.
        free: nodes that take work, by the kinds they offer, then (load, name).
        labelled: the names of the nodes that have a label, by its name and value.
        reserving: names of the nodes on which some task waits for its turn.
        unready: nodes that are up, cordoned or draining, and not empty yet, by (end of the drain, name).
    """

    __slots__ = (
        "_ageing_ms",
        "_counts",
        "delayed",
        "dependents",
        "ended",
        "free",
        "labelled",
        "now_ms",
        "queue",
        "queue_deadlines",
        "reserving",
        "run_deadlines",
        "unready",
    )

    def __init__(self, ageing_ms: int) -> None:
        self.queue: dict[TaskClass, OrderedKeys[int]] = {}
        self.delayed: OrderedKeys[int] = OrderedKeys()
        self.dependents: OrderedKeys[int] = OrderedKeys()
        self.queue_deadlines: OrderedKeys[int] = OrderedKeys()
        self.run_deadlines: OrderedKeys[int] = OrderedKeys()
        self.ended: dict[TaskState, OrderedKeys[int]] = {state: OrderedKeys() for state in _ENDS}
        self.free: dict[tuple[str, ...], OrderedKeys[tuple[int, str]]] = {}
        self.labelled: dict[tuple[str, str], dict[str, None]] = {}
        self.reserving: OrderedKeys[str] = OrderedKeys()
        self.unready: OrderedKeys[tuple[int, str]] = OrderedKeys()
        self.now_ms = 0
        self._ageing_ms = ageing_ms
        self._counts = [0] * (max(TaskState) + 1)

    def count(self, state: TaskState) -> int:
        """How many tasks in the record are in this state."""
        return self._counts[state]

    @property
    def pending_count(self) -> int:
        """How many tasks people see as pending: those that wait for their turn on a slot included."""
        return self._counts[TaskState.PENDING] + self._counts[TaskState.RESERVED]

    @property
    def ended_count(self) -> int:
        """How many tasks in the record have ended."""
        return sum(map(len, self.ended.values()))

    @property
    def first_ended(self) -> int | None:
        """The key of the task that ended first, or None."""
        return min([keys.first for keys in self.ended.values() if keys.first is not None], default=None)

    def latest_ended(self) -> Iterator[int]:
        """The keys of the ended tasks, the latest first."""
        return merge(*map(reversed, self.ended.values()), reverse=True)

    def queue_key(self, task: Task) -> int:
        """The task's place in the queue, whether or not it is in it."""
        return queue_key(task, self._ageing_ms)

    def rebuild_queue(self, ageing_ms: int, tasks: TaskTable) -> None:
        """Order the queue anew, by another ageing."""
        self._ageing_ms = ageing_ms
        for wanted, keys in self.queue.items():
            self.queue[wanted] = OrderedKeys([queue_key(tasks[task_of(key)], ageing_ms) for key in keys])

    def add_task(self, task: Task) -> None:
        """Take note of a record."""
        state = task.state
        self._counts[state] += 1
        if state is TaskState.PENDING:
            if task.after:
                for one in task.after:
                    self.dependents.add(dependency_key(one.target, one.job, task.id))
            else:
                self._add_ready(task)
        elif state is TaskState.RUNNING:
            deadline_ms = run_deadline_ms(task)
            if deadline_ms is not None:
                self.run_deadlines.add(task_key(deadline_ms, task.id))
        elif state.terminal:
            self.ended[state].add(task_key(task.finished_at_ms, task.id))

    def remove_task(self, task: Task) -> None:
        """Forget a record that was added."""
        state = task.state
        self._counts[state] -= 1
        if state is TaskState.PENDING:
            if task.after:
                for one in task.after:
                    self.dependents.remove(dependency_key(one.target, one.job, task.id))
            else:
                self._remove_ready(task)
        elif state is TaskState.RUNNING:
            deadline_ms = run_deadline_ms(task)
            if deadline_ms is not None:
                self.run_deadlines.remove(task_key(deadline_ms, task.id))
        elif state.terminal:
            self.ended[state].remove(task_key(task.finished_at_ms, task.id))

    def dependents_of(self, target: int, job: bool) -> list[int]:
        """The ids of the tasks that wait for a task, or for a job, in ascending order."""
        low, high = dependency_key(target, job, 0), dependency_key(target, job, _ID_MASK)
        return [task_of(key) for key in self.dependents.between(low, high)]

    def met(self, task: Task, target: int, job: bool) -> None:
        """A task that waited for this one as well now waits for what its record, as it is given, still names."""
        self.dependents.remove(dependency_key(target, job, task.id))
        if not task.after:
            self._add_ready(task)

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
        if node.reserved:
            self.reserving.add(node.name)
        if node.takes_work:
            ranked = self.free.get(node.kinds)
            if ranked is None:
                ranked = self.free[node.kinds] = OrderedKeys()
            ranked.add(_rank(node))
        elif _is_unready(node):
            self.unready.add(_unready_key(node))

    def remove_node(self, node: Node) -> None:
        """Forget a record that was added."""
        if node.reserved:
            self.reserving.remove(node.name)
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

    def _add_ready(self, task: Task) -> None:
        if task.not_before_ms > self.now_ms:
            self.delayed.add(task_key(task.not_before_ms, task.id))
        else:
            self._enqueue(task)
        deadline_ms = queue_deadline_ms(task)
        if deadline_ms is not None:
            self.queue_deadlines.add(task_key(deadline_ms, task.id))

    def _remove_ready(self, task: Task) -> None:
        if task.not_before_ms > self.now_ms:
            self.delayed.remove(task_key(task.not_before_ms, task.id))
        else:
            wanted = class_of(task.spec)
            keys = self.queue[wanted]
            keys.remove(self.queue_key(task))
            if not keys:
                del self.queue[wanted]
        deadline_ms = queue_deadline_ms(task)
        if deadline_ms is not None:
            self.queue_deadlines.remove(task_key(deadline_ms, task.id))

    def _enqueue(self, task: Task) -> None:
        wanted = class_of(task.spec)
        keys = self.queue.get(wanted)
        if keys is None:
            keys = self.queue[wanted] = OrderedKeys()
        keys.add(self.queue_key(task))


def queue_deadline_ms(task: Task) -> int | None:
    """When the queue timeout of a pending task passes, by cluster time; None: it has none, or has had its turn once.

    An attempt that was taken back before its turn came is none.
    """
    if not task.spec.queue_timeout_ms:
        return None
    if any(attempt.occupied_at_ms or attempt.started_at_ms for attempt in task.attempts):
        return None
    if task.attempts and task.attempts[0].number > 1:
        # Of those that are not kept any more one may have had its turn.
        return None
    may_start_at_ms = max(task.submitted_at_ms, task.not_before_ms)
    return min(may_start_at_ms + task.spec.queue_timeout_ms, MAX_TIME_MS)


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
