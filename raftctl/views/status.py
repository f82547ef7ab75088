"""The status for people: one line that says it all, then *Executing*, *Free Nodes*, and what waits and what ended.

Everything here is a pure function of a `ClusterView` and the time, drawn the same for a single look and for a
live one.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raftctl.client.models import NodeRow, Task
from raftctl.client.overview import ClusterView
from raftctl.durations import format_duration
from raftctl.views import style
from raftctl.views.times import ago, between


def summary(view: ClusterView, cluster: str) -> Text:
    """Cluster, leader, term, quorum, commit index, queue: in one line."""
    found = view.status
    line = Text(cluster or found.cluster_id, style="bold")
    dot = ("  ", "dim")
    line.append(*dot).append("leader ", style="dim")
    line.append(found.leader or "none", style="bold green" if found.leader else "bold red")
    line.append(*dot).append("term ", style="dim").append(str(found.term))
    quorum = found.quorum
    healthy = quorum.ok and quorum.up == quorum.voters
    line.append(*dot).append(*(("quorum ", "dim") if quorum.ok else ("no quorum, up ", "bold red")))
    line.append(
        f"{quorum.up}/{quorum.voters}", style="green" if healthy else "yellow" if quorum.ok else "bold red"
    )
    line.append(*dot).append("commit ", style="dim").append(str(found.commit_index))
    line.append(*dot).append("queue ", style="dim")
    line.append(f"{found.pending} pending {found.running} running")
    return line


def staleness(view: ClusterView) -> Text | None:
    """What to think of a stale answer; None for a fresh one."""
    if not view.stale:
        return None
    found = view.status
    why = f"{view.problem.message}; " if view.problem is not None else ""
    where = f"as {found.read.answered_by or 'a node'} knew it at index {found.read.applied_index}"
    return Text(f"STALE: {why}{where}", style="bold yellow")


def executing(view: ClusterView, since_ms: int = 0, limit: int | None = None) -> Table:
    """The *Executing* table; `since_ms` is the age of the view, so that a live table counts on by itself."""
    rows = view.status.executing
    made = style.table(
        "Executing",
        "NODE",
        ">SLOT",
        "TASK",
        "ID",
        ">ATTEMPT",
        "PROGRESS",
        ">ELAPSED",
        note=_hidden(len(rows), limit) or ("" if rows else "nothing"),
    )
    for row in rows[:limit]:
        made.add_row(
            Text(row.node, style="bold"),
            str(row.slot),
            row.task,
            row.task_id,
            str(row.attempt),
            Text("stopping", style="yellow") if row.stopping else style.bar(row.progress, row.message[:24]),
            format_duration(row.elapsed_ms + since_ms),
        )
    return made


def free_nodes(view: ClusterView, since_ms: int = 0, limit: int | None = None) -> Table:
    """The *Free Nodes* table."""
    rows = view.status.free_nodes
    roles = {node.name: node for node in view.status.nodes}
    made = style.table(
        "Free Nodes",
        "NODE",
        "ROLE",
        "STATE",
        ">SLOTS",
        ">LAST SEEN",
        note=_hidden(len(rows), limit) or ("" if rows else "none"),
    )
    for row in rows[:limit]:
        node = roles.get(row.node)
        leads = node is not None and node.name == view.status.leader
        made.add_row(
            Text(row.node, style="bold"),
            Text(row.role + (", leader" if leads else "")),
            style.state(_state_of(view, node)),
            style.slots(row.slots_free, row.slots),
            "-" if row.last_seen_ms is None else f"{format_duration(row.last_seen_ms + since_ms)} ago",
        )
    return made


DISK_FULL = "disk full"


def _state_of(view: ClusterView, node: NodeRow | None) -> str:
    """A free node is ready, as far as the record says; a lease has to run out before the record says otherwise."""
    trouble = _trouble(view, node) if node is not None else []
    return DISK_FULL if trouble == [DISK_FULL] else "silent" if trouble else "ready"


def away(view: ClusterView) -> Table | None:
    """Nodes that are in neither table because they are lost, silent or not taking work; None when there are none."""
    rows = [(node, _trouble(view, node)) for node in view.status.nodes]
    if not any(trouble for _, trouble in rows):
        return None
    made = style.table("Away", "NODE", "ROLE", "STATE", "ADDRESS")
    for node, trouble in rows:
        if trouble:
            made.add_row(
                Text(node.name, style="bold"), node.role, Text(", ".join(trouble), style="red"), node.address
            )
    return made


def _trouble(view: ClusterView, node: NodeRow) -> list[str]:
    words = []
    if node.health != "up":
        words.append(node.health or "unknown")
    info = view.infos.get(node.name)
    if info is None:
        words.append("does not answer")
    elif info.disk_full:
        words.append(DISK_FULL)  # and so the leader may not hear of it what it waits for
    elif not view.stale and node.role == "voter" and not node.reachable and node.name != view.status.leader:
        words.append("cut off from the leader")
    if node.eligibility not in ("ready", ""):
        words.append(node.eligibility)
    return words


def pending(view: ClusterView, now: int, limit: int | None = None) -> Table | None:
    """What is next in the queue; None when nothing waits."""
    tasks = view.status.next_pending[:limit]
    if not tasks:
        return None
    more = view.status.pending - len(tasks)
    made = style.table(
        "Pending", "ID", "TASK", ">PRIORITY", ">WAITING", note=f"and {more} more" if more > 0 else ""
    )
    for task in tasks:
        made.add_row(task.task_id, task.title, str(task.priority), _waiting(task, now))
    return made


def _waiting(task: Task, now: int) -> str:
    if task.not_before_ms is not None and task.not_before_ms > now:
        return f"retry in {format_duration(task.not_before_ms - now)}"
    return ago(task.submitted_ms, now).removesuffix(" ago")


def recent(view: ClusterView, now: int, limit: int | None = None) -> Table | None:
    """What ended last; None when nothing has."""
    tasks = view.status.recent[:limit]
    if not tasks:
        return None
    found = view.status
    counts = f"{found.succeeded} succeeded, {found.failed} failed, {found.cancelled} cancelled"
    made = style.table("Recent", "ID", "TASK", "STATE", "NODE", ">TOOK", ">ENDED", note=counts)
    for task in tasks:
        last = task.last_attempt
        made.add_row(
            task.task_id,
            task.title,
            style.state(str(task.state)),
            last.node if last is not None else "-",
            between(last.started_ms, last.ended_ms) if last is not None else "-",
            ago(task.finished_ms, now),
        )
    return made


def _hidden(count: int, limit: int | None) -> str:
    return f"{limit} of {count}" if limit is not None and count > limit else ""


def page(
    view: ClusterView,
    cluster: str,
    now: int,
    *,
    since_ms: int = 0,
    limit: int | None = None,
    below: Sequence[RenderableType] = (),
) -> Group:
    """The whole status.

    Args:
        now: Unix milliseconds.
        since_ms: how long ago the view was taken.
        limit: at most so many rows a table, for a terminal that is not endless.
        below: what to put under it.
    """
    parts: list[RenderableType | None] = [
        summary(view, cluster),
        staleness(view),
        Text(),
        executing(view, since_ms, limit),
        Text(),
        free_nodes(view, since_ms, limit),
    ]
    for part in (away(view), pending(view, now, limit), recent(view, now, limit), *below):
        if part is not None:
            parts += [Text(), part]
    return Group(*(part for part in parts if part is not None))
