"""The Submit command: check a request, then accept it whole or refuse it whole.

What may live here: the limits of a submission and the making of tasks and jobs, for the other commands that make some
as well.
"""

from __future__ import annotations

from raftd.scheduler import dependencies, requests
from raftd.scheduler.commands import Retry, Submit, SubmitGraph
from raftd.scheduler.effects import JobChange, TaskChange
from raftd.scheduler.limits import MAX_KIND_CHARS, MAX_LABELS, MAX_SLOTS
from raftd.scheduler.model import (
    MAX_DURATION_MS,
    MAX_TIME_MS,
    ArraySpec,
    Dependency,
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

MAX_PRIORITY = (1 << 31) - 1
MAX_RETRIES = 1_000_000
MAX_ARRAY_INDEX = 1 << 53


def submit(turn: Turn, command: Submit) -> Reply:
    """Accept one task or one array, unless the request is known, conflicts, is too old, or breaks a limit."""
    answer = request_answer(turn, command)
    if answer is not None:
        return answer
    state, spec, array = turn.state, turn.shared(command.spec), command.array
    refusal = _refuse(state, command)
    if refusal is not None:
        return refusal
    outlook = dependencies.look_ahead(state, command.after) if command.after else dependencies.Outlook()
    if isinstance(outlook, Refused):
        return outlook
    first_task_id = state.next_task_id
    job_id: int | None = None
    if array is None:
        count = 1
        added = [add_task(turn, spec, command.request_id, first_task_id, after=outlook.unmet)]
    else:
        count = _array_size(array)
        job_id = add_job(turn, spec.name, spec.kind, array.max_failures, first_task_id, count)
        added = [
            add_task(
                turn,
                spec,
                command.request_id,
                first_task_id + offset,
                job_id,
                array.first_index + offset,
                outlook.unmet,
            )
            for offset in range(count)
        ]
    state.next_task_id = first_task_id + count
    if outlook.doomed:
        for task in added:
            dependencies.cancel_doomed(turn, task, outlook.doomed)
    return remember(turn, command, first_task_id, count, job_id)


def request_answer(turn: Turn, command: Submit | SubmitGraph | Retry) -> Accepted | Refused | None:
    """The answer to a request that is known, out of time or has no proper id; None where it is new."""
    state = turn.state
    known = state.requests.get(command.request_id)
    answer = requests.judge(command, known, turn.now_ms, state.settings)
    if answer is None and not 0 < len(command.request_id) <= requests.MAX_REQUEST_ID_CHARS:
        return Refused("invalid_request", f"a request id has 1 to {requests.MAX_REQUEST_ID_CHARS} characters")
    return answer


def remember(
    turn: Turn,
    command: Submit | SubmitGraph | Retry,
    first_task_id: int,
    count: int,
    job_id: int | None = None,
) -> Accepted:
    """Keep what the request stands for from now on, and answer it."""
    expires_at_ms = requests.expires_at_ms(command, turn.now_ms, turn.state.settings)
    turn.state.requests.add(
        RequestRecord(command.request_id, command.digest, first_task_id, count, job_id, expires_at_ms)
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
    text_bytes += sum([len(name.encode()) + len(value.encode()) for name, value in spec.env + spec.require])
    if text_bytes > settings.max_args_bytes:
        return Refused(
            "payload_too_large",
            f"arguments, environment, name and required labels have {text_bytes} bytes, "
            f"the limit is {settings.max_args_bytes}",
            "pass large inputs as the payload or through the blob store",
        )
    if not -MAX_PRIORITY <= spec.priority <= MAX_PRIORITY:
        return Refused(
            "invalid_request", f"priority {spec.priority} is not within -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    if not 0 <= spec.retries <= MAX_RETRIES:
        return Refused("invalid_request", f"retries {spec.retries} is not within 0 to {MAX_RETRIES}")
    durations_ms = (
        spec.backoff_first_ms,
        spec.backoff_max_ms,
        spec.run_timeout_ms,
        spec.queue_timeout_ms,
        spec.delay_ms,
    )
    if min(durations_ms) < 0 or max(durations_ms) > MAX_DURATION_MS:
        return Refused("invalid_request", "a timeout, delay or backoff is negative or longer than ten years")
    if not 1 <= spec.slots <= MAX_SLOTS:
        return Refused("invalid_request", f"a task takes 1 to {MAX_SLOTS} slots of a node, not {spec.slots}")
    if len(spec.require) > MAX_LABELS or not all(name for name, _ in spec.require):
        return Refused("invalid_request", f"a task requires at most {MAX_LABELS} labels, each with a name")
    return None


def refuse_kind(state: State, kind: str) -> Refused | None:
    """Why no task of this kind can be run here, as far as is known, or None."""
    if kind in state.kinds:
        return None
    offered = ", ".join(sorted(state.kinds)) or "none yet"
    return Refused(
        "unknown_kind", f"no node has ever offered tasks of kind {kind!r}", f"the kinds are: {offered}"
    )


def refuse_dependencies(count: int, settings: Settings) -> Refused | None:
    """Why one task may not come after so many others, or None."""
    if count <= settings.max_dependencies:
        return None
    return Refused(
        "invalid_request",
        f"the task comes after {count} others, the limit is {settings.max_dependencies}",
        "let it come after a job, or after a task that comes after some of them",
    )


def refuse_queue(state: State, count: int) -> Refused | None:
    """Why so many more tasks do not fit into the queue, or None. What waits for others counts as well."""
    pending, limit = state.indexes.pending_count, state.settings.max_queue
    if pending + count <= limit:
        return None
    return Refused(
        "queue_full",
        f"the queue holds {pending} pending tasks, the limit is {limit}",
        "try again when tasks have ended",
        retryable=True,
    )


def refuse_max_failures(max_failures: int) -> Refused | None:
    """Why this is no limit of the failures of a job, or None."""
    if 0 <= max_failures <= MAX_ARRAY_INDEX:
        return None
    return Refused("invalid_request", f"max_failures {max_failures} is no count")


def _refuse(state: State, command: Submit) -> Refused | None:
    spec, settings = command.spec, state.settings
    refusal = refuse_spec(spec, settings) or refuse_kind(state, spec.kind)
    if refusal is None and command.array is not None:
        refusal = _refuse_array(command.array, settings)
    if refusal is not None:
        return refusal
    count = 1 if command.array is None else _array_size(command.array)
    if command.after:
        refusal = refuse_dependencies(len(command.after), settings)
        refusal = refusal or dependencies.refuse_edges(state, count * len(command.after))
    return refusal or refuse_queue(state, count)


def _refuse_array(array: ArraySpec, settings: Settings) -> Refused | None:
    if not 0 <= array.first_index <= array.last_index <= MAX_ARRAY_INDEX:
        return Refused(
            "invalid_request",
            f"an array from {array.first_index} to {array.last_index} is no range of indices",
            "write it as FIRST-LAST, for example 0-63",
        )
    refusal = refuse_max_failures(array.max_failures)
    if refusal is not None:
        return refusal
    if _array_size(array) > settings.max_array:
        return Refused(
            "invalid_request",
            f"the array has {_array_size(array)} tasks, the limit is {settings.max_array}",
            "submit it in parts",
        )
    return None


def _array_size(array: ArraySpec) -> int:
    return array.last_index - array.first_index + 1


def add_task(
    turn: Turn,
    spec: TaskSpec,
    request_id: str,
    task_id: int,
    job_id: int | None = None,
    array_index: int | None = None,
    after: tuple[Dependency, ...] = (),
) -> Task:
    """Make a pending task."""
    task = Task(
        id=task_id,
        spec=spec,
        state=TaskState.PENDING,
        job_id=job_id,
        array_index=array_index,
        request_id=request_id,
        submitted_at_ms=turn.now_ms,
        not_before_ms=min(turn.now_ms + spec.delay_ms, MAX_TIME_MS) if spec.delay_ms else 0,
        attempts=(),
        failures=0,
        crashes=0,
        returns=0,
        result=None,
        reason="",
        finished_at_ms=0,
        changed_index=turn.index,
        after=after,
    )
    turn.state.add_task(task)
    turn.task_changed(TaskChange.SUBMITTED, task)
    return task


def add_job(turn: Turn, name: str, kind: str, max_failures: int, first_task_id: int, total: int) -> int:
    """Make a job whose tasks are all pending, and are made next."""
    state = turn.state
    job = Job(
        id=state.next_job_id,
        name=name,
        kind=kind,
        max_failures=max_failures,
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
