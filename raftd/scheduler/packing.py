"""The table of tasks, in which those that have ended take little room.

What may live here: the packing of tasks. Most records are of tasks that have ended, and hardly anybody looks at them
again. Such a record is kept as a few bytes (``compact``) and becomes a ``Task`` when somebody asks for it; live ones
are kept as they are. What many records share, as those of an array do their spec, is not packed with each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from raftd.scheduler.compact import pack as pack_record
from raftd.scheduler.compact import read_text, text, unzigzag, zigzag
from raftd.scheduler.compact import unpack as unpack_record
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
from raftd.scheduler.requests import id_of, key_of, spec_numbers
from raftd.scheduler.table import Table

_PACKED_SPEC_BYTES = 1_024
"""A spec that is longer is kept as it is: packing it anew for every record would cost more than it saves."""

_NOTHING, _INLINE, _BLOB = range(3)
_STATES = {int(state): state for state in TaskState}
_OUTCOMES = {int(outcome): outcome for outcome in AttemptOutcome}
_STOPS: dict[int, StopReason | None] = {0: None, **{int(reason): reason for reason in StopReason}}


@dataclass(frozen=True, slots=True)
class SharingTask:
    """An ended task without its id, which is its key, and without what it may share with others."""

    spec: TaskSpec
    request_id: str
    data: bytes


PackedTask = bytes | SharingTask
"""An ended task without its id, in the shortest form."""


def pack(task: Task) -> PackedTask:
    """An ended task in few bytes."""
    result, base = task.result, task.submitted_at_ms
    kind = _NOTHING if result is None else _BLOB if isinstance(result, BlobRef) else _INLINE
    alone = task.array_index is None and _spec_bytes(task.spec) <= _PACKED_SPEC_BYTES
    reason = text(task.reason)
    small = [
        task.state,
        kind,
        alone,
        task.failures,
        task.crashes,
        task.returns,
        len(task.attempts),
        len(reason),
    ]
    large = [
        0 if task.array_index is None else task.array_index + 1,
        task.job_id or 0,
        _since(base, task.not_before_ms),
        _since(base, task.finished_at_ms),
        task.changed_index,
    ]
    rest = [reason]
    for attempt in task.attempts:
        node, why = text(attempt.node), text(attempt.reason)
        small += (
            attempt.slot,
            attempt.outcome or 0,
            attempt.stopping or 0,
            len(node),
            len(why),
            len(attempt.extra_slots),
            *attempt.extra_slots,
        )
        large += (
            attempt.number,
            attempt.incarnation,
            attempt.token.epoch,
            attempt.token.counter,
            _since(base, attempt.occupied_at_ms),
            _since(base, attempt.started_at_ms),
            _since(base, attempt.ended_at_ms),
        )
        rest += (node, why)
    if alone:
        _pack_spec(task.spec, small, large, rest)
        key = key_of(task.request_id)
        request = key.to_bytes((key.bit_length() + 7) // 8, "big")
        small.append(len(request))
        rest.append(request)
    if isinstance(result, BlobRef):
        large.append(result.size_bytes)
        rest.append(text(result.digest))
    elif result is not None:
        rest.append(result)
    data = pack_record(base, small, large, rest)
    return data if alone else SharingTask(task.spec, task.request_id, data)


def unpack(task_id: int, packed: PackedTask) -> Task:
    """The record as it was."""
    reader = _Reader(packed if isinstance(packed, bytes) else packed.data)
    base = reader.base
    state, kind, _, failures, crashes, returns, attempts_count, reason_bytes = reader.small(8)
    array_index, job_id, not_before_ms, finished_at_ms, changed_index = reader.large(5)
    reason = reader.text(reason_bytes)
    attempts = [_unpack_attempt(reader) for _ in range(attempts_count)]
    if isinstance(packed, bytes):
        spec = _unpack_spec(reader)
        (request_bytes,) = reader.small(1)
        request_id = id_of(int.from_bytes(reader.rest(request_bytes), "big"))
    else:
        spec, request_id = packed.spec, packed.request_id
    result: bytes | BlobRef | None = None
    if kind == _INLINE:
        result = reader.remainder()
    elif kind == _BLOB:
        (size_bytes,) = reader.large(1)
        result = BlobRef(read_text(reader.remainder()), size_bytes)
    return Task(
        task_id,
        spec,
        _STATES[state],
        job_id or None,
        array_index - 1 if array_index else None,
        request_id,
        base,
        _time(base, not_before_ms),
        tuple(attempts),
        failures,
        crashes,
        returns,
        result,
        reason,
        _time(base, finished_at_ms),
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


class _Reader:
    """A record, of which each part is read from front to back."""

    __slots__ = ("_at", "_data", "_large", "_large_at", "_small", "_small_at", "base")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.base, self._small, self._large, self._at = unpack_record(data)
        self._small_at = self._large_at = 0

    def small(self, count: int) -> tuple[int, ...]:
        start = self._small_at
        self._small_at = start + count
        return self._small[start : self._small_at]

    def large(self, count: int) -> tuple[int, ...]:
        start = self._large_at
        self._large_at = start + count
        return self._large[start : self._large_at]

    def rest(self, length: int) -> bytes:
        start = self._at
        self._at = start + length
        return self._data[start : self._at]

    def text(self, length: int) -> str:
        return read_text(self.rest(length)) if length else ""

    def remainder(self) -> bytes:
        return self._data[self._at :]


def _since(base: int, time_ms: int) -> int:
    """A time as the distance from another, which is a small number; 0 stays 0."""
    return zigzag(time_ms - base) + 1 if time_ms else 0


def _time(base: int, since: int) -> int:
    return base + unzigzag(since - 1) if since else 0


def _unpack_attempt(reader: _Reader) -> Attempt:
    base = reader.base
    slot, outcome, stopping, node_bytes, reason_bytes, extra_count = reader.small(6)
    extra_slots = reader.small(extra_count)
    number, incarnation, epoch, counter, occupied_at_ms, started_at_ms, ended_at_ms = reader.large(7)
    return Attempt(
        number,
        # There are few nodes and many attempts: one string for all of them.
        sys.intern(reader.text(node_bytes)),
        slot,
        incarnation,
        FencingToken(epoch, counter),
        _time(base, occupied_at_ms),
        _time(base, started_at_ms),
        _time(base, ended_at_ms),
        _OUTCOMES.get(outcome),
        reader.text(reason_bytes),
        _STOPS[stopping],
        extra_slots,
    )


def _spec_bytes(spec: TaskSpec) -> int:
    """About how many bytes a spec takes."""
    size = len(spec.payload) + len(spec.name) + sum(map(len, spec.args))
    for name, value in spec.env + spec.require:
        size += len(name) + len(value)
    return size


def _pack_spec(spec: TaskSpec, small: list[int], large: list[int], rest: list[bytes]) -> None:
    numbers = spec_numbers(spec)
    plain = numbers == _DEFAULT_NUMBERS
    pairs = [part for pair in spec.env + spec.require for part in pair]
    texts = [text(part) for part in (spec.kind, spec.name, *spec.args, *pairs)]
    small += (plain, len(spec.args), len(spec.env), len(spec.require), *map(len, texts), len(spec.payload))
    if not plain:
        large += (zigzag(numbers[0]), *numbers[1:])
    rest += texts
    rest.append(spec.payload)


def _unpack_spec(reader: _Reader) -> TaskSpec:
    plain, args_count, env_count, require_count = reader.small(4)
    lengths = reader.small(2 + args_count + 2 * (env_count + require_count))
    (payload_bytes,) = reader.small(1)
    kind, name, *texts = map(reader.text, lengths)
    pairs = list(zip(texts[args_count::2], texts[args_count + 1 :: 2], strict=True))
    numbers = _DEFAULT_NUMBERS
    if not plain:
        priority, *others = reader.large(len(_DEFAULT_NUMBERS))
        numbers = (unzigzag(priority), *others)
    priority, retries, backoff_first_ms, backoff_max_ms, run_timeout_ms, queue_timeout_ms, delay_ms, slots = (
        numbers
    )
    return TaskSpec(
        sys.intern(kind),
        tuple(texts[:args_count]),
        reader.rest(payload_bytes),
        tuple(pairs[:env_count]),
        name,
        priority,
        retries,
        backoff_first_ms,
        backoff_max_ms,
        run_timeout_ms,
        queue_timeout_ms,
        delay_ms,
        tuple(pairs[env_count:]),
        slots,
    )


_DEFAULT_NUMBERS = spec_numbers(TaskSpec(""))
