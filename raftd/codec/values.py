"""The small values that entries and snapshots share, between dataclass and wire.

What may live here: encoders and decoders of values that appear in more than one kind of stored bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import TypeVar

from raftd.errors import UnknownFormat
from raftd.pb import log_pb2 as pb
from raftd.pb import scheduler_pb2
from raftd.scheduler.model import ArraySpec, BlobRef, Condition, Dependency, FencingToken, TaskSpec

E = TypeVar("E", bound=IntEnum)


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> list[pb.LogPair]:
    """Name and value, in the order they have."""
    return [pb.LogPair(name=name, value=value) for name, value in pairs]


def decode_pairs(pairs: Iterable[pb.LogPair]) -> tuple[tuple[str, str], ...]:
    """Name and value, in the order they were stored."""
    return tuple([(pair.name, pair.value) for pair in pairs])


def encode_spec(spec: TaskSpec) -> pb.LogTaskSpec:
    """What is to be run, as it is stored."""
    return pb.LogTaskSpec(
        kind=spec.kind,
        args=spec.args,
        payload=spec.payload,
        env=encode_pairs(spec.env) if spec.env else None,
        name=spec.name,
        priority=spec.priority,
        retries=spec.retries,
        backoff_first_ms=spec.backoff_first_ms,
        backoff_max_ms=spec.backoff_max_ms,
        run_timeout_ms=spec.run_timeout_ms,
        queue_timeout_ms=spec.queue_timeout_ms,
        delay_ms=spec.delay_ms,
        require=encode_pairs(spec.require) if spec.require else None,
        slots=spec.slots,
    )


_USUAL = {number: number for number in (TaskSpec("").backoff_first_ms, TaskSpec("").backoff_max_ms)}
"""What most tasks have, once for all of them."""


def decode_spec(spec: pb.LogTaskSpec) -> TaskSpec:
    """What is to be run, as the model knows it."""
    return TaskSpec(
        # There are few kinds and many tasks: one string for all of them.
        kind=sys.intern(spec.kind),
        args=tuple(spec.args),
        payload=spec.payload,
        env=decode_pairs(spec.env),
        name=spec.name,
        priority=spec.priority,
        retries=spec.retries,
        backoff_first_ms=_USUAL.get(spec.backoff_first_ms, spec.backoff_first_ms),
        backoff_max_ms=_USUAL.get(spec.backoff_max_ms, spec.backoff_max_ms),
        run_timeout_ms=spec.run_timeout_ms,
        queue_timeout_ms=spec.queue_timeout_ms,
        delay_ms=spec.delay_ms,
        require=decode_pairs(spec.require),
        slots=spec.slots,
    )


def encode_dependencies(dependencies: Iterable[Dependency]) -> list[pb.LogDependency]:
    """What a task comes after, as it is stored."""
    return [pb.LogDependency(target=one.target, job=one.job, condition=one.condition) for one in dependencies]


def decode_dependencies(dependencies: Iterable[pb.LogDependency]) -> tuple[Dependency, ...]:
    """What a task comes after, as the model knows it."""
    return tuple(
        [Dependency(one.target, one.job, decode_enum(Condition, one.condition)) for one in dependencies]
    )


def encode_array(array: ArraySpec | None) -> pb.LogArray | None:
    """The range of an array, as it is stored; None where there is none."""
    if array is None:
        return None
    return pb.LogArray(
        first_index=array.first_index, last_index=array.last_index, max_failures=array.max_failures
    )


def decode_array(array: pb.LogArray) -> ArraySpec:
    """The range of an array, as the model knows it."""
    return ArraySpec(array.first_index, array.last_index, array.max_failures)


def encode_token(token: FencingToken) -> scheduler_pb2.FencingToken:
    """A fencing token, as it is stored."""
    return scheduler_pb2.FencingToken(epoch=token.epoch, counter=token.counter)


def decode_token(token: scheduler_pb2.FencingToken) -> FencingToken:
    """A fencing token, as the model knows it."""
    return FencingToken(token.epoch, token.counter)


def encode_ref(ref: BlobRef) -> scheduler_pb2.BlobRef:
    """A reference to a blob, as it is stored."""
    return scheduler_pb2.BlobRef(digest=ref.digest, size_bytes=ref.size_bytes)


def decode_ref(ref: scheduler_pb2.BlobRef) -> BlobRef:
    """A reference to a blob, as the model knows it."""
    return BlobRef(ref.digest, ref.size_bytes)


def decode_enum(kind: type[E], number: int) -> E:
    """A member by its number.

    Raises:
        UnknownFormat: this build does not know the number.
    """
    try:
        return kind(number)
    except ValueError:
        raise unknown(f"{kind.__name__} {number}") from None


def unknown(what: str) -> UnknownFormat:
    """The error for stored bytes that this build cannot read."""
    return UnknownFormat(
        f"this build does not know {what}",
        try_="upgrade this node to the version that the rest of the cluster runs",
    )
