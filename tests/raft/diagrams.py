"""The pictures of docs/raft.md, drawn from what the code itself goes by: its tables, its types and runs of its cores.

What may live here: laying out. What is drawn comes from ``raftd.raft`` and from the scenarios; nothing is said here
that could be said differently there. ``scripts/draw`` writes the files.

    python -m tests.raft.diagrams [--check]    writes them to docs/images; or only says which are not fresh
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from raftd.raft.progress import PROGRESS_CHANGES, ProgressState
from raftd.raft.ready import Ready
from raftd.raft.transitions import ROLE_CHANGES, Event
from raftd.raft.types import NodeId, Role
from tests.raft.recording import Arrived, Committed, Step, Told, Wrote, content_of, in_words, kind_of
from tests.raft.scenario import Interpreter, commands_of

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SCENARIOS = Path(__file__).parent / "scenarios"
WIDTH = 960

STYLE = """
      .box { fill: #ffffff; stroke: #5b7aa5; stroke-width: 1.5 }
      .core { fill: #fff3d6; stroke: #c98a00; stroke-width: 2 }
      .note { fill: #e7f4ea; stroke: #3f8f5a; stroke-width: 1 }
      .line { stroke: #44546a; stroke-width: 1.6; fill: none; marker-end: url(#head) }
      .lost { stroke: #b3423a; stroke-dasharray: 5 4; marker-end: url(#cross) }
      .life { stroke: #9aa9bd; stroke-width: 1.2; stroke-dasharray: 3 4; fill: none }
      .name { font-weight: bold; fill: #1f2d3d }
      .text { fill: #44546a; font-size: 12px }
      .small { fill: #1f2d3d; font-size: 11px }
      .said { fill: #1f2d3d; font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
      .mid { text-anchor: middle }
      .end { text-anchor: end }
    """

HEADS = """
    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
      <path d="M0,0 L10,5 L0,10 z" fill="#44546a"/>
    </marker>
    <marker id="cross" viewBox="0 0 10 10" refX="5" refY="5" markerWidth="8" markerHeight="8" orient="auto">
      <path d="M1,1 L9,9 M9,1 L1,9" stroke="#b3423a" stroke-width="2"/>
    </marker>"""


class Picture:
    """An SVG that grows downward."""

    def __init__(self, title: str, height: int = 0) -> None:
        self.title = title
        self.height = height
        self._parts: list[str] = []

    def text(self, x: int, y: int, words: str, kind: str = "text", *, middle: bool = False) -> None:
        """Words with their baseline at ``y``; they begin at ``x``, or lie around it, or end there (kind ``end``)."""
        kinds = f"{kind} mid" if middle else kind
        self._parts.append(f'<text class="{kinds}" x="{x}" y="{y}">{escape(words)}</text>')

    def box(self, x: int, y: int, width: int, height: int, kind: str = "box") -> None:
        """A box with its upper left corner there."""
        self._parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')

    def path(self, steps: str, kind: str = "line") -> None:
        """A line, as SVG spells it."""
        self._parts.append(f'<path class="{kind}" d="{steps}"/>')

    def svg(self) -> str:
        """The file."""
        body = "\n  ".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="14">\n'
            f"  <title>{escape(self.title)}</title>\n  <defs>{HEADS}\n    <style>{STYLE}</style>\n  </defs>\n"
            f'  <rect width="{WIDTH}" height="{self.height}" fill="#ffffff"/>\n  {body}\n</svg>\n'
        )


# States and what leads from one to another.

Edges = Mapping[tuple[int, int], list[str]]

BOX_WIDTH, BOX_HEIGHT = 132, 44
ROW = 18


def wrapped(words: Sequence[str], width: int) -> list[str]:
    """The words, joined to lines of at most ``width`` letters."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += " · " + word
        else:
            lines.append(word)
    return lines


def state_machine(title: str, states: Sequence[str], edges: Edges) -> str:
    """The states in a row: what leads on runs between them, what leads back to the first one below."""
    picture = Picture(title)
    step = (WIDTH - 40 - BOX_WIDTH) // (len(states) - 1)
    left = [20 + step * number for number in range(len(states))]
    over = [edge for edge in edges if edge[1] - edge[0] > 1]
    loops = max((len(edges[before, after]) for before, after in edges if before == after), default=0)
    above = 40 + 14 * loops
    top = above + 34 * len(over) + 10
    for number, state in enumerate(states):
        picture.box(left[number], top, BOX_WIDTH, BOX_HEIGHT, "core")
        picture.text(left[number] + BOX_WIDTH // 2, top + 27, state, "name", middle=True)
    back = sorted(edge for edge in edges if edge[1] == 0 and edge[0] > 0)
    for (before, after), events in edges.items():
        if before == after:
            _loop(picture, left[before] + BOX_WIDTH // 2, top, events)
        elif after - before == 1:
            _between(picture, left[before] + BOX_WIDTH, left[after], top + 13, events, above=True)
        elif before - after == 1 and after > 0:
            _between(picture, left[before], left[after] + BOX_WIDTH, top + 32, events, above=False)
    for number, (before, after) in enumerate(over):
        y = top - above - 34 * number
        start, end = left[before] + BOX_WIDTH - 6 - 12 * number, left[after] + 6
        picture.path(f"M{start},{top} V{y} H{end} V{top}")
        picture.text((start + end) // 2, y - 6, " · ".join(edges[before, after]), middle=True)
    y = top + BOX_HEIGHT + 22
    for number, (before, _) in enumerate(back):
        start, end = left[before] + BOX_WIDTH // 2, left[0] + 100 - 34 * number
        room = start - left[0] - 110
        lines = wrapped(edges[before, 0], room * 10 // 65)
        y += ROW * len(lines)
        for row, line in enumerate(reversed(lines)):
            picture.text(start - room // 2, y - 6 - ROW * row, line, middle=True)
        picture.path(f"M{start},{top + BOX_HEIGHT} V{y} H{end} V{top + BOX_HEIGHT}")
        y += 24
    picture.height = y
    return picture.svg()


def _loop(picture: Picture, x: int, top: int, events: Sequence[str]) -> None:
    picture.path(f"M{x - 16},{top} C{x - 30},{top - 34} {x + 30},{top - 34} {x + 16},{top}")
    for row, event in enumerate(reversed(events)):
        picture.text(x, top - 32 - 14 * row, event, middle=True)


def _between(picture: Picture, start: int, end: int, y: int, events: Sequence[str], *, above: bool) -> None:
    picture.path(f"M{start},{y} H{end}")
    for row, event in enumerate(reversed(events) if above else events):
        line = y - 6 - 14 * row if above else y + 14 + 14 * row
        picture.text((start + end) // 2, line, event, middle=True)


def grouped(rows: Iterable[tuple[int, int, str]]) -> Edges:
    """The events of each pair of states."""
    edges: dict[tuple[int, int], list[str]] = {}
    for before, after, event in rows:
        edges.setdefault((before, after), []).append(event)
    return edges


def roles() -> str:
    """What leads from one role to another."""
    states = list(Role)
    rows = (
        (states.index(before), states.index(change.after), str(event))
        for event, change in ROLE_CHANGES.items()
        for before in change.before
    )
    return state_machine("The roles of a node, and what changes them", list(map(str, states)), grouped(rows))


def progress() -> str:
    """What leads from one state of replication to another."""
    states = list(ProgressState)
    rows = (
        (states.index(before), states.index(change.after), str(event))
        for event, change in PROGRESS_CHANGES.items()
        for before in change.before
    )
    names = [state.value for state in states]
    return state_machine("How a leader sends the log to a follower", names, grouped(rows))


# The Ready.

LANES: Sequence[tuple[str, str, Sequence[str]]] = (
    ("network, at once", "the leader's appends travel while its own disk writes", ("messages",)),
    (
        "storage thread, one queue",
        "written in this order, synced if it must be; then persisted(number)",
        ("snapshot", "entries", "hard_state", "must_sync", "number"),
    ),
    (
        "network, when this and all before is durable",
        "votes, answers to appends, any term not yet on disk",
        ("messages_after_persist",),
    ),
    ("state machine", "committed and durable here; then applied(index)", ("committed_entries",)),
    ("readers", "answer when the state has reached the index; or fail", ("read_states", "reads_dropped")),
    ("everybody else", "the planner, the executor, the health service", ("soft_state",)),
)
"""Who gets what of a Ready: (who, what of it, which fields). Every field is in exactly one."""


def ready() -> str:
    """Which part of a Ready goes where."""
    placed = sorted(name for _, _, names in LANES for name in names)
    there = sorted(field.name for field in dataclasses.fields(Ready))
    if placed != there:
        raise ValueError(f"a Ready has {there}, but the picture shows {placed}")
    picture = Picture("What a Ready carries, and where each part of it goes")
    y = 20
    tops: dict[str, int] = {}
    for who, what, names in LANES:
        height = max(48, 24 * len(names) + 10)
        for row, name in enumerate(names):
            tops[name] = y + (height - 24 * len(names)) // 2 + 24 * row + 16
            picture.text(250, tops[name], name, "name")
        middle = y + height // 2
        if len(names) > 1:
            picture.path(f"M430,{y + 8} H438 V{y + height - 8} H430", "life")
        picture.path(f"M446,{middle} H530")
        picture.box(530, y, 410, height)
        picture.text(546, middle - 4, who, "name")
        picture.text(546, middle + 14, what)
        y += height + 14
    picture.box(230, 10, 216, y - 18, "core")
    picture._parts.insert(0, picture._parts.pop())
    picture.box(20, (y - 90) // 2, 130, 90, "core")
    picture.text(85, (y - 90) // 2 + 40, "RawNode", "name", middle=True)
    picture.text(85, (y - 90) // 2 + 60, "ready()", middle=True)
    picture.path(f"M150,{y // 2} H230")
    picture.height = y + 6
    return picture.svg()


# What nodes say to each other.


def steps_of(scenario: str, *commands: str) -> list[Step]:
    """What these commands of a scenario lead to."""
    interpreter = Interpreter()
    text = (SCENARIOS / f"{scenario}.txt").read_text(encoding="utf-8")
    for line in commands_of(text):
        if line and not line.startswith("#"):
            interpreter.run(line)
    found = [steps for command, steps in interpreter.steps if command in commands]
    if len(found) != len(commands):
        raise ValueError(f"{scenario} does not have just one of each of {commands}")
    return [step for steps in found for step in steps]


def nodes_of(step: Step) -> tuple[NodeId, ...]:
    """Whose step it is."""
    match step:
        case Arrived(message, _):
            return (message.sender, message.receiver)
        case Told(transition):
            return (transition.node,)
        case Committed(node, _) | Wrote(node, _):
            return (node,)
        case _:
            return ()


def sequence(title: str, steps: Sequence[Step]) -> str:
    """Nodes side by side, time downward: arrows for messages, notes for what they led to."""
    nodes = sorted({node for step in steps for node in nodes_of(step)})
    gap = (WIDTH - 280) // (len(nodes) - 1)
    at = {node: 130 + gap * number for number, node in enumerate(nodes)}
    picture = Picture(title)
    y = 62
    for step in steps:
        match step:
            case Arrived(message, lost):
                start, end = at[message.sender], at[message.receiver]
                if lost:
                    end = start + (end - start) * 3 // 4
                words = f"{kind_of(message)} {message.term}"
                content = content_of(message)
                label = f"{words}: {content}" if content else words
                y += 14
                side = 1 if end > start else -1
                picture.text(start + side * 8, y - 5, label, "said" if side > 0 else "said end")
                picture.path(f"M{start},{y} H{end - side * 2}", "line lost" if lost else "line")
                y += 14
            case Told() | Committed() | Wrote():
                [node] = nodes_of(step)
                words = in_words(step).removeprefix(f"{node} ")
                width = 20 + 57 * len(words) // 10
                x = max(4, min(at[node] - width // 2, WIDTH - width - 4))
                picture.box(x, y - 6, width, 18, "note")
                picture.text(x + width // 2, y + 7, words, "small", middle=True)
                y += 22
            case _:
                pass
    lives = Picture(title)
    for node, x in at.items():
        lives.path(f"M{x},44 V{y}", "life")
        lives.box(x - 46, 12, 92, 32, "core")
        lives.text(x, 33, f"node {node}", "name", middle=True)
    picture._parts = lives._parts + picture._parts
    picture.height = y + 12
    return picture.svg()


def without(steps: Sequence[Step], *events: Event) -> list[Step]:
    """The steps but for what is no news in that picture."""
    return [step for step in steps if not (isinstance(step, Told) and step.transition.event in events)]


def to_the_point(steps: Sequence[Step]) -> Sequence[Step]:
    """Up to the last that a message has led to: what comes after it are answers."""
    last = max(place for place, step in enumerate(steps) if not isinstance(step, Arrived))
    return steps[: last + 1]


PICTURES: Mapping[str, Callable[[], str]] = {
    "raft-roles.svg": roles,
    "raft-progress.svg": progress,
    "raft-ready.svg": ready,
    "raft-election.svg": lambda: sequence(
        "An election: pre-votes, votes, the no-op", to_the_point(steps_of("election", "campaign 1"))
    ),
    "raft-entry.svg": lambda: sequence(
        "The life of an entry", to_the_point(steps_of("election", "propose 1 x"))
    ),
    "raft-snapshot.svg": lambda: sequence(
        "A follower that lacks what is compacted", steps_of("snapshot", "tick 1")
    ),
    "raft-joint.svg": lambda: sequence(
        "From {1, 2, 3} to {1, 4, 5}",
        [
            step
            for step in to_the_point(steps_of("figure_11", "change 1 +4 +5 -2 -3"))
            if not isinstance(step, Committed)
        ],
    ),
    "raft-transfer.svg": lambda: sequence(
        "Handing over",
        to_the_point(without(steps_of("transfer", "transfer 1 2"), Event.HEARD_LEADER)),
    ),
}


def stale(images: Path = IMAGES) -> list[str]:
    """The pictures that are not what the code would draw now."""
    return [
        name
        for name, draw in PICTURES.items()
        if not (images / name).exists() or (images / name).read_text(encoding="utf-8") != draw()
    ]


def main(words: Sequence[str]) -> int:
    """Draw, or say what should be drawn."""
    if list(words) == ["--check"]:
        names = stale()
        if names:
            print(f"not fresh, scripts/draw mends it: {', '.join(names)}", file=sys.stderr)
        return 1 if names else 0
    if words:
        print("usage: scripts/draw [--check]", file=sys.stderr)
        return 2
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
