"""The consensus cores for people: one line a node, and what the leader knows of its followers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from raftctl.client.models import NodeInfo
from raftctl.views import style
from raftctl.views.data import leading


def page(infos: Mapping[str, NodeInfo], silent: Iterable[str], cluster: str) -> Group:
    """Every node, each as it sees itself."""
    leader = leading(infos)
    head = Text(cluster, style="bold").append("  leader ", style="dim")
    head.append(leader.name if leader else "none", style="bold green" if leader else "bold red")
    head.append("  term ", style="dim").append(str(max((info.term for info in infos.values()), default=0)))
    nodes = style.table(
        "Nodes", "NODE", "ROLE", ">TERM", "VOTE", "LEADER", ">COMMIT", ">APPLIED", ">LAST", ">FSYNC", ">INC"
    )
    for name in sorted(infos):
        info = infos[name]
        nodes.add_row(
            Text(name, style="bold"),
            style.state(info.role),
            str(info.term),
            info.voted_for or "-",
            info.leader or "-",
            str(info.commit_index),
            str(info.last_applied),
            str(info.last_index),
            f"{info.fsync_ms:.1f}ms",
            str(info.incarnation),
        )
    for name in sorted(silent):
        nodes.add_row(Text(name, style="bold"), style.state("silent"), *["-"] * 8)
    parts: list[RenderableType] = [head, Text(), nodes]
    if leader is not None and leader.peers:
        peers = style.table(
            "Replication",
            "PEER",
            ">MATCH",
            ">NEXT",
            "PROGRESS",
            ">IN FLIGHT",
            "ACTIVE",
            note=f"as {leader.name} sees it",
        )
        for peer in sorted(leader.peers, key=lambda peer: peer.name):
            peers.add_row(
                Text(peer.name, style="bold"),
                str(peer.match_index),
                str(peer.next_index),
                peer.progress,
                str(peer.in_flight),
                Text("yes", style="green") if peer.recently_active else Text("no", style="red"),
            )
        parts += [Text(), peers]
    return Group(*parts)
