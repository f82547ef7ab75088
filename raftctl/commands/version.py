"""``raftctl version``: this program's version and, where a cluster answers, that of its nodes."""

from __future__ import annotations

import platform
from typing import Any

import typer

import raftctl
from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, invocation
from raftctl.errors import RaftctlError

app = typer.Typer(add_completion=False)


@app.command()
def version(ctx: typer.Context) -> None:
    """The versions of raftctl and of the nodes."""
    asked = invocation(ctx)
    nodes = run(_nodes(asked))
    value: dict[str, Any] = {
        "raftctl": raftctl.__version__,
        "python": platform.python_version(),
        "nodes": nodes,
    }
    lines = [f"raftctl {raftctl.__version__} (Python {platform.python_version()})"]
    by_version: dict[str, list[str]] = {}
    for name, found in nodes.items():
        by_version.setdefault(found, []).append(name)
    lines += [f"raftd {found} on {', '.join(names)}" for found, names in by_version.items()]
    output.emit(asked, value, [raftctl.__version__], lambda: "\n".join(lines))


async def _nodes(asked: Invocation) -> dict[str, str]:
    from raftctl.sdk import connect

    try:
        async with connect(asked) as client:
            infos = await client.node_infos(timeout_s=asked.timeout_s(1.0))
    except RaftctlError:
        if asked.cluster is not None or asked.address is not None:
            raise  # it was named: not finding it is an error
        return {}
    return {name: infos[name].version for name in sorted(infos)}
