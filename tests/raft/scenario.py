"""Scenarios as text: commands to a cluster of cores, and below each what came of it.

What may live here: the little language. A scenario is a file of ``scenarios/``: a line that begins at the margin is a
command, an indented one is what it led to, ``#`` begins a remark. The oracle watches, so a scenario is also checked
against all that the paper promises.

    python -m tests.raft.scenario FILE...      runs them and prints their transcripts
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raftd.errors import RaftdError
from raftd.raft.messages import AppendEntries, Message
from raftd.raft.progress import ProgressState
from raftd.raft.transitions import Event
from raftd.raft.types import Entry, HardState, NodeId, Role
from tests.raft.memory_log import log_of
from tests.raft.peer import Peer
from tests.raft.recording import Arrived, Recorded, Says, Step, Told, Wrote, in_words, kind_of

INDENT = "    "


class Interpreter:
    """Runs the commands of one scenario. Each method ``_do_NAME`` is a command."""

    def __init__(self) -> None:
        self._voters = 3
        self._learners: list[NodeId] = []
        self._logs: dict[NodeId, list[Entry]] = {}
        self._hard_states: dict[NodeId, HardState] = {}
        self._settings: dict[str, Any] = {}
        self._cluster: Recorded | None = None
        self._lost: dict[tuple[NodeId, NodeId], set[str]] = {}
        self._withheld: dict[NodeId, int] = {}
        self.steps: list[tuple[str, list[Step]]] = []
        """Each command, and what it led to."""

    @property
    def cluster(self) -> Recorded:
        """The cluster, made when it is first needed."""
        if self._cluster is None:
            self._cluster = Recorded(
                self._voters,
                learners=self._learners,
                logs=self._logs,
                hard_states=self._hard_states,
                **self._settings,
            )
            self._cluster.steps.clear()
        return self._cluster

    def run(self, command: str) -> list[str]:
        """Do it, and answer the lines of the transcript."""
        quietly = command.startswith("quietly ")
        name, *words = shlex.split(command.removeprefix("quietly "))
        do: Callable[..., None] = getattr(self, f"_do_{name.replace('-', '_')}")
        try:
            do(*words)
        except RaftdError as refusal:
            self.cluster.steps.append(Says(f"refused: {refusal}"))
        steps = self._taken()
        self.steps.append((command, steps))
        return [in_words(step) for step in steps if not (quietly and isinstance(step, Arrived))]

    def _taken(self) -> list[Step]:
        if self._cluster is None:
            return []
        self._cluster.look_at_all()
        steps, self._cluster.steps = self._cluster.steps, []
        return steps

    # Before it starts.

    def _do_voters(self, count: str, *settings: str) -> None:
        self._voters = int(count)
        for setting in settings:
            key, _, value = setting.partition("=")
            self._settings[key] = {"yes": True, "no": False}.get(
                value, int(value) if value.isdigit() else value
            )

    def _do_learners(self, *nodes: str) -> None:
        self._learners = [int(node) for node in nodes]

    def _do_log(self, node: str, *terms: str) -> None:
        self._logs[int(node)] = log_of(*map(int, terms))

    def _do_term(self, term: str, *nodes: str) -> None:
        for node in map(int, nodes):
            self._hard_states[node] = HardState(int(term), 0, 0)

    # What people and time do.

    def _do_tick(self, count: str = "1", *only: str) -> None:
        self.cluster.tick(int(count), only=[int(node) for node in only] or None)

    def _do_elect(self, node: str) -> None:
        """It campaigns and wins, and that is all there is to say of it."""
        self.cluster.elect(int(node))
        self.cluster.look_at_all()
        said = self.cluster.steps
        said[:] = [step for step in said if isinstance(step, Told) and step.transition.event is Event.WON]

    def _do_campaign(self, node: str) -> None:
        self.cluster[int(node)].campaign()
        self.cluster.settle()

    def _do_propose(self, node: str, *datas: str) -> None:
        self.cluster.propose(int(node), *(data.encode() for data in datas))

    def _do_append(self, node: str, *datas: str) -> None:
        """Proposes, and nothing is delivered yet."""
        self.cluster[int(node)].propose(*(data.encode() for data in datas))

    def _do_read(self, node: str, *contexts: str) -> None:
        """Reads that come in between two Readys."""
        peer = self.cluster[int(node)]
        for context in map(str.encode, contexts):
            peer.raw.read_index(context)
            self.cluster.oracle.read_asked(peer, context)
        self.cluster.settle()

    def _do_change(self, node: str, *changes: str) -> None:
        self.cluster.change(int(node), *changes)

    def _do_transfer(self, node: str, to: str) -> None:
        self.cluster[int(node)].raw.transfer_leadership(int(to))
        self.cluster.settle()

    def _do_add(self, node: str) -> None:
        self.cluster.add(int(node))

    def _do_snapshot(self, node: str, keep: str = "0") -> None:
        snapshot = self.cluster[int(node)].take_snapshot(int(keep))
        self.cluster.steps.append(Says(f"{node} has a snapshot up to {snapshot.index}@{snapshot.term}"))

    # The network.

    def _do_isolate(self, *nodes: str) -> None:
        self.cluster.isolate(*map(int, nodes))

    def _do_cut(self, sender: str, receiver: str) -> None:
        self.cluster.cut(int(sender), int(receiver))

    def _do_lose(self, sender: str, receiver: str, *kinds: str) -> None:
        """Messages of these kinds are lost on that way; ``any`` for everybody."""
        for one in self._nodes(sender):
            for other in self._nodes(receiver):
                self._lost.setdefault((one, other), set()).update(kinds)
        self.cluster.is_lost = self._is_lost

    def _do_withhold(self, index: str, *nodes: str) -> None:
        """An append that would bring these nodes that entry is lost."""
        self._withheld.update(dict.fromkeys(map(int, nodes), int(index)))
        self.cluster.is_lost = self._is_lost

    def _is_lost(self, message: Message) -> bool:
        if kind_of(message) in self._lost.get((message.sender, message.receiver), ()):
            return True
        if not isinstance(message, AppendEntries) or message.receiver not in self._withheld:
            return False
        brings = message.prev_log_index + len(message.entries) >= self._withheld[message.receiver]
        log = self.cluster[message.receiver].raw.state.log
        return brings and log.matches(message.prev_log_index, message.prev_log_term)

    def _nodes(self, node: str) -> list[NodeId]:
        return list(self.cluster.peers) if node == "any" else [int(node)]

    def _do_break_streams(self, count: str) -> None:
        self.cluster.broken_streams = int(count)

    def _do_heal(self) -> None:
        self._lost.clear()
        self._withheld.clear()
        self.cluster.heal()

    def _do_deliver(self, count: str = "1") -> None:
        for _ in range(int(count)):
            self.cluster.deliver(0)

    def _do_settle(self) -> None:
        self.cluster.settle()

    # Disks.

    def _do_crash(self, *nodes: str) -> None:
        self.cluster.crash(*map(int, nodes))

    def _do_restart(self, *nodes: str) -> None:
        self.cluster.restart(*map(int, nodes))
        self.cluster.settle()

    def _do_slow(self, *nodes: str) -> None:
        """Their writes complete only by ``persist``."""
        for node in map(int, nodes):
            self.cluster[node].write_through = False

    def _do_persist(self, node: str) -> None:
        """The oldest write of that disk completes."""
        peer = self.cluster[int(node)]
        self.cluster.steps.append(Wrote(peer.id, peer.pending[0]))
        peer.persist()
        self.cluster.settle()

    # Looking.

    def _do_show(self, *nodes: str) -> None:
        cluster = self.cluster
        for node in [int(node) for node in nodes] or list(cluster.peers):
            cluster.steps.append(Says(_shown(cluster[node])))

    def _do_progress(self, node: str) -> None:
        """How the leader sends to each."""
        for other in self.cluster[int(node)].raw.status().progress:
            if other.node != int(node):
                words = f"{other.node}: {other.state}, match {other.match_index}, next {other.next_index}"
                if other.inflight_messages:
                    words += f", {other.inflight_messages} in flight"
                if other.state == ProgressState.SNAPSHOT.value:
                    words += f", snapshot up to {other.pending_snapshot}"
                self.cluster.steps.append(Says(words))


def _shown(peer: Peer) -> str:
    if not peer.is_up:
        return f"{peer.id}: down"
    status = peer.raw.status()
    role = status.role if status.role is not Role.FOLLOWER else f"follower of {status.leader or 'nobody'}"
    terms = " ".join(map(str, peer.terms)) or "nothing"
    begins = f" from {status.first_index} on" if status.first_index > 1 else ""
    return f"{peer.id}: {role} in term {status.term}, commit {status.commit}, terms{begins}: {terms}"


def commands_of(text: str) -> Iterator[str]:
    """The lines of a scenario that are not what came of it."""
    return (line for line in text.splitlines() if not line.startswith(INDENT))


def transcript(text: str) -> str:
    """The scenario, with below each command what it leads to now."""
    interpreter = Interpreter()
    lines: list[str] = []
    for line in commands_of(text):
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [INDENT + said for said in interpreter.run(line)]
    return "\n".join(lines) + "\n"


def main(files: Sequence[str]) -> None:
    """Print the transcripts."""
    for file in files:
        print(transcript(Path(file).read_text(encoding="utf-8")), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
