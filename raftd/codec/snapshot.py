"""A snapshot of the state between dataclass and bytes, slice by slice.

What may live here: the order of a snapshot and its framing. The encoder is a generator: each slice takes a few
milliseconds at most, and the host does other work between two of them while the frozen state stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from google.protobuf.message import DecodeError

from raftd.codec.genesis import from_message, to_message
from raftd.codec.records import (
    SpecNumbers,
    decode_blob,
    decode_job,
    decode_member,
    decode_node,
    decode_request,
    decode_settings,
    decode_task,
    encode_blob,
    encode_job,
    encode_member,
    encode_node,
    encode_request,
    encode_settings,
    encode_task,
)
from raftd.codec.values import decode_spec, unknown
from raftd.errors import StorageError
from raftd.pb import log_pb2 as pb
from raftd.scheduler.model import BlobRecord, Job, Node, Task, TaskSpec
from raftd.scheduler.packing import PackedTask, as_task
from raftd.scheduler.request_table import pack_request, unpack_request
from raftd.scheduler.state import Counters, FrozenState, State

FORMAT_VERSION = 2

_LENGTH_BYTES = 4
_MAX_SLICE_BYTES = 1 << 30
_RECORDS = 128
_NODES = 16
"""Few, for one node may have many labels, kinds and slots."""
_SLICE_BYTES = 256 * 1024
_ATTEMPT_BYTES = 256
"""What an attempt costs beside its reason: about as long to encode as so many bytes."""


def encode_snapshot(frozen: FrozenState) -> Iterator[bytes]:
    """The state of one moment (``State.freeze``) as slices, to be written one after the other."""
    yield _frame(pb.SnapshotSlice(head=_encode_head(frozen)))
    numbers = SpecNumbers()
    ended = pb.SnapshotEnd()
    yield from _node_slices(frozen, ended)
    yield from _job_slices(frozen, ended)
    yield from _task_slices(frozen, numbers, ended)
    yield from _request_slices(frozen, ended)
    yield from _blob_slices(frozen, ended)
    yield _frame(pb.SnapshotSlice(end=ended))


def decode_snapshot(parts: Iterable[bytes]) -> State:
    """The state in a snapshot; the parts may be cut anywhere.

    Raises:
        UnknownFormat: of a version that this build does not know.
        StorageError: it is damaged or not whole.
    """
    slices = _slices(parts)
    first = next(slices, None)
    if first is None or not first.HasField("head"):
        raise _damaged("it has no head")
    reader = _Reader(first.head)
    for piece in slices:
        if reader.end is not None:
            raise _damaged("it goes on after its end")
        reader.take(piece)
    return State.thaw(reader.frozen())


class _Reader:
    """Collects the records of the slices."""

    def __init__(self, head: pb.SnapshotHead) -> None:
        if head.format_version != FORMAT_VERSION:
            raise unknown(f"snapshot format {head.format_version}")
        self._head = head
        self._specs: dict[int, TaskSpec] = {}
        self._nodes: list[Node] = []
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, Task | PackedTask] = {}
        self._request_ids: dict[str, str] = {}
        self._requests: dict[int, bytes] = {}
        self._blobs: dict[int, BlobRecord] = {}
        self.end: pb.SnapshotEnd | None = None

    def take(self, piece: pb.SnapshotSlice) -> None:
        for spec in piece.specs:
            self._specs[spec.number] = decode_spec(spec.spec)
        self._nodes += [decode_node(node) for node in piece.nodes]
        for job in piece.jobs:
            self._jobs[job.id] = decode_job(job)
        try:
            for task in piece.tasks:
                self._tasks[task.id] = decode_task(task, self._specs, self._request_ids)
        except KeyError as missing:
            raise _damaged(f"it refers to spec {missing}, which is not in it") from None
        for request in piece.requests:
            key, data = pack_request(request.number, decode_request(request))
            self._requests[key] = data
        for blob in piece.blobs:
            self._blobs[int(blob.ref.digest, 16)] = decode_blob(blob)
        if piece.HasField("end"):
            self.end = piece.end

    def frozen(self) -> FrozenState:
        if self.end is None:
            raise _damaged("it has no end")
        promised = (self.end.nodes, self.end.jobs, self.end.tasks, self.end.requests, self.end.blobs)
        tables = (self._nodes, self._jobs, self._tasks, self._requests, self._blobs)
        found = tuple(len(table) for table in tables)
        if promised != found:
            raise _damaged(f"it has {found} records and should have {promised}")
        head = self._head
        return FrozenState(
            genesis=from_message(head.genesis),
            applied_index=head.applied_index,
            cluster_time_ms=head.cluster_time_ms,
            counters=Counters(
                token=head.token_counter,
                next_task_id=head.next_task_id,
                next_job_id=head.next_job_id,
                next_request=head.next_request,
                oldest_request=head.oldest_request,
            ),
            settings=decode_settings(head.settings),
            kinds=tuple(head.kinds),
            nodes=tuple(self._nodes),
            jobs=(self._jobs,),
            tasks=(self._tasks,),
            requests=(self._requests,),
            blobs=(self._blobs,),
            members=tuple(map(decode_member, head.members)),
            removed_stores=tuple(head.removed_stores),
        )


def _encode_head(frozen: FrozenState) -> pb.SnapshotHead:
    counters = frozen.counters
    return pb.SnapshotHead(
        format_version=FORMAT_VERSION,
        genesis=to_message(frozen.genesis),
        applied_index=frozen.applied_index,
        cluster_time_ms=frozen.cluster_time_ms,
        token_counter=counters.token,
        next_task_id=counters.next_task_id,
        next_job_id=counters.next_job_id,
        next_request=counters.next_request,
        oldest_request=counters.oldest_request,
        settings=encode_settings(frozen.settings),
        kinds=frozen.kinds,
        members=map(encode_member, frozen.members),
        removed_stores=frozen.removed_stores,
    )


def _node_slices(frozen: FrozenState, ended: pb.SnapshotEnd) -> Iterator[bytes]:
    for start in range(0, len(frozen.nodes), _NODES):
        part = frozen.nodes[start : start + _NODES]
        ended.nodes += len(part)
        yield _frame(pb.SnapshotSlice(nodes=[encode_node(node) for node in part]))


def _job_slices(frozen: FrozenState, ended: pb.SnapshotEnd) -> Iterator[bytes]:
    for chunk in frozen.jobs:
        ended.jobs += len(chunk)
        yield _frame(pb.SnapshotSlice(jobs=[encode_job(job) for job in chunk.values()]))


def _task_slices(frozen: FrozenState, numbers: SpecNumbers, ended: pb.SnapshotEnd) -> Iterator[bytes]:
    piece, size_bytes = pb.SnapshotSlice(), 0
    for task_id, record in chain.from_iterable(chunk.items() for chunk in frozen.tasks):
        task = as_task(task_id, record)
        spec_number, spec_bytes = numbers.introduce(task.spec, piece, shared=not isinstance(record, bytes))
        piece.tasks.append(encode_task(task, spec_number))
        size_bytes += spec_bytes + _weight(task)
        ended.tasks += 1
        if len(piece.tasks) == _RECORDS or size_bytes > _SLICE_BYTES:
            yield _frame(piece)
            piece, size_bytes = pb.SnapshotSlice(), 0
    if piece.tasks:
        yield _frame(piece)


def _weight(task: Task) -> int:
    """About how many bytes a task adds, without its spec."""
    inline_bytes = len(task.result) if isinstance(task.result, bytes) else 0
    return inline_bytes + sum([_ATTEMPT_BYTES + len(attempt.reason) for attempt in task.attempts])


def _request_slices(frozen: FrozenState, ended: pb.SnapshotEnd) -> Iterator[bytes]:
    records = chain.from_iterable(chunk.items() for chunk in frozen.requests)
    while part := [unpack_request(key, data) for key, data in islice(records, _RECORDS)]:
        ended.requests += len(part)
        yield _frame(pb.SnapshotSlice(requests=[encode_request(number, record) for number, record in part]))


def _blob_slices(frozen: FrozenState, ended: pb.SnapshotEnd) -> Iterator[bytes]:
    for chunk in frozen.blobs:
        records = list(chunk.values())
        ended.blobs += len(records)
        for start in range(0, len(records), _RECORDS):
            part = records[start : start + _RECORDS]
            yield _frame(pb.SnapshotSlice(blobs=[encode_blob(record) for record in part]))


def _frame(piece: pb.SnapshotSlice) -> bytes:
    data = piece.SerializeToString(deterministic=True)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _slices(parts: Iterable[bytes]) -> Iterator[pb.SnapshotSlice]:
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= _LENGTH_BYTES:
            length = int.from_bytes(held[:_LENGTH_BYTES], "big")
            if length > _MAX_SLICE_BYTES:
                raise _damaged(f"a slice claims {length} bytes")
            end = _LENGTH_BYTES + length
            if len(held) < end:
                break
            data = bytes(held[_LENGTH_BYTES:end])
            del held[:end]
            try:
                yield pb.SnapshotSlice.FromString(data)
            except DecodeError:
                raise _damaged("a slice cannot be read") from None
    if held:
        raise _damaged("it ends within a slice")


def _damaged(how: str) -> StorageError:
    return StorageError(
        f"the snapshot is damaged: {how}", try_="remove it, so that the node takes one from the leader"
    )
