"""Nodes that come and go: ``raftctl node add``, ``replace``, ``promote`` and ``remove``.

What may live here: the order of what the cluster is asked for and what is done on this machine, and what is undone when
a step fails. Every command converges: again after an interruption it does what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raftctl.cluster import control, joining
from raftctl.cluster.layout import NodeRecord
from raftctl.cluster.readiness import ClusterView, look, wait_for
from raftctl.commands.local import LocalCluster, local_cluster, progress, showing_logs
from raftctl.context import Invocation
from raftctl.errors import CliError, ExitCode, RaftctlError
from raftctl.output import emit, say

if TYPE_CHECKING:
    from raftctl.client import Client
    from raftctl.client.nodes import Membership

TIMEOUT_S = 60.0
ASK_S = 10.0
LOOK_S = 1.0
POLL_S = 0.1


def add(asked: Invocation, name: str | None, *, learner: bool, replaced: str | None, keep_data: bool) -> None:
    """Starts a new node, lets it in, and waits until it has the part that it is to have."""
    began = time.monotonic()
    deadline = began + asked.timeout_s(TIMEOUT_S)
    with local_cluster(asked) as cluster, showing_logs(cluster):
        cluster.record()
        client = cluster.nodes.client()
        membership = client.members(timeout_s=min(ASK_S, deadline - began))
        old = _member(membership, replaced) if replaced is not None else ""
        node = joining.begin(cluster.launcher, name, deadline - time.monotonic())
        index = _let_in(cluster, node, learner=learner, old=old, deadline=deadline)
        wait = _Wait(cluster.nodes.client(), deadline, cluster.launcher.progress)
        try:
            membership = _until_in_place(cluster, wait, node, learner=learner, old=old)
        except KeyboardInterrupt:
            say(
                asked,
                f"{node.name} is a member and goes on catching up; to undo: raftctl node remove {node.name}",
            )
            raise
        kept = joining.forget(cluster.launcher, old, keep_data=keep_data) if _is_local(cluster, old) else None
    role = "learner" if learner else "voter"
    took_s = time.monotonic() - began
    value = {
        "cluster": cluster.name,
        "node": node.name,
        "store_id": node.store_id,
        "address": node.address,
        "role": role,
        "index": index,
        "replaced": old or None,
        "data_dir": str(kept) if kept is not None else None,
        "voters": [member.name for member in membership.voters],
        "elapsed_ms": round(took_s * 1000),
    }
    instead = f" in place of {old}" if old else ""
    text = f"added {node.name}{instead}: a {role} after {took_s:.1f} s; {_voters(membership)}"
    emit(asked, value, [node.name], lambda: node.name if asked.quiet else text)
    _say_kept(asked, old, kept)
    if not learner:
        _advise(asked, membership)


def add_worker(asked: Invocation, name: str | None) -> None:
    """Starts a new worker and waits until it is ready to work. Nobody lets it in: it asks by itself."""
    began = time.monotonic()
    deadline = began + asked.timeout_s(TIMEOUT_S)
    with local_cluster(asked) as cluster, showing_logs(cluster):
        node = joining.begin(cluster.launcher, name, deadline - began, worker=True)
        try:
            _until_ready(cluster, node, deadline)
        except CliError:
            joining.undo(cluster.launcher, node.name)
            raise
    took_s = time.monotonic() - began
    value = {
        "cluster": cluster.name,
        "node": node.name,
        "store_id": node.store_id,
        "address": node.address,
        "role": "worker",
        "elapsed_ms": round(took_s * 1000),
    }
    text = f"added {node.name}: a worker after {took_s:.1f} s"
    emit(asked, value, [node.name], lambda: node.name if asked.quiet else text)


def _until_ready(cluster: LocalCluster, node: NodeRecord, deadline: float) -> None:
    nodes = (*cluster.record().members, node)

    def lacks(seen: ClusterView) -> str:
        lack = seen.missing().get(node.name, "")
        return f"{node.name} {lack}" if lack else ""

    wait_for(
        nodes,
        cluster.nodes,
        deadline,
        lacks,
        cluster.launcher.progress,
        lambda: joining.check_runs(cluster.launcher, node),
    )


def promote(asked: Invocation, node: str) -> None:
    """Has a learner vote, and waits until it does."""
    deadline = time.monotonic() + asked.timeout_s(TIMEOUT_S)
    with _client(asked) as (client, say_progress, cluster):
        membership = client.members(timeout_s=ASK_S)
        name = _member(membership, node)
        done = _votes(membership, name) != ""
        if done:
            say_progress(f"waiting until {name} has caught up")
            client.promote_member(name, timeout_s=deadline - time.monotonic())
            wait = _Wait(client, deadline, say_progress)
            membership = wait.until(lambda found: _votes(found, name), name)
    value = {
        "cluster": cluster,
        "promoted": [name] if done else [],
        "voters": [member.name for member in membership.voters],
    }
    text = f"{name} votes now; {_voters(membership)}" if done else f"{name}: votes already"
    emit(asked, value, [name], lambda: text)
    _advise(asked, membership)


def remove(asked: Invocation, node: str, *, force: bool, keep_data: bool) -> None:
    """Takes a node out of the configuration; on a local cluster it is stopped then, and its files go."""
    deadline = time.monotonic() + asked.timeout_s(TIMEOUT_S)
    kept = None
    if asked.address is not None:
        with _client(asked) as (client, say_progress, cluster):
            wait = _Wait(client, deadline, say_progress)
            name = _member(client.members(timeout_s=ASK_S), node)
            membership = _take_out(wait, name, force=force)
            text = f"removed {name}: it must not be started again; {_voters(membership)}"
    else:
        with local_cluster(asked) as local:
            cluster = local.name
            client = local.nodes.client()
            membership = client.members(timeout_s=ASK_S)
            if not _is_local(local, node) and membership.member(node) is not None:
                raise _runs_elsewhere(membership, node, cluster)
            name = _local_name(local, node)
            wait = _Wait(client, deadline, local.launcher.progress)
            if membership.member(name) is not None:
                membership = _take_out(wait, name, force=force)
            elif not membership.leads:
                raise CliError("no node leads", "raftctl raft status", ExitCode.UNAVAILABLE)
            else:
                membership = wait.until(_Gone(client, name, force=force).lacks, name)
            worker = local.record().node(name).worker
            kept = joining.forget(local.launcher, name, keep_data=keep_data)
            if worker:
                wait.forgotten(name)
            text = f"removed {name}; {_voters(membership)}"
    voters = [member.name for member in membership.voters]
    data_dir = str(kept) if kept is not None else None
    value = {"cluster": cluster, "removed": [name], "data_dir": data_dir, "voters": voters}
    emit(asked, value, [name], lambda: text)
    _say_kept(asked, name, kept)
    _advise(asked, membership)


# --- steps -----------------------------------------------------------------------------------------------------------


def _let_in(cluster: LocalCluster, node: NodeRecord, *, learner: bool, old: str, deadline: float) -> int:
    """Has the leader add the node as a learner. If it certainly did not, the node is undone."""
    from raftctl.client.errors import OutcomeUnknown

    cluster.launcher.progress(f"letting {node.name} in")
    again = f"raftctl node add {node.name}{' --learner' if learner else ''}"
    again += f" --replace {old}" if old else ""
    remaining_s = max(1.0, deadline - time.monotonic())
    try:
        index = cluster.nodes.client().add_member(
            node.name, node.store_id, node.address, learner=learner, replaces=old, timeout_s=remaining_s
        )
    except OutcomeUnknown as unknown:
        raise CliError(f"{node.name}: {unknown.message}", again, ExitCode.UNAVAILABLE) from unknown
    except RaftctlError:
        joining.undo(cluster.launcher, node.name)
        raise
    except KeyboardInterrupt:
        say(
            cluster.asked,
            f"{node.name} may have been let in; to go on: {again}; to undo: raftctl node remove {node.name}",
        )
        raise
    joining.settle(cluster.launcher, node.name)
    return index


def _until_in_place(
    cluster: LocalCluster, wait: _Wait, node: NodeRecord, *, learner: bool, old: str
) -> Membership:
    """Waits until a node has its part, knows what the others know and is ready to work; the membership then."""

    gone = _Gone(wait.client, old)

    def lacks(membership: Membership) -> str:
        joining.check_runs(cluster.launcher, node)
        found = membership.member(node.name)
        if found is None:
            return f"{node.name} is not let in yet"
        if not learner and (lack := _votes(membership, node.name)):
            return _behind(wait.client, membership, node.name) or lack
        if old and (lack := gone.lacks(membership)):
            return lack
        seen = look(cluster.record().members, cluster.nodes, LOOK_S)
        lack = seen.missing().get(node.name, "")
        return f"{node.name} {lack}" if lack else ""

    return wait.until(lacks, node.name)


def _take_out(wait: _Wait, name: str, *, force: bool) -> Membership:
    """Removes a member, and returns when the change is complete. It is no error if it has been removed already."""
    from raftctl.client.errors import NodeNotFound, OutcomeUnknown

    if not force:
        _check_majority(wait.client, name)
    wait.progress(f"taking {name} out")
    try:
        wait.client.remove_member(name, timeout_s=max(1.0, wait.deadline - time.monotonic()))
    except NodeNotFound:
        wait.progress(f"{name} is out already")
    except OutcomeUnknown as unknown:
        again = f"raftctl node remove {name}"
        raise CliError(f"{name}: {unknown.message}", again, ExitCode.UNAVAILABLE) from unknown

    return wait.until(_Gone(wait.client, name, force=force).lacks, name)


class _Gone:
    """Whether a member is out, and may be switched off: what most of those that remain have applied, none of them that
    is left forgets. Before that, the one that is removed may be the only one that could tell them."""

    def __init__(self, client: Client, name: str, *, force: bool = False) -> None:
        self._client = client
        self._name = name
        self._force = force
        self._since = 0

    def lacks(self, membership: Membership) -> str:
        """What is missing, in words; empty for nothing."""
        if membership.member(self._name) is not None:
            return f"{self._name} is still a member"
        if membership.joint:
            return "the change is half done"
        if self._force:
            return ""
        infos, _ = self._client.everybody(timeout_s=LOOK_S)
        leader = infos.get(membership.answered_by)
        if not self._since and leader is not None:
            self._since = leader.last_applied
        voters = [member.name for member in membership.voters]
        known = [name for name in voters if name in infos and infos[name].last_applied >= self._since > 0]
        if len(known) > len(voters) // 2:
            return ""
        return f"{len(known)} of {len(voters)} voters know that {self._name} is out"


def _check_majority(client: Client, name: str) -> None:
    """Refuses to remove a node that the others could not do without: nobody could put that right afterwards."""
    membership = client.members(timeout_s=ASK_S)
    if not membership.leads:
        return  # nothing can be removed now, and that is what will be said
    infos, _ = client.everybody()
    voters = [member.name for member in membership.voters if member.name != name]
    up = [voter for voter in voters if voter in infos]
    down = [voter for voter in voters if voter not in infos]
    if voters and len(up) <= len(voters) // 2 and membership.member(name) in membership.voters:
        raise CliError(
            f"without {name} there is no quorum: {len(up)} of {len(voters)} voters are up",
            f"raftctl node start {down[0]}, or remove it first; or --force",
            ExitCode.REJECTED,
        )


class _Wait:
    """Asks the leader for the membership until nothing is lacking, through changes of the leader."""

    def __init__(self, client: Client, deadline: float, say_progress: Callable[[str], None]) -> None:
        self.client = client
        self.deadline = deadline
        self.progress = say_progress

    def until(self, lacks: Callable[[Membership], str], name: str) -> Membership:
        """`lacks` says what is missing, in words; returns the membership that lacks nothing.

        Raises CliError (exit code 124) when the time is up.
        """
        from raftctl.client.errors import Unavailable

        while True:
            try:
                membership = self.client.members(timeout_s=LOOK_S)
                lack = lacks(membership) if membership.leads else "no node leads"
                if not lack:
                    return membership
            except Unavailable as error:
                lack = error.message
            if time.monotonic() >= self.deadline:
                raise CliError(
                    f"waited for {name} in vain, but it goes on: {lack}",
                    "raftctl raft members, and raftctl raft status",
                    ExitCode.WAIT_TIMED_OUT,
                )
            self.progress(lack)
            time.sleep(POLL_S)

    def forgotten(self, name: str) -> None:
        """Has the cluster forget a node that is no member, as soon as its lease has run out: until then what it ran
        could run on."""
        from raftctl.client import errors

        while True:
            try:
                self.client.forget_node(name, timeout_s=LOOK_S)
                return
            except errors.NodeNotFound:
                return
            except (errors.Unavailable, errors.Rejected) as error:
                lack = error.message
            if time.monotonic() >= self.deadline:
                raise CliError(
                    f"{name} is stopped, but the cluster remembers it: {lack}",
                    "raftctl status",
                    ExitCode.WAIT_TIMED_OUT,
                )
            self.progress(lack)
            time.sleep(POLL_S)


# --- what is known ---------------------------------------------------------------------------------------------------


@contextmanager
def _client(asked: Invocation) -> Iterator[tuple[Client, Callable[[str], None], str]]:
    """A client of whatever cluster is meant, local or not, a way to say how far it is, and the cluster's name."""
    from raftctl.sdk import Client as NamedClient

    with (
        NamedClient(asked.cluster, address=asked.address) as client,
        progress(asked) as say_progress,
    ):
        yield client, say_progress, client.cluster


def _member(membership: Membership, word: str) -> str:
    """The name that a word means. Raises CliError (exit code 3) when no member is called so."""
    if word == control.LEADER:
        if not membership.leads:
            raise CliError("no node leads", "raftctl raft status", ExitCode.UNAVAILABLE)
        return membership.answered_by
    if membership.member(word) is None:
        known = ", ".join(member.name for member in membership.members)
        raise CliError(f"there is no member {word!r}", f"one of: {known}, leader", ExitCode.NOT_FOUND)
    return word


def _local_name(local: LocalCluster, word: str) -> str:
    (node,) = control.resolve_nodes(local.record(), [word], local.nodes, LOOK_S)
    return node.name


def _is_local(cluster: LocalCluster, name: str) -> bool:
    return name in cluster.record().names


def _runs_elsewhere(membership: Membership, name: str, cluster: str) -> CliError:
    """Nothing of it can be stopped or removed from here, so only what the cluster knows of it can be changed."""
    known = membership.member(membership.answered_by)
    address = known.address if known is not None else "HOST:PORT"
    return CliError(
        f"{name} is a member, but no node of the local cluster {cluster!r}",
        f"end it where it runs, then raftctl node remove {name} --address {address}",
        ExitCode.NOT_FOUND,
    )


def _votes(membership: Membership, name: str) -> str:
    """What it lacks to be a voter like any other, in words."""
    found = membership.member(name)
    if found is None:
        return f"{name} is no member"
    if found.role != "voter":
        return f"{name} is a {found.role}"
    return "the change is half done" if membership.joint else ""


def _behind(client: Client, membership: Membership, name: str) -> str:
    """How far a learner is, as the leader knows it; empty when the leader does not say."""
    leader = client.node_info(membership.answered_by, timeout_s=LOOK_S)
    peer = next((peer for peer in leader.peers if peer.name == name), None)
    if peer is None:
        return ""
    if peer.pending_snapshot is not None:
        return f"{name} receives a snapshot (to entry {peer.pending_snapshot})"
    return f"{name} has {peer.match_index} of {leader.last_index} entries"


def _voters(membership: Membership) -> str:
    names = [member.name for member in membership.voters]
    return f"{'voters' if len(names) != 1 else 'voter'}: {', '.join(names)}"


def _advise(asked: Invocation, membership: Membership) -> None:
    size = len(membership.voters)
    if size % 2 == 0:
        survives = (size - 1) // 2
        say(
            asked,
            f"note: {size} voters survive the loss of {survives}, as {size - 1} would; odd sizes do better",
        )


def _say_kept(asked: Invocation, name: str, kept: Any) -> None:
    if kept is not None:
        say(asked, f"note: the files of {name} stay in {kept}; nothing may be started on them again")
