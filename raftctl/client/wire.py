"""Between the SDK's values and the protobuf messages: the only place in raftctl that knows both.

Pure functions, one per message. What a newer node says that this build does not know becomes "unknown", never
an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftctl.client import models as m
from raftctl.client import nodes as n
from raftctl.client.errors import from_code
from raftctl.client.explanations import Explanation, NodeVerdict, Purged
from raftd.pb import admin_pb2 as admin
from raftd.pb import scheduler_pb2 as pb

_STATES = {
    pb.TASK_STATE_PENDING: m.TaskState.PENDING,
    pb.TASK_STATE_RUNNING: m.TaskState.RUNNING,
    pb.TASK_STATE_SUCCEEDED: m.TaskState.SUCCEEDED,
    pb.TASK_STATE_FAILED: m.TaskState.FAILED,
    pb.TASK_STATE_CANCELLED: m.TaskState.CANCELLED,
}
_STATES_ON_WIRE = {state: value for value, state in _STATES.items()}

_OUTCOMES = {
    pb.ATTEMPT_OUTCOME_SUCCEEDED: m.AttemptOutcome.SUCCEEDED,
    pb.ATTEMPT_OUTCOME_FAILED: m.AttemptOutcome.FAILED,
    pb.ATTEMPT_OUTCOME_TIMED_OUT: m.AttemptOutcome.TIMED_OUT,
    pb.ATTEMPT_OUTCOME_CANCELLED: m.AttemptOutcome.CANCELLED,
    pb.ATTEMPT_OUTCOME_CRASHED: m.AttemptOutcome.CRASHED,
    pb.ATTEMPT_OUTCOME_LOST: m.AttemptOutcome.LOST,
    pb.ATTEMPT_OUTCOME_NOT_STARTED: m.AttemptOutcome.NOT_STARTED,
    pb.ATTEMPT_OUTCOME_WITHDRAWN: m.AttemptOutcome.WITHDRAWN,
}

_CONDITIONS = {
    m.Condition.OK: pb.DEPENDENCY_CONDITION_OK,
    m.Condition.ANY: pb.DEPENDENCY_CONDITION_ANY,
}


def _time(ms: int) -> int | None:
    return ms or None


# --- to the wire -----------------------------------------------------------------------------------------------------


def submission_to_wire(submission: m.Submission) -> pb.Submission:
    """The message; `request_id` must have been filled in."""
    message = pb.Submission(
        request_id=submission.request_id,
        kind=submission.kind,
        args=submission.args,
        payload=submission.payload,
        env=dict(submission.env),
        name=submission.name,
        priority=submission.priority,
        retries=submission.retries,
        run_timeout_ms=submission.run_timeout_ms,
        queue_timeout_ms=submission.queue_timeout_ms,
        delay_ms=submission.delay_ms,
        after=[_dependency_to_wire(one) for one in submission.after],
        require=dict(submission.require),
        slots=submission.slots,
    )
    if submission.backoff_first_ms or submission.backoff_max_ms:
        message.backoff.first_ms = submission.backoff_first_ms
        message.backoff.max_ms = submission.backoff_max_ms
    if submission.array is not None:
        message.array.first_index = submission.array.first_index
        message.array.last_index = submission.array.last_index
        message.array.max_failures = submission.array.max_failures
    return message


def graph_to_wire(graph: m.Graph) -> pb.Graph:
    """The message; `request_id` must have been filled in."""
    return pb.Graph(
        request_id=graph.request_id,
        name=graph.name,
        max_failures=graph.max_failures,
        tasks=[
            pb.GraphTask(
                submission=submission_to_wire(task.submission),
                after=[
                    pb.GraphEdge(position=position, condition=_CONDITIONS[condition])
                    for position, condition in task.after
                ],
            )
            for task in graph.tasks
        ],
    )


def _dependency_to_wire(dependency: m.Dependency) -> pb.Dependency:
    return pb.Dependency(id=dependency.id, condition=_CONDITIONS[dependency.condition])


def _dependency(message: pb.Dependency) -> m.Dependency:
    is_any = message.condition == pb.DEPENDENCY_CONDITION_ANY
    return m.Dependency(message.id, m.Condition.ANY if is_any else m.Condition.OK)


def state_to_wire(state: m.TaskState) -> pb.TaskState.ValueType:
    """The enum's value on the wire."""
    return _STATES_ON_WIRE[state]


def cut_to_wire(cut: n.Cut) -> admin.Cut:
    """The message."""
    return admin.Cut(from_node=cut.from_node, to_node=cut.to_node)


# --- from the wire ---------------------------------------------------------------------------------------------------


def accepted(reply: pb.SubmitReply) -> m.Accepted | Exception:
    """What became of one submission: an `Accepted`, or the error that its refusal stands for."""
    if reply.WhichOneof("reply") == "refusal":
        return refusal(reply.refusal)
    answer = reply.accepted
    return m.Accepted(
        reply.request_id, answer.task_id, answer.job_id, tuple(answer.task_ids), answer.duplicate
    )


def refusal(message: pb.Refusal) -> Exception:
    """The error that a refusal of one item of a batch stands for."""
    return from_code(message.code, message.message, getattr(message, "try"))


def cancelled(reply: pb.CancelReply) -> m.Cancelled:
    """What a cancel did to one id."""
    return m.Cancelled(
        id=reply.id,
        state=_STATES.get(reply.state, m.TaskState.UNKNOWN),
        cancelled_count=reply.cancelled_count,
        error=refusal(reply.refusal) if reply.HasField("refusal") else None,
    )


def token(message: pb.FencingToken) -> m.FencingToken:
    """A fencing token."""
    return m.FencingToken(message.epoch, message.counter)


def attempt(message: pb.Attempt) -> m.Attempt:
    """One attempt."""
    return m.Attempt(
        number=message.number,
        node=message.node,
        slot=message.slot,
        fencing_token=token(message.fencing_token),
        outcome=_OUTCOMES.get(message.outcome, m.AttemptOutcome.RUNNING),
        reason=message.reason,
        occupied_ms=_time(message.occupied_at_ms),
        started_ms=_time(message.started_at_ms),
        ended_ms=_time(message.ended_at_ms),
        stopping=message.stopping,
        reserved=message.reserved,
        extra_slots=tuple(message.extra_slots),
    )


def task(message: pb.Task) -> m.Task:
    """One task with its attempts."""
    result: m.TaskResult | None = None
    if message.HasField("result"):
        blob = message.result.blob
        if message.result.WhichOneof("result") == "blob":
            result = m.TaskResult(inline=None, blob=m.BlobRef(blob.digest, blob.size_bytes))
        else:
            result = m.TaskResult(inline=message.result.inline, blob=None)
    return m.Task(
        task_id=message.task_id,
        name=message.name,
        kind=message.kind,
        args=tuple(message.args),
        env=dict(message.env),
        priority=message.priority,
        state=_STATES.get(message.state, m.TaskState.UNKNOWN),
        job_id=message.job_id or None,
        array_index=message.array_index if message.HasField("array_index") else None,
        request_id=message.request_id,
        submitted_ms=_time(message.submitted_at_ms),
        finished_ms=_time(message.finished_at_ms),
        not_before_ms=_time(message.not_before_ms),
        retries=message.retries,
        run_timeout_ms=message.run_timeout_ms,
        attempts=tuple(attempt(one) for one in message.attempts),
        result=result,
        reason=message.reason,
        changed_index=message.changed_index,
        queue_timeout_ms=message.queue_timeout_ms,
        waiting_for=tuple(_dependency(one) for one in message.waiting_for),
        require=dict(message.require),
        slots=message.slots or 1,
        failures=message.failures,
        crashes=message.crashes,
    )


def job(message: pb.Job) -> m.Job:
    """One job; its tasks are numbered without a gap."""
    first = message.first_task_id
    return m.Job(
        job_id=message.job_id,
        name=message.name,
        kind=message.kind,
        submitted_ms=_time(message.submitted_at_ms),
        finished_ms=_time(message.finished_at_ms),
        total=message.total,
        pending=message.pending,
        running=message.running,
        succeeded=message.succeeded,
        failed=message.failed,
        cancelled=message.cancelled,
        max_failures=message.max_failures,
        task_ids=tuple(f"t{number}" for number in range(first, first + message.total)),
        changed_index=message.changed_index,
        stopping=message.stopping,
        graph=message.graph,
    )


def purged(message: pb.PurgeResponse) -> Purged:
    """What a purge did."""
    return Purged(message.purged_count, tuple((one.id, refusal(one.refusal)) for one in message.refused))


def explanation(message: pb.ExplainResponse) -> Explanation:
    """Why a task is where it is."""
    return Explanation(
        task=task(message.task),
        summary=message.summary,
        waits=tuple(message.waits),
        ahead_count=message.ahead_count,
        nodes=tuple(
            NodeVerdict(one.node, one.fits, one.available, tuple(one.reasons)) for one in message.nodes
        ),
        read=read_info(message.read),
    )


def read_info(message: pb.ReadInfo) -> m.ReadInfo:
    """How fresh an answer is."""
    return m.ReadInfo(
        message.stale, message.applied_index, message.answered_by, message.leader or None, message.term
    )


def _executing(row: pb.ExecutingRow) -> m.ExecutingRow:
    return m.ExecutingRow(
        node=row.node,
        slot=row.slot,
        task_id=row.task_id,
        task=row.task,
        attempt=row.attempt,
        fencing_token=token(row.fencing_token),
        elapsed_ms=row.elapsed_ms,
        progress=row.progress if row.progress >= 0 else None,
        message=row.message,
        stopping=row.stopping,
    )


def _node(row: pb.NodeRow) -> m.NodeRow:
    return m.NodeRow(
        name=row.name,
        store_id=row.store_id,
        role=row.role,
        raft_role=row.raft_role or "unknown",
        health=row.health,
        eligibility=row.eligibility,
        address=row.address,
        pid=row.pid or None,
        incarnation=row.incarnation,
        slots=row.slots,
        slots_free=row.slots_free,
        kinds=tuple(row.kinds),
        last_seen_ms=row.last_seen_ms if row.HasField("last_seen_ms") else None,
        reachable=row.reachable,
        labels=dict(row.labels),
        drain_deadline_ms=_time(row.drain_deadline_ms),
        reserved=row.reserved,
    )


def status(message: pb.StatusResponse) -> m.Status:
    """The whole picture, as one node tells it."""
    return m.Status(
        cluster_id=message.cluster_id,
        leader=message.leader or None,
        term=message.term,
        commit_index=message.commit_index,
        quorum=m.Quorum(message.quorum.voters, message.quorum.up, message.quorum.ok),
        read=read_info(message.read),
        executing=tuple(_executing(row) for row in message.executing),
        free_nodes=tuple(
            m.FreeNodeRow(
                row.node,
                row.role,
                row.slots_free,
                row.slots,
                row.last_seen_ms if row.HasField("last_seen_ms") else None,
            )
            for row in message.free_nodes
        ),
        nodes=tuple(_node(row) for row in message.nodes),
        pending=message.pending,
        running=message.running,
        succeeded=message.succeeded,
        failed=message.failed,
        cancelled=message.cancelled,
        next_pending=tuple(task(one) for one in message.next_pending),
        recent=tuple(task(one) for one in message.recent),
    )


def watch_batch(message: pb.WatchResponse) -> m.WatchBatch:
    """Some changes in log order."""
    return m.WatchBatch(
        changes=tuple(
            m.Change(
                index=one.index,
                time_ms=_time(one.time_ms),
                change=one.change,
                task=task(one.task) if one.HasField("task") else None,
                node=one.node,
                message=one.message,
            )
            for one in message.changes
        ),
        next_index=message.next_index,
        gap=message.gap,
    )


def log_chunk(message: pb.LogsResponse) -> m.LogChunk:
    """Some output."""
    is_stderr = message.stream == pb.LOG_STREAM_STDERR
    stream = m.OutputStream.STDERR if is_stderr else m.OutputStream.STDOUT
    return m.LogChunk(
        stream, message.data, message.truncated, message.node, message.attempt, message.superseded
    )


def node_info(message: admin.NodeInfoResponse) -> n.NodeInfo:
    """What a node says about itself."""
    return n.NodeInfo(
        name=message.name,
        cluster_id=message.cluster_id,
        store_id=message.store_id,
        incarnation=message.incarnation,
        address=message.address,
        pid=message.pid,
        version=message.version,
        role=message.role,
        leader=message.leader or None,
        leader_address=message.leader_address or None,
        term=message.term,
        voted_for=message.voted_for or None,
        commit_index=message.commit_index,
        last_applied=message.last_applied,
        first_index=message.first_index,
        last_index=message.last_index,
        peers=tuple(
            n.PeerProgress(
                peer.name,
                peer.match_index,
                peer.next_index,
                peer.progress,
                peer.in_flight,
                peer.recently_active,
                peer.learner,
                peer.pending_snapshot or None,
            )
            for peer in message.peers
        ),
        fault_injection=message.fault_injection,
        started_ms=_time(message.started_at_ms),
        fsync_ms=message.fsync_ms,
        storage_queue=message.storage_queue,
        slots_ready=message.slots_ready,
        membership=message.membership or "unknown",
        snapshot_index=message.snapshot_index or None,
        snapshot_bytes=message.snapshot_bytes,
        disk_full=message.disk_full,
        transfer_target=message.transfer_target or None,
    )


def membership(message: admin.MembersResponse, answered_by: str, *, leads: bool) -> n.Membership:
    """The configuration, and whose answer it is."""
    return n.Membership(
        tuple(
            n.Member(
                one.name,
                one.store_id,
                one.address,
                one.voter,
                one.leaving,
                one.promote,
                one.replaces or None,
            )
            for one in message.members
        ),
        message.joint,
        tuple(message.removed_stores),
        answered_by,
        leads,
    )


def settings(messages: Iterable[admin.Setting]) -> tuple[n.Setting, ...]:
    """The replicated settings."""
    return tuple(n.Setting(one.name, one.value, one.default_value, one.least, one.most) for one in messages)


def cut(message: admin.Cut) -> n.Cut:
    """One cut."""
    return n.Cut(message.from_node, message.to_node)
