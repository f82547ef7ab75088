"""Random faults under the oracle, and proof that the oracle sees: each broken rule must be caught by the same runs."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from raftd.raft import core, election, follower, leader, reconfiguration, tracker, transfer
from raftd.raft.lease import Lease
from raftd.raft.log import Log
from raftd.raft.membership import next_configuration
from raftd.raft.messages import AppendEntries, RequestVote
from raftd.raft.progress import Progress
from raftd.raft.quorum import committed_index, vote_result
from raftd.raft.raw_node import RawNode
from raftd.raft.state import RaftState
from raftd.raft.tracker import Tracker
from raftd.raft.types import Configuration, Entry, EntryType, InvariantViolation, Role, Snapshot
from raftd.raft.unstable import Unstable
from tests.raft.soak import soak

RUNS = 200
RUNS_FOR_MUTANTS = 1500


def test_no_invariant_breaks_and_every_cluster_heals() -> None:
    happened: Counter[str] = Counter()
    for seed in range(RUNS):
        happened.update(soak(seed))
    never = [what for what, count in happened.items() if not count]
    assert not never, f"these never happened, so they were not tested: {never}"


TRACE = """
import hashlib
from tests.raft.soak import Soak
run = Soak(7)
run.run()
print(hashlib.sha256(repr(run.cluster).encode() + repr(sorted(run.happened.items())).encode()).hexdigest())
"""


def test_a_seed_is_the_same_run_under_any_hash_seed() -> None:
    traces = {
        subprocess.run(
            [sys.executable, "-c", TRACE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("0", "1", "2")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 2 * hashlib.sha256().digest_size


Patch = Callable[[pytest.MonkeyPatch], None]


def acknowledges_its_own_last_index(patch: pytest.MonkeyPatch) -> None:
    accept = follower._accept
    patch.setattr(
        follower,
        "_accept",
        lambda state, message, index: accept(state, message, max(index, state.log.last_index)),
    )


def commits_old_terms_by_counting(patch: pytest.MonkeyPatch) -> None:
    def maybe_commit(state: RaftState) -> None:
        if state.log.commit_to(state.tracker.committed_index()):
            state.quota.release_to(state.log.commit)
            state.flush_wanted = True

    patch.setattr(leader, "maybe_commit", maybe_commit)


def speaks_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftState, "send_when_durable", lambda self, message: self.messages.append(message))
    patch.setattr("raftd.raft.invariants._broken_in_role", lambda state: [])


def counts_itself_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    append = leader._append

    def append_and_count(state: RaftState, datas: Sequence[bytes], *kind: EntryType) -> None:
        append(state, datas, *kind)
        state.tracker.progress[state.id].acknowledge(state.log.last_index)

    patch.setattr(leader, "_append", append_and_count)
    patch.setattr("raftd.raft.invariants._broken_in_progress", lambda state: [])


def attests_what_has_been_replaced(patch: pytest.MonkeyPatch) -> None:
    append = Unstable.append

    def append_without_lowering(self: Unstable, entries: list[Entry]) -> None:
        before = [write[1] for write in self._writes]
        append(self, entries)
        for write, last in zip(self._writes, before, strict=True):
            write[1] = last

    patch.setattr(Unstable, "append", append_without_lowering)


def cuts_without_a_conflict(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "first_conflict", lambda self, entries: 0)
    patch.setattr(Log, "append", lambda self, entries: self.unstable.append(entries))


def votes_for_any_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: True)


def votes_twice(patch: pytest.MonkeyPatch) -> None:
    handle = election.handle_request_vote

    def handle_request_vote(state: RaftState, message: RequestVote) -> None:
        state.vote = 0
        handle(state, message)

    patch.setattr(election, "handle_request_vote", handle_request_vote)
    patch.setattr("raftd.raft.invariants._broken_in_role", lambda state: [])


def follows_the_commit_past_the_append(patch: pytest.MonkeyPatch) -> None:
    handle = follower.handle_append

    def handle_append(state: RaftState, message: AppendEntries) -> None:
        handle(state, message)
        state.log.commit_to(min(message.leader_commit, state.log.last_index))

    patch.setattr(follower, "handle_append", handle_append)


def skips_the_consistency_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "matches", lambda self, index, term: index <= self.last_index)


def reads_before_its_no_op_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftState, "has_committed_in_term", lambda self: True)


def reads_without_asking_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tracker, "confirmed_round", lambda self: 2**40)


def forgets_its_vote_in_a_crash(patch: pytest.MonkeyPatch) -> None:
    start = RawNode.__init__

    def start_without_vote(self: RawNode, *args: object, **kind: object) -> None:
        start(self, *args, **kind)  # type: ignore[arg-type]  # handed through as it came
        self.state.vote = 0

    patch.setattr(RawNode, "__init__", start_without_vote)
    patch.setattr("raftd.raft.invariants._broken_in_role", lambda state: [])


def commits_with_half_the_voters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("raftd.raft.quorum.majority", lambda count: max(1, count // 2))


def applies_what_its_disk_has_not(patch: pytest.MonkeyPatch) -> None:
    def take_committed(self: Log, max_bytes: int) -> tuple[Entry, ...]:
        entries, _ = self.slice(self.handed_out + 1, self.commit + 1, max_bytes)
        self.handed_out += len(entries)
        return entries

    patch.setattr(Log, "take_committed", take_committed)


def never_asks_again_after_a_loss(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leader, "_handle_heartbeat_reply", lambda state, node, progress: None)


def is_silent_to_an_old_leader(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(core, "_answer_stale", lambda state, message: None)


def keeps_its_lease_while_it_campaigns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        RaftState,
        "is_leased",
        lambda self: self.config.check_quorum and self.role is not Role.LEADER and self.term > 0,
    )


def brings_no_no_op(patch: pytest.MonkeyPatch) -> None:
    append = leader._append

    def append_unless_empty(state: RaftState, datas: Sequence[bytes], *kind: EntryType) -> None:
        if kind or tuple(datas) != (b"",):
            append(state, datas, *kind)

    patch.setattr(leader, "_append", append_unless_empty)


def takes_over_a_term(patch: pytest.MonkeyPatch) -> None:
    """Becomes a candidate without entering a new term."""
    become = election._become_candidate

    def become_candidate(state: RaftState) -> None:
        if state.term:
            state.term -= 1
        become(state)

    patch.setattr(election, "_become_candidate", become_candidate)
    patch.setattr("raftd.raft.invariants._broken_in_role", lambda state: [])


def changes_while_a_change_is_pending(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconfiguration, "_may_change", lambda state: not state.configuration.outgoing)


def campaigns_before_it_has_applied_a_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "has_unapplied_configuration", lambda self: False)


def counts_one_majority_in_a_joint_configuration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        tracker,
        "committed_index",
        lambda configuration, acknowledged: committed_index(
            replace(configuration, outgoing=()), acknowledged
        ),
    )


def elects_by_one_majority_in_a_joint_configuration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        tracker,
        "vote_result",
        lambda configuration, votes: vote_result(replace(configuration, outgoing=()), votes),
    )


def changes_many_voters_in_one_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        reconfiguration,
        "next_configuration",
        lambda configuration, what: replace(next_configuration(configuration, what), outgoing=()),
    )


def never_leaves_a_joint_configuration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconfiguration, "leave_joint", lambda state: None)


def lets_learners_count(patch: pytest.MonkeyPatch) -> None:
    start = Tracker.reconfigure

    def reconfigure(self: Tracker, configuration: Configuration, last_index: int, *, leads: bool) -> None:
        learners = (*configuration.voters, *configuration.learners)
        start(self, Configuration(learners, (), configuration.outgoing), last_index, leads=leads)

    patch.setattr(Tracker, "reconfigure", reconfigure)


def leads_on_when_it_is_removed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconfiguration, "_give_way", lambda state: None)


def says_nothing_of_the_commit_to_candidates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(election, "learn_commit", lambda state, message: None)


def never_gives_a_transfer_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transfer, "tick", lambda state: None)


def keeps_a_conflicting_tail_behind_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    restore = Log.restore

    def keep(self: Log, snapshot: Snapshot) -> None:
        tail, _ = self.slice(snapshot.index + 1, self.last_index + 1, 10**9)
        restore(self, snapshot)
        if tail:
            self.append(tail)

    patch.setattr(Log, "restore", keep)


def forgets_the_configuration_of_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconfiguration, "applied", reconfiguration.leave_joint)


def calls_a_snapshot_durable_before_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Unstable, "durable_index", property(lambda self: self.offset - 1))


def waits_for_ever_for_a_broken_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Progress, "snapshot_reported", lambda self, arrived: None)


def keeps_its_lease_when_it_tells_another_to_stand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "end", lambda self: None)


NEEDS_AN_OPERATOR: list[Patch] = [
    changes_while_a_change_is_pending,
    campaigns_before_it_has_applied_a_change,
    counts_one_majority_in_a_joint_configuration,
    elects_by_one_majority_in_a_joint_configuration,
    changes_many_voters_in_one_step,
    never_leaves_a_joint_configuration,
    lets_learners_count,
    leads_on_when_it_is_removed,
    says_nothing_of_the_commit_to_candidates,
    never_gives_a_transfer_up,
    keeps_a_conflicting_tail_behind_a_snapshot,
    forgets_the_configuration_of_a_snapshot,
    calls_a_snapshot_durable_before_it_is,
    waits_for_ever_for_a_broken_stream,
    keeps_its_lease_when_it_tells_another_to_stand,
]
"""These show soonest where the membership changes all the time."""

MUTANTS: list[Patch] = [
    acknowledges_its_own_last_index,
    commits_old_terms_by_counting,
    speaks_before_it_is_durable,
    counts_itself_before_it_is_durable,
    attests_what_has_been_replaced,
    cuts_without_a_conflict,
    votes_for_any_log,
    votes_twice,
    follows_the_commit_past_the_append,
    skips_the_consistency_check,
    reads_before_its_no_op_commits,
    reads_without_asking_anybody,
    forgets_its_vote_in_a_crash,
    commits_with_half_the_voters,
    applies_what_its_disk_has_not,
    never_asks_again_after_a_loss,
    is_silent_to_an_old_leader,
    keeps_its_lease_while_it_campaigns,
    brings_no_no_op,
    takes_over_a_term,
    *NEEDS_AN_OPERATOR,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_broken_rule_is_caught(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(RUNS_FOR_MUTANTS):
        try:
            soak(seed, busy=mutant in NEEDS_AN_OPERATOR)
        except (AssertionError, InvariantViolation):
            print(f"caught by seed {seed}")
            return
    pytest.fail(f"{RUNS_FOR_MUTANTS} runs did not notice a core that {mutant.__name__}")
