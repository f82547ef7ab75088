"""The settings of an executor.

What may live here: frozen settings and their defaults; ``wiring`` makes them from ``raftd.config``. Limits that must be
equal on every node are no flags of one node: they come with the lease or with the assignment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raftd.config import Config
from raftd.errors import ConfigError
from raftd.executor.limits import NONE, Limits


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Who this executor is and how it runs attempts.

    Attributes:
        data_dir: the node's data directory. **Its lock is held by the caller**: the executor clears away whatever an
            earlier life of the node left running under this store id.
        store_id: of this node; marks every process that the executor starts.
        role: voter, learner or worker.
        address: where this node's gRPC server listens, for the cluster's records.
        slots: how many attempts run at a time; numbered from 0.
        kinds: the kinds of task that this node offers; an attempt of any other is refused.
        stop_grace_ms: from TERM to KILL.
        nice: added to the niceness of slots, and written to their autogroup where there is one; 0 leaves both alone.
        output_limit_bytes: of each of stdout and stderr of one attempt; what follows is dropped.
        limits: of what an attempt may use; going over one ends it.
        output_over_bytes: of both streams of one attempt together; going over it ends it. 0: none.
        logs_kept: attempts whose output is kept at most.
        logs_kept_bytes: bytes of kept output at most; the oldest go first.
        inline_result_bytes: larger results go to the result store.
        result_limit_bytes: an attempt with a larger result fails.
        heartbeat_ms, lease_ms: until a leader has said otherwise.
        reconnect_max_ms: the longest pause between two tries to reach a leader.
        progress_ms: progress is sent at most this often.
        task_env: the environment that every task starts from; None: this process's own, without RAFTD_* and RAFTCTL_*.
        python: the interpreter of supervisor and slots.
    """

    data_dir: Path
    cluster_id: int
    store_id: int
    name: str
    role: str = "voter"
    address: str = ""
    slots: int = 1
    kinds: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_grace_ms: int = 5_000
    nice: int = 10
    output_limit_bytes: int = 1024 * 1024
    limits: Limits = NONE
    output_over_bytes: int = 0
    logs_kept: int = 10_000
    logs_kept_bytes: int = 256 * 1024 * 1024
    inline_result_bytes: int = 4_096
    result_limit_bytes: int = 256 * 1024 * 1024
    heartbeat_ms: int = 2_000
    lease_ms: int = 6_000
    reconnect_max_ms: int = 500
    progress_ms: int = 500
    task_env: Mapping[str, str] | None = None
    python: str = sys.executable

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= 1024:
            raise ConfigError(f"slots {self.slots} is out of range: 1 to 1024")
        if not 0 <= self.nice <= 19:
            raise ConfigError(f"nice {self.nice} is out of range: 0 to 19")
        if self.stop_grace_ms < 0:
            raise ConfigError(f"stop grace {self.stop_grace_ms} ms is negative")

    def base_env(self) -> dict[str, str]:
        """The environment that slots, and so every task, start from."""
        if self.task_env is not None:
            return dict(self.task_env)
        return {k: v for k, v in os.environ.items() if not k.startswith(("RAFTD_", "RAFTCTL_"))}


def limits_of(config: Config) -> Limits:
    """What the settings of a node grant each attempt."""
    return Limits(
        cpu_ms=config.task_cpu_ms,
        memory_bytes=config.task_memory_bytes,
        file_bytes=config.task_file_bytes,
        processes=config.task_processes,
    )
