"""Members come and go: what a change of the configuration makes of the records, and which changes make no sense.

What may live here: the rules of names, stores and addresses. Who votes is consensus's to say; the sets are its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raftd.scheduler.commands import MembershipChange, MembershipChangeKind
from raftd.scheduler.directory import forget_holder
from raftd.scheduler.effects import MembersChanged, NodeChange
from raftd.scheduler.model import Eligibility, Genesis, Health, MemberRecord, NodeRole, Standing
from raftd.scheduler.registration import MAX_NAME_CHARS, MAX_TEXT_CHARS, forget
from raftd.scheduler.replies import Refused
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn

_MAX_U64 = (1 << 64) - 1


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
    members: list[MemberRecord] = []
    removed: list[MemberRecord] = []
    for member in _with(state.members, changes):
        if member.store_id in voters:
            members.append(replace(member, standing=Standing.VOTER, promote=False, replaces=0))
        elif member.store_id in learners:
            members.append(replace(member, standing=Standing.LEARNER))
        elif member.store_id in outgoing:
            members.append(replace(member, standing=Standing.LEAVING, promote=False, replaces=0))
        else:
            removed.append(member)
    left = {member.store_id for member in members}
    # Who was to leave by being replaced has left already.
    state.members = tuple(
        member if not member.replaces or member.replaces in left else replace(member, replaces=0)
        for member in members
    )
    state.removed_stores |= {member.store_id for member in removed}
    for member in removed:
        _retire(turn, member)
    for member in state.members:
        _give_role(turn, member)
    turn.effects.append(MembersChanged(turn.index, state.members, tuple(removed)))


def _with(members: Sequence[MemberRecord], changes: Sequence[MembershipChange]) -> list[MemberRecord]:
    """The records with those that the changes add; a member keeps its name and its address."""
    records = {member.store_id: member for member in members}
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
    return list(records.values())


def _retire(turn: Turn, member: MemberRecord) -> None:
    """Its node takes nothing new. What it runs may go on until its lease ends, so only its loss ends that."""
    node = turn.state.node_of(member.store_id)
    if node is None:
        forget_holder(turn.state, member.name)
    elif node.health is Health.LOST:
        forget(turn, node)
    else:
        retired = replace(
            node, role=NodeRole.WORKER, eligibility=Eligibility.DRAINING, changed_index=turn.index
        )
        turn.state.put_node(retired)
        turn.node_changed(NodeChange.UPDATED, retired)


def _give_role(turn: Turn, member: MemberRecord) -> None:
    node = turn.state.node_of(member.store_id)
    if node is not None and node.role is not member.role:
        updated = replace(node, role=member.role, changed_index=turn.index)
        turn.state.put_node(updated)
        turn.node_changed(NodeChange.UPDATED, updated)


def check_change(state: State, changes: Sequence[MembershipChange]) -> Refused | None:
    """Why a leader must not propose these; None where it may, as far as names, stores and addresses go.

    The state must have every earlier change applied, which is when the core lets a leader propose another.
    """
    stores = {change.store_id for change in changes}
    if not changes or len(stores) < len(changes):
        return Refused(
            "invalid_change", "a change of the membership changes at least one store, and each once"
        )
    refusals = (_refuse(state, change) for change in changes)
    refusal = next((refusal for refusal in refusals if refusal is not None), None)
    if refusal is not None:
        return refusal
    after = {member.store_id: member.voter for member in state.members}
    for change in changes:
        after[change.store_id] = change.kind is MembershipChangeKind.ADD_VOTER
    if not any(after.values()):
        return Refused(
            "invalid_change", "nobody would be left to vote", "take the cluster down instead: cluster down"
        )
    return _refuse_shared(state, changes)


def _refuse_shared(state: State, changes: Sequence[MembershipChange]) -> Refused | None:
    """Each of them makes sense alone; together they may not."""
    added = [change for change in changes if state.member(change.store_id) is None]
    for what, values in (
        ("name", [change.name for change in added]),
        ("address", [change.address for change in added]),
    ):
        if len(set(values)) < len(values):
            return Refused("name_taken", f"two new members cannot have one {what}: {', '.join(values)}")
    replaced = [change.replaces for change in changes if change.replaces]
    if len(set(replaced)) < len(replaced):
        return Refused("invalid_change", "two new members cannot replace one")
    return None


def _refuse(state: State, change: MembershipChange) -> Refused | None:
    own = state.member(change.store_id)
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
    refusal = _refuse_newcomer(state, change) if own is None else _refuse_member(state, change, own)
    return refusal or _refuse_replacement(state, change)


def _refuse_member(state: State, change: MembershipChange, own: MemberRecord) -> Refused | None:
    """To add a store once more is to promote or to demote it, and must not be what another name or address makes."""
    if change.name in ("", own.name) and change.address in ("", *_addresses(state, own)):
        return None
    return Refused(
        "name_taken",
        f"store {own.store_id:016x} is a member already: {own.name} at {own.address}",
        "every new node needs a data directory of its own",
    )


def _refuse_newcomer(state: State, change: MembershipChange) -> Refused | None:
    if not 0 < change.store_id <= _MAX_U64:
        return Refused("invalid_request", "a member needs a store id")
    if not 0 < len(change.name) <= MAX_NAME_CHARS or not 0 < len(change.address) <= MAX_TEXT_CHARS:
        return Refused("invalid_request", "a member needs a name and an address, neither too long")
    for member in state.members:
        if member.name == change.name:
            return Refused("name_taken", f"there is a member {change.name} already", "choose another name")
        if change.address in _addresses(state, member):
            return Refused("name_taken", f"{member.name} has the address {change.address} already")
    for node in state.nodes.values():
        if node.health is Health.LOST or (node.name == change.name) == (node.store_id == change.store_id):
            continue
        if node.store_id == change.store_id:
            return Refused(
                "name_taken",
                f"store {node.store_id:016x} runs as {node.name}, not as {change.name}",
                f"add it as {node.name}",
            )
        return Refused(
            "name_taken",
            f"the name {change.name} belongs to store {node.store_id:016x}, which is not gone yet",
            "choose another name, or wait until its lease has run out",
            retryable=True,
        )
    return None


def _refuse_replacement(state: State, change: MembershipChange) -> Refused | None:
    if not change.replaces:
        return None
    replaced = state.member(change.replaces)
    if replaced is None:
        return Refused("node_not_found", f"store {change.replaces:016x}, which it replaces, is no member")
    if replaced.store_id == change.store_id:
        return Refused("invalid_change", f"{replaced.name} cannot replace itself")
    for member in state.members:
        if member.replaces == change.replaces and member.store_id != change.store_id:
            return Refused(
                "invalid_change",
                f"{replaced.name} is being replaced already, by {member.name}",
                f"remove {member.name} first, or choose another",
            )
    return None


def _addresses(state: State, member: MemberRecord) -> tuple[str, ...]:
    """Where it was added, and where its node has registered since."""
    node = state.node_of(member.store_id)
    return (member.address,) if node is None or not node.address else (member.address, node.address)
