"""What is done to the cluster: nodes killed, paused, restarted, cut off one way and both ways, by chance.

What may live here: the faults, and how each is undone. Every fault is in the history with the nodes that may lose
their lease by it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from raftctl.cluster import faults
from raftctl.cluster.faults import FaultChange
from raftctl.cluster.process import ProcessState, send_signal, state_of
from tests.e2e.conftest import Cluster
from tests.e2e.workload.history import FAULT, History

NODES = ("n1", "n2", "n3", "n4", "n5")
HOLDS_S = ((0.3, 3.0), (0.3, 3.0), (5.0, 9.0))
"""Some are over before anybody notices, some outlive a lease."""
CALM_S = (0.5, 3.0)
LEADER_CHANCE = 0.5
"""Random nodes lead too seldom."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        words: for people.
        touched: nodes that may lose what they run by it.
        undo: as long as it lasts, it can be undone.
    """

    words: str
    touched: tuple[str, ...]
    undo: Callable[[], None]


class Nemesis:
    """Does one thing after the other to a cluster of five, and undoes each before the next; two at once now and then.

    Args:
        history: where the faults are noted.
        leader: who leads; empty where nobody knows.
        tell: has a node change its cuts.
        stopping: ends it after the fault of the moment.
    """

    def __init__(
        self,
        cluster: Cluster,
        seed: int,
        history: History,
        leader: Callable[[], str],
        tell: Callable[[str, FaultChange], None],
        stopping: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._leader = leader
        self._tell = tell
        self._random = Random(f"{seed}/nemesis")
        self._history = history
        self._stopping = stopping
        self._faults: tuple[Callable[[str, str], Fault], ...] = (
            self._kill, self._kill, self._kill_three, self._pause, self._pause, self._restart,
            self._cut_one_way, self._cut_one_way, self._isolate, self._isolate, self._part,
        )  # fmt: skip
        self._next: list[Callable[[str, str], Fault]] = []

    def run(self) -> None:
        """Goes on until it is stopped; then everything is undone, and every node up."""
        try:
            while not self._stopping.wait(self._random.uniform(*CALM_S)):
                self._strike()
        finally:
            self._heal()

    def _strike(self) -> None:
        random = self._random
        anybody = random.choice(NODES)
        victim = (self._leader() or anybody) if random.random() < LEADER_CHANCE else anybody
        other = random.choice([node for node in NODES if node != victim])
        invoked_ns = time.monotonic_ns()
        if not self._next:  # every kind has its turn before one comes again
            self._next = random.sample(self._faults, len(self._faults))
        struck = [self._next.pop()(victim, other)]
        if random.random() < 0.3:
            self._stopping.wait(random.uniform(0.0, 2.0))
            # Of another kind and another node: a node that is down cannot be paused.
            second = random.choice((self._cut_one_way, self._isolate))
            struck.append(second(other, victim))
        self._stopping.wait(random.uniform(*random.choice(HOLDS_S)))
        for fault in reversed(struck):
            fault.undo()
        for fault in struck:
            self._history.note(
                "nemesis", FAULT, fault.words, invoked_ns, asked={"touched": fault.touched}, answer={}
            )

    # --- faults -------------------------------------------------------------------------------------------------------

    def _kill(self, victim: str, _: str) -> Fault:
        self._signal(signal.SIGKILL, victim)
        return Fault(f"kill {victim}", (victim,), lambda: self._start(victim))

    def _kill_three(self, victim: str, other: str) -> Fault:
        """Nobody can write; and nobody's lease is renewed."""
        third = next(node for node in NODES if node not in (victim, other))
        self._signal(signal.SIGKILL, victim, other, third)
        return Fault(f"kill {victim} {other} {third}", NODES, lambda: self._start(victim, other, third))

    def _restart(self, victim: str, _: str) -> Fault:
        self._cluster.run("node", "stop", victim)
        return Fault(f"stop {victim}", (victim,), lambda: self._start(victim))

    def _pause(self, victim: str, _: str) -> Fault:
        self._signal(signal.SIGSTOP, victim)
        return Fault(f"pause {victim}", (victim,), lambda: self._signal(signal.SIGCONT, victim))

    def _cut_one_way(self, victim: str, other: str) -> Fault:
        sender, receiver = self._random.sample((victim, other), 2)
        return self._cut(f"cut {sender} -> {receiver}", (sender, receiver), faults.cut(sender, receiver))

    def _isolate(self, victim: str, _: str) -> Fault:
        return self._cut(f"isolate {victim}", (victim,), faults.isolate([victim], NODES))

    def _part(self, victim: str, other: str) -> Fault:
        few = (victim, other)
        return self._cut(f"part {victim} {other} from the rest", few, faults.partition([few], NODES))

    def _cut(self, words: str, touched: tuple[str, ...], change: FaultChange) -> Fault:
        self._tell_all(change)
        return Fault(words, touched, lambda: self._tell_all(FaultChange(heal=True)))

    # --- undoing ------------------------------------------------------------------------------------------------------

    def _start(self, *names: str) -> None:
        self._do("node", "start", *names)

    def _tell_all(self, change: FaultChange) -> None:
        """Whoever is up: a cut holds as soon as one of the two knows it, and is undone before anything else is."""
        for name in NODES:
            process = self._cluster.process(name)
            if process is not None and state_of(process) is ProcessState.RUNNING:
                self._tell(name, change.of_node(name))

    def _signal(self, number: int, *names: str) -> None:
        """Without a command line: at once, and while the machine is busy."""
        for name in names:
            process = self._cluster.process(name)
            assert process is not None, f"{name} ended by itself"
            assert send_signal(process, number), f"{name} ended by itself"

    def _do(self, *words: str) -> None:
        self._cluster.run(*words)

    def _heal(self) -> None:
        paused = [name for name, node in self._cluster.nodes().items() if node["process"] == "paused"]
        if paused:
            self._do("node", "resume", *paused)
        self._do("heal")
        self._do("cluster", "start")
