"""What executors say, as commands: within the bounds of the record, so that the log never holds what it would refuse.

What may live here: the checks and cuts of a Hello and of the ends of attempts. An executor repeats what was not taken;
whatever could not be taken as it is must therefore be made into something that can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from raftd.errors import InvalidRequest
from raftd.node.session import MAX_PER_MESSAGE, MESSAGE_BYTES
from raftd.scheduler.attach import AttemptEnded, Hello
from raftd.scheduler.attempts import MAX_REASON_CHARS
from raftd.scheduler.commands import RegisterNode, Vacate
from raftd.scheduler.limits import MAX_KIND_CHARS, MAX_LABELS, MAX_SLOTS
from raftd.scheduler.model import AttemptOutcome, BlobRef, NodeRole
from raftd.scheduler.registration import MAX_KINDS, MAX_NAME_CHARS, MAX_TEXT_CHARS

MAX_HOLDERS = 64
MAX_DIGEST_CHARS = 80

_ROLES = {role.name.lower(): role for role in NodeRole}


def check_hello(hello: Hello) -> None:
    """Refuse what the record would refuse, before it is written into the log of every node.

    Raises:
        InvalidRequest: a value is empty, unknown or over its limit.
    """
    texts = (hello.address, *hello.labels.keys(), *hello.labels.values())
    if (
        not 0 < len(hello.name) <= MAX_NAME_CHARS
        or hello.role not in _ROLES
        or not hello.store_id
        or not hello.incarnation
        or hello.slots > MAX_SLOTS
        or len(hello.kinds) > MAX_KINDS
        or not all(0 < len(kind) <= MAX_KIND_CHARS for kind in hello.kinds)
        or len(hello.labels) > MAX_LABELS
        or max(map(len, texts)) > MAX_TEXT_CHARS
    ):
        raise InvalidRequest(
            f"executor {hello.name[:MAX_NAME_CHARS]!r} describes itself with a value that is empty, unknown or too "
            "long",
            try_=f"a name of 1 to {MAX_NAME_CHARS} characters, a role of {', '.join(_ROLES)}, "
            f"at most {MAX_SLOTS} slots, {MAX_KINDS} kinds, {MAX_LABELS} labels",
        )


def registration(hello: Hello) -> RegisterNode:
    """The command that takes an executor in; its Hello has passed ``check_hello``."""
    return RegisterNode(
        name=hello.name,
        store_id=hello.store_id,
        incarnation=hello.incarnation,
        role=_ROLES[hello.role],
        slots=hello.slots,
        labels=tuple(sorted(hello.labels.items())),
        kinds=tuple(sorted(hello.kinds)),
        address=hello.address,
    )


def vacate(end: AttemptEnded, max_inline_bytes: int) -> Vacate:
    """The command that records an end.

    An inline result over the limit has failed the attempt, as it would by the record's own rule; here it does not get
    into the log first.
    """
    outcome, reason, result = end.outcome, end.reason[:MAX_REASON_CHARS], end.result
    if isinstance(result, bytes) and len(result) > max_inline_bytes:
        if outcome is AttemptOutcome.SUCCEEDED:
            outcome = AttemptOutcome.FAILED
            reason = f"its inline result has {len(result)} bytes, the limit is {max_inline_bytes}"
        result = None
    elif isinstance(result, BlobRef):
        result = replace(result, digest=result.digest[:MAX_DIGEST_CHARS])
    return Vacate(
        task_id=end.task_id,
        attempt=end.attempt,
        token=end.token,
        outcome=outcome,
        reason=reason,
        result=result,
        blob_holders=tuple(name[:MAX_NAME_CHARS] for name in end.blob_holders[:MAX_HOLDERS]),
        started_at_ms=end.started_at_ms,
        ended_at_ms=end.ended_at_ms,
    )


def vacate_bytes(command: Vacate) -> int:
    """About how much a Vacate adds to an entry."""
    result = len(command.result) if isinstance(command.result, bytes) else 0
    return 256 + 4 * len(command.reason) + result + sum(4 * len(name) for name in command.blob_holders)


def entries(vacates: Sequence[Vacate]) -> Iterator[tuple[tuple[Vacate, ...], int]]:
    """The commands in portions that fit into an entry, and their answers into a message; each with its size."""
    part: list[Vacate] = []
    size = 0
    for command in vacates:
        more = vacate_bytes(command)
        if part and (len(part) == MAX_PER_MESSAGE or size + more > MESSAGE_BYTES):
            yield tuple(part), size
            part, size = [], 0
        part.append(command)
        size += more
    if part:
        yield tuple(part), size
