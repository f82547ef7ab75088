"""What an executor and the leader say to each other on the Attach stream, as plain data.

What may live here: frozen dataclasses without behaviour. Both ends work on these: the leader's side
(``raftd.node``) builds them from the replicated state, the executor acts on them, and ``raftd.codec.attach`` is the
only place that knows how they look on the wire. The protocol is described in docs/attach.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raftd.scheduler.model import AttemptOutcome, BlobRef, FencingToken, StopReason


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of an executor: who it is, what it offers, what it runs."""

    cluster_id: int
    store_id: int
    name: str
    incarnation: int
    role: str
    slots: int
    labels: Mapping[str, str]
    kinds: tuple[str, ...]
    address: str
    running: tuple[FencingToken, ...]
    pid: int


@dataclass(frozen=True, slots=True)
class AttemptProgress:
    """How far an attempt is; ``fraction`` is 0 to 1, or negative when it is not known."""

    token: FencingToken
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Asks for the lease to be renewed; the executor counts the renewed lease from when it sent this."""

    sequence: int
    progress: tuple[AttemptProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt has ended on its slot. Repeated on every connection until it is ``recorded``."""

    task_id: int
    attempt: int
    token: FencingToken
    outcome: AttemptOutcome
    reason: str
    result: bytes | BlobRef | None
    blob_holders: tuple[str, ...]
    started_at_ms: int
    ended_at_ms: int


@dataclass(frozen=True, slots=True)
class AttachUp:
    """One message from the executor; any part may be absent.

    Attributes:
        leaving: it shuts down and takes nothing more; once said, it holds for the rest of the stream.
    """

    hello: Hello | None = None
    heartbeat: Heartbeat | None = None
    ended: tuple[AttemptEnded, ...] = ()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is needed to run one attempt. ``args`` have the array index already put in."""

    task_id: int
    attempt: int
    token: FencingToken
    slot: int
    kind: str
    args: tuple[str, ...]
    payload: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    run_timeout_ms: int = 0
    array_index: int | None = None
    job_id: int | None = None
    stop: StopReason | None = None
    extra_slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The leader accepts the executor: this is all it should be running; anything else it runs, it kills."""

    lease_ms: int
    heartbeat_ms: int
    desired: tuple[Assignment, ...]
    leader: str


@dataclass(frozen=True, slots=True)
class Renewal:
    """The lease is renewed, counted from when the heartbeat of this sequence was sent."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End this attempt: TERM, then KILL after the grace. One that is withdrawn ends only if it has not started."""

    token: FencingToken
    reason: StopReason


@dataclass(frozen=True, slots=True)
class AttachDown:
    """One message from the leader; any part may be absent. Parts are acted on in the order of the fields."""

    welcome: Welcome | None = None
    renewal: Renewal | None = None
    start: tuple[Assignment, ...] = ()
    stop: tuple[Stop, ...] = ()
    recorded: tuple[FencingToken, ...] = ()
