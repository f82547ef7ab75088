"""``raftctl cluster wait``: what a whole cluster can be waited for, judged from outside by asking every node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raftctl.client.errors import Unavailable
from raftctl.context import Invocation
from raftctl.errors import CliError, ExitCode
from raftctl.sdk import Client

if TYPE_CHECKING:
    from raftctl.client.overview import ClusterView

POLL_S = 0.1
ASK_S = 1.0


def _lacks_leader(view: ClusterView) -> str:
    return "" if view.status.leader and not view.stale else "no leader"


def _lacks_health(view: ClusterView) -> str:
    cold = sorted(name for name, info in view.infos.items() if not info.slots_ready)
    if lack := _lacks_leader(view):
        return lack
    if view.silent:
        return f"{', '.join(sorted(view.silent))} silent"
    if view.degraded:
        lost = [node.name for node in view.status.nodes if node.health != "up"]
        return f"{', '.join(lost) or 'a voter'} not up"
    return f"{', '.join(cold)} still warming up" if cold else ""


def _lacks_rest(view: ClusterView) -> str:
    if lack := _lacks_leader(view):
        return lack
    busy = view.status.pending + view.status.running
    return f"{view.status.pending} pending, {view.status.running} running" if busy else ""


CONDITIONS: dict[str, Callable[[ClusterView], str]] = {
    "leader": _lacks_leader,
    "healthy": _lacks_health,
    "idle": _lacks_rest,
}
"""What can be waited for, and what is still missing to it, in words; nothing once it is so."""


def wait_for_condition(
    asked: Invocation, name: str | None, condition: str, timeout_s: float, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Waits for one of `CONDITIONS`. Raises CliError (exit code 124) when the time is up."""
    deadline = time.monotonic() + timeout_s
    with Client(name or asked.cluster, address=asked.address, timeout_s=ASK_S) as client:
        while True:
            try:
                view = client.cluster_view(timeout_s=ASK_S)
                lack = CONDITIONS[condition](view)
            except Unavailable as error:
                view, lack = None, error.message
            if not lack and view is not None:
                return {
                    "cluster": asked.cluster_name(name) if asked.address is None else view.status.cluster_id,
                    "condition": condition,
                    "leader": view.status.leader,
                    "pending": view.status.pending,
                    "running": view.status.running,
                }
            if time.monotonic() >= deadline:
                raise CliError(
                    f"not {condition} after {timeout_s:g} s: {lack}",
                    "raftctl status, or a longer --timeout",
                    ExitCode.WAIT_TIMED_OUT,
                )
            progress(f"waiting: {lack}")
            time.sleep(POLL_S)
