"""The Submit command: check a request, then accept it whole or refuse it whole.

What may live here: the limits of a submission and the making of tasks and jobs.
"""

from __future__ import annotations

from raftd.scheduler import requests
from raftd.scheduler.commands import Submit
from raftd.scheduler.effects import JobChange, TaskChange
from raftd.scheduler.model import (
    MAX_DURATION_MS,
    ArraySpec,
    Job,
    RequestRecord,
    Settings,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Accepted, Refused, Reply
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

MAX_KIND_CHARS = 64
MAX_PRIORITY = (1 << 31) - 1
MAX_RETRIES = 1_000_000
MAX_ARRAY_INDEX = 1 << 53


def submit(turn: Turn, command: Submit) -> Reply:
    """Accept one task or one array, unless the request is known, conflicts, is too old, or breaks a limit."""
    state = turn.state
    known = state.request(command.request_id)
    answer = requests.judge(command, known, turn.now_ms, state.settings)
    if answer is not None:
        return answer
    refusal = _refuse(state, command)
    if refusal is not None:
        return refusal
    first_task_id = state.next_task_id
    job_id: int | None = None
    if command.array is None:
        count = 1
        _add_task(turn, command, first_task_id, None, None)
    else:
        count = _array_size(command.array)
        job_id = _add_job(turn, command.spec, command.array, first_task_id)
        for offset in range(count):
            _add_task(turn, command, first_task_id + offset, job_id, command.array.first_index + offset)
    state.next_task_id = first_task_id + count
    state.remember_request(
        RequestRecord(
            command.request_id,
            command.digest,
            first_task_id,
            count,
            job_id,
            requests.expires_at_ms(command, turn.now_ms, state.settings),
        )
    )
    return Accepted(first_task_id, count, job_id)


def refuse_spec(spec: TaskSpec, settings: Settings) -> Refused | None:
    """Why a task like this is refused whatever is in the queue, or None."""
    if not 0 < len(spec.kind) <= MAX_KIND_CHARS:
        return Refused("invalid_request", f"a kind has 1 to {MAX_KIND_CHARS} characters")
    if len(spec.payload) > settings.max_payload_bytes:
        return Refused(
            "payload_too_large",
            f"the payload has {len(spec.payload)} bytes, the limit is {settings.max_payload_bytes}",
            "put large inputs into the blob store and pass their reference",
        )
    text_bytes = len(spec.name.encode()) + sum(len(arg.encode()) for arg in spec.args)
    text_bytes += sum(len(name.encode()) + len(value.encode()) for name, value in spec.env)
    if text_bytes > settings.max_args_bytes:
        return Refused(
            "payload_too_large",
            f"arguments, environment and name have {text_bytes} bytes, the limit is {settings.max_args_bytes}",
            "pass large inputs as the payload or through the blob store",
        )
    if not -MAX_PRIORITY <= spec.priority <= MAX_PRIORITY:
        return Refused(
            "invalid_request", f"priority {spec.priority} is not within -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    if not 0 <= spec.retries <= MAX_RETRIES:
        return Refused("invalid_request", f"retries {spec.retries} is not within 0 to {MAX_RETRIES}")
    durations_ms = (spec.backoff_first_ms, spec.backoff_max_ms, spec.run_timeout_ms)
    if min(durations_ms) < 0 or max(durations_ms) > MAX_DURATION_MS:
        return Refused("invalid_request", "a timeout or backoff is negative or longer than ten years")
    return None


def _refuse(state: State, command: Submit) -> Refused | None:
    spec, settings = command.spec, state.settings
    if not 0 < len(command.request_id) <= requests.MAX_REQUEST_ID_CHARS:
        return Refused("invalid_request", f"a request id has 1 to {requests.MAX_REQUEST_ID_CHARS} characters")
    refusal = refuse_spec(spec, settings)
    if refusal is not None:
        return refusal
    if spec.kind not in state.kinds:
        offered = ", ".join(sorted(state.kinds)) or "none yet"
        return Refused(
            "unknown_kind",
            f"no node has ever offered tasks of kind {spec.kind!r}",
            f"the kinds are: {offered}",
        )
    count = 1
    if command.array is not None:
        refusal = _refuse_array(command.array, settings)
        if refusal is not None:
            return refusal
        count = _array_size(command.array)
    pending = state.indexes.count(TaskState.PENDING)
    if pending + count > settings.max_queue:
        return Refused(
            "queue_full",
            f"the queue holds {pending} pending tasks, the limit is {settings.max_queue}",
            "try again when tasks have ended",
            retryable=True,
        )
    return None


def _refuse_array(array: ArraySpec, settings: Settings) -> Refused | None:
    if not 0 <= array.first_index <= array.last_index <= MAX_ARRAY_INDEX:
        return Refused(
            "invalid_request",
            f"an array from {array.first_index} to {array.last_index} is no range of indices",
            "write it as FIRST-LAST, for example 0-63",
        )
    if not 0 <= array.max_failures <= MAX_ARRAY_INDEX:
        return Refused("invalid_request", f"max_failures {array.max_failures} is no count")
    if _array_size(array) > settings.max_array:
        return Refused(
            "invalid_request",
            f"the array has {_array_size(array)} tasks, the limit is {settings.max_array}",
            "submit it in parts",
        )
    return None


def _array_size(array: ArraySpec) -> int:
    return array.last_index - array.first_index + 1


def _add_task(turn: Turn, command: Submit, task_id: int, job_id: int | None, array_index: int | None) -> None:
    task = Task(
        id=task_id,
        spec=command.spec,
        state=TaskState.PENDING,
        job_id=job_id,
        array_index=array_index,
        request_id=command.request_id,
        submitted_at_ms=turn.now_ms,
        not_before_ms=0,
        attempts=(),
        failures=0,
        crashes=0,
        returns=0,
        result=None,
        reason="",
        finished_at_ms=0,
        changed_index=turn.index,
    )
    turn.state.add_task(task)
    turn.task_changed(TaskChange.SUBMITTED, task)


def _add_job(turn: Turn, spec: TaskSpec, array: ArraySpec, first_task_id: int) -> int:
    state = turn.state
    total = _array_size(array)
    job = Job(
        id=state.next_job_id,
        name=spec.name,
        kind=spec.kind,
        max_failures=array.max_failures,
        first_task_id=first_task_id,
        total=total,
        pending=total,
        running=0,
        succeeded=0,
        failed=0,
        cancelled=0,
        forgotten=0,
        stopping=False,
        submitted_at_ms=turn.now_ms,
        finished_at_ms=0,
        changed_index=turn.index,
    )
    state.jobs.put(job.id, job)
    state.next_job_id += 1
    turn.job_changed(JobChange.SUBMITTED, job)
    return job.id
