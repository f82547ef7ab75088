"""Broken rules of changing members, of handing over, and of snapshots in the core.

What may live here: patches of ``raftd.raft``. Nothing of it happens in the exploration.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, SOAK, TESTS, Edit, Mutant, blind

RECONFIGURATION = "raftd/raft/reconfiguration.py"
MEMBERSHIP = "raftd/raft/membership.py"
ELECTION = "raftd/raft/election.py"
TRACKER = "raftd/raft/tracker.py"
TRANSFER = "raftd/raft/transfer.py"
FOLLOWER = "raftd/raft/follower.py"
LEADER = "raftd/raft/leader.py"
LOG = "raftd/raft/log.py"
WHERE = (SIMULATOR, SOAK, TESTS)
RECONFIGURATION_TESTS = ("tests/raft/test_reconfiguration.py", "tests/raft/test_membership.py")
SNAPSHOT_TESTS = ("tests/raft/test_snapshots.py",)

_MAY_CHANGE = """    return (
        state.has_committed_in_term()
        and state.pending_change <= state.log.applied
"""

MUTANTS = (
    Mutant(
        "change while a change is pending",
        "one change at a time (thesis §4.1)",
        (Edit(RECONFIGURATION, _MAY_CHANGE, "    return (\n        state.has_committed_in_term()\n"),),
        checks=WHERE,
        leaning="moving members",
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "change before the no-op commits",
        "no change before the leader's own no-op has committed",
        (
            Edit(
                RECONFIGURATION,
                _MAY_CHANGE,
                "    return (\n        state.pending_change <= state.log.applied\n",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "apply a change before its commit is durable",
        "who applies a change knows of it after a crash too, for those that left by it may be switched off",
        (Edit(LOG, "return min(self.commit_before_change(durable_commit), ", "return min(self.commit, "),),
        checks=(TESTS,),
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "tell of a change before its commit is durable",
        "followers hear of a change when the leader may apply it",
        (
            Edit(
                LEADER,
                "return state.log.commit_before_change(state.durability.commit)",
                "return state.log.commit",
            ),
        ),
        checks=(TESTS,),
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "campaign with an unapplied change",
        "nobody stands by a configuration that is committed to be another",
        (Edit(ELECTION, "        and not state.log.has_unapplied_configuration()\n    )", "    )"),),
        checks=WHERE,
        leaning="moving members",
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "commit by one majority of a joint configuration",
        "both majorities must agree (thesis §4.3)",
        (
            Edit(
                TRACKER,
                "return committed_index(self.configuration, self._match_index)",
                "return committed_index(Configuration(self.configuration.voters), self._match_index)",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "elect by one majority of a joint configuration",
        "both majorities must agree (thesis §4.3)",
        (
            Edit(
                TRACKER,
                "return vote_result(self.configuration, self.votes)",
                "return vote_result(Configuration(self.configuration.voters), self.votes)",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "change many voters in one step",
        "more than one voter goes through a joint configuration",
        (Edit(MEMBERSHIP, "() if simple else configuration.voters)", "())"),),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "leave the joint configuration early",
        "a joint configuration is left by an entry that both majorities have committed",
        (
            Edit(
                RECONFIGURATION,
                "    install(state, configuration)\n    return configuration\n",
                "    leads = state.role is Role.LEADER\n"
                "    left = Configuration(configuration.voters, configuration.learners)\n"
                "    install(state, left if leads else configuration)\n    return configuration\n",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "leave the joint configuration twice",
        "it is left once, by whoever leads",
        (
            Edit(
                RECONFIGURATION,
                "        and state.has_committed_in_term()\n"
                "        and state.pending_change <= state.log.applied\n    ):",
                "        and state.has_committed_in_term()\n    ):",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "never leave the joint configuration",
        "every leader completes a change, whoever began it",
        (
            Edit(
                RECONFIGURATION,
                "        and state.configuration.outgoing\n        and",
                "        and False\n        and",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "count a learner",
        "only voters are counted",
        (
            Edit(
                "raftd/raft/quorum.py",
                "    index = _acknowledged_by_majority(configuration.voters, acknowledged)\n",
                "    index = sorted(map(acknowledged, (*configuration.voters, *configuration.learners)))[\n"
                "        -majority(len(configuration.voters))\n    ]\n",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "let a learner stand",
        "who does not vote does not stand",
        (Edit(ELECTION, "        and state.configuration.is_voter(state.id)\n", ""), blind("role")),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "lead on when removed",
        "who votes no more does not lead (thesis §4.2.2)",
        (
            Edit(
                RECONFIGURATION,
                "not configuration.is_voter(state.id):\n        _give_way(state)",
                "not configuration.is_voter(state.id):\n        pass",
            ),
            blind("role"),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "say nothing of the commit to candidates",
        "who knows that a change is committed tells candidates (docs/decisions/0009)",
        (
            Edit(
                ELECTION,
                "learned = log.matches(message.commit, message.commit_term) and log.commit_to(message.commit)",
                "learned = False",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "go back behind a change in a restart",
        "a log with two changes proves that the first is committed (docs/decisions/0009)",
        (Edit("raftd/raft/state.py", "        self.log.commit_changes_but_the_last()\n", ""),),
        checks=WHERE,
        leaning="moving members",
        tests=RECONFIGURATION_TESTS,
    ),
    Mutant(
        "never give a transfer up",
        "after an election timeout proposals are taken again",
        (Edit(TRANSFER, "if state.transfer_elapsed >= state.config.election_ticks:", "if False:"),),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "hand over to one that lacks entries",
        "the target is brought level before it is told to stand (thesis §3.10)",
        (
            Edit(
                TRANSFER,
                "state.transfer_target and state.tracker.progress[node].match_index == state.log.last_index:",
                "state.transfer_target:",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
        tests=("tests/raft/test_transfer.py",),
    ),
    Mutant(
        "take proposals while handing over",
        "a target that must be level is not outrun",
        (Edit(LEADER, "    if state.transfer_target != NO_NODE:\n", "    if False:\n"),),
        checks=WHERE,
        leaning="moving members",
        tests=("tests/raft/test_transfer.py",),
    ),
    Mutant(
        "keep the tail after a conflicting snapshot",
        "a snapshot that the log does not match replaces all of it",
        (
            Edit(
                LOG,
                "        self.unstable.restore(snapshot, self.commit)\n        self._changes.clear()\n"
                "        self.commit = snapshot.index\n",
                "        tail, _ = self.slice(snapshot.index + 1, self.last_index + 1, 10**9)\n"
                "        self.unstable.restore(snapshot, self.commit)\n        self._changes.clear()\n"
                "        self.commit = snapshot.index\n"
                "        if tail:\n            self.append(tail)\n",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "lose a matching tail to a snapshot",
        "what a node has acknowledged stays when a snapshot of less arrives",
        (Edit(FOLLOWER, "if log.matches(snapshot.index, snapshot.term):", "if False:"),),
        checks=WHERE,
        leaning="moving members",
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "install a stale snapshot",
        "a snapshot at or below the commit changes nothing",
        (Edit(FOLLOWER, "if snapshot.index > log.commit:", "if True:"),),
        checks=WHERE,
        leaning="moving members",
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "ignore the configuration of a snapshot",
        "the configuration in a snapshot wins over older entries",
        (
            Edit(
                RECONFIGURATION,
                "        install(state, state.restored.popleft().configuration)\n",
                "        state.restored.popleft()\n",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "call a snapshot durable before it is",
        "nothing behind a snapshot is durable before it is",
        (
            Edit(
                "raftd/raft/unstable.py",
                "return self.offset - 1 if self.snapshot is None else self._durable_below",
                "return self.offset - 1",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "acknowledge a snapshot before it is durable",
        "what a message rests on is on the disk before it leaves",
        (
            Edit(
                FOLLOWER,
                "    state.send_when_durable(\n        InstallSnapshotReply(",
                "    state.send(\n        InstallSnapshotReply(",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "wait for ever for a broken stream",
        "a follower whose snapshot broke off is probed again",
        (
            Edit(
                "raftd/raft/progress.py",
                "        if self.state is ProgressState.SNAPSHOT:\n            installed",
                "        if False:\n            installed",
            ),
        ),
        checks=WHERE,
        leaning="moving members",
    ),
    Mutant(
        "open streams to nodes that are silent",
        "a snapshot goes to a follower that lives",
        (Edit(LEADER, " or not progress.recent_active:\n", ":\n"),),
        checks=WHERE,
        leaning="moving members",
        tests=SNAPSHOT_TESTS,
    ),
)
