"""The consensus cores for people: one line a node, what the leader knows of its followers, and who belongs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raftctl.client.nodes import Member, Membership, NodeInfo, PeerProgress, SnapshotTaken
from raftctl.client.overview import leading
from raftctl.views import style

_NODES = ("NODE", "ROLE", ">TERM", "LEADER", ">COMMIT", ">APPLIED", "LOG", ">SNAPSHOT")
_SHOWN_STORES = 3
_WIDE = (">SIZE", "VOTE", ">FSYNC", ">QUEUE", ">INC", "STORE")


def page(infos: Mapping[str, NodeInfo], silent: Iterable[str], cluster: str, *, wide: bool = False) -> Group:
    """Every node, each as it sees itself."""
    leader = leading(infos.values())
    head = _head(cluster, leader.name if leader is not None else None)
    head.append("  term ", style="dim").append(str(max((info.term for info in infos.values()), default=0)))
    if leader is not None and leader.transfer_target is not None:
        head.append(f"  handing over to {leader.transfer_target}", style="yellow")
    columns = (*_NODES, *_WIDE) if wide else _NODES
    nodes = style.table("Nodes", *columns)
    for name in sorted(infos, key=_natural):
        nodes.add_row(*_node_cells(infos[name], wide=wide))
    for name in sorted(silent, key=_natural):
        nodes.add_row(Text(name, style="bold"), style.state("silent"), *["-"] * (len(columns) - 2))
    parts: list[RenderableType] = [head, Text(), nodes]
    full = sorted((name for name, info in infos.items() if info.disk_full), key=_natural)
    if full:
        parts += [
            Text(),
            Text(f"disk full: {', '.join(full)}, no submissions until there is room", style="red"),
        ]
    if leader is not None and leader.peers:
        parts += [Text(), _replication(leader)]
    return Group(*parts)


def members(found: Membership, cluster: str) -> Group:
    """Who belongs to the cluster, and what becomes of whom."""
    head = _head(cluster, found.answered_by if found.leads else None)
    if found.joint:
        head.append("  a change is half done: two majorities must agree", style="yellow")
    parts: list[RenderableType] = [head]
    if not found.leads:
        parts.append(Text(f"STALE: as {found.answered_by} has it", style="bold yellow"))
    table = style.table("Members", "NODE", "ROLE", "ADDRESS", "STORE", "THEN", note=_count(found))
    for member in found.members:
        table.add_row(
            Text(member.name, style="bold"),
            style.state(member.role),
            member.address,
            member.store_id,
            _then(member),
        )
    parts += [Text(), table]
    if found.removed_stores:
        more = len(found.removed_stores) - _SHOWN_STORES
        stores = ", ".join(found.removed_stores[:_SHOWN_STORES]) + (f" and {more} more" if more > 0 else "")
        parts += [Text(), Text(f"removed stores: {stores}", style="dim")]
    return Group(*parts)


def snapshot(found: SnapshotTaken) -> str:
    """What a node wrote down and let go of, in a sentence."""
    return (
        f"{found.node}: snapshot of entries to {found.index} (term {found.term}, {size(found.size_bytes)}); "
        f"the log begins at {found.first_index}"
    )


def size(count: int) -> str:
    """Bytes as people read them: ``812 B``, ``4.1 KiB``, ``63 MiB``."""
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}" if units[0] != "B" and amount < 10 else f"{amount:.0f} {units[0]}"


def _head(cluster: str, leader: str | None) -> Text:
    head = Text(cluster, style="bold").append("  leader " if cluster else "leader ", style="dim")
    return head.append(leader or "none", style="bold green" if leader else "bold red")


def _node_cells(info: NodeInfo, *, wide: bool) -> list[RenderableType]:
    held = info.last_index >= info.first_index > 0
    cells: list[RenderableType] = [
        Text(info.name, style="bold"),
        _role(info),
        str(info.term),
        info.leader or "-",
        str(info.commit_index),
        str(info.last_applied),
        f"{info.first_index}-{info.last_index}" if held else "empty",
        _dash(info.snapshot_index),
    ]
    if wide:
        cells += [
            size(info.snapshot_bytes) if info.snapshot_index is not None else "-",
            info.voted_for or "-",
            f"{info.fsync_ms:.1f}ms",
            str(info.storage_queue),
            str(info.incarnation),
            info.store_id,
        ]
    return cells


def _role(info: NodeInfo) -> Text:
    """What it does; of one that is no voter like any other, what it is."""
    if info.membership in ("voter", "unknown"):
        return style.state(info.role)
    if info.role == "leader":
        return style.state("leader").append(f", {info.membership}", style="yellow")
    return style.state(info.membership)


def _replication(leader: NodeInfo) -> Table:
    table = style.table(
        "Replication",
        "PEER",
        ">MATCH",
        ">NEXT",
        "PROGRESS",
        ">IN FLIGHT",
        "ACTIVE",
        note=f"as {leader.name} sees it",
    )
    for peer in sorted(leader.peers, key=lambda peer: _natural(peer.name)):
        table.add_row(
            Text(peer.name, style="bold").append(" learner" if peer.learner else "", style="not bold yellow"),
            str(peer.match_index),
            str(peer.next_index),
            _progress(peer),
            str(peer.in_flight),
            Text("yes", style="green") if peer.recently_active else Text("no", style="red"),
        )
    return table


def _progress(peer: PeerProgress) -> str:
    if peer.pending_snapshot is not None:
        return f"{peer.progress} to {peer.pending_snapshot}"
    return peer.progress


def _then(member: Member) -> str:
    if member.leaving:
        return "leaves with this change"
    if member.replaces is not None:
        return f"replaces {member.replaces} when caught up"
    if member.promote:
        return "votes when caught up"
    return ""


def _count(found: Membership) -> str:
    voters = len(found.voters)
    learners = sum(member.role == "learner" for member in found.members)
    return f"{voters} voter{'s' if voters != 1 else ''}" + (f", {learners} learning" if learners else "")


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _dash(value: int | None) -> str:
    return "-" if value is None else str(value)
