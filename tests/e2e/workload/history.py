"""The history of a run: who asked what when, what came back when, and what was done to the cluster meanwhile.

What may live here: its records, and how they are kept in a file of JSON lines, which is all that an audit needs beside
the ledger.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from raftctl.client import models as m

Json: TypeAlias = dict[str, Any]

SUBMIT, CANCEL, READ, WATCH, FAULT, RECORD, RESULT = (
    "submit", "cancel", "read", "watch", "fault", "record", "result",
)  # fmt: skip
"""What happens. RECORD is the read of everything at the end, RESULT the bytes of one task's result."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt as somebody saw it."""

    number: int
    token: m.FencingToken
    outcome: m.AttemptOutcome
    node: str
    reason: str
    occupied_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as somebody saw it."""

    task_id: str
    request_id: str
    position: int
    state: m.TaskState
    attempts: tuple[AttemptView, ...]
    reason: str
    changed_index: int

    @staticmethod
    def of(task: m.Task) -> TaskView:
        """What is kept of a task."""
        attempts = tuple(
            AttemptView(
                one.number,
                one.fencing_token,
                one.outcome,
                one.node,
                one.reason,
                one.occupied_ms or 0,
                one.ended_ms or 0,
            )
            for one in task.attempts
        )
        position = task.array_index or 0
        return TaskView(
            task.task_id, task.request_id, position, task.state, attempts, task.reason, task.changed_index
        )

    @staticmethod
    def from_json(found: Json) -> TaskView:
        """The opposite of `dataclasses.asdict`."""
        attempts = tuple(
            AttemptView(
                **{
                    **one,
                    "token": m.FencingToken(**one["token"]),
                    "outcome": m.AttemptOutcome(one["outcome"]),
                }
            )
            for one in found["attempts"]
        )
        return TaskView(**{**found, "attempts": attempts, "state": m.TaskState(found["state"])})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that somebody asked, or that was done.

    Attributes:
        client: who.
        what: one of the words above.
        about: a request id (SUBMIT), a task or job id, or a fault in words.
        asked: what else was asked.
        answer: None where nothing came back, and nobody knows what became of it.
        tasks: as they were seen.
        invoked_ns, returned_ns: on the clock of this process that only goes forward; equal for what took no time.
    """

    client: str
    what: str
    about: str
    asked: Mapping[str, Any]
    answer: Mapping[str, Any] | None
    tasks: tuple[TaskView, ...]
    invoked_ns: int
    returned_ns: int

    def to_json(self) -> str:
        """As a line."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(line: str) -> Event:
        """From a line."""
        found = json.loads(line)
        return Event(**{**found, "tasks": tuple(map(TaskView.from_json, found["tasks"]))})


@dataclass(slots=True)
class History:
    """What happened so far, in memory and, as it happens, in a file. Safe for use by several threads."""

    path: Path
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self,
        client: str,
        what: str,
        about: str,
        invoked_ns: int,
        *,
        asked: Mapping[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
        tasks: tuple[TaskView, ...] = (),
    ) -> None:
        """It has come back, or nobody waits for it any more."""
        returned_ns = time.monotonic_ns()
        event = Event(client, what, about, asked or {}, answer, tasks, invoked_ns, returned_ns)
        with self._lock:
            self.events.append(event)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(event.to_json() + "\n")


def load(path: Path) -> list[Event]:
    """The events of a history that was kept."""
    return [Event.from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
