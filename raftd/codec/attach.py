"""The Attach stream between dataclass and wire.

What may live here: encoders and decoders of ``raftd.scheduler.attach``, and of the model's small values that other
messages share (tokens, blob references, ids as people write them).
"""

from __future__ import annotations

from raftd.errors import InvalidRequest, UnknownFormat
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.attach import (
    Assignment,
    AttachDown,
    AttachUp,
    AttemptEnded,
    AttemptProgress,
    Heartbeat,
    Hello,
    Renewal,
    Stop,
    Welcome,
)
from raftd.scheduler.model import AttemptOutcome, BlobRef, FencingToken, StopReason

_STOP_WORDS = {
    StopReason.CANCELLED: "cancelled",
    StopReason.TIMED_OUT: "timed_out",
    StopReason.DRAINED: "drained",
    StopReason.WITHDRAWN: "withdrawn",
}
_STOP_REASONS = {word: reason for reason, word in _STOP_WORDS.items()}


def _stop_reason(word: str) -> StopReason:
    try:
        return _STOP_REASONS[word]
    except KeyError:
        raise UnknownFormat(f"an attempt is to stop for the unknown reason {word!r}") from None


def _outcome(number: int) -> AttemptOutcome:
    try:
        return AttemptOutcome(number)
    except ValueError:
        raise UnknownFormat(f"an attempt ended with the unknown outcome {number}") from None


def task_name(task_id: int) -> str:
    """A task's id as people see it."""
    return f"t{task_id}"


def job_name(job_id: int | None) -> str:
    """A job's id as people see it; empty for a task without a job."""
    return "" if job_id is None else f"j{job_id}"


def parse_id(text: str, letter: str) -> int:
    """Read ``t17`` or ``j3``; the bare number is taken as well.

    Raises:
        InvalidRequest: it is neither.
    """
    digits = text.removeprefix(letter)
    if not digits.isdecimal() or len(digits) > 18:
        what = "task" if letter == "t" else "job"
        raise InvalidRequest(f"{text!r} is not a {what} id", try_=f"ids look like {letter}17")
    return int(digits)


def encode_token(token: FencingToken) -> pb.FencingToken:
    """A fencing token as it travels."""
    return pb.FencingToken(epoch=token.epoch, counter=token.counter)


def decode_token(token: pb.FencingToken) -> FencingToken:
    """A fencing token as the model knows it."""
    return FencingToken(token.epoch, token.counter)


def encode_blob_ref(ref: BlobRef) -> pb.BlobRef:
    """A blob reference as it travels."""
    return pb.BlobRef(digest=ref.digest, size_bytes=ref.size_bytes)


def encode_result(result: bytes | BlobRef | None) -> pb.TaskResult | None:
    """A result as it travels; None where there is none."""
    if result is None:
        return None
    if isinstance(result, BlobRef):
        return pb.TaskResult(blob=encode_blob_ref(result))
    return pb.TaskResult(inline=result)


def decode_result(result: pb.TaskResult) -> bytes | BlobRef | None:
    """A result as the model knows it."""
    match result.WhichOneof("result"):
        case "inline":
            return result.inline
        case "blob":
            return BlobRef(result.blob.digest, result.blob.size_bytes)
        case _:
            return None


def encode_up(message: AttachUp) -> pb.AttachRequest:
    """What an executor says, as it travels."""
    return pb.AttachRequest(
        hello=None if message.hello is None else _encode_hello(message.hello),
        heartbeat=None if message.heartbeat is None else _encode_heartbeat(message.heartbeat),
        ended=[_encode_ended(ended) for ended in message.ended],
        leaving=message.leaving,
    )


def decode_up(message: pb.AttachRequest) -> AttachUp:
    """What an executor says, as the leader acts on it.

    Raises:
        UnknownFormat: it uses a value of a newer version.
        InvalidRequest: an id in it is none.
    """
    return AttachUp(
        hello=_decode_hello(message.hello) if message.HasField("hello") else None,
        heartbeat=_decode_heartbeat(message.heartbeat) if message.HasField("heartbeat") else None,
        ended=tuple(_decode_ended(ended) for ended in message.ended),
        leaving=message.leaving,
    )


def encode_down(message: AttachDown) -> pb.AttachResponse:
    """What the leader says, as it travels."""
    welcome = message.welcome
    return pb.AttachResponse(
        welcome=None
        if welcome is None
        else pb.Welcome(
            lease_ms=welcome.lease_ms,
            heartbeat_ms=welcome.heartbeat_ms,
            desired=[_encode_assignment(assignment) for assignment in welcome.desired],
            leader=welcome.leader,
        ),
        renewal=None if message.renewal is None else pb.Renewal(sequence=message.renewal.sequence),
        start=[_encode_assignment(assignment) for assignment in message.start],
        stop=[
            pb.Stop(fencing_token=encode_token(stop.token), reason=_STOP_WORDS[stop.reason])
            for stop in message.stop
        ],
        recorded=[encode_token(token) for token in message.recorded],
    )


def decode_down(message: pb.AttachResponse) -> AttachDown:
    """What the leader says, as the executor acts on it; raises as ``decode_up`` does."""
    return AttachDown(
        welcome=Welcome(
            message.welcome.lease_ms,
            message.welcome.heartbeat_ms,
            tuple(_decode_assignment(assignment) for assignment in message.welcome.desired),
            message.welcome.leader,
        )
        if message.HasField("welcome")
        else None,
        renewal=Renewal(message.renewal.sequence) if message.HasField("renewal") else None,
        start=tuple(_decode_assignment(assignment) for assignment in message.start),
        stop=tuple(
            Stop(decode_token(stop.fencing_token), _stop_reason(stop.reason)) for stop in message.stop
        ),
        recorded=tuple(decode_token(token) for token in message.recorded),
    )


def _encode_hello(hello: Hello) -> pb.Hello:
    return pb.Hello(
        cluster_id=hello.cluster_id,
        store_id=hello.store_id,
        name=hello.name,
        incarnation=hello.incarnation,
        role=hello.role,
        slots=hello.slots,
        labels=hello.labels,
        kinds=hello.kinds,
        address=hello.address,
        running=[encode_token(token) for token in hello.running],
        pid=hello.pid,
    )


def _decode_hello(hello: pb.Hello) -> Hello:
    return Hello(
        cluster_id=hello.cluster_id,
        store_id=hello.store_id,
        name=hello.name,
        incarnation=hello.incarnation,
        role=hello.role,
        slots=hello.slots,
        labels=dict(hello.labels),
        kinds=tuple(hello.kinds),
        address=hello.address,
        running=tuple(decode_token(token) for token in hello.running),
        pid=hello.pid,
    )


def _encode_heartbeat(heartbeat: Heartbeat) -> pb.Heartbeat:
    return pb.Heartbeat(
        sequence=heartbeat.sequence,
        progress=[
            pb.AttemptProgress(fencing_token=encode_token(p.token), fraction=p.fraction, message=p.message)
            for p in heartbeat.progress
        ],
    )


def _decode_heartbeat(heartbeat: pb.Heartbeat) -> Heartbeat:
    return Heartbeat(
        heartbeat.sequence,
        tuple(
            AttemptProgress(decode_token(p.fencing_token), p.fraction, p.message) for p in heartbeat.progress
        ),
    )


def _encode_ended(ended: AttemptEnded) -> pb.AttemptEnded:
    return pb.AttemptEnded(
        task_id=task_name(ended.task_id),
        attempt=ended.attempt,
        fencing_token=encode_token(ended.token),
        outcome=pb.AttemptOutcome.ValueType(ended.outcome),
        reason=ended.reason,
        result=encode_result(ended.result),
        blob_holders=ended.blob_holders,
        started_at_ms=ended.started_at_ms,
        ended_at_ms=ended.ended_at_ms,
    )


def _decode_ended(ended: pb.AttemptEnded) -> AttemptEnded:
    return AttemptEnded(
        task_id=parse_id(ended.task_id, "t"),
        attempt=ended.attempt,
        token=decode_token(ended.fencing_token),
        outcome=_outcome(ended.outcome),
        reason=ended.reason,
        result=decode_result(ended.result),
        blob_holders=tuple(ended.blob_holders),
        started_at_ms=ended.started_at_ms,
        ended_at_ms=ended.ended_at_ms,
    )


def _encode_assignment(assignment: Assignment) -> pb.Assignment:
    return pb.Assignment(
        task_id=task_name(assignment.task_id),
        attempt=assignment.attempt,
        fencing_token=encode_token(assignment.token),
        slot=assignment.slot,
        kind=assignment.kind,
        args=assignment.args,
        payload=assignment.payload,
        env=assignment.env,
        run_timeout_ms=assignment.run_timeout_ms,
        array_index=assignment.array_index,
        job_id=job_name(assignment.job_id),
        stopping=assignment.stop is not None,
        stop_reason="" if assignment.stop is None else _STOP_WORDS[assignment.stop],
        extra_slots=assignment.extra_slots,
    )


def _decode_assignment(assignment: pb.Assignment) -> Assignment:
    return Assignment(
        task_id=parse_id(assignment.task_id, "t"),
        attempt=assignment.attempt,
        token=decode_token(assignment.fencing_token),
        slot=assignment.slot,
        kind=assignment.kind,
        args=tuple(assignment.args),
        payload=assignment.payload,
        env=dict(assignment.env),
        run_timeout_ms=assignment.run_timeout_ms,
        array_index=assignment.array_index if assignment.HasField("array_index") else None,
        job_id=parse_id(assignment.job_id, "j") if assignment.job_id else None,
        stop=_stop_reason(assignment.stop_reason) if assignment.stopping else None,
        extra_slots=tuple(assignment.extra_slots),
    )
