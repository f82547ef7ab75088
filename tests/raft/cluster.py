"""A whole cluster in one thread: peers, a network that delivers when told to, and one-way cuts.

Used by scenarios in its orderly form (`settle` delivers everything in order) and by `soak` with its faults.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from random import Random
from typing import Any

from raftd.raft.messages import InstallSnapshot, Message
from raftd.raft.types import Configuration, Entry, HardState, NodeId, Proposed, ReadContext, Role
from tests.raft.oracle import Oracle
from tests.raft.peer import Peer

SETTLE_LIMIT = 100_000


class Cluster:
    """Voters 1..n (and learners), each with its own jitter; the oracle watches every message and Ready."""

    def __init__(
        self,
        voters: int = 3,
        *,
        learners: Iterable[NodeId] = (),
        logs: Mapping[NodeId, Iterable[Entry]] | None = None,
        hard_states: Mapping[NodeId, HardState] | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        self.founded = configuration = Configuration(tuple(range(1, voters + 1)), tuple(learners))
        self.seed = seed
        self.now_ms = 0
        """A clock for leases: a tick of everybody is a millisecond."""
        self.settings = {"clock_ms": lambda: self.now_ms, **settings}
        self.network: list[Message] = []
        self.streams: list[tuple[InstallSnapshot, tuple[Entry, ...]]] = []
        """Snapshots on their way, each with its bytes."""
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.is_lost: Callable[[Message], bool] = lambda message: False
        self.peers: dict[NodeId, Peer] = {}
        self.oracle = Oracle(self.peers)
        for node in configuration.members():
            self.add(node, (logs or {}).get(node, ()), (hard_states or {}).get(node))

    def add(self, node: NodeId, log: Iterable[Entry] = (), hard_state: HardState | None = None) -> Peer:
        """Start a node; one that is not a member waits to be made one."""
        seed = self.seed
        # Without a seed node n times out after ET + n - 1 ticks: 1 first, and no two together.
        jitter = (lambda n: (node - 1) % n) if seed is None else Random(f"{seed}/{node}").randrange
        peer = Peer(node, self.founded, log=log, hard_state=hard_state, jitter=jitter, **self.settings)
        peer.on_ready = self.oracle.on_ready
        peer.on_apply = self.oracle.on_apply
        peer.on_restored = self.oracle.on_restored
        peer.on_changed = self.oracle.on_changed
        peer.on_moved = self.oracle.look
        peer.on_transition = self.oracle.on_transition
        peer.on_message = self._send
        self.peers[node] = peer
        self.oracle.started(peer)
        return peer

    def __getitem__(self, node: NodeId) -> Peer:
        return self.peers[node]

    def _send(self, peer: Peer, message: Message) -> None:
        self.oracle.on_message(peer, message)
        if isinstance(message, InstallSnapshot):
            if message.snapshot == peer.disk.snapshot:
                self.streams.append((message, peer.disk.content))
            else:  # a newer one has taken its place
                peer.raw.report_snapshot(message.receiver, False)
        else:
            self.network.append(message)

    # What happens to it.

    def elect(self, node: NodeId) -> "Cluster":
        """The node campaigns and wins; everything settles."""
        self[node].campaign()
        self.settle()
        assert self[node].role is Role.LEADER, f"{node} was not elected: {self}"
        return self

    def tick(self, count: int = 1, only: Iterable[NodeId] | None = None) -> None:
        """Tick (all, or only these), everything settling after each tick."""
        for _ in range(count):
            self.now_ms += 1
            for node in self.peers if only is None else only:
                if self[node].is_up:
                    self[node].tick()
            self.settle()

    def settle(self) -> None:
        """Deliver and persist until nothing moves."""
        for peer in self._up():
            peer.work()
        for _ in range(SETTLE_LIMIT):
            if self.network:
                self.deliver(0)
            elif self.streams:
                self.end_stream(0)
                for peer in self._up():
                    peer.work()
            else:
                for peer in self._up():
                    self.oracle.look(peer)
                return
        raise AssertionError(f"messages without end: {self.network[:10]}")

    def deliver(self, position: int) -> None:
        """One message arrives, unless it is lost."""
        message = self.network.pop(position)
        if not self._is_unreachable(message):
            self[message.receiver].step(message)

    def end_stream(self, position: int, *, breaks: bool = False) -> None:
        """A snapshot arrives, unless its stream breaks; its sender is told which."""
        message, content = self.streams.pop(position)
        sender, receiver = self[message.sender], self[message.receiver]
        arrives = not (breaks or self._is_unreachable(message) or not sender.is_up)
        if arrives:
            receiver.receive(message, content)
        if sender.is_up:
            sender.raw.report_snapshot(message.receiver, arrives)

    def _is_unreachable(self, message: Message) -> bool:
        peer = self.peers.get(message.receiver)
        cut = (message.sender, message.receiver) in self.cuts
        return peer is None or not peer.is_up or cut or self.is_lost(message)

    def propose(self, node: NodeId, *datas: bytes) -> None:
        self[node].propose(*datas)
        self.settle()

    def change(self, node: NodeId, *changes: str) -> Proposed:
        """The node proposes a change of the membership ("+4", "~4", "-1"); everything settles."""
        proposed = self[node].change(*changes)
        self.settle()
        return proposed

    def read(self, node: NodeId, context: ReadContext) -> None:
        """Ask for a read; the oracle checks that its answer covers everything committed by now."""
        self[node].raw.read_index(context)
        self.oracle.read_asked(self[node], context)
        self.settle()

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing arrives any more in this direction."""
        self.cuts.add((sender, receiver))

    def isolate(self, *nodes: NodeId) -> None:
        """Cut these off from the others, both ways."""
        for inside in nodes:
            for outside in self.peers.keys() - set(nodes):
                self.cut(inside, outside)
                self.cut(outside, inside)

    def heal(self) -> None:
        self.cuts.clear()
        self.is_lost = lambda message: False

    def crash(self, *nodes: NodeId) -> None:
        for node in nodes:
            self[node].crash()

    def restart(self, *nodes: NodeId) -> None:
        for node in nodes:
            self[node].start()
            self.oracle.started(self[node])

    # What can be seen.

    def _up(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.is_up]

    def leaders(self) -> list[NodeId]:
        """Who believes to lead, lowest term first."""
        leaders = [peer for peer in self._up() if peer.role is Role.LEADER]
        return [peer.id for peer in sorted(leaders, key=lambda peer: peer.term)]

    def terms(self) -> dict[NodeId, int]:
        return {node: peer.term for node, peer in self.peers.items()}

    def logs_agree(self, nodes: Iterable[NodeId] | None = None) -> bool:
        """Whether everyone up (or each of these) has the same log, all of it committed."""
        peers = self._up() if nodes is None else [self[node] for node in nodes]
        logs = [peer.raw.state.log for peer in peers]
        # Equal ends mean equal logs: the oracle holds them to that.
        ends = {(log.last_index, log.last_term) for log in logs}
        return len(ends) == 1 and all(log.commit == log.last_index for log in logs)

    def __repr__(self) -> str:
        return "; ".join(
            f"{peer.id}{'' if peer.is_up else ' (down)'} {peer.role} t{peer.term} commit {peer.commit} of "
            f"{_in_runs(peer.terms)} {peer.configuration}"
            for peer in self.peers.values()
        )


def _in_runs(terms: Iterable[int]) -> str:
    """[1x20, 2, 5x3]: what a log of these terms is easily read as."""
    runs = [(term, len(list(run))) for term, run in groupby(terms)]
    return "[" + ", ".join(f"{term}x{count}" if count > 1 else str(term) for term, count in runs) + "]"
