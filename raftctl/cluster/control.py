"""What is done to single nodes at once and without the cluster's lock: kill, pause, resume; and their names.

These are signals to processes that are known for certain (`raftctl.cluster.process`), so they need not wait for a
change of the cluster that is under way: a node may well be killed while `cluster up` still waits for it.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from raftctl.cluster.layout import ClusterDirectory, ClusterRecord, NodeRecord
from raftctl.cluster.process import ProcessState, send_signal, state_of, wait_gone, wait_state
from raftctl.cluster.readiness import NodeProbe, look
from raftctl.errors import CliError, ExitCode

LEADER = "leader"
KILL_TIMEOUT_S = 10.0
SIGNAL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as this machine sees it. `pid` and `started_at` are None when it is down."""

    record: NodeRecord
    state: ProcessState
    pid: int | None
    started_at: str | None

    @property
    def word(self) -> str:
        """The state as people say it."""
        return "down" if self.state is ProcessState.GONE else str(self.state)


def node_status(directory: ClusterDirectory, node: NodeRecord) -> NodeStatus:
    """Whether a node's process runs, is paused or is down."""
    process = directory.process(node.name)
    state = ProcessState.GONE if process is None else state_of(process.identity)
    if process is None or state is ProcessState.GONE:
        return NodeStatus(node, ProcessState.GONE, None, None)
    return NodeStatus(node, state, process.identity.pid, process.started_at)


def cluster_word(directory: ClusterDirectory, record: ClusterRecord) -> str:
    """``running``, ``degraded`` (some nodes are not running) or ``stopped``."""
    states = [node_status(directory, node).state for node in record.nodes]
    if all(state is ProcessState.RUNNING for state in states):
        return "running"
    return "stopped" if all(state is ProcessState.GONE for state in states) else "degraded"


def resolve_nodes(
    record: ClusterRecord, words: Sequence[str], probe: NodeProbe, timeout_s: float
) -> tuple[NodeRecord, ...]:
    """The nodes that these words name, each once; ``leader`` names the leader, and commas may join words.

    Raises CliError: exit code 3 for a name that no node has, 4 for ``leader`` while nobody leads.
    """
    names = [name for word in words for name in word.split(",") if name]
    leader = None
    if LEADER in names:
        seen = look(record.members, probe, timeout_s)
        if seen.leader is None:
            raise CliError("no node leads", "raftctl node list", ExitCode.UNAVAILABLE)
        leader = seen.leader.name
    found = [record.node(leader if name == LEADER and leader is not None else name) for name in names]
    return tuple(dict.fromkeys(found))


def kill_nodes(directory: ClusterDirectory, nodes: Sequence[NodeRecord]) -> tuple[str, ...]:
    """KILL to raftd itself, and to nothing that it started; the names of those that ran."""
    identities = {}
    for node in nodes:
        process = directory.process(node.name)
        if process is not None and send_signal(process.identity, signal.SIGKILL):
            identities[node.name] = process.identity
    wait_gone(identities.values(), KILL_TIMEOUT_S)
    return tuple(identities)


def pause_nodes(directory: ClusterDirectory, nodes: Sequence[NodeRecord]) -> tuple[str, ...]:
    """STOP to raftd itself; the names of those that ran. Raises CliError (exit code 4) for one that is down."""
    return _signal_up(directory, nodes, signal.SIGSTOP, ProcessState.PAUSED)


def resume_nodes(directory: ClusterDirectory, nodes: Sequence[NodeRecord]) -> tuple[str, ...]:
    """CONT; the names of those that were paused. Raises CliError (exit code 4) for one that is down."""
    return _signal_up(directory, nodes, signal.SIGCONT, ProcessState.RUNNING)


def _signal_up(
    directory: ClusterDirectory, nodes: Sequence[NodeRecord], signal_number: int, wanted: ProcessState
) -> tuple[str, ...]:
    """Signals nodes that must be up, and returns once each is in the state that the signal leads to."""
    before = [node_status(directory, node) for node in nodes]
    for status in before:
        if status.state is ProcessState.GONE:
            name = status.record.name
            raise CliError(f"{name} is down", f"raftctl node start {name}", ExitCode.UNAVAILABLE)
    changed = []
    for status in before:
        process = directory.process(status.record.name)
        if (
            process is not None
            and status.state is not wanted
            and send_signal(process.identity, signal_number)
        ):
            wait_state(process.identity, wanted, SIGNAL_TIMEOUT_S)
            changed.append(status.record.name)
    return tuple(changed)
