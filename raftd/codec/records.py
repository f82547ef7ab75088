"""The records of a snapshot between dataclass and wire.

What may live here: an encoder and a decoder for each table's record, and the numbering of the specs that tasks share.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from raftd.codec.values import (
    decode_dependencies,
    decode_enum,
    decode_pairs,
    decode_ref,
    decode_token,
    encode_dependencies,
    encode_pairs,
    encode_ref,
    encode_spec,
    encode_token,
)
from raftd.pb import log_pb2 as pb
from raftd.scheduler.model import (
    Attempt,
    AttemptOutcome,
    BlobRecord,
    BlobRef,
    Eligibility,
    Health,
    Job,
    MemberRecord,
    Node,
    NodeRole,
    Placement,
    RequestRecord,
    Settings,
    Standing,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)


class SpecNumbers:
    """Numbers for specs, so that one that many tasks share is written once.

    Those that are shared are told apart by identity, which is cheap and sound: the frozen state keeps every one of them
    alive.
    """

    def __init__(self) -> None:
        self._shared: dict[int, int] = {}
        self._count = 0

    def introduce(self, spec: TaskSpec, piece: pb.SnapshotSlice, *, shared: bool) -> tuple[int, int]:
        """Write the spec into this slice, unless an earlier place has it.

        Args:
            shared: whether the frozen state holds it; what it does not hold is always written.

        Returns:
            Its number, and about how many bytes that added.
        """
        known = self._shared.get(id(spec)) if shared else None
        if known is not None:
            return known, 0
        self._count += 1
        if shared:
            self._shared[id(spec)] = self._count
        piece.specs.append(pb.SnapshotSpec(number=self._count, spec=encode_spec(spec)))
        size_bytes = len(spec.payload) + sum(map(len, spec.args)) + sum(len(value) for _, value in spec.env)
        return self._count, size_bytes


def encode_settings(settings: Settings) -> pb.SnapshotSettings:
    """Replicated settings, as they are stored."""
    return pb.SnapshotSettings(
        max_payload_bytes=settings.max_payload_bytes,
        max_args_bytes=settings.max_args_bytes,
        max_queue=settings.max_queue,
        max_array=settings.max_array,
        max_inline_result_bytes=settings.max_inline_result_bytes,
        request_retention_ms=settings.request_retention_ms,
        tasks_kept=settings.tasks_kept,
        tasks_kept_ms=settings.tasks_kept_ms,
        max_attempts_kept=settings.max_attempts_kept,
        crash_limit=settings.crash_limit,
        lease_ms=settings.lease_ms,
        ageing_ms=settings.ageing_ms,
        placement=settings.placement,
        max_dependencies=settings.max_dependencies,
        max_graph=settings.max_graph,
        reserve_depth=settings.reserve_depth,
    )


def decode_settings(message: pb.SnapshotSettings) -> Settings:
    """Replicated settings, as the model knows them."""
    return Settings(
        max_payload_bytes=message.max_payload_bytes,
        max_args_bytes=message.max_args_bytes,
        max_queue=message.max_queue,
        max_array=message.max_array,
        max_inline_result_bytes=message.max_inline_result_bytes,
        request_retention_ms=message.request_retention_ms,
        tasks_kept=message.tasks_kept,
        tasks_kept_ms=message.tasks_kept_ms,
        max_attempts_kept=message.max_attempts_kept,
        crash_limit=message.crash_limit,
        lease_ms=message.lease_ms,
        ageing_ms=message.ageing_ms,
        placement=decode_enum(Placement, message.placement),
        max_dependencies=message.max_dependencies,
        max_graph=message.max_graph,
        reserve_depth=message.reserve_depth,
    )


def encode_member(member: MemberRecord) -> pb.SnapshotMember:
    """A member, as it is stored."""
    return pb.SnapshotMember(
        name=member.name,
        store_id=member.store_id,
        address=member.address,
        standing=member.standing,
        promote=member.promote,
        replaces=member.replaces,
    )


def decode_member(message: pb.SnapshotMember) -> MemberRecord:
    """A member, as the model knows it."""
    return MemberRecord(
        sys.intern(message.name),
        message.store_id,
        message.address,
        decode_enum(Standing, message.standing),
        message.promote,
        message.replaces,
    )


def encode_node(node: Node) -> pb.SnapshotNode:
    """A node, as it is stored."""
    return pb.SnapshotNode(
        name=node.name,
        store_id=node.store_id,
        incarnation=node.incarnation,
        role=node.role,
        labels=encode_pairs(node.labels),
        kinds=node.kinds,
        address=node.address,
        health=node.health,
        eligibility=node.eligibility,
        executing=[task_id or 0 for task_id in node.executing],
        changed_index=node.changed_index,
        operator_labels=encode_pairs(node.operator_labels),
        drain_deadline_ms=node.drain_deadline_ms,
        reserved=[
            pb.SnapshotReserved(slot=slot, task_ids=task_ids)
            for slot, task_ids in enumerate(node.reserved)
            if task_ids
        ],
    )


def decode_node(message: pb.SnapshotNode) -> Node:
    """A node, as the model knows it."""
    waiting = {line.slot: tuple(line.task_ids) for line in message.reserved}
    return Node(
        name=sys.intern(message.name),
        store_id=message.store_id,
        incarnation=message.incarnation,
        role=decode_enum(NodeRole, message.role),
        labels=decode_pairs(message.labels),
        kinds=tuple(sys.intern(kind) for kind in message.kinds),
        address=message.address,
        health=decode_enum(Health, message.health),
        eligibility=decode_enum(Eligibility, message.eligibility),
        executing=tuple(task_id or None for task_id in message.executing),
        changed_index=message.changed_index,
        operator_labels=decode_pairs(message.operator_labels),
        drain_deadline_ms=message.drain_deadline_ms,
        reserved=tuple(waiting.get(slot, ()) for slot in range(len(message.executing))) if waiting else (),
    )


def encode_job(job: Job) -> pb.SnapshotJob:
    """A job, as it is stored."""
    return pb.SnapshotJob(
        id=job.id,
        name=job.name,
        kind=job.kind,
        max_failures=job.max_failures,
        first_task_id=job.first_task_id,
        total=job.total,
        pending=job.pending,
        running=job.running,
        succeeded=job.succeeded,
        failed=job.failed,
        cancelled=job.cancelled,
        forgotten=job.forgotten,
        stopping=job.stopping,
        submitted_at_ms=job.submitted_at_ms,
        finished_at_ms=job.finished_at_ms,
        changed_index=job.changed_index,
    )


def decode_job(message: pb.SnapshotJob) -> Job:
    """A job, as the model knows it."""
    return Job(
        id=message.id,
        name=message.name,
        kind=sys.intern(message.kind),
        max_failures=message.max_failures,
        first_task_id=message.first_task_id,
        total=message.total,
        pending=message.pending,
        running=message.running,
        succeeded=message.succeeded,
        failed=message.failed,
        cancelled=message.cancelled,
        forgotten=message.forgotten,
        stopping=message.stopping,
        submitted_at_ms=message.submitted_at_ms,
        finished_at_ms=message.finished_at_ms,
        changed_index=message.changed_index,
    )


def encode_task(task: Task, spec_number: int) -> pb.SnapshotTask:
    """A task, as it is stored; its spec is where that number is."""
    message = pb.SnapshotTask(
        id=task.id,
        spec=spec_number,
        state=task.state,
        job_id=task.job_id or 0,
        array_index=task.array_index,
        request_id=task.request_id,
        submitted_at_ms=task.submitted_at_ms,
        not_before_ms=task.not_before_ms,
        attempts=[_encode_attempt(attempt) for attempt in task.attempts],
        failures=task.failures,
        crashes=task.crashes,
        returns=task.returns,
        reason=task.reason,
        finished_at_ms=task.finished_at_ms,
        changed_index=task.changed_index,
        after=encode_dependencies(task.after) if task.after else None,
    )
    if isinstance(task.result, BlobRef):
        message.blob.CopyFrom(encode_ref(task.result))
    elif task.result is not None:
        message.inline = task.result
    return message


def decode_task(message: pb.SnapshotTask, specs: Mapping[int, TaskSpec], request_ids: dict[str, str]) -> Task:
    """A task, as the model knows it; KeyError where its spec is missing.

    Args:
        request_ids: those that were read already: many records share one.
    """
    request_id = message.request_id
    result: bytes | BlobRef | None = None
    match message.WhichOneof("result"):
        case "inline":
            result = message.inline
        case "blob":
            result = decode_ref(message.blob)
        case None:
            pass
    return Task(
        id=message.id,
        spec=specs[message.spec],
        state=decode_enum(TaskState, message.state),
        job_id=message.job_id or None,
        array_index=message.array_index if message.HasField("array_index") else None,
        request_id=request_ids.setdefault(request_id, request_id),
        submitted_at_ms=message.submitted_at_ms,
        not_before_ms=message.not_before_ms,
        attempts=tuple([_decode_attempt(attempt) for attempt in message.attempts]),
        failures=message.failures,
        crashes=message.crashes,
        returns=message.returns,
        result=result,
        reason=message.reason,
        finished_at_ms=message.finished_at_ms,
        changed_index=message.changed_index,
        after=decode_dependencies(message.after),
    )


def encode_request(number: int, record: RequestRecord) -> pb.SnapshotRequest:
    """What a request id stands for, as it is stored."""
    return pb.SnapshotRequest(
        number=number,
        request_id=record.request_id,
        digest=record.digest,
        first_task_id=record.first_task_id,
        count=record.count,
        job_id=record.job_id or 0,
        expires_at_ms=record.expires_at_ms,
    )


def decode_request(message: pb.SnapshotRequest) -> RequestRecord:
    """What a request id stands for, as the model knows it."""
    return RequestRecord(
        request_id=message.request_id,
        digest=message.digest,
        first_task_id=message.first_task_id,
        count=message.count,
        job_id=message.job_id or None,
        expires_at_ms=message.expires_at_ms,
    )


def encode_blob(record: BlobRecord) -> pb.SnapshotBlob:
    """An entry of the directory, as it is stored."""
    return pb.SnapshotBlob(ref=encode_ref(record.ref), holders=record.holders)


def decode_blob(message: pb.SnapshotBlob) -> BlobRecord:
    """An entry of the directory, as the model knows it."""
    return BlobRecord(decode_ref(message.ref), tuple(message.holders))


def _encode_attempt(attempt: Attempt) -> pb.SnapshotAttempt:
    return pb.SnapshotAttempt(
        number=attempt.number,
        node=attempt.node,
        slot=attempt.slot,
        incarnation=attempt.incarnation,
        token=encode_token(attempt.token),
        occupied_at_ms=attempt.occupied_at_ms,
        started_at_ms=attempt.started_at_ms,
        ended_at_ms=attempt.ended_at_ms,
        outcome=attempt.outcome or 0,
        reason=attempt.reason,
        stopping=attempt.stopping or 0,
        extra_slots=attempt.extra_slots,
    )


def _decode_attempt(message: pb.SnapshotAttempt) -> Attempt:
    return Attempt(
        number=message.number,
        node=sys.intern(message.node),
        slot=message.slot,
        incarnation=message.incarnation,
        token=decode_token(message.token),
        occupied_at_ms=message.occupied_at_ms,
        started_at_ms=message.started_at_ms,
        ended_at_ms=message.ended_at_ms,
        outcome=decode_enum(AttemptOutcome, message.outcome) if message.outcome else None,
        reason=message.reason,
        stopping=decode_enum(StopReason, message.stopping) if message.stopping else None,
        extra_slots=tuple(message.extra_slots),
    )
