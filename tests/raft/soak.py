"""Random faults on a cluster of real cores, from a seed, under the oracle; then calm, in which it must heal.

`soak(seed)` is one run, and the same seed is the same run. For a long one: ``python -m tests.raft.soak 0 10000``.
"""

import sys
from collections import Counter
from contextlib import suppress
from random import Random

from raftd.raft.messages import AppendEntries, Message
from raftd.raft.types import NodeId, ProposalDropped, Role
from tests.raft.cluster import Cluster
from tests.raft.peer import Peer

FAULTS = (
    "reorder",
    "drop",
    "duplicate",
    "replay",
    "crash",
    "cut",
    "isolate",
    "slow disk",
    "unreachable",
    "stall",
    "campaign",
    "slow apply",
)
REPLAY_COUNT = 50
NETWORK_LIMIT = 400
HEAL_PROBABILITY = 0.25
"""After each fault. Low, so that a cut outlasts some elections and both sides get somewhere."""


class Soak:
    """One run. A seed draws the size, the settings and a subset of the faults (swarm testing).

    ``busy`` lets the operator do much more, on small clusters: what is wrong in that shows sooner.
    """

    def __init__(self, seed: int, *, busy: bool = False) -> None:
        self.random = random = Random(seed)
        self.seed = seed
        self.busy = busy
        voters = random.choice((1, 2, 3) if busy else (1, 2, 3, 3, 3, 4, 5, 5, 5))
        learners = (voters + 1,) if random.random() < 0.25 else ()
        self.cluster = Cluster(
            voters,
            learners=learners,
            seed=seed,
            heartbeat_ticks=random.choice((1, 2, 3)),
            max_message_bytes=random.choice((1, 60, 200, 100_000)),
            max_inflight_messages=random.choice((1, 2, 3, 100)),
            max_inflight_bytes=random.choice((1, 100, 100_000)),
            max_uncommitted_bytes=random.choice((20, 1000)),
            max_committed_bytes_per_ready=random.choice((1, 100, 100_000)),
            pre_vote=random.random() < 0.7,
            check_quorum=(check_quorum := random.random() < 0.8),
            # No member ticks faster than the clock, so that the whole of what is promised may be counted on.
            lease_ms=random.choice((0, 10)) if check_quorum else 0,
        )
        self.spares = random.choice((1, 2, 3) if busy else (0, 0, 1, 2, 3))
        """Nodes that are not members at first. Where there are any, the membership changes now and then."""
        for node in range(self.spares):
            self.cluster.add(voters + len(learners) + 1 + node)
        self.compacts = random.random() < (0.9 if busy else 0.6)
        """Whether snapshots are taken and the log is compacted."""
        self.faults = {fault for fault in FAULTS if random.random() < 0.5}
        self.slow: set[NodeId] = set()
        """Disks that are, for a while, so slow that elections happen while their writes are under way."""
        self.old: list[Message] = []
        self.counter = 0
        self.happened: Counter[str] = Counter()

    def run(self, steps: int = 3000) -> None:
        """Faults, then calm."""
        for peer in self.cluster.peers.values():
            peer.write_through = False
        for _ in range(steps):
            self._step()
        self._calm()

    def _step(self) -> None:
        kind = self.random.choices(
            ("tick", "deliver", "work", "persist", "apply", "client", "operator", "fault"),
            (14, 40, 20, 20, 10, 8, 8 if self.busy else 2, 3 if self.busy else 1.5),
        )[0]
        {
            "tick": self._tick,
            "deliver": self._deliver,
            "work": self._work,
            "persist": self._persist,
            "apply": self._apply,
            "client": self._client,
            "operator": self._operator,
            "fault": self._fault,
        }[kind]()

    def _up(self) -> list[Peer]:
        return [peer for peer in self.cluster.peers.values() if peer.is_up]

    def _some_peer(self) -> Peer | None:
        up = self._up()
        return self.random.choice(up) if up else None

    def _tick(self) -> None:
        self.cluster.now_ms += 1
        for peer in self._up():
            if self.random.random() < 0.8:
                peer.raw.tick()

    def _deliver(self) -> None:
        network, random = self.cluster.network, self.random
        if self.cluster.streams and random.random() < 0.1:
            position = random.randrange(len(self.cluster.streams))
            breaks = random.random() < 0.3
            self.happened["stream broke"] += breaks
            self.cluster.end_stream(position, breaks=breaks)
        for _ in range(min(len(network), random.randrange(1, 8))):
            position = (
                random.randrange(len(network)) if "reorder" in self.faults and random.random() < 0.3 else 0
            )
            message = network[position]
            if len(self.old) < REPLAY_COUNT:
                self.old.append(message)
            else:
                self.old[random.randrange(REPLAY_COUNT)] = message
            if "drop" in self.faults and random.random() < 0.1:
                network.pop(position)
                continue
            if "duplicate" in self.faults and random.random() < 0.1:
                network.append(message)
            self._step_message(network.pop(position))
        del network[NETWORK_LIMIT:]

    def _step_message(self, message: Message) -> None:
        peer = self.cluster.peers[message.receiver]
        if peer.is_up and (message.sender, message.receiver) not in self.cluster.cuts:
            peer.raw.step(message)
            self.cluster.oracle.look(peer)
            if isinstance(message, AppendEntries) and not message.entries and not message.heartbeat:
                self.happened["empty append"] += 1

    def _work(self) -> None:
        for peer in self._up():
            if self.random.random() < 0.5 and peer.raw.has_ready():
                peer.take_ready()

    def _persist(self) -> None:
        for peer in self._up():
            patience = 0.02 if peer.id in self.slow else 0.5
            if peer.pending and self.random.random() < patience:
                for _ in range(self.random.randrange(1, len(peer.pending) + 1)):
                    peer.persist()

    def _client(self) -> None:
        leaders = self.cluster.leaders()
        if not leaders:
            return
        peer = self.cluster[self.random.choice(leaders)]
        self.counter += 1
        if self.random.random() < 0.3:
            peer.raw.read_index(self.counter)
            self.cluster.oracle.read_asked(peer, self.counter)
            return
        try:
            peer.raw.propose_batch([b"%d" % self.counter] * self.random.choice((1, 1, 3)))
        except ProposalDropped:
            self.happened["quota"] += 1

    def _apply(self) -> None:
        for peer in self._up():
            if not peer.apply_through and self.random.random() < 0.3:
                peer.apply(self.random.randrange(1, 4))
            if self.compacts and peer.has_more_than_its_snapshot() and self.random.random() < 0.1:
                peer.take_snapshot(keep=self.random.randrange(8))
                self.happened["compacted"] += 1

    def _operator(self) -> None:
        """Change the membership, or hand over the leadership, or try to."""
        leaders = self.cluster.leaders()
        if not leaders:
            return
        peer = self.cluster[self.random.choice(leaders)]
        if self.random.random() < 0.3:
            peer.raw.transfer_leadership(self.random.choice(peer.configuration.voters))
            return
        if not self.spares:
            return
        everybody = sorted(self.cluster.peers)
        nodes = self.random.sample(everybody, min(len(everybody), self.random.choice((1, 1, 1, 2, 3))))
        changes = [f"{self.random.choice('++~-')}{node}" for node in nodes]
        with suppress(ProposalDropped):
            proposed = peer.change(*changes)
            self.happened[
                "change" if peer.raw.state.pending_change == proposed.index else "change refused"
            ] += 1

    def _fault(self) -> None:
        if not self.faults:
            return
        kind = self.random.choice(sorted(self.faults))
        peer = self._some_peer()
        self.happened[kind] += 1
        match kind:
            case "crash":
                self._crash_or_restart()
            case "slow disk" if peer is not None:
                self.slow ^= {peer.id}
            case "slow apply" if peer is not None:
                peer.apply_through ^= True
            case "cut":
                nodes = sorted(self.cluster.peers)
                self.cluster.cut(self.random.choice(nodes), self.random.choice(nodes))
            case "isolate":
                leaders = self.cluster.leaders()
                nodes = leaders if leaders and self.random.random() < 0.7 else sorted(self.cluster.peers)
                self._isolate(self.random.choice(nodes))
            case "replay" if self.old:
                for message in self.random.sample(self.old, min(5, len(self.old))):
                    self._step_message(message)
            case "unreachable" if peer is not None:
                peer.raw.report_unreachable(self.random.choice(sorted(self.cluster.peers)))
            case "stall" if peer is not None:
                count = self.random.randrange(5, 25)
                self.cluster.now_ms += count
                for _ in range(count):
                    peer.raw.tick()
            case "campaign" if peer is not None:
                peer.raw.campaign()
        if self.random.random() < HEAL_PROBABILITY:
            self.cluster.heal()

    def _isolate(self, node: NodeId) -> None:
        """Cut it off; a leader goes on appending what will have to be taken back, and may not get it to its disk."""
        self.cluster.isolate(node)
        peer = self.cluster[node]
        if "slow disk" in self.faults and self.random.random() < 0.5:
            self.slow.add(node)
        for _ in range(self.random.randrange(1, 4)):
            if peer.is_up and peer.role is Role.LEADER:
                with suppress(ProposalDropped):
                    peer.raw.propose_batch([b"lost"] * self.random.randrange(1, 4))
                peer.take_ready()

    def _crash_or_restart(self) -> None:
        down = [node for node, peer in self.cluster.peers.items() if not peer.is_up]
        if down and self.random.random() < 0.6:
            self.cluster.restart(self.random.choice(down))
            return
        up = self._up()
        victims = up if self.random.random() < 0.1 else self.random.sample(up, min(len(up), 1))
        for peer in victims:
            # The disk had some of what was queued, and perhaps told nobody.
            written = self.random.randrange(len(peer.pending) + 1)
            for ready in list(peer.pending)[:written]:
                peer.disk.write(ready, peer.received)
            if written < len(peer.pending) and self.random.random() < 0.5:
                self.happened["torn write"] += bool(peer.pending[written].entries)
                peer.disk.tear(peer.pending[written], peer.received)
            peer.crash(keep_unsynced=self.random.random() < 0.5)

    def _calm(self) -> None:
        """HealsInTime: a leader within ten election timeouts, and then everybody agrees."""
        cluster = self.cluster
        cluster.heal()
        for peer in cluster.peers.values():
            peer.write_through = peer.apply_through = True
            if not peer.is_up:
                cluster.restart(peer.id)
        cluster.settle()
        for _ in range(10 * 10):
            cluster.tick()
            self._stop_strangers()
            if self._is_healed():
                break
        assert self._is_healed(), f"seed {self.seed} does not heal: {cluster}"
        leader: NodeId = cluster.leaders()[0]
        cluster.propose(leader, b"after")
        cluster.read(leader, b"after")
        cluster.tick(2 * 3)
        assert self._is_healed(), f"seed {self.seed}: {cluster}"
        members = cluster[leader].configuration.members()
        assert all(cluster[node].applied[-1].data == b"after" for node in members)
        assert b"after" in cluster[leader].reads

    def _is_healed(self) -> bool:
        """One leads, its members agree with it, and neither a change nor a transfer is unfinished."""
        leaders = self.cluster.leaders()
        if len(leaders) != 1:
            return False
        leader = self.cluster[leaders[0]]
        configuration = leader.configuration
        if configuration.outgoing or leader.raw.state.transfer_target:
            return False
        return self.cluster.logs_agree(configuration.members())

    def _stop_strangers(self) -> None:
        """Without pre-votes and leases nothing but their operator keeps removed nodes from disturbing the others."""
        settings = self.cluster.settings
        if settings["pre_vote"] and settings["check_quorum"]:
            return
        for leader in self.cluster.leaders()[-1:]:
            members = self.cluster[leader].configuration.members()
            for node, peer in self.cluster.peers.items():
                if node not in members:
                    peer.crash()
                elif not peer.is_up:  # stopped as a stranger, and then a change went through
                    self.cluster.restart(node)


def soak(seed: int, steps: int = 3000, *, busy: bool = False) -> Counter[str]:
    """One run from the seed; answers how often the rare things happened."""
    run = Soak(seed, busy=busy)
    try:
        run.run(steps)
    except Exception as error:
        error.add_note(f"seed {seed}, steps {steps}, faults {sorted(run.faults)}, {run.cluster}")
        raise
    run.happened.update(run.cluster.oracle.seen)
    return run.happened


if __name__ == "__main__":
    total: Counter[str] = Counter()
    for each in range(int(sys.argv[1]), int(sys.argv[2])):
        total += soak(each, *map(int, sys.argv[3:]))
    print(dict(total))
