"""What the whole cluster looks like from outside: every node is asked, and their answers are weighed.

What may live here: the choice of whose answer to show, and the diagnosis of why there is none. The leader's
linearizable answer wins over everything. Without one, nodes that agree on leader and term form groups; the
largest group speaks, by the node in it that has applied most: an isolated node's view never wins over the
majority's.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raftctl.client import errors, wire
from raftctl.client.channel import Router
from raftctl.client.models import NodeRow, Quorum, Status
from raftctl.client.nodes import Member, NodeInfo
from raftd.pb import admin_pb2 as admin
from raftd.pb import scheduler_pb2 as pb

NODE_ANSWERS_S = 1.0  # a node that says nothing about itself for so long is shown as one that does not answer


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster as far as it answers.

    Attributes:
        status: the best answer; labelled stale unless a leader gave it after asking a quorum.
        infos: what each node that answered says about itself, by name.
        silent: the names (or addresses) of those that did not answer.
        problem: why there is no linearizable answer, if one was asked for and did not come.
    """

    status: Status
    infos: Mapping[str, NodeInfo]
    silent: tuple[str, ...]
    problem: errors.ClientError | None

    @property
    def stale(self) -> bool:
        """Whether the status may be behind."""
        return self.status.read.stale

    @property
    def degraded(self) -> bool:
        """Whether anything is not as it should be: no leader, not all voters, a node lost or silent, a full disk."""
        return (
            self.stale
            or self.status.leader is None
            or not self.status.quorum.ok
            or self.status.quorum.up < self.status.quorum.voters
            or any(node.health != "up" for node in self.status.nodes)
            or any(info.disk_full for info in self.infos.values())
            or bool(self.silent)
        )


async def view_cluster(router: Router, timeout_s: float, recent_count: int, *, stale: bool) -> ClusterView:
    """Asks every node about itself and, unless `stale`, the leader about the cluster.

    Raises:
        NodeUnreachable: no node answers at all.
    """
    answer_s = min(timeout_s, NODE_ANSWERS_S)
    request = pb.StatusRequest(recent_count=recent_count)
    asking_infos = asyncio.create_task(node_infos(router, answer_s))
    problem: errors.ClientError | None = None
    chosen: Status | None = None
    try:
        if not stale:
            try:
                chosen = wire.status(await router.call(lambda s: s.scheduler.Status, request, timeout_s))
            except errors.Unavailable as error:
                problem = error
        infos, silent = await asking_infos
    finally:
        asking_infos.cancel()
    if chosen is None:
        chosen = choose(await _stale_statuses(router, answer_s, recent_count), infos)
        if chosen is None:
            raise nobody_answers(router)
    known = set(router.addresses)
    for row in chosen.nodes:
        if row.role != "worker":
            router.learn(row.name, row.address)
    if known != set(router.addresses):  # with --address one node is known, and that one knows the others
        infos, silent = await node_infos(router, answer_s)
    said, mute = await _ask_workers(router, chosen, answer_s)
    names = tuple(router.name_of(address) for address in silent)
    infos = {**infos, **said}
    return ClusterView(_with_infos(chosen, infos), infos, (*names, *mute), problem)


async def _ask_workers(
    router: Router, found: Status, timeout_s: float
) -> tuple[dict[str, NodeInfo], tuple[str, ...]]:
    """What the workers that are up say about themselves, and the names of those that say nothing. They are not learnt:
    of anything else a member must be asked."""

    async def one(row: NodeRow) -> NodeInfo | str:
        try:
            request = admin.NodeInfoRequest()
            return wire.node_info(
                await router.ask(row.address, lambda s: s.admin.NodeInfo, request, timeout_s)
            )
        except errors.Unavailable:
            return row.name

    workers = [row for row in found.nodes if row.role == "worker" and row.health == "up" and row.address]
    answers = await asyncio.gather(*map(one, workers))
    infos = {answer.name: answer for answer in answers if isinstance(answer, NodeInfo)}
    return infos, tuple(answer for answer in answers if isinstance(answer, str))


async def node_infos(router: Router, timeout_s: float) -> tuple[dict[str, NodeInfo], tuple[str, ...]]:
    """What every node says about itself, by name, and the addresses of those that say nothing."""

    async def one(address: str) -> NodeInfo | str:
        try:
            answer = await router.ask(address, lambda s: s.admin.NodeInfo, admin.NodeInfoRequest(), timeout_s)
        except errors.Unavailable:
            return address
        router.learn(answer.name, address)
        return wire.node_info(answer)

    answers = await asyncio.gather(*(one(address) for address in router.addresses))
    infos = {answer.name: answer for answer in answers if isinstance(answer, NodeInfo)}
    return infos, tuple(answer for answer in answers if isinstance(answer, str))


async def _stale_statuses(router: Router, timeout_s: float, recent_count: int) -> list[Status]:
    request = pb.StatusRequest(options=pb.ReadOptions(stale=True), recent_count=recent_count)

    async def one(address: str) -> Status | None:
        try:
            return wire.status(await router.ask(address, lambda s: s.scheduler.Status, request, timeout_s))
        except errors.Unavailable:
            return None

    answers = await asyncio.gather(*(one(address) for address in router.addresses))
    return [answer for answer in answers if answer is not None]


def choose(statuses: Iterable[Status], infos: Mapping[str, NodeInfo]) -> Status | None:
    """The answer to show when no leader gave one: from the largest group that agrees, the one that has applied most."""
    groups: dict[tuple[int, str | None], list[Status]] = defaultdict(list)
    for status in statuses:
        groups[status.read.term, status.read.leader].append(status)
    if not groups:
        return None

    def applied(status: Status) -> tuple[int, int]:
        return status.read.term, status.read.applied_index

    group = max(groups.values(), key=lambda group: (len(group), max(map(applied, group))))
    best = max(group, key=applied)
    leader = (
        best.leader if best.leader in infos else None
    )  # a leader that does not answer is remembered, not there
    voters = [node for node in best.nodes if node.role == "voter"]
    up = sum(1 for node in voters if node.name in infos)
    return replace(
        best,
        leader=leader,
        quorum=Quorum(len(voters), up, leader is not None and up > len(voters) // 2),
        read=replace(best.read, stale=True),
    )


def _with_infos(status: Status, infos: Mapping[str, NodeInfo]) -> Status:
    """Adds to each node what only the node itself knows: its pid, and its Raft role where the answer does not say."""

    def row(node: NodeRow) -> NodeRow:
        info = infos.get(node.name)
        if info is None:
            return replace(node, pid=None, raft_role="unknown")
        role = info.role
        if role == "leader" and node.name != status.leader:
            role = "unknown"  # it has not heard yet that it was voted out
        if node.name == status.leader:
            role = "leader"
        return replace(node, pid=info.pid or None, raft_role=role, incarnation=info.incarnation)

    return replace(status, nodes=tuple(row(node) for node in status.nodes))


# --- why there is no answer ------------------------------------------------------------------------------------------


def nobody_answers(router: Router) -> errors.NodeUnreachable:
    """What to say when every node refuses the connection."""
    asked = len(router.addresses)
    return errors.NodeUnreachable(
        f"no node answers ({asked} asked)" if asked != 1 else f"{router.addresses[0]} does not answer",
        "raftctl cluster start",
    )


async def explain(router: Router, failure: errors.Unavailable) -> errors.ClientError:
    """The same failure, with what asking around adds to it: how many voters are up and which one to start."""
    found = await _explained(router, failure)
    if not isinstance(failure, errors.OutcomeUnknown):
        return found
    if found is failure:
        return errors.OutcomeUnknown(failure.message)
    return errors.OutcomeUnknown(f"{found.message}; whether this was accepted is not known", found.try_)


async def _explained(router: Router, failure: errors.Unavailable) -> errors.ClientError:
    infos, silent = await node_infos(router, NODE_ANSWERS_S)
    if not infos:
        return nobody_answers(router)
    known = await members(router, NODE_ANSWERS_S)
    strangers = [one.address for one in known if one.voter and one.address not in router.addresses]
    if strangers and leading(infos.values()) is None:
        return _only_some_asked(failure, list(infos.values()), strangers)
    voters = [member.name for member in known if member.voter]
    voters = voters or [*infos, *(router.name_of(address) for address in silent)]
    down = [name for name in voters if name not in infos]
    up = len(voters) - len(down)
    if up <= len(voters) // 2:
        return errors.NoQuorum(
            f"no quorum: {up} of {len(voters)} voters are up", f"raftctl node start {down[0]}"
        )
    if any(info.role == "leader" for info in infos.values()) and not isinstance(failure, errors.NoQuorum):
        return failure
    full = [name for name in voters if name in infos and infos[name].disk_full]
    if up - len(full) <= len(voters) // 2:
        whose = (
            f"the disks of {', '.join(full)} are full" if len(full) > 1 else f"the disk of {full[0]} is full"
        )
        only = f": {up - len(full)} of {len(voters)} voters can write" if len(voters) > 1 else ""
        return errors.DiskFull(whose + only, "make room: the cluster goes on by itself then")
    cut = await _any_cuts(router)
    return errors.NoLeader(
        f"no leader: {up} of {len(voters)} voters are up, but no majority of them can agree",
        "raftctl heal" if cut else "raftctl raft status",
    )


def _only_some_asked(
    failure: errors.Unavailable, asked: Sequence[NodeInfo], strangers: Sequence[str]
) -> errors.ClientError:
    """With ``--address`` some voters were not asked: whether they are up, and whether one leads, is not known."""
    names = ", ".join(info.name for info in asked)
    only = f"only {'it was' if len(asked) == 1 else 'they were'} asked"
    if any(info.leader for info in asked):
        said = failure.message
    else:
        said = f"{names} {'knows' if len(asked) == 1 else 'know'} no leader"
    addresses = ",".join([*(info.address for info in asked), *strangers])
    return errors.NoLeader(f"{said}; {only}", f"--address {addresses}")


async def members(router: Router, timeout_s: float) -> tuple[Member, ...]:
    """The configuration, from the first node that answers; empty when none does."""
    try:
        answer = await router.call(lambda s: s.admin.Members, admin.MembersRequest(), timeout_s)
    except errors.Unavailable:
        return ()
    return wire.membership(answer, "", leads=False).members


def leading(infos: Iterable[NodeInfo]) -> NodeInfo | None:
    """The node that leads in the highest term: an older leader has not heard yet that it was voted out."""
    return max((info for info in infos if info.role == "leader"), key=lambda info: info.term, default=None)


async def _any_cuts(router: Router) -> bool:
    async def one(address: str) -> bool:
        try:
            answer = await router.ask(
                address, lambda s: s.admin.GetFaults, admin.GetFaultsRequest(), NODE_ANSWERS_S
            )
        except errors.ClientError:
            return False
        return bool(answer.cuts)

    return any(await asyncio.gather(*(one(address) for address in router.addresses)))
