"""Request ids: what makes a submission that is sent twice happen once.

What may live here: how an id carries its time, the digest that tells two requests apart, and the decision whether a
request is new, known, in conflict or too old. The records themselves are in the state.

An id made by the SDK is twelve hex digits of Unix milliseconds, a hyphen, and random letters. When it is older than
ids are remembered it is refused, for nobody can know any more whether it ran. An id that carries no time is remembered
for the retention and is new again after it. A record outlives the last moment at which its id could be accepted.
"""

from __future__ import annotations

import hashlib
import re

from raftd.scheduler.commands import Submit
from raftd.scheduler.model import ArraySpec, RequestRecord, Settings, TaskSpec
from raftd.scheduler.replies import Accepted, Refused

MAX_REQUEST_ID_CHARS = 128

DIGEST_BYTES = 16
"""Of SHA-256: enough to tell a mistake apart; this is no protection against forgery."""

_SDK_ID = re.compile(r"([0-9a-f]{12})-.")


def created_ms(request_id: str) -> int:
    """The time at which the SDK made this id; 0 where the id carries none."""
    match = _SDK_ID.match(request_id)
    return int(match.group(1), 16) if match else 0


def request_digest(spec: TaskSpec, array: ArraySpec | None) -> bytes:
    """What the request asks for, in a few bytes: equal for equal requests, on every node and in every process."""
    digest = hashlib.sha256()
    numbers = (spec.priority, spec.retries, spec.backoff_first_ms, spec.backoff_max_ms, spec.run_timeout_ms)
    parts: list[str] = [spec.kind, spec.name, str(len(spec.args)), *spec.args, str(len(spec.env))]
    for name, value in spec.env:
        parts += (name, value)
    parts += map(str, numbers)
    if array is not None:
        parts += (str(array.first_index), str(array.last_index), str(array.max_failures))
    for part in parts:
        # The length in front: ["ab", "c"] and ["a", "bc"] are two requests.
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    digest.update(spec.payload)
    return digest.digest()[:DIGEST_BYTES]


def expires_at_ms(command: Submit, now_ms: int, settings: Settings) -> int:
    """Until when the record of this request is kept: no sooner than its id is refused for its age."""
    return max(now_ms, command.created_ms) + settings.request_retention_ms


def judge(
    command: Submit, known: RequestRecord | None, now_ms: int, settings: Settings
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
