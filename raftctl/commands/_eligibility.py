"""Whether nodes take work: cordon, uncordon, drain, and their labels.

What may live here: the work behind those commands of ``raftctl node``.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import typer

from raftctl import output
from raftctl.client import errors
from raftctl.commands._running import only_timeout_s, run
from raftctl.context import Invocation
from raftctl.errors import UsageError
from raftctl.sdk import AsyncClient, connect

_LOOK_S = 1.0


def set_eligibility(asked: Invocation, nodes: list[str], eligibility: str) -> None:
    """Cordons nodes, or has them take work again."""
    run(_set_eligibility(asked, nodes, eligibility))


async def _set_eligibility(asked: Invocation, nodes: list[str], eligibility: str) -> None:
    values: list[dict[str, Any]] = []
    async with connect(asked) as client:
        for node in await _named(client, nodes):
            running = await client.set_eligibility(node, eligibility)
            values.append({"node": node, "eligibility": eligibility, "running": running})
    output.emit(
        asked,
        values if len(values) > 1 else values[0],
        [value["node"] for value in values],
        lambda: "\n".join(_line(value) for value in values),
    )


def _line(value: dict[str, Any]) -> str:
    if value["eligibility"] == "ready":
        return f"{value['node']} takes work again"
    going = f"; {value['running']} tasks run on" if value["running"] else ""
    return f"{value['node']} takes nothing new{going}"


def drain(asked: Invocation, nodes: list[str], deadline_ms: int, *, wait: bool) -> None:
    """Has nodes finish what they run, and take nothing new."""
    run(_drain(asked, nodes, deadline_ms, wait=wait))


async def _drain(asked: Invocation, nodes: list[str], deadline_ms: int, *, wait: bool) -> None:
    async with connect(asked) as client:
        names = await _named(client, nodes)
        left = {
            node: await client.set_eligibility(node, "draining", deadline_ms=deadline_ms) for node in names
        }
        if wait:
            timeout_s = only_timeout_s(asked)
            try:
                async with asyncio.timeout(timeout_s):
                    left = await _until_empty(asked, client, left)
            except TimeoutError:
                raise errors.WaitTimedOut(
                    f"tasks run on {', '.join(names)} still after {timeout_s:g} s; the drain goes on",
                    f"raftctl node drain {' '.join(names)}",
                ) from None
    values = [{"node": node, "eligibility": "draining", "running": running} for node, running in left.items()]
    output.emit(
        asked,
        values if len(values) > 1 else values[0],
        names,
        lambda: "\n".join(
            f"{node} is drained" if not running else f"{node} is draining: {running} tasks run on"
            for node, running in left.items()
        ),
    )


async def _until_empty(asked: Invocation, client: AsyncClient, left: dict[str, int]) -> dict[str, int]:
    """Looks whenever something changes on these nodes, and once a second, until nothing is left on their slots."""
    told = left
    while any(left.values()):
        if left != told:
            told = left
            output.say(asked, ", ".join(f"{node}: {count} left" for node, count in left.items() if count))
        await _something(client, set(left))
        status = await client.status(recent_count=0)
        # By task: one that occupies several slots is one that is waited for.
        held = {row.name: row.reserved for row in status.nodes}
        left = {
            node: held.get(node, 0) + len({row.task_id for row in status.executing if row.node == node})
            for node in left
        }
    return left


async def _something(client: AsyncClient, nodes: set[str]) -> None:
    """Returns when an attempt on one of these nodes has changed, or after a while."""
    try:
        async with asyncio.timeout(_LOOK_S), aclosing(client.watch()) as batches:
            async for batch in batches:
                if batch.gap or any(change.node in nodes for change in batch.changes):
                    return
    except TimeoutError:
        return


def label(asked: Invocation, node: str, words: list[str]) -> None:
    """Sets labels (K=V) and takes them back (K-)."""
    set_: dict[str, str] = {}
    remove: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            set_[key] = value
        elif not equals and word.endswith("-") and len(word) > 1:
            remove.append(word.removesuffix("-"))
        else:
            raise UsageError(f"{word!r} is neither K=V nor K-", f"raftctl node label {node} gpu=yes zone-")
    run(_label(asked, node, set_, remove))


async def _label(asked: Invocation, node: str, set_: dict[str, str], remove: list[str]) -> None:
    async with connect(asked) as client:
        [name] = await _named(client, [node])
        labels = await client.set_labels(name, set_=set_, remove=remove)
    shown = " ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "no labels"
    output.emit(
        asked, {"node": name, "labels": labels}, [name], lambda: typer.style(name, bold=True) + f": {shown}"
    )


async def _named(client: AsyncClient, words: list[str]) -> list[str]:
    """The nodes that were named, ``leader`` among them, each once."""
    names = []
    for word in words:
        name = word
        if word == "leader":
            leader = (await client.status(recent_count=0)).leader
            if leader is None:
                raise errors.NoLeader("nobody leads", "raftctl status")
            name = leader
        if name not in names:
            names.append(name)
    return names
