"""The table of tasks, in which those that have ended take little room.

What may live here: the packing. Most records are of tasks that have ended, and hardly anybody looks at them again. Such
a record is kept as a few bytes and becomes a ``Task`` when somebody asks for it; live ones are kept as they are. The
bytes are for this table alone: a snapshot has its own, so they may change at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from raftd.scheduler.model import (
    Attempt,
    AttemptOutcome,
    BlobRef,
    FencingToken,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.table import Table

# State, kind of the result, attempts, array index, job id, four times, three counts.
_HEAD = Struct("<BBHqQQQQQQQQ")
# Number, incarnation, token, three times, slot, outcome, reason to stop, further slots.
_ATTEMPT = Struct("<QQQQQQQIBBH")
_LENGTH = Struct("<I")
_SIZE = Struct("<Q")

_NOTHING, _INLINE, _BLOB = range(3)
_STATES = {int(state): state for state in TaskState}
_OUTCOMES = {int(outcome): outcome for outcome in AttemptOutcome}
_STOPS: dict[int, StopReason | None] = {0: None, **{int(reason): reason for reason in StopReason}}


@dataclass(frozen=True, slots=True)
class PackedTask:
    """An ended task without its id, which is its key. What it may share with other records is not packed."""

    spec: TaskSpec
    request_id: str
    data: bytes


def pack(task: Task) -> PackedTask:
    """An ended task in few bytes."""
    result = task.result
    kind = _NOTHING if result is None else _BLOB if isinstance(result, BlobRef) else _INLINE
    head = _HEAD.pack(
        task.state,
        kind,
        len(task.attempts),
        -1 if task.array_index is None else task.array_index,
        0 if task.job_id is None else task.job_id,
        task.submitted_at_ms,
        task.not_before_ms,
        task.finished_at_ms,
        task.changed_index,
        task.failures,
        task.crashes,
        task.returns,
    )
    parts = [head, *_text(task.reason)]
    for attempt in task.attempts:
        token = attempt.token
        parts.append(
            _ATTEMPT.pack(
                attempt.number,
                attempt.incarnation,
                token.epoch,
                token.counter,
                attempt.occupied_at_ms,
                attempt.started_at_ms,
                attempt.ended_at_ms,
                attempt.slot,
                attempt.outcome or 0,
                attempt.stopping or 0,
                len(attempt.extra_slots),
            )
        )
        parts += _text(attempt.node)
        parts += _text(attempt.reason)
        parts += [_LENGTH.pack(slot) for slot in attempt.extra_slots]
    if isinstance(result, BlobRef):
        parts.append(_SIZE.pack(result.size_bytes))
        parts.append(result.digest.encode("utf-8", "surrogatepass"))
    elif result is not None:
        parts.append(result)
    return PackedTask(task.spec, task.request_id, b"".join(parts))


def unpack(task_id: int, packed: PackedTask) -> Task:
    """The record as it was."""
    data = packed.data
    (
        state,
        kind,
        attempts_count,
        array_index,
        job_id,
        submitted_at_ms,
        not_before_ms,
        finished_at_ms,
        changed_index,
        failures,
        crashes,
        returns,
    ) = _HEAD.unpack_from(data)
    reason, at = _read_text(data, _HEAD.size)
    attempts = []
    for _ in range(attempts_count):
        attempt, at = _unpack_attempt(data, at)
        attempts.append(attempt)
    result: bytes | BlobRef | None = None
    if kind == _INLINE:
        result = data[at:]
    elif kind == _BLOB:
        (size_bytes,) = _SIZE.unpack_from(data, at)
        result = BlobRef(data[at + _SIZE.size :].decode("utf-8", "surrogatepass"), size_bytes)
    return Task(
        task_id,
        packed.spec,
        _STATES[state],
        job_id or None,
        None if array_index < 0 else array_index,
        packed.request_id,
        submitted_at_ms,
        not_before_ms,
        tuple(attempts),
        failures,
        crashes,
        returns,
        result,
        reason,
        finished_at_ms,
        changed_index,
    )


def as_task(task_id: int, record: Task | PackedTask) -> Task:
    """What the table holds, as a task."""
    return record if isinstance(record, Task) else unpack(task_id, record)


class TaskTable:
    """Tasks by id: a ``Table`` that packs those that have ended."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: Table[Task | PackedTask] = Table()

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._table

    def get(self, task_id: int) -> Task | None:
        """The task, or None."""
        record = self._table.get(task_id)
        return record if record is None or isinstance(record, Task) else unpack(task_id, record)

    def __getitem__(self, task_id: int) -> Task:
        return as_task(task_id, self._table[task_id])

    def put(self, task_id: int, task: Task) -> None:
        """Add a task, or put its new record in the place of the old."""
        self._table.put(task_id, pack(task) if task.state.terminal else task)

    def remove(self, task_id: int) -> None:
        """Take a task out.

        Raises:
            KeyError: there is none.
        """
        self._table.remove(task_id)

    def values(self) -> Iterator[Task]:
        """Every task, in the order of their ids."""
        return (task for _, task in self.items())

    def items(self) -> Iterator[tuple[int, Task]]:
        """Every id with its task, in the order of the ids."""
        return ((task_id, as_task(task_id, record)) for task_id, record in self._table.items())

    def from_key(self, first: int) -> Iterator[Task]:
        """Tasks from this id on, in ascending order."""
        return (as_task(task_id, record) for task_id, record in self._table.items_from(first))

    def freeze(self) -> tuple[dict[int, Task | PackedTask], ...]:
        """The tasks of this moment, as chunks that never change any more: read them by ``as_task``."""
        return self._table.freeze()


def _text(text: str) -> tuple[bytes, bytes]:
    encoded = text.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(encoded)), encoded


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    start = at + _LENGTH.size
    return data[start : start + length].decode("utf-8", "surrogatepass"), start + length


def _unpack_attempt(data: bytes, at: int) -> tuple[Attempt, int]:
    (
        number,
        incarnation,
        epoch,
        counter,
        occupied_at_ms,
        started_at_ms,
        ended_at_ms,
        slot,
        outcome,
        stopping,
        extra_count,
    ) = _ATTEMPT.unpack_from(data, at)
    node, at = _read_text(data, at + _ATTEMPT.size)
    reason, at = _read_text(data, at)
    extra_slots: tuple[int, ...] = ()
    if extra_count:
        size = _LENGTH.size * extra_count
        extra_slots = tuple([slot for (slot,) in _LENGTH.iter_unpack(data[at : at + size])])
        at += size
    attempt = Attempt(
        number,
        # There are few nodes and many attempts: one string for all of them.
        sys.intern(node),
        slot,
        incarnation,
        FencingToken(epoch, counter),
        occupied_at_ms,
        started_at_ms,
        ended_at_ms,
        _OUTCOMES.get(outcome),
        reason,
        _STOPS[stopping],
        extra_slots,
    )
    return attempt, at
