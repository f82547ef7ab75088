"""Members come and go: what a change of the configuration makes of the records, and which changes make no sense.

What may live here: the rules of names, stores and addresses. Who votes is consensus's to say; the sets are its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raftd.scheduler.commands import MembershipChange, MembershipChangeKind
from raftd.scheduler.effects import MembersChanged, NodeChange
from raftd.scheduler.model import Eligibility, Genesis, Health, MemberRecord, Standing
from raftd.scheduler.registration import MAX_NAME_CHARS, MAX_TEXT_CHARS
from raftd.scheduler.replies import Refused
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn


def found(turn: Turn, genesis: Genesis) -> None:
    """The founding members."""
    turn.state.members = tuple(
        MemberRecord(
            member.name,
            member.store_id,
            member.address,
            Standing.VOTER if member.voter else Standing.LEARNER,
        )
        for member in genesis.members
    )
    turn.effects.append(MembersChanged(turn.index, turn.state.members))


def change_members(
    turn: Turn,
    changes: Sequence[MembershipChange],
    voters: frozenset[int],
    learners: frozenset[int],
    outgoing: frozenset[int],
) -> None:
    """The configuration is now as the sets say."""
    state = turn.state
    records = {member.store_id: member for member in state.members}
    for change in changes:
        if change.kind is MembershipChangeKind.REMOVE:
            continue
        old = records.get(change.store_id)
        records[change.store_id] = MemberRecord(
            change.name if old is None else old.name,
            change.store_id,
            change.address if old is None else old.address,
            Standing.LEARNER,
            change.promote,
            change.replaces,
        )
    members, removed = [], []
    for member in records.values():
        if member.store_id in voters:
            members.append(replace(member, standing=Standing.VOTER, promote=False, replaces=0))
        elif member.store_id in learners:
            members.append(replace(member, standing=Standing.LEARNER))
        elif member.store_id in outgoing:
            members.append(replace(member, standing=Standing.LEAVING))
        else:
            removed.append(member)
    state.members = tuple(members)
    state.removed_stores |= {member.store_id for member in removed}
    for member in removed:
        _retire(turn, member)
    turn.effects.append(MembersChanged(turn.index, state.members, tuple(removed)))


def _retire(turn: Turn, member: MemberRecord) -> None:
    """Its node takes nothing new. What it runs may go on until its lease ends, so only its loss ends that."""
    node = turn.state.nodes.get(member.name)
    if node is None or node.store_id != member.store_id:
        return
    if node.health is Health.LOST:
        turn.state.forget_node(node)
        return
    retired = replace(node, eligibility=Eligibility.DRAINING, changed_index=turn.index)
    turn.state.put_node(retired)
    turn.node_changed(NodeChange.UPDATED, retired)


def check_change(state: State, changes: Sequence[MembershipChange]) -> Refused | None:
    """Why a leader must not propose these; None where it may."""
    after = {member.store_id: member.voter for member in state.members}
    for change in changes:
        refusal = _refuse(state, change)
        if refusal is not None:
            return refusal
        if change.kind is MembershipChangeKind.REMOVE:
            del after[change.store_id]
        else:
            after[change.store_id] = change.kind is MembershipChangeKind.ADD_VOTER
    if not any(after.values()):
        return Refused(
            "invalid_change", "nobody would be left to vote", "take the cluster down instead: cluster down"
        )
    return None


def _refuse(state: State, change: MembershipChange) -> Refused | None:
    known = {member.store_id: member for member in state.members}
    own = known.get(change.store_id)
    if change.kind is MembershipChangeKind.REMOVE:
        if own is None:
            return Refused("node_not_found", f"store {change.store_id:016x} is no member")
        return None
    if change.store_id in state.removed_stores:
        return Refused(
            "store_removed",
            f"store {change.store_id:016x} was removed from this cluster, and never comes back",
            "make a new data directory: raftd init --join",
        )
    if change.replaces and change.replaces not in known:
        return Refused("node_not_found", f"store {change.replaces:016x}, which it replaces, is no member")
    if own is not None:
        return None
    if not 0 < len(change.name) <= MAX_NAME_CHARS or not 0 < len(change.address) <= MAX_TEXT_CHARS:
        return Refused("invalid_request", "a member needs a name and an address, neither too long")
    for member in known.values():
        if member.name == change.name:
            return Refused("name_taken", f"there is a member {change.name} already", "choose another name")
        if member.address == change.address:
            return Refused("name_taken", f"{member.name} has the address {change.address} already")
    node = state.nodes.get(change.name)
    if node is not None and node.store_id != change.store_id:
        return Refused(
            "name_taken",
            f"the name {change.name} belongs to store {node.store_id:016x}, which is not gone yet",
            "choose another name, or wait until its lease has run out",
            retryable=True,
        )
    return None
