"""What `raftctl status` and `raftctl task explain` show, put together from the applied state, the core's status and the
attached executors.

What may live here: reading; one function a table.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from raftd.codec.api import encode_page, task_words
from raftd.codec.attach import encode_token, task_name
from raftd.codec.explanation import encode_explanation
from raftd.node.clock import ClusterClock
from raftd.node.members import Members
from raftd.node.node import Node
from raftd.node.sessions import Sessions
from raftd.pb import scheduler_pb2 as pb
from raftd.raft.ready import Status
from raftd.raft.types import Role
from raftd.scheduler import queries
from raftd.scheduler.explain import explain
from raftd.scheduler.model import Eligibility, Health, NodeRole, Task
from raftd.scheduler.model import Node as Executor
from raftd.scheduler.state import State

LIST_BYTES = 1024 * 1024
"""A list of tasks in a Status ends here: the whole answer must fit into a message however large the tasks are."""

MAX_TASK_CHARS = 256
"""Of a task's words in a table."""

_NODE_ROLES = {NodeRole.VOTER: "voter", NodeRole.LEARNER: "learner", NodeRole.WORKER: "worker"}
_HEALTH = {Health.UP: "up", Health.LOST: "lost"}
_ELIGIBILITY = {
    Eligibility.READY: "ready",
    Eligibility.CORDONED: "cordoned",
    Eligibility.DRAINING: "draining",
}


class ClusterView:
    """Answers Status on one node.

    Args:
        name: of this node.
        state: the applied state.
        node: what the core knows.
        members: who belongs to the cluster.
        sessions: the attached executors, on a leader.
        cluster_clock: the cluster's time.
        patience_ms: a peer that was not heard for so long is not counted as up.
    """

    def __init__(
        self,
        name: str,
        state: Callable[[], State],
        node: Node,
        members: Members,
        sessions: Sessions,
        cluster_clock: ClusterClock,
        patience_ms: int,
    ) -> None:
        self._name = name
        self._state = state
        self._status = node.status
        self._silence_ms = node.silence_ms
        self._members = members
        self._sessions = sessions
        self._cluster_clock = cluster_clock
        self._patience_ms = patience_ms

    def read_info(self, stale: bool) -> pb.ReadInfo:
        """What a read was answered from."""
        status = self._status()
        return pb.ReadInfo(
            stale=stale,
            applied_index=self._state().applied_index,
            answered_by=self._name,
            leader=self._members.name(status.leader),
            term=status.term,
        )

    def response(self, stale: bool, recent_count: int) -> pb.StatusResponse:
        """The whole answer, from this node's applied state as it is now."""
        state, status = self._state(), self._status()
        counts = queries.counts(state)
        return pb.StatusResponse(
            cluster_id=f"{state.cluster_id:016x}",
            leader=self._members.name(status.leader),
            term=status.term,
            commit_index=status.commit,
            quorum=self._quorum(status),
            read=self.read_info(stale),
            executing=self._executing(state),
            free_nodes=self._free_nodes(state),
            nodes=self._nodes(state, status),
            pending=counts.pending,
            running=counts.running,
            succeeded=counts.succeeded,
            failed=counts.failed,
            cancelled=counts.cancelled,
            next_pending=encode_page(queries.next_pending(state, recent_count), LIST_BYTES)[0],
            recent=encode_page(queries.recently_ended(state, recent_count), LIST_BYTES)[0],
        )

    def explanation(self, task: Task, stale: bool) -> pb.ExplainResponse:
        """Why a task is where it is. A leader knows which executors it cannot tell anything."""
        state, silent = self._state(), frozenset[str]()
        if self._status().role is Role.LEADER:
            sessions = {name: self._sessions.session(name) for name in state.nodes}
            silent = frozenset(
                name for name, session in sessions.items() if session is None or not session.attached
            )
        response = encode_explanation(explain(state, task, self._cluster_clock.now_ms(), silent))
        response.read.CopyFrom(self.read_info(stale))
        return response

    def _reachable(self, status: Status) -> frozenset[int]:
        """The stores that this node knows to be alive: a leader those it heard lately, another only itself.

        The core's own mark will not do: it is taken back from all of them whenever the quorum is checked.
        """
        alive = {status.id}
        if status.role is Role.LEADER:
            for store_id in status.configuration.members():
                silence_ms = self._silence_ms(store_id)
                if silence_ms is not None and silence_ms <= self._patience_ms:
                    alive.add(store_id)
        return frozenset(alive)

    def _quorum(self, status: Status) -> pb.Quorum:
        voters = status.configuration.voters
        up = len(self._reachable(status) & set(voters))
        return pb.Quorum(voters=len(voters), up=up, ok=status.role is Role.LEADER and up > len(voters) // 2)

    def _executing(self, state: State) -> list[pb.ExecutingRow]:
        now = self._cluster_clock.now_ms()
        rows = []
        for row in sorted(queries.executing(state), key=lambda row: (natural(row.node), row.slot)):
            task, attempt = row.task, row.attempt
            session = self._sessions.session(attempt.node)
            progress = None if session is None else session.progress.get(attempt.token)
            rows.append(
                pb.ExecutingRow(
                    node=attempt.node,
                    slot=row.slot,
                    task_id=task_name(task.id),
                    task=_cut(task_words(task)),
                    attempt=attempt.number,
                    fencing_token=encode_token(attempt.token),
                    elapsed_ms=max(0, now - attempt.occupied_at_ms),
                    progress=-1.0 if progress is None else progress.fraction,
                    message="" if progress is None else progress.message,
                    stopping=attempt.stopping is not None,
                )
            )
        return rows

    def _free_nodes(self, state: State) -> list[pb.FreeNodeRow]:
        return [
            pb.FreeNodeRow(
                node=row.node,
                role=_NODE_ROLES[row.role],
                slots_free=row.slots_free,
                slots=row.slots,
                last_seen_ms=self._sessions.silence_ms(row.node),
            )
            for row in sorted(queries.free_nodes(state), key=lambda row: natural(row.node))
        ]

    def _nodes(self, state: State, status: Status) -> list[pb.NodeRow]:
        reachable = self._reachable(status)
        rows = []
        members = {member.name: member for member in self._members.all()}
        for name in sorted({*members, *state.nodes}, key=natural):
            member, node = members.get(name), state.nodes.get(name)
            store_id = member.store_id if member is not None else node.store_id if node is not None else 0
            rows.append(self._node(name, store_id, member is not None, node, status, store_id in reachable))
        return rows

    def _node(
        self,
        name: str,
        store_id: int,
        is_member: bool,
        node: Executor | None,
        status: Status,
        reachable: bool,
    ) -> pb.NodeRow:
        raft_role = "unknown"
        if store_id == status.id:
            raft_role = str(status.role)
        elif store_id == status.leader:
            raft_role = "leader"
        elif is_member and status.role is Role.LEADER and reachable:
            raft_role = "follower"
        row = pb.NodeRow(
            name=name,
            store_id=f"{store_id:016x}",
            role="voter" if is_member else "worker",
            raft_role=raft_role,
            health="unregistered",
            pid=os.getpid() if store_id == status.id else 0,
            last_seen_ms=self._sessions.silence_ms(name),
            reachable=reachable,
        )
        member = self._members.by_name(name) if is_member else None
        if member is not None:
            row.address = member.address
            row.role = "voter" if member.voter else "learner"
        if node is not None:
            row.role = _NODE_ROLES[node.role]
            row.health = _HEALTH[node.health]
            row.eligibility = _ELIGIBILITY[node.eligibility]
            row.address = node.address
            row.incarnation = node.incarnation
            row.slots = node.slots
            row.slots_free = node.slots_free
            row.kinds.extend(node.kinds)
            row.labels.update(dict(node.all_labels))
            row.drain_deadline_ms = node.drain_deadline_ms
            row.reserved = sum(map(len, node.reserved))
        return row


def _cut(words: str) -> str:
    return words if len(words) <= MAX_TASK_CHARS else words[: MAX_TASK_CHARS - 3] + "..."


def natural(name: str) -> tuple[str, int, str]:
    """Orders n2 before n10."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits or 0), name
