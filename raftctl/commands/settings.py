"""``raftctl settings``: the limits, retention and leases that every node of the cluster goes by.

What may live here: showing them and changing them. They are part of the replicated state, not of any node's flags.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raftctl import output
from raftctl.commands._running import run
from raftctl.context import Invocation, invocation
from raftctl.durations import format_duration, parse_duration_ms
from raftctl.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def settings(
    ctx: typer.Context,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE...]", help="max_queue=10000 ageing_ms=5m")
    ] = None,
) -> None:
    """Show the settings of the cluster, or change some: all of them or none."""
    asked = invocation(ctx)
    wanted = dict(_change(text) for text in changes or ())
    run(_settings(asked, wanted))


def _change(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not of the form NAME=VALUE", "raftctl settings max_queue=10000")
    if name == "placement":
        words = {"spread": 1, "binpack": 2}
        if value not in words:
            raise UsageError(f"placement is spread or binpack, not {value!r}")
        return name, words[value]
    if value.isdecimal():
        return name, int(value)
    if name.endswith("_ms"):
        return name, parse_duration_ms(value)
    raise UsageError(f"{name} is a whole number, not {value!r}")


async def _settings(asked: Invocation, wanted: dict[str, int]) -> None:
    from raftctl.sdk import connect
    from raftctl.views import data

    async with connect(asked) as client:
        found = await client.set_settings(wanted) if wanted else await client.settings()

    def draw() -> Any:
        from raftctl.views import style

        table = style.table("Settings", "NAME", ">VALUE", ">DEFAULT", ">LEAST", ">MOST")
        for one in found:
            shown = [_words(one.name, value) for value in (one.value, one.default, one.least, one.most)]
            table.add_row(one.name, *shown, style="bold" if one.value != one.default else "")
        return table

    output.emit(asked, [data.setting(one) for one in found], [one.name for one in found], draw)


def _words(name: str, value: int) -> str:
    if name == "placement":
        return {1: "spread", 2: "binpack"}.get(value, str(value))
    return format_duration(value) if name.endswith("_ms") and value else str(value)
