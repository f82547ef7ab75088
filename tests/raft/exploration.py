"""Every history of a tiny cluster: the real cores, breadth first, each state once, the paper's promises in each.

A history is any order of: a node stands for election, the leader gets a proposal, any message that is on its way
arrives or (so many times) is lost, a node crashes (so many times), idle or in the middle of a step, before its disk
has anything of it. Messages overtake one another at will. What bounds it: terms, proposals, losses, crashes. There
are no ticks, so no heartbeats: they repeat what was lost, which is a matter of liveness.

States that differ only in the nodes' names are one (symmetry), and so are those that differ only in what no rule looks
at. For the whole bound: ``scripts/explore``.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, NamedTuple

from raftd.raft import invariants
from raftd.raft.messages import Message
from raftd.raft.raw_node import RawNode
from raftd.raft.types import Config, Configuration, HardState, NodeId, Role
from tests.raft.memory_log import MemoryLog

NODES = (1, 2, 3)
CONFIGURATION = Configuration(NODES)
NAMINGS = [dict(zip((0, *NODES), (0, *order), strict=True)) for order in permutations(NODES)]

Log = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Bound:
    """How far to go. ``states`` cuts off what is too much."""

    terms: int = 2
    proposals: int = 2
    losses: int = 1
    crashes: int = 1
    states: int = 3_000_000


class Violation(AssertionError):
    """A promise was broken."""


class State(NamedTuple):
    """All that the future depends on, and what the past has promised. Nodes and messages by their numbers."""

    nodes: tuple[int, ...]
    network: tuple[int, ...]
    proposals: int
    losses: int
    crashes: int
    leaders: tuple[tuple[int, NodeId], ...]
    """(term, who led it)."""
    committed: Log
    """The longest prefix that anybody has known to be committed."""


def _no_jitter(bound: int) -> int:
    return 0 * bound


def _fresh(node: NodeId, hard_state: HardState, log: MemoryLog) -> RawNode:
    config = Config(id=node, jitter=_no_jitter, pre_vote=False, check_quorum=False)
    return RawNode(config, CONFIGURATION, hard_state, log)


class Facts(NamedTuple):
    """What any rule could look at in one node."""

    id: NodeId
    term: int
    vote: NodeId
    role: Role
    leader: NodeId
    commit: int
    log: Log
    votes: tuple[tuple[NodeId, bool], ...]
    progress: tuple[tuple[NodeId, Any], ...]


def _facts(raw: RawNode) -> Facts:
    state = raw.state
    entries, _ = state.log.slice(1, state.log.last_index + 1, 10**9)
    progress = [
        (
            node,
            (
                p.state.value,
                p.match_index,
                p.next_index,
                p.probe_sent,
                p.sent_commit,
                tuple(p.inflights._window),
            ),
        )
        for node, p in state.tracker.progress.items()
    ]
    return Facts(
        state.id,
        state.term,
        state.vote,
        state.role,
        state.leader,
        state.log.commit,
        tuple((entry.term, entry.data) for entry in entries),
        tuple(sorted(state.tracker.votes.items())),
        tuple(sorted(progress)),
    )


def _renamed(facts: Facts, names: dict[NodeId, NodeId]) -> Facts:
    return facts._replace(
        id=names[facts.id],
        vote=names[facts.vote],
        leader=names[facts.leader],
        votes=tuple(sorted((names[node], vote) for node, vote in facts.votes)),
        progress=tuple(sorted((names[node], progress) for node, progress in facts.progress)),
    )


class Numbers:
    """Numbers for values, and what each is under every naming of the nodes."""

    def __init__(self, rename: Callable[[Any, dict[NodeId, NodeId]], Any]) -> None:
        self._rename = rename
        self._numbers: dict[Any, int] = {}
        self._renamed: dict[int, tuple[int, ...]] = {}
        self.values: list[Any] = []

    def of(self, value: Any) -> int:
        """The number of a value."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def under_each_naming(self, number: int) -> tuple[int, ...]:
        """Its number when the nodes are called otherwise, for each of `NAMINGS`."""
        if number not in self._renamed:
            value = self.values[number]
            self._renamed[number] = tuple(self.of(self._rename(value, names)) for names in NAMINGS)
        return self._renamed[number]


Step = tuple[int, tuple[int, ...]]
"""The node after it, and the messages that left."""


class Exploration:
    """The states so far, and the cores behind their numbers."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self._facts = Numbers(_renamed)
        self._messages = Numbers(
            lambda message, names: replace(
                message, sender=names[message.sender], receiver=names[message.receiver]
            )
        )
        self._cores: dict[int, bytes] = {}
        self._steps: dict[tuple[int, str, int], Step | None] = {}
        self.seen: set[int] = set()
        """Hashes: two states of a million share one with a probability of about one in thirty million."""
        self.transitions = 0
        self.depth = 0
        self.left_open = 0
        """States whose successors were not looked at, for the bound on states was reached."""

    def run(self) -> None:
        """Look at every state within the bound. Raises Violation."""
        start = State(
            tuple(self._keep(_fresh(node, HardState(), MemoryLog())) for node in NODES), (), 0, 0, 0, (), ()
        )
        self.seen.add(self._canonical(start))
        level = [start]
        while level:
            below: list[State] = []
            for position, state in enumerate(level):
                if len(self.seen) >= self.bound.states:
                    self.left_open = len(level) - position + len(below)
                    return
                below += self._new_successors(state)
            level = below
            self.depth += bool(level)

    def _new_successors(self, state: State) -> list[State]:
        new = []
        for successor in self._successors(state):
            self.transitions += 1
            canonical = self._canonical(successor)
            if canonical not in self.seen:
                self.seen.add(canonical)
                new.append(self._checked(successor))
        return new

    def _canonical(self, state: State) -> int:
        """A hash of the least of the state's names under all namings of the nodes."""
        nodes = [self._facts.under_each_naming(number) for number in state.nodes]
        network = [self._messages.under_each_naming(number) for number in state.network]
        least = min(
            (
                tuple(sorted(each[i] for each in nodes)),
                tuple(sorted(each[i] for each in network)),
                tuple((term, names[leader]) for term, leader in state.leaders),
                state.proposals,
                state.losses,
                state.crashes,
                state.committed,
            )
            for i, names in enumerate(NAMINGS)
        )
        return hash(least)

    # What may happen.

    def _successors(self, state: State) -> Iterator[State]:
        bound = self.bound
        for position, number in enumerate(state.nodes):
            facts: Facts = self._facts.values[number]
            if facts.role is not Role.LEADER and facts.term < bound.terms:
                yield from self._acts(state, position, "campaign", 0)
            if facts.role is Role.LEADER and state.proposals < bound.proposals:
                yield from self._acts(
                    state._replace(proposals=state.proposals + 1), position, "propose", state.proposals
                )
            if state.crashes < bound.crashes:
                yield from self._acts(state._replace(crashes=state.crashes + 1), position, "crash", 0)
        for at, message in enumerate(state.network):
            if at and state.network[at - 1] == message:
                continue  # a copy of it
            rest = state._replace(network=state.network[:at] + state.network[at + 1 :])
            if state.losses < bound.losses:
                yield rest._replace(losses=state.losses + 1)
            position = NODES.index(self._messages.values[message].receiver)
            yield from self._acts(rest, position, "step", message)
            if state.crashes < bound.crashes:
                broken = rest._replace(crashes=state.crashes + 1)
                yield from self._acts(broken, position, "step and crash", message)

    def _acts(self, state: State, position: int, kind: str, argument: int) -> Iterator[State]:
        before = state.nodes[position]
        step = (before, kind, argument)
        if step not in self._steps:
            self._steps[step] = self._act(before, kind, argument)
        outcome = self._steps[step]
        if outcome is None:
            return
        after, left = outcome
        nodes = (*state.nodes[:position], after, *state.nodes[position + 1 :])
        yield state._replace(nodes=nodes, network=tuple(sorted((*state.network, *left))))

    def _act(self, node: int, kind: str, argument: int) -> Step | None:
        raw = self._core(node)
        left: list[Message] = []
        match kind:
            case "campaign":
                raw.campaign()
            case "propose":
                raw.propose(b"%d" % argument)
            case "crash":
                return self._keep(_restarted(raw)), ()
            case "step":
                raw.step(self._messages.values[argument])
            case "step and crash":
                lost = self._core(node)
                lost.step(self._messages.values[argument])
                while lost.has_ready():
                    left += lost.ready().messages
                return self._keep(_restarted(raw)), tuple(map(self._messages.of, left))
        _work(raw, left)
        return self._keep(raw), tuple(map(self._messages.of, left))

    def _core(self, number: int) -> RawNode:
        raw: RawNode = pickle.loads(self._cores[number])
        return raw

    def _keep(self, raw: RawNode) -> int:
        invariants.check(raw)
        number = self._facts.of(_facts(raw))
        self._cores.setdefault(number, pickle.dumps(raw))
        return number

    # What must hold.

    def _checked(self, state: State) -> State:
        """The state with what it promises added. Raises Violation."""
        every: list[Facts] = [self._facts.values[number] for number in state.nodes]
        leaders, committed = dict(state.leaders), state.committed
        for facts in every:
            prefix = facts.log[: facts.commit]
            longer, shorter = sorted((prefix, committed), key=len, reverse=True)
            if longer[: len(shorter)] != shorter:
                raise Violation(f"StateMachineSafety: {prefix} and {committed} are both committed")
            committed = longer
        for facts in every:
            if facts.role is Role.LEADER:
                if leaders.setdefault(facts.term, facts.id) != facts.id:
                    raise Violation(f"OneLeaderPerTerm: {leaders[facts.term]} and {facts.id} in {facts.term}")
                old = tuple(entry for entry in committed if entry[0] < facts.term)
                if facts.log[: len(old)] != old:
                    raise Violation(f"LeaderComplete: {facts} lacks some of {old}")
        for one in every:
            for other in every:
                shared = min(len(one.log), len(other.log))
                same = [i for i in range(shared) if one.log[i][0] == other.log[i][0]]
                if same and one.log[: same[-1] + 1] != other.log[: same[-1] + 1]:
                    raise Violation(f"LogMatching: {one.log} and {other.log}")
        return state._replace(leaders=tuple(sorted(leaders.items())), committed=committed)


def _work(raw: RawNode, left: list[Message]) -> None:
    """All that a host with a fast disk does."""
    reader = raw.state.log._reader
    assert isinstance(reader, MemoryLog)
    while raw.has_ready():
        ready = raw.ready()
        left += ready.messages
        reader.write(ready.entries)
        left += ready.messages_after_persist
        raw.persisted(ready.number)
        if ready.committed_entries:
            raw.applied(ready.committed_entries[-1].index)


def _restarted(raw: RawNode) -> RawNode:
    """From the disk, where everything is but the commit, which alone is never synced."""
    reader = raw.state.log._reader
    assert isinstance(reader, MemoryLog)
    hard_state = HardState(raw.state.term, raw.state.vote, 0)
    return _fresh(raw.state.id, hard_state, MemoryLog(reader.held))


def main() -> None:
    """Explore and say how far that went."""
    parser = argparse.ArgumentParser(description="Explore every history of three cores within a bound.")
    for name, value in vars(Bound()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    exploration = Exploration(Bound(**vars(parser.parse_args())))
    began = time.monotonic()
    exploration.run()
    took = time.monotonic() - began
    end = f"cut off with {exploration.left_open} states open" if exploration.left_open else "exhausted"
    print(
        f"{exploration.bound}: {len(exploration.seen)} states, {exploration.transitions} transitions, "
        f"depth {exploration.depth}, {end}; {took:.0f} s"
    )


if __name__ == "__main__":
    main()
