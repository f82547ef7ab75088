"""How this machine speaks to the nodes of a local cluster: the SDK's client, as the launcher wants it.

The one module of this package that calls nodes. gRPC is imported with the first call and not before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raftctl.cluster.control import node_status
from raftctl.cluster.faults import FaultChange, forget, pending, remember
from raftctl.cluster.layout import ClusterDirectory, NodeRecord, load_endpoints
from raftctl.cluster.process import ProcessState
from raftctl.cluster.readiness import NodeView
from raftctl.endpoints import Endpoints
from raftctl.errors import RaftctlError

if TYPE_CHECKING:
    from raftctl.client import Client
    from raftctl.client.nodes import Faults


class LocalNodes:
    """Calls to the nodes of one local cluster, which may be made, remade and removed meanwhile. Safe for threads.

    It is the launcher's `NodeProbe`. Use it as ``with LocalNodes(directory) as nodes``.
    """

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._endpoints: Endpoints | None = None
        self._client: Client | None = None
        self._members: tuple[Endpoints, Client] | None = None  # and the client that knows the members alone

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._close_members()

    def view(self, node: NodeRecord, timeout_s: float) -> NodeView | None:
        """What the node says of itself, or None when it does not answer, or when somebody else answers there."""
        try:
            info = self._client_for(node).node_info(node.name, timeout_s=timeout_s)
        except RaftctlError:
            return None
        if info.store_id != node.store_id:
            return None
        return NodeView(
            name=info.name,
            role=info.role,
            leader=info.leader or "",
            term=info.term,
            commit_index=info.commit_index,
            last_applied=info.last_applied,
            slots_ready=info.slots_ready,
            pid=info.pid,
            fault_injection=info.fault_injection,
        )

    def is_cut_off(self, node: NodeRecord, timeout_s: float) -> bool:
        """Whether the node acts on any cut."""
        try:
            return bool(self.faults_of(node, timeout_s).cuts)
        except RaftctlError:
            return False

    def faults_of(self, node: NodeRecord, timeout_s: float) -> Faults:
        """The cuts that the node acts on. Raises ClientError."""
        return self._client_for(node).faults(node.name, timeout_s=timeout_s)

    def tell(self, node: NodeRecord, change: FaultChange, timeout_s: float) -> None:
        """Changes the node's cuts. Raises ClientError; FaultInjectionOff when it was started without."""
        from raftctl.client.nodes import Cut

        self._client_for(node).set_faults(
            node.name,
            add=[Cut(*pair) for pair in sorted(change.add)],
            remove=[Cut(*pair) for pair in sorted(change.remove)],
            heal=change.heal,
            timeout_s=timeout_s,
        )

    def client(self) -> Client:
        """A client of the cluster as its record has it now, for what is asked of the cluster and not of one node."""
        from raftctl.client import Client

        with self._lock:
            found = load_endpoints(self._directory.name)
            if self._members is None or self._members[0] != found:
                self._close_members()
                self._members = (found, Client(found))
            return self._members[1]

    def _client_for(self, node: NodeRecord) -> Client:
        """A client that knows this node: a cluster that was made anew has other ports and another token."""
        from raftctl.client import Client

        with self._lock:
            if self._endpoints is None or (node.name, node.address) not in self._endpoints.addresses:
                self._close()
                record = self._directory.read()
                nodes = () if record is None else record.nodes
                addresses = tuple((one.name, one.address) for one in nodes)
                self._endpoints = Endpoints(addresses, self._directory.token(), self._directory.name)
            if self._client is None:
                self._client = Client(self._endpoints)
            return self._client

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _close_members(self) -> None:
        members, self._members = self._members, None
        if members is not None:
            members[1].close()


@dataclass(frozen=True, slots=True)
class Told:
    """Whom a change of cuts has reached: those told, those that will be told when they are up, those that failed."""

    told: tuple[str, ...]
    later: tuple[str, ...]
    failed: dict[str, RaftctlError]


def tell_all(
    directory: ClusterDirectory,
    nodes: Sequence[NodeRecord],
    change: FaultChange,
    speaker: LocalNodes,
    timeout_s: float,
) -> Told:
    """Tells every node its part; what a node that is down or paused misses is kept until it is started or resumed."""
    from concurrent.futures import ThreadPoolExecutor

    def one(node: NodeRecord) -> str | RaftctlError:
        part = change.of_node(node.name)
        if node_status(directory, node).state is not ProcessState.RUNNING:
            remember(directory, node.name, part)
            return "later"
        try:
            speaker.tell(node, pending(directory, node.name).then(part), timeout_s)
        except RaftctlError as error:
            return error
        forget(directory, node.name)
        return "told"

    concerned = [node for node in nodes if change.of_node(node.name)]
    with ThreadPoolExecutor(max(1, len(concerned))) as pool:
        outcomes = dict(zip((node.name for node in concerned), pool.map(one, concerned), strict=True))
    return Told(
        tuple(name for name, outcome in outcomes.items() if outcome == "told"),
        tuple(name for name, outcome in outcomes.items() if outcome == "later"),
        {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, RaftctlError)},
    )


def tell_missed(
    directory: ClusterDirectory, nodes: Sequence[NodeRecord], speaker: LocalNodes, timeout_s: float
) -> None:
    """Tells nodes that have just come back what they missed. Raises ClientError when one does not take it."""
    for node in nodes:
        missed = pending(directory, node.name)
        if missed:
            speaker.tell(node, missed, timeout_s)
            forget(directory, node.name)
