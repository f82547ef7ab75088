"""A member of the cluster: it holds the log, and executes.

What may live here: construction, start and stop, in order. No decision of the node's is taken here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack

from raftd.config import Config, lease_ms
from raftd.errors import ConfigError, UnknownKind
from raftd.executor.kernel import boottime_ms
from raftd.node.applier import Applier
from raftd.node.boot import Start, start_of
from raftd.node.bulletin import Bulletin
from raftd.node.clock import ClusterClock, SystemClock
from raftd.node.facts import Facts
from raftd.node.history import History
from raftd.node.leaders import Leaders
from raftd.node.leadership import Leadership
from raftd.node.members import Members, MemberView
from raftd.node.membership import Membership
from raftd.node.node import Node
from raftd.node.results import Directory, ResultBlobs
from raftd.node.roster import Roster
from raftd.node.sessions import Sessions
from raftd.node.snapshots import Policy, Snapshots
from raftd.node.trace import TraceWriter
from raftd.raft.raw_node import RawNode
from raftd.raft.types import Config as RaftConfig
from raftd.raft.types import NodeId
from raftd.scheduler.machine import StateMachine
from raftd.scheduler.state import State
from raftd.services.admin import AdminService
from raftd.services.blobs import BlobsService
from raftd.services.cluster_view import ClusterView
from raftd.services.consensus import ConsensusService
from raftd.services.forwarding import Forwarder
from raftd.services.logs import LogsReader
from raftd.services.operations import Operations
from raftd.services.scheduler import SchedulerService
from raftd.services.server import ServerHost, Services
from raftd.storage.directory import DataDirectory
from raftd.storage.log_store import LogStore
from raftd.storage.thread import StorageThread
from raftd.transport.base import RemoteNode
from raftd.transport.greeting import Greeting
from raftd.transport.network import Network
from raftd.transport.reads import PeerReads
from raftd.transport.snapshot_stream import SnapshotSender
from raftd.wiring.parts import SERVER_GRACE_S, Fatal, Parts

log = logging.getLogger(__name__)

HAND_OVER_S = 2.0
"""For another to take over before this node stops; the core gives up after an election timeout."""

STORAGE_CLOSE_S = 10.0
"""For a disk that does not answer: what waits for it was never acknowledged."""

ASK_WHO_KNOWS_S = 0.2
"""How often a node that was removed goes to the others, to be refused by those that know it."""

APPLY_BYTES_PER_TURN = 256 * 1024
"""Committed entries are applied in portions of this size, so that a long replay does not starve heartbeats."""

DISK_STALL_MS = 2_000
"""A leader whose own append has been with its disk for so long steps down. A busy machine stalls a healthy disk for a
few hundred milliseconds; an election would not make it faster."""


class Server:
    """A whole node. ``start`` and ``stop``, once each, on one event loop.

    Args:
        config: its settings.
        directory: its open data directory; closed by ``stop``.
        fatal: what to do when it cannot go on.

    Raises:
        ConfigError: the token or the trace file cannot be opened, or the port is in use.
        StorageError: the snapshot cannot be read.
        UnknownFormat: what the directory holds is of a newer version.
    """

    def __init__(self, config: Config, directory: DataDirectory, fatal: Fatal) -> None:
        self._config = config
        self._directory = directory
        self._fatal = fatal
        identity = directory.identity
        self._start = start = start_of(directory)
        self._started = AsyncExitStack()
        self._handing_over = True
        self._parts = parts = Parts(config, directory, fatal)
        self._local = parts.local
        self._clock = SystemClock()
        self._cluster_clock = ClusterClock(self._clock)
        self._network = Network(self._local, directory.incarnation, parts.faults)
        self._machine = StateMachine(start.state)
        self._members = Members(self._state)
        self._trace = self._make_trace()
        applier = Applier(self._machine, self._cluster_clock, start.applied)
        view = _log_in_memory(directory, config.kept_entries)
        self._storage = StorageThread(directory.log, self._on_durable, fatal, on_full=self._on_full)
        self.node = Node(
            raw=self._core(view, start),
            storage=self._storage,
            view=view,
            peers=self._network,
            applier=applier,
            clock=self._clock,
            cluster_clock=self._cluster_clock,
            tick_ms=config.tick_ms,
            on_fatal=fatal,
            leader_reads=PeerReads(parts.caller, self._remote),
        )
        self.snapshots = Snapshots(
            directory.snapshots,
            SnapshotSender(parts.caller, directory.incarnation, self._remote),
            applier,
            self.node,
            Policy(config.snapshot_entries, config.snapshot_log_bytes, config.kept_entries),
        )
        self._network.on_unreachable = self.node.unreachable
        self.membership = Membership(self.node, self._members, Greeting(parts.caller).greet)
        self._roster = Roster(
            identity.name,
            identity.store_id,
            lambda: directory.incarnation,
            self._state,
            self._members,
            self._set_peers,
            parts.halt,
        )
        self._network.on_refused = self._roster.refused
        applier.on_effects(self._roster.on_effects)
        applier.on_restored(self._roster.on_restored)
        self._bulletin = Bulletin(self.node, self._members)
        applier.on_effects(self._bulletin.on_effects)
        applier.on_restored(self._bulletin.on_restored)
        self._leadership = Leadership(applier, self._clock, self._cluster_clock)
        self._sessions = Sessions(
            identity.cluster_id, identity.name, self.node, self._leadership, self._state, self._clock
        )
        self._leadership.bind(self._sessions)
        self._history = History()
        applier.on_effects(self._history.on_effects)
        applier.on_restored(lambda: self._history.restart(applier.last_applied))
        if start.applied[0]:
            self._history.restart(start.applied[0])
        self._make_executor()
        self._host = ServerHost(config.listen, self._local, parts.faults, self.node, self._services())

    async def start(self) -> None:
        """Serve, follow or lead, and execute. What was started is stopped again if a later part cannot be."""
        async with AsyncExitStack() as started:
            started.callback(self._directory.close)
            if self._trace is not None:
                started.callback(self._trace.close)
            started.push_async_callback(asyncio.to_thread, self._storage.close, STORAGE_CLOSE_S)
            self._storage.start()
            started.push_async_callback(self._parts.caller.close)
            started.push_async_callback(self._network.close)
            await self._set_peers(self._start.members)
            started.push_async_callback(self.node.stop)
            started.push_async_callback(self.snapshots.close)
            self.node.start(self._leadership, self.snapshots)
            knocking = self._network.knock_while(lambda: not self.node.leader)
            works = (self._roster.run(), self.membership.run(), self._bulletin.run(), knocking)
            for work in (*works, self._ask_who_knows()):
                self._parts.watch(asyncio.create_task(work), started)
            started.push_async_callback(self._host.stop, SERVER_GRACE_S)
            await self._host.start()
            started.push_async_callback(self._hand_over)
            started.push_async_callback(self._executor.stop, self._config.stop_grace_ms)
            await self._executor.start()
            self._started = started.pop_all()
        log.info(
            "%s (store %016x of cluster %016x, incarnation %d) serves on %s",
            self._local.name,
            self._local.store_id,
            self._local.cluster_id,
            self._directory.incarnation,
            self._config.listen,
        )

    async def removed(self) -> None:
        """Return when this node was removed from the cluster, and the others know it.

        Raises StoreRemoved: it had been, before it started or while it could not hear of it.
        """
        await self._roster.removed(self._directory.recovered.hard_state.commit)

    async def _ask_who_knows(self) -> None:
        await self._roster.told_to_go()
        await self._network.knock_while(lambda: True, ASK_WHO_KNOWS_S)

    async def stop(self, *, hand_over: bool = True) -> None:
        """Stop what runs, report what can be reported, flush, and let the data directory go; bounded in time.

        Args:
            hand_over: where this node leads, have another take over first.
        """
        self._handing_over = hand_over
        # In the opposite order of the start, and each part also when another has failed to stop.
        await self._started.aclose()
        log.info("%s has stopped", self._local.name)

    # --- construction -------------------------------------------------------------------------------------------

    @property
    def slots_ready(self) -> bool:
        """Every slot process is warm, and the executor is attached to a leader."""
        return self._parts.is_ready(self._executor)

    async def _hand_over(self) -> None:
        # After the executor has stopped: what it ran is recorded while this node still leads.
        if self._handing_over:
            await self.membership.hand_over(HAND_OVER_S)

    async def _set_peers(self, members: Sequence[MemberView]) -> None:
        await self._network.set_members(
            RemoteNode(member.name, member.store_id, member.address) for member in members
        )
        self.node.members_changed()

    def _on_durable(self, number: int) -> None:
        self.node.durable(number)  # the node is made after the thread that reports to it

    def _on_full(self, full: bool) -> None:
        self.node.storage_full(full)

    def _state(self) -> State:
        return self._machine.state

    def _name_of(self, store_id: int) -> str:
        """The name of a store; before anything is applied, as this directory has it."""
        known = {member.store_id: member.name for member in self._start.members}
        known[self._local.store_id] = self._local.name
        return self._members.name(store_id) or known.get(store_id, "")

    def _make_trace(self) -> TraceWriter | None:
        if self._config.trace is None:
            return None
        try:
            return TraceWriter(self._config.trace, self._name_of, self._clock)
        except OSError as error:
            raise ConfigError(f"cannot write the trace {self._config.trace}: {error.strerror}") from None

    def _core(self, view: LogStore, start: Start) -> RawNode:
        config = self._config
        return RawNode(
            RaftConfig(
                id=self._local.store_id,
                jitter=random.SystemRandom().randrange,
                election_ticks=config.election_ticks,
                heartbeat_ticks=config.heartbeat_ticks,
                disk_stall_ticks=max(1, DISK_STALL_MS // config.tick_ms),
                max_committed_bytes_per_ready=APPLY_BYTES_PER_TURN,
                lease_ms=lease_ms(config) if config.lease_reads else 0,
                clock_ms=boottime_ms,
            ),
            start.configuration,
            self._directory.recovered.hard_state,
            view,
            applied=start.applied[0],
            on_transition=self._trace,
            snapshot=start.snapshot,
        )

    def _make_executor(self) -> None:
        parts = self._parts
        self._blob_directory = Directory(self._state, self._members)
        peers = parts.peer_blobs(self._remote_by_name)
        self._replicator = parts.replicator(peers, self._blob_directory)
        self._fetcher = parts.fetcher(peers, self._blob_directory)
        self._forwarder = Forwarder(self.node, self._remote, parts.caller)
        self._blobs_service = BlobsService(
            local=self._local,
            blobs=parts.blobs,
            replicator=self._replicator,
            fetcher=self._fetcher,
            directory=self._blob_directory,
            node=self.node,
            forwarder=self._forwarder,
        )
        results = ResultBlobs(
            parts.blobs, self._replicator, self._fetcher, self._blob_directory, self._blobs_service
        )
        self._executor = parts.executor("voter", Leaders(self.node, self._members), results, results)

    def _services(self) -> Services:
        parts = self._parts
        forwarder = self._forwarder
        facts = Facts(
            self.node,
            self._storage,
            self._directory.snapshots,
            self._state,
            self._members,
            self._roster,
            lambda: self.slots_ready,
        )
        view = ClusterView(
            self._local.name,
            self._state,
            self.node,
            self._members,
            self._sessions,
            self._cluster_clock,
            patience_ms=2 * self._config.election_ticks * self._config.tick_ms,
        )
        logs = LogsReader(
            self._local.name, self.node, self._state, self._members, self._executor.open_logs, parts.caller
        )
        return Services(
            scheduler=SchedulerService(
                node=self.node,
                state=self._state,
                sessions=self._sessions,
                history=self._history,
                view=view,
                forwarder=forwarder,
                logs=logs,
                check=self._check_arguments,
                faults=parts.faults,
                clock=self._clock,
                leader_name=lambda: self._members.name(self.node.leader),
            ),
            admin=AdminService(
                local=self._local,
                incarnation=self._directory.incarnation,
                address=self._config.address,
                started_at_ms=parts.started_at_ms,
                members=self._members,
                bulletin=self._bulletin,
                facts=facts,
                faults=parts.faults,
                control=self.membership,
                snapshots=self.snapshots,
                operations=Operations(self.node, self._state, self._cluster_clock),
                forwarder=forwarder,
            ),
            consensus=ConsensusService(
                local=self._local,
                stores=facts,
                faults=parts.faults,
                deliver=self.node.deliver,
                learn=self._network.learn,
                snapshots=self.snapshots,
                reads=self.node,
            ),
            blobs=self._blobs_service,
            stores=facts,
        )

    def _remote(self, store_id: NodeId) -> RemoteNode | None:
        if store_id == self._local.store_id:
            return None
        member = self._members.by_store_id(store_id)
        if member is None:
            # A node that joins, or is behind, knows the leader only by what that has said.
            return self._network.remote(store_id)
        return RemoteNode(member.name, member.store_id, member.address)

    def _remote_by_name(self, name: str) -> RemoteNode | None:
        member = self._members.by_name(name)
        return None if member is None else self._remote(member.store_id)

    def _check_arguments(self, kind: str, args: tuple[str, ...]) -> None:
        try:
            self._parts.registry.check(kind, args)
        except UnknownKind:
            # Other nodes may offer it; the state machine knows every kind that was ever offered.
            if kind in self._parts.registry.broken and kind not in self._state().kinds:
                raise


def _log_in_memory(directory: DataDirectory, kept_entries: int) -> LogStore:
    """The log as the core reads it, without what segments still hold that were not purged as a whole."""
    recovered, snapshot = directory.recovered, directory.snapshots.newest
    view = LogStore(recovered.entries, base_index=recovered.base_index, base_term=recovered.base_term)
    if snapshot is not None and snapshot.index - kept_entries >= view.first_index:
        view.compact(snapshot.index - kept_entries)
    return view
