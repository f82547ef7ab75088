"""Tasks, jobs, nodes and changes between the model and the API's messages.

What may live here: encoders of what clients see, and the decoder of what they submit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from raftd.codec.attach import encode_blob_ref, encode_result, encode_token, job_name, task_name
from raftd.errors import InvalidRequest
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.commands import Submit
from raftd.scheduler.effects import JobChanged, NodeChanged, TaskChanged
from raftd.scheduler.model import ArraySpec, Attempt, Job, Task, TaskSpec, TaskState
from raftd.scheduler.queries import task_args
from raftd.scheduler.replies import Accepted, Refused, Reply
from raftd.scheduler.requests import created_ms, request_digest

__all__ = [
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
    return Submit(request_id, request_digest(spec, array), created_ms(request_id), spec, array)


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
