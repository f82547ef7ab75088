"""Request ids: what makes a submission that is sent twice happen once.

What may live here: how an id carries its time, the digest that tells two requests apart, and the decision whether a
request is new, known, in conflict or too old. The records themselves are in ``request_table``.

An id made by the SDK is twelve hex digits of Unix milliseconds, a hyphen, and random letters. When it is older than
ids are remembered it is refused, for nobody can know any more whether it ran. An id that carries no time is remembered
for the retention and for as long as any of its tasks is known, and is new again after that. A record outlives the last
moment at which its id could be accepted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

from raftd.scheduler.commands import GraphTask, Retry, Submit, SubmitGraph
from raftd.scheduler.compact import read_text, text
from raftd.scheduler.model import ArraySpec, Dependency, RequestRecord, Settings, TaskSpec
from raftd.scheduler.replies import Accepted, Refused

MAX_REQUEST_ID_CHARS = 128

DIGEST_BYTES = 16
"""Of SHA-256: enough to tell a mistake apart; this is no protection against forgery."""

_SDK_ID = re.compile(r"([0-9a-f]{12})-.")
_SDK_FORM = re.compile(r"[0-9a-f]{12}-[0-9a-f]{20}")


def created_ms(request_id: str) -> int:
    """The time at which the SDK made this id; 0 where the id carries none."""
    match = _SDK_ID.match(request_id)
    return int(match.group(1), 16) if match else 0


def key_of(request_id: str) -> int:
    """The id as a number, from which ``id_of`` makes it again.

    Most ids are thirty-two hex digits and a hyphen, and take half as much room so.
    """
    if _SDK_FORM.fullmatch(request_id):
        return int(request_id.replace("-", ""), 16) << 1 | 1
    # The byte in front keeps those that the id may begin with, if they are zero.
    return int.from_bytes(b"\1" + text(request_id), "big") << 1


def id_of(key: int) -> str:
    """The id that has this key."""
    if key & 1:
        digits = f"{key >> 1:032x}"
        return f"{digits[:12]}-{digits[12:]}"
    number = key >> 1
    return read_text(number.to_bytes((number.bit_length() + 7) // 8, "big")[1:])


def request_digest(spec: TaskSpec, array: ArraySpec | None = None, after: Sequence[Dependency] = ()) -> bytes:
    """What the request asks for, in a few bytes: equal for equal requests, on every node and in every process."""
    parts: list[str | bytes] = ["submit", *_spec_parts(spec), *_dependency_parts(after)]
    if array is not None:
        parts += (str(array.first_index), str(array.last_index), str(array.max_failures))
    return _digest(parts)


def graph_digest(name: str, tasks: Sequence[GraphTask], max_failures: int) -> bytes:
    """The same for a graph of tasks."""
    parts: list[str | bytes] = ["graph", name, str(max_failures)]
    for task in tasks:
        parts += (*_spec_parts(task.spec), *_dependency_parts(task.after_others), str(len(task.after)))
        for edge in task.after:
            parts += (str(edge.position), str(int(edge.condition)))
    return _digest(parts)


def retry_digest(task_id: int) -> bytes:
    """The same for the retry of an ended task."""
    return _digest(["retry", str(task_id)])


def spec_numbers(spec: TaskSpec) -> tuple[int, ...]:
    """Every number in a spec: the priority, which may be negative, and then those that may not.

    The order never changes, for the digests of requests are made of it.
    """
    return (
        spec.priority,
        spec.retries,
        spec.backoff_first_ms,
        spec.backoff_max_ms,
        spec.run_timeout_ms,
        spec.queue_timeout_ms,
        spec.delay_ms,
        spec.slots,
    )


def _spec_parts(spec: TaskSpec) -> Iterator[str | bytes]:
    yield from (spec.kind, spec.name, str(len(spec.args)), *spec.args)
    for pairs in (spec.env, spec.require):
        yield str(len(pairs))
        for pair in pairs:
            yield from pair
    yield from map(str, spec_numbers(spec))
    yield spec.payload


def _dependency_parts(after: Sequence[Dependency]) -> Iterator[str]:
    yield str(len(after))
    for one in after:
        yield from (str(one.target), str(int(one.job)), str(int(one.condition)))


def _digest(parts: Iterable[str | bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        # The length in front: ["ab", "c"] and ["a", "bc"] are two requests.
        encoded = part if isinstance(part, bytes) else part.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.digest()[:DIGEST_BYTES]


def expires_at_ms(command: Submit | SubmitGraph | Retry, now_ms: int, settings: Settings) -> int:
    """Until when the record of this request is kept: no sooner than its id is refused for its age."""
    return max(now_ms, command.created_ms) + settings.request_retention_ms


def judge(
    command: Submit | SubmitGraph | Retry, known: RequestRecord | None, now_ms: int, settings: Settings
) -> Accepted | Refused | None:
    """The answer to a request that is known or out of time; None where it is new."""
    if known is not None:
        if known.digest != command.digest:
            return Refused(
                "request_id_conflict",
                f"request id {command.request_id!r} was used for another request",
                "use a new request id, or repeat the first request as it was",
            )
        return Accepted(known.first_task_id, known.count, known.job_id, duplicate=True)
    if command.created_ms:
        if now_ms - command.created_ms > settings.request_retention_ms:
            return Refused(
                "request_expired",
                f"request id {command.request_id!r} is older than {settings.request_retention_ms} ms, "
                "so whether it ran is not known any more",
                "look for the task, and submit under a new request id if it is not there",
            )
        if command.created_ms - now_ms > settings.request_retention_ms:
            return Refused(
                "invalid_request",
                f"request id {command.request_id!r} was made in the future",
                "set the client's clock",
            )
    return None
