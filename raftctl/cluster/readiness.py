"""When a cluster may be called ready: a leader that all know, every node caught up, every slot registered.

What may live here: the rule, and the loop that waits for it. How a node is asked is the caller's (`NodeProbe`), so that
this package needs no gRPC and its tests no nodes.
"""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from raftctl.cluster.layout import HOST, NodeRecord
from raftctl.errors import CliError, ExitCode

POLL_S = 0.04
POLL_NODE_S = 0.01  # and so much more for each node: asking must not keep many of them from starting
WORKER = "worker"
# A node that is cut off will not get ready by waiting: so long is it given before its cuts are looked at.
EXCUSE_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node says of itself; names are empty where it knows none."""

    name: str
    role: str
    leader: str
    term: int
    commit_index: int
    last_applied: int
    slots_ready: bool
    pid: int
    fault_injection: bool = False


class NodeProbe(Protocol):
    """Asks one node; returns None when it does not answer within the time."""

    def view(self, node: NodeRecord, timeout_s: float) -> NodeView | None:
        """What `Admin.NodeInfo` says there."""

    def is_cut_off(self, node: NodeRecord, timeout_s: float) -> bool:
        """Whether the node drops traffic because it was told to (`partition`, `isolate`, `cut`)."""


class NotReady(CliError):
    """The time to wait is over; the message says what is missing, node by node. Exit code 124."""

    def __init__(self, message: str, missing: Mapping[str, str]) -> None:
        super().__init__(message, "a longer --timeout, or raftctl node list", ExitCode.WAIT_TIMED_OUT)
        self.missing = dict(missing)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What all nodes of a cluster said at about the same time; None for those that did not answer."""

    views: Mapping[str, NodeView | None]

    @property
    def leader(self) -> NodeView | None:
        """The node that leads in the highest term: one that leads in an older term is cut off and knows no better."""
        leaders = [view for view in self.views.values() if view is not None and view.role == "leader"]
        return max(leaders, key=lambda view: view.term, default=None)

    def missing(self, excused: Iterable[str] = ()) -> dict[str, str]:
        """For every node that is not ready, what it lacks; empty when the cluster is ready."""
        leader = self.leader
        lacks = {name: _lack(view, leader) for name, view in self.views.items()}
        return {name: lack for name, lack in lacks.items() if lack and name not in set(excused)}


def look(nodes: Sequence[NodeRecord], probe: NodeProbe, timeout_s: float) -> ClusterView:
    """Asks all nodes at once."""

    def ask(node: NodeRecord) -> NodeView | None:
        # A connection is tried first: gRPC would back off for a second or more from a port that nobody serves yet.
        return probe.view(node, timeout_s) if is_listening(node.port) else None

    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        answers = list(pool.map(ask, nodes))
    return ClusterView({node.name: answer for node, answer in zip(nodes, answers, strict=True)})


def wait_ready(
    nodes: Sequence[NodeRecord],
    probe: NodeProbe,
    deadline: float,
    check: Callable[[], None],
    progress: Callable[[str], None],
) -> ClusterView:
    """Waits until the cluster is ready, or until all that lack something are nodes that were cut off on purpose.

    `deadline` is on the monotonic clock. `check` is called in every round and raises when waiting has become vain.
    Raises NotReady.
    """
    excuse_at = time.monotonic() + EXCUSE_AFTER_S
    while True:
        check()
        seen = look(nodes, probe, min(2.0, max(0.2, deadline - time.monotonic())))
        missing = seen.missing()
        if missing and time.monotonic() >= excuse_at and seen.leader is not None:
            missing = seen.missing(node.name for node in nodes if probe.is_cut_off(node, 1.0))
        if not missing:
            return seen
        if time.monotonic() >= deadline:
            raise NotReady("not ready in time: " + _sentence(missing), missing)
        progress(f"{len(nodes) - len(missing)} of {len(nodes)} nodes ready; {_sentence(missing)}")
        time.sleep(POLL_S + POLL_NODE_S * len(nodes))


def wait_for(
    nodes: Sequence[NodeRecord],
    probe: NodeProbe,
    deadline: float,
    wanted: Callable[[ClusterView], str],
    progress: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> ClusterView:
    """Waits until `wanted` has nothing left to want: it says what is missing, in words. Raises NotReady, as
    `wait_ready` does."""
    while True:
        check()
        seen = look(nodes, probe, min(2.0, max(0.2, deadline - time.monotonic())))
        lack = wanted(seen)
        if not lack:
            return seen
        if time.monotonic() >= deadline:
            raise NotReady(f"waited in vain: {lack}", {})
        progress(lack)
        time.sleep(POLL_S + POLL_NODE_S * len(nodes))


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((HOST, port), timeout=0.5):
            return True
    except OSError:
        return False


def _lack(view: NodeView | None, leader: NodeView | None) -> str:
    if view is None:
        return "does not answer"
    if leader is None:
        return (
            "knows no leader" if not view.leader else f"takes {view.leader} for the leader, who does not lead"
        )
    if view.leader != leader.name or view.term != leader.term:
        return f"does not follow {leader.name}"
    if view.role != WORKER and view.last_applied < leader.commit_index:
        return f"has applied {view.last_applied} of {leader.commit_index}"
    return "" if view.slots_ready else "warms its slots up"


def _sentence(missing: Mapping[str, str]) -> str:
    """Nodes that lack the same thing are named together."""
    by_lack: dict[str, list[str]] = {}
    for name, lack in missing.items():
        by_lack.setdefault(lack, []).append(name)
    return "; ".join(f"{', '.join(names)} {lack}" for lack, names in by_lack.items())
