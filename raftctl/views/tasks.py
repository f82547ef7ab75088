"""Tasks and jobs for people: a line each while they stream in, and everything about one of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raftctl.client.models import Attempt, AttemptOutcome, Condition, Dependency, Job, Task
from raftctl.durations import format_duration
from raftctl.views import data, style
from raftctl.views.times import ago, between, iso

_COLUMNS = (("ID", 8), ("STATE", 10), ("NODE", 8), ("ATTEMPT", 8), ("TOOK", 8), ("SUBMITTED", 14))


def header() -> Text:
    """The heading over `line`."""
    return Text("".join(f"{name:<{width}}" for name, width in _COLUMNS) + "TASK", style="dim")


def line(task: Task, now: int, width: int) -> Text:
    """One task in one line of at most `width` columns: such lines can be printed before all of them are known."""
    last = task.last_attempt
    cells = (
        task.task_id,
        str(task.state),
        last.node if last is not None else "-",
        str(last.number) if last is not None else "-",
        took(last, now) if last is not None else "-",
        ago(task.submitted_ms, now),
    )
    out = Text()
    for (name, column), cell in zip(_COLUMNS, cells, strict=True):
        out.append(
            f"{cell:<{column - 1}} ", style=style.STATE_STYLES.get(cell, "") if name == "STATE" else ""
        )
    out.append(task.title)
    out.truncate(width, overflow="ellipsis")
    return out


def ending(task: Task) -> str:
    """``t17 succeeded on n3 in 1.2s``."""
    last = task.last_attempt
    text = f"{task.task_id} {task.state}"
    if last is not None:
        text += f" on {last.node}"
        if last.started_ms is not None and last.ended_ms is not None:
            text += f" in {format_duration(last.ended_ms - last.started_ms)}"
    return f"{text}: {task.reason}" if task.reason else text


def took(attempt: Attempt, now: int) -> str:
    """How long an attempt ran; while it runs, how long since it was given to its slot, which is all that is known."""
    if attempt.outcome is AttemptOutcome.RUNNING:
        return between(attempt.started_ms or attempt.occupied_ms, now)
    return between(attempt.started_ms, attempt.ended_ms)


def detail(task: Task, now: int) -> Group:
    """Everything about one task."""
    fields: list[tuple[str, RenderableType | None]] = [
        ("task", Text(task.task_id, style="bold")),
        ("name", task.name or None),
        ("kind", task.kind),
        ("args", " ".join(task.args) or None),
        ("env", " ".join(f"{key}={value}" for key, value in sorted(task.env.items())) or None),
        ("state", style.state(str(task.state))),
        ("reason", Text(task.reason, style="red") if task.reason else None),
        ("priority", str(task.priority) if task.priority else None),
        ("retries", str(task.retries) if task.retries else None),
        ("run timeout", format_duration(task.run_timeout_ms) if task.run_timeout_ms else None),
        ("queue timeout", format_duration(task.queue_timeout_ms) if task.queue_timeout_ms else None),
        ("waits for", " ".join(_dependency(one) for one in task.waiting_for) or None),
        ("requires", " ".join(f"{key}={value}" for key, value in sorted(task.require.items())) or None),
        ("slots", str(task.slots) if task.slots > 1 else None),
        ("job", _job_words(task)),
        ("request id", task.request_id or None),
        ("submitted", _moment(task.submitted_ms, now)),
        ("not before", _moment(task.not_before_ms, now) if task.not_before_ms else None),
        ("finished", _moment(task.finished_ms, now) if task.finished_ms else None),
        ("result", _result(task)),
    ]
    return Group(_fields(fields), Text(), attempts(task, now))


def attempts(task: Task, now: int) -> Table:
    """One line for each time that it was given to a slot."""
    made = style.table(
        "Attempts",
        ">#",
        "NODE",
        ">SLOT",
        "TOKEN",
        "OUTCOME",
        ">TOOK",
        "REASON",
        note="" if task.attempts else "none yet",
    )
    for one in task.attempts:
        running = one.outcome is AttemptOutcome.RUNNING
        made.add_row(
            str(one.number),
            one.node,
            str(one.slot),
            str(one.fencing_token),
            style.state(_outcome_word(one) if running else str(one.outcome)),
            took(one, now),
            one.reason,
        )
    return made


def _outcome_word(attempt: Attempt) -> str:
    """Of an attempt that has not ended."""
    return "stopping" if attempt.stopping else "reserved" if attempt.reserved else "running"


def _dependency(dependency: Dependency) -> str:
    return (
        dependency.id if dependency.condition is Condition.OK else f"{dependency.id}:{dependency.condition}"
    )


def _job_words(task: Task) -> str | None:
    if task.job_id is None:
        return None
    return task.job_id if task.array_index is None else f"{task.job_id}, index {task.array_index}"


def jobs(found: Sequence[Job], now: int) -> Table:
    """A line for each job."""
    made = style.table(
        "Jobs", "ID", "PROGRESS", ">TASKS", ">PENDING", ">RUNNING", ">FAILED", "SUBMITTED", "TASK",
        note="" if found else "none",
    )  # fmt: skip
    for one in found:
        counts = (one.total, one.pending, one.running, one.failed)
        made.add_row(
            one.job_id,
            style.bar(one.ended / one.total if one.total else 1.0),
            *(str(count) if count else "-" for count in counts),
            ago(one.submitted_ms, now),
            one.name or one.kind or "graph",
        )
    return made


def job(found: Job, now: int) -> RenderableType:
    """A job, counted."""
    counts = Text()
    for word in ("pending", "running", "succeeded", "failed", "cancelled"):
        count = getattr(found, word)
        if count:
            counts.append(f"{count} {word}  ", style=style.STATE_STYLES[word])
    span = f"{found.task_ids[0]} to {found.task_ids[-1]}" if found.task_ids else None
    return _fields(
        [
            ("job", Text(found.job_id, style="bold")),
            ("name", found.name or None),
            ("kind", found.kind or "graph"),
            ("tasks", f"{found.total} ({span})" if span else str(found.total)),
            ("progress", style.bar(found.ended / found.total if found.total else 1.0)),
            ("states", counts),
            ("max failures", str(found.max_failures) if found.max_failures else None),
            ("submitted", _moment(found.submitted_ms, now)),
            ("finished", _moment(found.finished_ms, now) if found.finished_ms else None),
        ]
    )


def _fields(fields: list[tuple[str, RenderableType | None]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value is not None:
            grid.add_row(name, value)
    return grid


def _moment(ms: int | None, now: int) -> str:
    return f"{ago(ms, now)}  ({iso(ms)})" if ms is not None else "-"


def _result(task: Task) -> str | None:
    found = data.result(task.result)
    if found is None:
        return None
    if "digest" in found:
        return f"blob {found['digest'][:16]}…, {found['size_bytes']} bytes"
    text = found.get("text")
    if text is None:
        return f"{found['size_bytes']} bytes"
    return text if len(text) <= 200 else f"{text[:200]}…"
