"""Tasks, jobs, nodes and changes between the model and the API's messages.

What may live here: encoders of what clients see, and the decoder of what they submit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from raftd.codec.attach import (
    encode_blob_ref,
    encode_result,
    encode_token,
    job_name,
    parse_id,
    task_name,
)
from raftd.errors import InvalidRequest
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.commands import GraphEdge, GraphTask, Submit, SubmitGraph
from raftd.scheduler.effects import JobChanged, NodeChanged, TaskChanged
from raftd.scheduler.model import ArraySpec, Attempt, Condition, Dependency, Job, Task, TaskSpec, TaskState
from raftd.scheduler.queries import task_args
from raftd.scheduler.replies import Accepted, Refused, Reply
from raftd.scheduler.requests import created_ms, graph_digest, request_digest

__all__ = [
    "decode_graph",
    "decode_submission",
    "encode_blob_ref",
    "encode_change",
    "encode_job",
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
    array = None
    if submission.HasField("array"):
        array = ArraySpec(
            submission.array.first_index, submission.array.last_index, submission.array.max_failures
        )
    after = tuple([_decode_dependency(one) for one in submission.after])
    digest = request_digest(spec, array, after)
    return Submit(request_id, digest, created_ms(request_id), spec, array, after)


def decode_graph(graph: pb.Graph, request_id: str) -> SubmitGraph:
    """Tasks that a client wants run after each other, as a command.

    Args:
        request_id: the graph's, or one that was made for it.

    Raises:
        InvalidRequest: a task of it is none of a graph.
    """
    tasks = []
    for position, one in enumerate(graph.tasks):
        if one.submission.HasField("array") or one.submission.request_id:
            raise InvalidRequest(
                f"task {position} of the graph has an array or a request id of its own",
                try_="give the request id to the graph, and each index a task of its own",
            )
        submit = decode_submission(one.submission, request_id)
        edges = tuple([GraphEdge(edge.position, _decode_condition(edge.condition)) for edge in one.after])
        tasks.append(GraphTask(submit.spec, edges, submit.after))
    digest = graph_digest(graph.name, tasks, graph.max_failures)
    created = created_ms(request_id)
    return SubmitGraph(request_id, digest, created, graph.name, tuple(tasks), graph.max_failures)


def _decode_dependency(one: pb.Dependency) -> Dependency:
    job = one.id.startswith("j")
    return Dependency(parse_id(one.id, "j" if job else "t"), job, _decode_condition(one.condition))


def _decode_condition(condition: pb.DependencyCondition.ValueType) -> Condition:
    return Condition.ANY if condition == pb.DEPENDENCY_CONDITION_ANY else Condition.OK


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
        run_timeout_ms=spec.run_timeout_ms,
        attempts=[
            encode_attempt(attempt, reserved=attempt is task.current and task.state is TaskState.RESERVED)
            for attempt in task.attempts
        ],
        result=encode_result(task.result),
        reason=task.reason,
        changed_index=task.changed_index,
        queue_timeout_ms=spec.queue_timeout_ms,
        waiting_for=[_encode_dependency(one) for one in task.after],
        require=dict(spec.require),
        slots=spec.slots,
        failures=task.failures,
        crashes=task.crashes,
        backoff=pb.Backoff(first_ms=spec.backoff_first_ms, max_ms=spec.backoff_max_ms),
    )


def _encode_dependency(one: Dependency) -> pb.Dependency:
    name = job_name(one.target) if one.job else task_name(one.target)
    return pb.Dependency(id=name, condition=pb.DependencyCondition.ValueType(one.condition))


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
    return pb.TaskState.ValueType(TaskState.PENDING if state is TaskState.RESERVED else state)


def encode_attempt(attempt: Attempt, *, reserved: bool = False) -> pb.Attempt:
    """One attempt of a task."""
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
