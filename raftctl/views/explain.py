"""Why a task is where it is, for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from raftctl.client.explanations import Explanation
from raftctl.views import style


def page(found: Explanation) -> RenderableType:
    """The summary, what it waits for, and a line for each node."""
    task = found.task
    head = Text(f"{task.task_id} ", style="bold")
    head.append_text(style.state(str(task.state))).append(f"  {found.summary}")
    parts: list[RenderableType] = [head, Text(task.title, style="dim")]
    if found.waits:
        parts.append(Text())
        parts += [Text(f"  {number}. {wait}") for number, wait in enumerate(found.waits, start=1)]
    if found.ahead_count:
        parts.append(Text(f"\n{found.ahead_count} tasks are before it in the queue"))
    if found.nodes:
        table = style.table("Nodes", "NODE", "FITS", "NOW", "REASON")
        for one in found.nodes:
            table.add_row(one.node, _word(one.fits), _word(one.available), "; ".join(one.reasons))
        parts += [Text(), table]
    return Group(*parts)


def _word(holds: bool) -> Text:
    return Text("yes", style="green") if holds else Text("no", style="yellow")
