"""Any history: no exception, every invariant after every entry, and the same result on every replica."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from raftd.codec.snapshot import decode_snapshot, encode_snapshot
from raftd.scheduler import invariants, queries
from raftd.scheduler.commands import Batch, OccupyNew
from raftd.scheduler.effects import MembersChanged
from raftd.scheduler.machine import OutOfOrder, StateMachine
from raftd.scheduler.model import (
    AttemptOutcome,
    BlobRecord,
    BlobRef,
    Condition,
    Dependency,
    FencingToken,
    NodeRole,
    Standing,
    TaskState,
)
from raftd.scheduler.replies import Refused
from raftd.scheduler.state import State
from tests.scheduler.histories import SMALL, Change, Historian, lengths, play, reread, seeds
from tests.scheduler.world import GENESIS, World

ROOT = Path(__file__).parent.parent.parent


def founded() -> StateMachine:
    machine = StateMachine(State(SMALL))
    machine.apply_genesis(1, GENESIS)
    return machine


@given(seeds, lengths)
@settings(max_examples=150)
def test_every_invariant_holds_after_every_entry_whatever_it_says(seed: int, length: int) -> None:
    machine, historian = founded(), Historian(seed)
    token = FencingToken(0, 0)
    for index in range(2, length + 2):
        entry = historian.entry(machine.state)
        removed = machine.state.removed_stores
        running = tokens_of(machine.state, removed)
        outcome = play(machine, index, entry)
        assert len(outcome.replies) == (len(entry.commands) if isinstance(entry, Batch) else 0)
        token = invariants.check_step(token, machine.state)
        assert removed <= machine.state.removed_stores
        assert tokens_of(machine.state, removed) <= running, "a removed store runs nothing new"


def tokens_of(state: State, stores: frozenset[int]) -> set[FencingToken]:
    """Of the attempts that these stores run, or have been given to run after those."""
    nodes = [node for node in state.nodes.values() if node.store_id in stores]
    return {state.tasks[task_id].attempts[-1].token for node in nodes for task_id in queries.assigned(node)}


@given(seeds, lengths)
@settings(max_examples=50)
@example(623, 53)  # A node of the last incarnation that a field can hold is there, and registers again.
def test_a_replica_that_reads_the_entries_from_bytes_agrees_in_everything(seed: int, length: int) -> None:
    leader, follower, historian = founded(), founded(), Historian(seed)
    for index in range(2, length + 2):
        entry = historian.entry(leader.state)
        stored = reread(entry)
        assert stored == entry
        assert play(leader, index, entry) == play(follower, index, stored)
    assert invariants.state_hash(leader.state) == invariants.state_hash(follower.state)


@given(seeds, lengths, lengths)
@settings(max_examples=50)
def test_a_replica_that_starts_from_a_snapshot_agrees_from_then_on(
    seed: int, before: int, after: int
) -> None:
    old, historian = founded(), Historian(seed)
    for index in range(2, before + 2):
        play(old, index, historian.entry(old.state))
    new = StateMachine(decode_snapshot(encode_snapshot(old.state.freeze())))
    assert invariants.state_hash(old.state) == invariants.state_hash(new.state)
    invariants.check(new.state)
    for index in range(before + 2, before + after + 2):
        entry = historian.entry(old.state)
        assert play(old, index, entry) == play(new, index, entry)
    assert invariants.state_hash(old.state) == invariants.state_hash(new.state)
    assert b"".join(encode_snapshot(old.state.freeze())) == b"".join(encode_snapshot(new.state.freeze()))


@given(seeds, lengths)
@settings(max_examples=30)
def test_a_frozen_state_stays_as_it_was_while_the_machine_goes_on(seed: int, length: int) -> None:
    machine, historian = founded(), Historian(seed)
    for index in range(2, length + 2):
        play(machine, index, historian.entry(machine.state))
    then = invariants.state_hash(machine.state)
    frozen = machine.state.freeze()
    slices = encode_snapshot(frozen)
    written = [next(slices)]
    for index in range(length + 2, length + 12):
        play(machine, index, historian.entry(machine.state))
        written += [piece for piece in [next(slices, b"")] if piece]
    written += slices
    assert invariants.state_hash(decode_snapshot(written)) == then


def digest_of(seed: int, length: int) -> str:
    """The digest of a history's end: printed by other processes, too."""
    machine, historian = founded(), Historian(seed)
    for index in range(2, length + 2):
        play(machine, index, historian.entry(machine.state))
    return invariants.state_hash(machine.state)


def test_processes_with_another_order_of_sets_agree() -> None:
    digests = {digest_of(2024, 200)}
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        code = "from tests.scheduler.test_histories import digest_of; print(digest_of(2024, 200))"
        digests.add(
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            ).stdout.strip()
        )
    assert len(digests) == 1


def test_histories_reach_every_state_and_every_kind_of_reply() -> None:
    replies, changes = set(), set()
    for seed in range(20):
        machine, historian = founded(), Historian(seed)
        for index in range(2, 100):
            outcome = play(machine, index, historian.entry(machine.state))
            replies |= {getattr(reply, "code", type(reply).__name__) for reply in outcome.replies}
            changes |= {str(getattr(effect, "change", type(effect).__name__)) for effect in outcome.effects}
    assert replies >= {
        "Accepted",
        "Cancelled",
        "Expired",
        "Lost",
        "Marked",
        "NodeForgotten",
        "NodeSet",
        "Occupied",
        "Purged",
        "Recorded",
        "Registered",
        "SettingsSet",
        "Vacated",
        "incarnation_lost",
        "invalid_request",
        "job_not_found",
        "node_not_found",
        "queue_full",
        "rejected",
        "request_expired",
        "request_id_conflict",
        "stale_token",
        "task_not_found",
        "unknown_kind",
        "wrong_identity",
    }
    assert changes >= {
        "Assigned",
        "SlotFreed",
        "StopRequested",
        "cancelled",
        "failed",
        "finished",
        "node_lost",
        "node_up",
        "node_updated",
        "released",
        "retrying",
        "running",
        "stopping",
        "submitted",
        "succeeded",
    }


def test_histories_reach_every_turn_that_a_reservation_can_take() -> None:
    seen = set[str]()
    for seed in range(200):
        machine, historian = founded(), Historian(seed)
        state = machine.state
        for index in range(2, 100):
            before = {task.id: task for task in state.tasks.values()}
            entry = historian.entry(state)
            outcome = play(machine, index, entry)
            for task in state.tasks.values():
                old = before.get(task.id)
                if old is not None and old.state is TaskState.RESERVED and task.state is not old.state:
                    ended = task.attempts[-1].outcome
                    seen.add(f"{task.state.name.lower()}, {'-' if ended is None else ended.name.lower()}")
            for command, reply in zip(getattr(entry, "commands", ()), outcome.replies, strict=True):
                if isinstance(command, OccupyNew) and not isinstance(reply, Refused):
                    seen.add("rode along")
    assert seen >= {
        "rode along",
        "running, -",
        "pending, lost",
        "pending, withdrawn",
        "pending, crashed",
        "succeeded, succeeded",
        "failed, failed",
        "cancelled, lost",
    }


def test_histories_reach_every_turn_that_a_membership_can_take() -> None:
    seen, refused = set[str](), set[str]()
    for seed in range(0, 60, 2):
        machine, historian = founded(), Historian(seed)
        state, owners = machine.state, dict[str, int]()
        for index in range(2, 100):
            nodes = dict(state.nodes)
            entry = historian.entry(state)
            outcome = play(machine, index, entry)
            for reply in outcome.replies:
                refused |= {reply.code} if isinstance(reply, Refused) else set()
            if isinstance(entry, Change):
                seen |= {f"is {member.standing.name.lower()}" for member in state.members}
                seen |= {"replaces" for member in state.members if member.replaces}
            for effect in outcome.effects:
                if isinstance(effect, MembersChanged) and effect.removed:
                    stores = frozenset(member.store_id for member in effect.removed)
                    seen.add("removed at work" if tokens_of(state, stores) else "removed idle")
            seen |= {"forgotten" for name in nodes if name not in state.nodes}
            if any(
                owners.setdefault(member.name, member.store_id) != member.store_id for member in state.members
            ):
                seen.add("name reused")
        refused |= historian.refused
    assert seen == {
        "forgotten",
        "is leaving",
        "is learner",
        "is voter",
        "name reused",
        "removed at work",
        "removed idle",
        "replaces",
    }
    assert refused >= {"invalid_change", "invalid_request", "name_taken", "node_not_found", "store_removed"}


def test_an_entry_out_of_order_is_a_broken_invariant_and_not_an_answer() -> None:
    machine = founded()
    machine.apply_noop(2)
    for index in (1, 2, 4):
        with pytest.raises(OutOfOrder):
            machine.apply_noop(index)
    machine.apply_noop(3)
    assert machine.applied_index == 3


def test_invariants_notice_what_is_broken() -> None:
    machine = founded()
    state = machine.state
    play(machine, 2, Historian(1).entry(state))
    state.token_counter -= 1
    with pytest.raises(invariants.InvariantBroken, match="TokenGrows"):
        invariants.check_step(FencingToken(1, 0), state)


def test_each_invariant_notices_a_state_that_breaks_it() -> None:
    for invariant, sabotage in SABOTAGE.items():
        world = World(["n1", "n2"])
        world.submit_array(2)
        world.occupy(1)
        sabotage(world.state)
        with pytest.raises(invariants.InvariantBroken, match=invariant):
            invariants.check(world.state)


def _free_an_occupied_slot(state: State) -> None:
    state.put_node(replace(state.nodes["n1"], executing=(None,)))


def _occupy_for_two(state: State) -> None:
    state.put_node(replace(state.nodes["n2"], executing=(1,)))


def _let_one_wait_for_a_free_slot(state: State) -> None:
    state.put_node(replace(state.nodes["n2"], reserved=((2,),)))


def _let_one_wait_without_an_attempt(state: State) -> None:
    state.put_node(replace(state.nodes["n1"], reserved=((2,),)))


def _forget_who_waits(state: State) -> None:
    task = state.tasks[2]
    attempt = replace(state.tasks[1].attempts[0], token=FencingToken(1, 2), occupied_at_ms=0)
    state.token_counter = 2
    state.replace_task(task, replace(task, state=TaskState.RESERVED, attempts=(attempt,)))


def _occupy_a_slot_more(state: State) -> None:
    state.put_node(replace(state.nodes["n1"], executing=(1, 1)))


def _hide_a_label(state: State) -> None:
    state.put_node(replace(state.nodes["n1"], labels=(("zone", "a"),)))
    state.indexes.labelled.clear()


def _end_without_an_outcome(state: State) -> None:
    task = state.tasks[1]
    state.put_node(replace(state.nodes["n1"], executing=(None,)))
    state.replace_task(task, replace(task, state=TaskState.SUCCEEDED))


def _give_a_token_twice(state: State) -> None:
    task = state.tasks[1]
    attempt = replace(task.attempts[0], outcome=AttemptOutcome.FAILED)
    state.replace_task(task, replace(task, attempts=(attempt, replace(task.attempts[0], number=2))))


def _miscount_a_job(state: State) -> None:
    state.jobs.put(1, replace(state.jobs[1], pending=0))


def _lose_a_request(state: State) -> None:
    state.requests.forget_oldest()
    state.requests.oldest_number -= 1


def _change_a_record_behind_the_indexes(state: State) -> None:
    state.tasks.put(2, replace(state.tasks[2], not_before_ms=state.cluster_time_ms + 5))


def _share_an_address(state: State) -> None:
    first, second, *rest = state.members
    state.members = (first, replace(second, address=first.address), *rest)


def _let_a_removed_store_stay(state: State) -> None:
    state.removed_stores |= {state.members[-1].store_id}


def _let_a_removed_node_take_work(state: State) -> None:
    state.members = state.members[:1] + state.members[2:]
    state.removed_stores |= {2}


def _leave_no_voter(state: State) -> None:
    state.members = tuple(replace(member, standing=Standing.LEARNER) for member in state.members)


def _let_a_voter_wait(state: State) -> None:
    state.members = (replace(state.members[0], promote=True), *state.members[1:])


def _mistake_a_role(state: State) -> None:
    state.put_node(replace(state.nodes["n1"], role=NodeRole.LEARNER))


def _run_a_store_twice(state: State) -> None:
    state.put_node(replace(state.nodes["n2"], name="n22"))


def _name_a_holder_that_is_gone(state: State) -> None:
    state.put_blob(BlobRecord(BlobRef("ab" * 32, 7), ("n77",)))


def _wait_for_what_has_ended(state: State) -> None:
    task = state.tasks[2]
    state.replace_task(task, replace(task, after=(Dependency(77),)))


def _wait_while_it_runs(state: State) -> None:
    task = state.tasks[1]
    state.replace_task(task, replace(task, after=(Dependency(2),)))


def _wait_twice(state: State) -> None:
    task = state.tasks[2]
    after = (Dependency(1), Dependency(1, condition=Condition.ANY))
    state.tasks.put(2, replace(task, after=after))


def _let_someone_wait_behind_the_indexes(state: State) -> None:
    state.tasks.put(2, replace(state.tasks[2], after=(Dependency(1),)))


SABOTAGE = {
    "DependenciesUnmet: .* has ended": _wait_for_what_has_ended,
    "DependenciesUnmet: t1 waits": _wait_while_it_runs,
    "DependenciesUnmet: t2 waits twice": _wait_twice,
    "IndexesDerived: .*dependents": _let_someone_wait_behind_the_indexes,
    "MembersUnique: two members have one address": _share_an_address,
    "MembersUnique: .* is a member": _let_a_removed_store_stay,
    "MembersUnique: .* takes work": _let_a_removed_node_take_work,
    "MembersStand: nobody votes": _leave_no_voter,
    "MembersStand: .* waits": _let_a_voter_wait,
    "MembersStand: n1 is LEARNER": _mistake_a_role,
    "MembersStand: two nodes have one store": _run_a_store_twice,
    "HoldersKnown": _name_a_holder_that_is_gone,
    "TablesPartition": _free_an_occupied_slot,
    "TablesPartition: .*two nodes": _occupy_for_two,
    "TablesPartition: .*wait for a free slot": _let_one_wait_for_a_free_slot,
    "TablesPartition: .*record says otherwise": _let_one_wait_without_an_attempt,
    "TablesPartition: reserved": _forget_who_waits,
    "TablesPartition: slots .*says otherwise": _occupy_a_slot_more,
    "IndexesDerived: labelled": _hide_a_label,
    "TasksConserved": _end_without_an_outcome,
    "TokenGrows": _give_a_token_twice,
    "JobsCount": _miscount_a_job,
    "RequestsIndexed": _lose_a_request,
    "IndexesDerived": _change_a_record_behind_the_indexes,
}
