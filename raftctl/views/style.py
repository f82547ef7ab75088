"""The look of every table: one box, one set of colours, so that a state has the same colour wherever it is shown."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

STATE_STYLES = {
    "pending": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "timed_out": "red",
    "crashed": "red",
    "lost": "red",
    "not_started": "yellow",
    "up": "green",
    "ready": "green",
    "silent": "red",
    "unregistered": "yellow",
    "cordoned": "yellow",
    "draining": "yellow",
    "learner": "yellow",
    "leaving": "yellow",
    "joining": "yellow",
    "removed": "red",
    "leader": "bold green",
    "follower": "",
    "candidate": "yellow",
    "pre_candidate": "yellow",
    "unknown": "dim",
}

_BAR_WIDTH = 8


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=STATE_STYLES.get(word, ""))


def table(title: str, *columns: str, note: str = "") -> Table:
    """An empty table under a heading. Columns whose name begins with ``>`` are numbers and stand to the right."""
    heading = Text(title, style="bold")
    if note:
        heading.append(f"  {note}", style="dim")
    made = Table(
        title=heading,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column in columns:
        right = column.startswith(">")
        long = column in ("TASK", "REASON", "ARGS", "MESSAGE")
        made.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if long else None,
            min_width=8 if long else len(column.removeprefix(">")),
        )
    made.expand = any(column in ("TASK", "REASON", "ARGS", "MESSAGE") for column in columns)
    return made


def bar(fraction: float | None, message: str = "") -> Text:
    """How far something is: a bar and per cent, or what the task says of itself, or a dash."""
    if fraction is None:
        return Text(message or "-", style="" if message else "dim")
    fraction = min(max(fraction, 0.0), 1.0)
    filled = round(fraction * _BAR_WIDTH)
    drawn = Text("━" * filled, style="cyan")
    drawn.append("━" * (_BAR_WIDTH - filled), style="bright_black")
    return drawn.append(f" {fraction:>4.0%}")


def slots(free: int, total: int) -> Text:
    """Free of all."""
    return Text(f"{free}/{total}", style="green" if free else "yellow")
