"""The ledger: what the tasks themselves wrote down while they ran (the lines are explained in `plugin`).

What may live here: reading it. Whether it agrees with the record is `audit`'s question.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from raftctl.client.models import FencingToken

START, BEAT, END, FAIL, DIE, STOP = "start", "beat", "end", "fail", "die", "stop"
LAST_WORDS = (END, FAIL, DIE, STOP)


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `place` is its number in the file, and so its order in time."""

    place: int
    what: str
    task_id: str
    attempt: int
    token: FencingToken
    time_ns: int
    pid: int


@dataclass(slots=True)
class Execution:
    """What one attempt wrote."""

    attempt: int
    token: FencingToken
    lines: list[Line] = field(default_factory=list)

    @property
    def last_word(self) -> str:
        """How it ended, as it says itself; empty where it was killed."""
        return self.lines[-1].what if self.lines[-1].what in LAST_WORDS else ""


Ledger = dict[str, list[Execution]]
"""By task, in the order in which they began."""


def load(path: Path) -> Ledger:
    """The ledger of a file."""
    return read(path.read_text(encoding="utf-8") if path.exists() else "")


def read(text: str) -> Ledger:
    """The ledger of these lines."""
    executions: dict[tuple[str, FencingToken], Execution] = {}
    found: defaultdict[str, list[Execution]] = defaultdict(list)
    for place, text_line in enumerate(text.splitlines()):
        what, task_id, attempt, token, time_ns, pid = text_line.split()
        epoch, counter = map(int, token.split("."))
        line = Line(place, what, task_id, int(attempt), FencingToken(epoch, counter), int(time_ns), int(pid))
        execution = executions.get((task_id, line.token))
        if execution is None:
            execution = executions[task_id, line.token] = Execution(line.attempt, line.token)
            found[task_id].append(execution)
        execution.lines.append(line)
    return dict(found)
