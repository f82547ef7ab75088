"""The executor, as the node sees it: start, stop, what runs, whose output is where.

What may live here: putting the supervisor's client, the slots, the lease and the Attach loop together, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftd.executor.config import ExecutorConfig
from raftd.executor.protocols import (
    AttachTransport,
    BlobSource,
    Clock,
    LeaderWatch,
    NextIncarnation,
    ResultStore,
)
from raftd.scheduler.attach import StopReason
from raftd.scheduler.model import FencingToken


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """What a slot does now.

    Attributes:
        started_at_ms: when it was handed to its slot's process; 0 while it waits for that.
        fraction: how far it is, 0 to 1; negative when it is not known.
    """

    task_id: int
    attempt: int
    token: FencingToken
    slot: int
    kind: str
    started_at_ms: int
    fraction: float
    message: str
    stopping: StopReason | None


class Executor:
    """Runs what the leader says, and nothing else.

    Args:
        config: who this is and how it runs attempts.
        incarnation: this life's number, raised and durable already.
        next_incarnation: called when the lease is lost, before the executor registers again.
        leaders: who leads.
        transport: how to reach a leader.
        results: where large results go.
        blobs: where tasks get blobs from.
        clock: None: the machine's.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        *,
        incarnation: int,
        next_incarnation: NextIncarnation,
        leaders: LeaderWatch,
        transport: AttachTransport,
        results: ResultStore,
        blobs: BlobSource,
        clock: Clock | None = None,
    ) -> None: ...

    async def start(self) -> None:
        """Starts the supervisor and the slots, and begins to attach; does not wait for a leader.

        Returns when nothing that an earlier life of this node started runs any more.

        Raises:
            RaftdError: the supervisor cannot be started.
        """
        ...

    async def stop(self, grace_ms: int) -> None:
        """Ends every attempt, reports what it can, ends the supervisor; takes at most about ``grace_ms``."""
        ...
