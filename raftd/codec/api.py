"""Tasks, jobs, nodes and changes between the model and the API's messages.

What may live here: encoders of what clients see, and the decoder of what they submit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from raftd.codec.attach import encode_blob_ref, encode_result, encode_token, job_name, parse_id, task_name
from raftd.errors import InvalidRequest
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.commands import GraphEdge, GraphTask, Purge, Retry, Submit, SubmitGraph
from raftd.scheduler.effects import JobChanged, NodeChanged, TaskChanged
from raftd.scheduler.model import (
    ArraySpec,
    Attempt,
    Condition,
    Dependency,
    Job,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.queries import task_args
from raftd.scheduler.replies import Accepted, Purged, Refused, Reply
from raftd.scheduler.requests import created_ms, graph_digest, request_digest, retry_digest

_STATES = {state: pb.TaskState.ValueType(state) for state in TaskState}
# A task whose turn on a slot has not come is pending for everybody but its slot.
_STATES[TaskState.RESERVED] = pb.TASK_STATE_PENDING

__all__ = [
    "decode_graph",
    "decode_purge",
    "decode_retry",
    "decode_states",
    "decode_submission",
    "encode_blob_ref",
    "encode_change",
    "encode_job",
    "encode_purge_reply",
    "encode_submit_reply",
    "encode_task",
    "task_words",
]


def decode_submission(submission: pb.Submission, request_id: str) -> Submit:
    """What a client wants run, as a command.

    Args:
        request_id: the submission's, or one that was made for it.

    Raises:
        InvalidRequest: no kind is named.
    """
    spec = _decode_spec(submission)
    array = None
    if submission.HasField("array"):
        array = ArraySpec(
            submission.array.first_index, submission.array.last_index, submission.array.max_failures
        )
    after = _decode_dependencies(submission.after)
    digest = request_digest(spec, array, after)
    return Submit(request_id, digest, created_ms(request_id), spec, array, after)


def decode_graph(graph: pb.Graph) -> SubmitGraph:
    """A graph of tasks, as a command; its request id must have been filled in.

    Raises:
        InvalidRequest: a task names no kind, or brings what only a submission of its own may.
    """
    tasks = []
    for number, task in enumerate(graph.tasks):
        submission = task.submission
        if submission.request_id or submission.HasField("array"):
            raise InvalidRequest(f"task {number} of the graph has a request id or an array of its own")
        edges = tuple(GraphEdge(edge.position, _condition(edge.condition)) for edge in task.after)
        others = _decode_dependencies(submission.after)
        tasks.append(GraphTask(_decode_spec(submission), edges, others))
    digest = graph_digest(graph.name, tasks, graph.max_failures)
    return SubmitGraph(
        graph.request_id, digest, created_ms(graph.request_id), graph.name, tuple(tasks), graph.max_failures
    )


def decode_retry(item: pb.RetryItem) -> Retry:
    """The retry of an ended task, as a command.

    Raises:
        InvalidRequest: its id is none.
    """
    task_id = parse_id(item.task_id, "t")
    return Retry(task_id, item.request_id, retry_digest(task_id), created_ms(item.request_id))


def decode_purge(request: pb.PurgeRequest) -> Purge:
    """What is to be forgotten, as a command.

    Raises:
        InvalidRequest: an id or a state is none, or nothing is named.
    """
    if request.ids and (request.ended_before_ms or request.states):
        raise InvalidRequest("a purge names tasks, or a time: not both")
    if not request.ids and not request.ended_before_ms:
        raise InvalidRequest("a purge names tasks and jobs, or the time before which they have ended")
    return Purge(
        task_ids=tuple(parse_id(name, "t") for name in request.ids if not name.startswith("j")),
        job_ids=tuple(parse_id(name, "j") for name in request.ids if name.startswith("j")),
        ended_before_ms=request.ended_before_ms,
        states=tuple(sorted(decode_states(request.states))),
    )


def decode_states(numbers: Iterable[int]) -> frozenset[TaskState]:
    """States as a client names them: to it, a task that is reserved is pending.

    Raises:
        InvalidRequest: one of them is none.
    """
    named = list(numbers)
    if not all(number in _STATES.values() for number in named):
        raise InvalidRequest(f"unknown task state among {named}")
    return frozenset(state for state, number in _STATES.items() if number in named)


def encode_purge_reply(reply: Reply) -> pb.PurgeResponse:
    """What a purge did."""
    if not isinstance(reply, Purged):
        raise TypeError(f"a Purge was answered by {reply!r}")
    return pb.PurgeResponse(
        purged_count=reply.count,
        refused=[pb.PurgeReply(id=name, refusal=encode_refusal(refused)) for name, refused in reply.refused],
    )


def _decode_spec(submission: pb.Submission) -> TaskSpec:
    if not submission.kind:
        raise InvalidRequest("a submission names a kind of task", try_="raftctl submit KIND [ARGS...]")
    spec = TaskSpec(
        kind=submission.kind,
        args=tuple(submission.args),
        payload=submission.payload,
        env=tuple(sorted(submission.env.items())),
        name=submission.name,
        priority=submission.priority,
        retries=submission.retries,
        run_timeout_ms=submission.run_timeout_ms,
        queue_timeout_ms=submission.queue_timeout_ms,
        delay_ms=submission.delay_ms,
        require=tuple(sorted(submission.require.items())),
        slots=submission.slots or 1,
    )
    if submission.HasField("backoff"):
        spec = replace(
            spec,
            backoff_first_ms=submission.backoff.first_ms,
            backoff_max_ms=submission.backoff.max_ms,
        )
    return spec


def _decode_dependencies(dependencies: Iterable[pb.Dependency]) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(
            parse_id(one.id, "j" if one.id.startswith("j") else "t"),
            one.id.startswith("j"),
            _condition(one.condition),
        )
        for one in dependencies
    )


def _condition(number: int) -> Condition:
    try:
        return Condition(number or Condition.OK)
    except ValueError:
        raise InvalidRequest(f"unknown condition {number} of a dependency") from None


def _encode_dependency(dependency: Dependency) -> pb.Dependency:
    name = job_name(dependency.target) if dependency.job else task_name(dependency.target)
    return pb.Dependency(id=name, condition=pb.DependencyCondition.ValueType(dependency.condition))


def encode_submit_reply(request_id: str, reply: Reply) -> pb.SubmitReply:
    """The answer to one submission."""
    if isinstance(reply, Refused):
        return pb.SubmitReply(request_id=request_id, refusal=encode_refusal(reply))
    if not isinstance(reply, Accepted):
        raise TypeError(f"a Submit was answered by {reply!r}")
    accepted = pb.Accepted(job_id=job_name(reply.job_id), duplicate=reply.duplicate)
    if reply.job_id is None:
        accepted.task_id = task_name(reply.first_task_id)
    else:
        accepted.task_ids.extend(task_name(task_id) for task_id in reply.task_ids)
    return pb.SubmitReply(request_id=request_id, accepted=accepted)


def encode_refusal(refused: Refused) -> pb.Refusal:
    """A refusal of the state machine."""
    refusal = pb.Refusal(code=refused.code, message=refused.message, retryable=refused.retryable)
    setattr(refusal, "try", refused.try_)
    return refusal


def encode_task(task: Task) -> pb.Task:
    """A task, with all that is kept of it: whoever gets one need not ask again."""
    spec = task.spec
    return pb.Task(
        task_id=task_name(task.id),
        name=spec.name,
        kind=spec.kind,
        args=task_args(task),
        env=dict(spec.env),
        priority=spec.priority,
        state=encode_state(task.state),
        job_id=job_name(task.job_id),
        array_index=task.array_index,
        request_id=task.request_id,
        submitted_at_ms=task.submitted_at_ms,
        finished_at_ms=task.finished_at_ms,
        not_before_ms=task.not_before_ms if task.state is TaskState.PENDING else 0,
        retries=spec.retries,
        backoff=pb.Backoff(first_ms=spec.backoff_first_ms, max_ms=spec.backoff_max_ms),
        run_timeout_ms=spec.run_timeout_ms,
        queue_timeout_ms=spec.queue_timeout_ms,
        waiting_for=[_encode_dependency(one) for one in task.after],
        require=dict(spec.require),
        slots=spec.slots,
        failures=task.failures,
        crashes=task.crashes,
        attempts=[
            encode_attempt(attempt, reserved=attempt is task.current and task.state is TaskState.RESERVED)
            for attempt in task.attempts
        ],
        result=encode_result(task.result),
        reason=task.reason,
        changed_index=task.changed_index,
    )


def encode_page(tasks: Iterable[Task], page_bytes: int) -> tuple[list[pb.Task], bool]:
    """Tasks until one reaches ``page_bytes``, at least one of them, and whether any is left over."""
    taken: list[pb.Task] = []
    size = 0
    for task in tasks:
        if size >= page_bytes:
            return taken, True
        taken.append(encode_task(task))
        size += taken[-1].ByteSize()
    return taken, False


def encode_state(state: TaskState) -> pb.TaskState.ValueType:
    """Where a task is, as users see it: one that waits for its turn on a slot is pending."""
    return _STATES[state]


def encode_attempt(attempt: Attempt, *, reserved: bool = False) -> pb.Attempt:
    """One attempt of a task; ``reserved``: it waits for its turn on its slot."""
    return pb.Attempt(
        number=attempt.number,
        node=attempt.node,
        slot=attempt.slot,
        incarnation=attempt.incarnation,
        fencing_token=encode_token(attempt.token),
        outcome=pb.AttemptOutcome.ValueType(attempt.outcome or 0),
        reason=attempt.reason,
        occupied_at_ms=attempt.occupied_at_ms,
        started_at_ms=attempt.started_at_ms,
        ended_at_ms=attempt.ended_at_ms,
        stopping=attempt.stopping is not None and attempt.outcome is None,
        reserved=reserved,
        extra_slots=attempt.extra_slots,
    )


def encode_job(job: Job) -> pb.Job:
    """A job."""
    return pb.Job(
        job_id=job_name(job.id),
        name=job.name,
        kind=job.kind,
        submitted_at_ms=job.submitted_at_ms,
        finished_at_ms=job.finished_at_ms,
        total=job.total,
        pending=job.pending,
        running=job.running,
        succeeded=job.succeeded,
        failed=job.failed,
        cancelled=job.cancelled,
        max_failures=job.max_failures,
        first_task_id=job.first_task_id,
        changed_index=job.changed_index,
        stopping=job.stopping,
        graph=not job.kind,
    )


def encode_change(change: TaskChanged | NodeChanged | JobChanged) -> pb.Change:
    """One change of the Watch stream."""
    message = pb.Change(index=change.index, time_ms=change.time_ms, change=str(change.change))
    match change:
        case TaskChanged():
            message.task.CopyFrom(encode_task(change.task))
            message.node = change.node
            message.message = change.message
        case NodeChanged():
            message.node = change.node.name
        case JobChanged():
            message.change = f"job_{change.change}"
            message.message = job_name(change.job.id)
    return message


def task_words(task: Task) -> str:
    """Kind and arguments, as they were typed."""
    return " ".join((task.spec.kind, *task_args(task)))
