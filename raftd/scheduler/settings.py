"""SetSettings: the replicated settings, within which limits each may be changed, and which only one way.

What may live here: the table of limits, and the rule that changes settings all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from raftd.scheduler.commands import SetSettings
from raftd.scheduler.model import Placement, Settings
from raftd.scheduler.replies import Refused, Reply, SettingsSet
from raftd.scheduler.turn import Turn

_DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Between which values a setting may lie, both included.

    Attributes:
        only_up, only_down: why it may not be lowered, or not be raised, while the cluster is alive; empty: it may.
    """

    least: int
    most: int
    only_up: str = ""
    only_down: str = ""


LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        # A submission must fit into one entry of the log, with room for others.
        "max_payload_bytes": Limits(0, 2 * 1024 * 1024),
        "max_args_bytes": Limits(1_024, 1024 * 1024),
        "max_queue": Limits(1, 10_000_000),
        "max_array": Limits(1, 20_000),
        # Executors make a blob only of what is larger than the default.
        "max_inline_result_bytes": Limits(4_096, 64 * 1024),
        "request_retention_ms": Limits(
            60_000,
            30 * _DAY_MS,
            only_down="ids that were forgotten after the shorter time would be taken for new, and run again",
        ),
        "tasks_kept": Limits(0, 10_000_000),
        "tasks_kept_ms": Limits(1_000, 10 * 365 * _DAY_MS),
        # One that has ended and the one that runs.
        "max_attempts_kept": Limits(2, 1_000),
        "crash_limit": Limits(1, 1_000),
        # It counts for a leader when its leadership begins, and for an executor from its Welcome by that leader. The
        # next leader would give up an executor by the shorter lease that still counts on a longer one.
        "lease_ms": Limits(
            300,
            600_000,
            only_up="executors hold leases of the longer time, and what they run would be given to others before",
        ),
        "ageing_ms": Limits(0, 365 * _DAY_MS),
        "placement": Limits(min(Placement), max(Placement)),
        "max_dependencies": Limits(0, 10_000),
        "max_graph": Limits(1, 20_000),
        "reserve_depth": Limits(0, 64),
    }
)


def set_settings(turn: Turn, command: SetSettings) -> Reply:
    """Change settings, all that are named or none. What is in the queue or has ended already stays accepted."""
    state = turn.state
    old = state.settings
    values: dict[str, Any] = {}
    for name, value in command.changes:
        refusal = _refuse(old, name, value)
        if refusal is None and name in values:
            refusal = Refused("invalid_request", f"the setting {name} is named twice")
        if refusal is not None:
            return refusal
        values[name] = Placement(value) if name == "placement" else value
    new = replace(old, **values)
    if new != old:
        state.change_settings(new)
    return SettingsSet()


def _refuse(settings: Settings, name: str, value: int) -> Refused | None:
    limits = LIMITS.get(name)
    if limits is None:
        return Refused(
            "invalid_request", f"there is no setting {name[:64]!r}", f"the settings are: {', '.join(LIMITS)}"
        )
    if not limits.least <= value <= limits.most:
        return Refused("invalid_request", f"{name} {value} is not within {limits.least} to {limits.most}")
    now: int = getattr(settings, name)
    if limits.only_up and value < now:
        return Refused("rejected", f"{name} is {now} and can only be raised: {limits.only_up}")
    if limits.only_down and value > now:
        return Refused("rejected", f"{name} is {now} and can only be lowered: {limits.only_down}")
    return None
