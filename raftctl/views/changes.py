"""Changes as lines: what ``status --watch`` prints into a pipe, and shows under its tables on a terminal."""

from __future__ import annotations

from rich.text import Text

from raftctl.client.models import Change
from raftctl.views.style import STATE_STYLES
from raftctl.views.times import clock

_STYLES = {
    **STATE_STYLES,
    "node_lost": "red",
    "node_up": "green",
    "leader": "bold green",
    "retrying": "yellow",
}


def line(change: Change) -> Text:
    """``12:00:00  t17  running    on n3  render-tile 42, attempt 1, token 1.57``."""
    out = Text(clock(change.time_ms), style="dim")
    what = change.task.task_id if change.task is not None else change.node or "-"
    out.append(f"  {what:<6} ", style="bold")
    out.append(f"{change.change:<10}", style=_STYLES.get(change.change, ""))
    details = []
    if change.task is not None:
        last = change.task.last_attempt
        details.append(change.task.title)
        if last is not None and change.change not in ("submitted",):
            details.append(f"on {last.node}, attempt {last.number}, token {last.fencing_token}")
    if change.message:
        details.append(change.message)
    return out.append("  " + "; ".join(details) if details else "")


def note(text: str, now: int) -> Text:
    """A line of the watch itself: it lost its node, it found another."""
    return Text(clock(now), style="dim").append(f"  -      {'watch':<10}", style="yellow").append(f"  {text}")
