"""Broken rules of replication: what is taken into a log, what is acknowledged, what is committed, what is read.

What may live here: patches of ``raftd.raft`` around appends, commits, reads and the leader's lease.
"""

from __future__ import annotations

from tests.mutants.mutant import CHECKS, SIMULATOR, SOAK, TESTS, Edit, Mutant, blind

FOLLOWER = "raftd/raft/follower.py"
LEADER = "raftd/raft/leader.py"
LOG = "raftd/raft/log.py"
UNSTABLE = "raftd/raft/unstable.py"
STATE = "raftd/raft/state.py"
LEASE = "raftd/raft/lease.py"
QUORUM = "raftd/raft/quorum.py"
TRACKER = "raftd/raft/tracker.py"
WHERE = (SIMULATOR, SOAK, TESTS)
"""Without the exploration, in which there are no ticks."""

MUTANTS = (
    Mutant(
        "acknowledge the last index",
        "a follower acknowledges what the append reached, not its own longer tail",
        (Edit(FOLLOWER, "_accept(state, message, last_matched)", "_accept(state, message, log.last_index)"),),
        # A leader's first append that fits cuts such a tail: only messages that overtake one another show it.
        checks=tuple(check for check in CHECKS if check != "simulator"),
    ),
    Mutant(
        "truncate on any overlap",
        "entries are cut only where terms conflict",
        (
            Edit(
                LOG,
                "if entry.index > last or self._held_term(entry.index) != entry.term:",
                "if entry.index > min(last, self.commit):",
            ),
        ),
    ),
    Mutant(
        "keep a conflicting tail",
        "entries go only behind an entry of equal index and term",
        (
            Edit(
                LOG,
                "        return self.term(index) == term\n",
                "        return index <= self.last_index or self.term(index) == term\n",
            ),
        ),
        leaning="short reigns",
    ),
    Mutant(
        "commit beyond the append",
        "a follower commits no further than the append has matched its log",
        (
            Edit(
                FOLLOWER,
                "log.commit_to(min(message.leader_commit, last_matched))",
                "log.commit_to(min(message.leader_commit, log.last_index))",
            ),
        ),
        tests=("tests/raft/test_replication.py",),
        leaning="short reigns",
    ),
    Mutant(
        "commit what an append says that does not fit",
        "a follower commits only what the append has matched",
        (
            Edit(
                FOLLOWER,
                "    log = state.log\n    prev = message.prev_log_index\n",
                "    log = state.log\n    prev = message.prev_log_index\n"
                "    log.commit_to(min(message.leader_commit, log.last_index))\n",
            ),
        ),
    ),
    Mutant(
        "commit entries of any term",
        "a leader counts only entries of its own term (§5.4.2, figure 8)",
        (
            Edit(
                LEADER,
                "if index > log.commit and log.term(index) == state.term:",
                "if index > log.commit:",
            ),
        ),
        leaning="short reigns",
    ),
    Mutant(
        "commit with half of the voters",
        "any two quorums meet",
        (Edit(QUORUM, "return voter_count // 2 + 1", "return max(1, voter_count // 2)"),),
    ),
    Mutant(
        "count oneself before one's disk does",
        "a leader counts itself when its own write is durable (thesis §10.2.1)",
        (
            Edit(
                LEADER,
                "    index = state.tracker.committed_index()\n",
                "    state.tracker.progress[state.id].acknowledge(log.last_index)\n"
                "    index = state.tracker.committed_index()\n",
            ),
            Edit(
                LEADER,
                "if own is not None and own.acknowledge(state.log.durable_index):",
                "if own is not None:",
            ),
            blind("progress"),
        ),
    ),
    Mutant(
        "reply before it is durable",
        "what a message rests on is on the disk before it leaves",
        (
            Edit(
                STATE,
                'may be based on is durable."""\n        self.held.append(message)',
                'may be based on is durable."""\n        self.messages.append(message)',
            ),
            blind("role"),
        ),
    ),
    Mutant(
        "attest what has been replaced",
        "a write that was overtaken by a cut attests nothing behind the cut",
        (
            Edit(
                UNSTABLE,
                "            for write in self._writes:\n"
                "                write[1] = min(write[1], first - 1)\n            self.taken",
                "            self.taken",
            ),
        ),
    ),
    Mutant(
        "bring no no-op",
        "a new leader's own first entry lets its predecessors' commit (§8)",
        (Edit(LEADER, '    _append(state, (b"",))\n', ""),),
    ),
    Mutant(
        "never ask again after a loss",
        "a heartbeat's answer has the leader send what may be lost",
        (Edit(LEADER, "_handle_heartbeat_reply(state, message.sender, progress)", "pass"),),
    ),
    Mutant(
        "send nothing through a full window",
        "a window whose messages were all lost heals by an empty append",
        (
            Edit(
                LEADER,
                "or progress.match_index < state.log.last_index:",
                "or (progress.match_index < state.log.last_index and not progress.inflights.is_full()):",
            ),
        ),
    ),
    Mutant(
        "never release the quota",
        "what is committed makes room for proposals",
        (Edit(LEADER, "        state.quota.release_to(index)\n", ""),),
    ),
    Mutant(
        "apply what the disk has not",
        "no applied state outruns the disk",
        (
            Edit(
                LOG,
                "return min(self.commit_before_change(durable_commit), self.durable_index)",
                "return self.commit_before_change(durable_commit)",
            ),
        ),
    ),
    Mutant(
        "apply before the commit",
        "only what is committed is applied",
        (
            Edit(
                LOG,
                "return min(self.commit_before_change(durable_commit), self.durable_index)",
                "return self.durable_index",
            ),
            blind("log"),
        ),
    ),
    Mutant(
        "ReadIndex without the no-op",
        "a leader confirms no read before it has committed an entry of its own term (thesis §6.4)",
        (
            Edit(
                LEADER, "if state.reads.waiting and state.has_committed_in_term():", "if state.reads.waiting:"
            ),
        ),
        # The host asks for no reads before the no-op is applied.
        checks=(SOAK, TESTS),
    ),
    Mutant(
        "confirm reads alone",
        "a read waits until a quorum has answered",
        (
            Edit(
                TRACKER,
                "return committed_index(self.configuration, self._acked_round)",
                "return max(progress.acked_round for progress in self.progress.values())",
            ),
        ),
        leaning="lonely leaders",
    ),
    Mutant(
        "take an old answer for a new round's",
        "an answer confirms only rounds that had begun when it was asked for",
        (
            Edit(
                LEADER,
                "        progress.acked_round = message.round\n",
                "        progress.acked_round = state.round\n",
            ),
        ),
        tests=("tests/raft/test_reads.py",),
        leaning="lonely leaders",
    ),
    Mutant(
        "renew the leader's lease by one answer",
        "a lease is renewed by a quorum",
        (Edit(LEADER, "state.lease.confirm(confirmed)", "state.lease.confirm(message.round)"),),
        checks=WHERE,
        tests=("tests/raft/test_lease.py",),
    ),
    Mutant(
        "count the leader's lease from its confirmation",
        "a lease is measured from when its round was sent",
        (
            Edit(
                LEASE,
                "            self._sent_ms = self._rounds.popleft()[1]\n",
                "            self._rounds.popleft()\n            self._sent_ms = self._clock_ms()\n",
            ),
        ),
        checks=WHERE,
        tests=("tests/raft/test_lease.py",),
    ),
    Mutant(
        "vote at once after a restart",
        "where leases are used, a restarted voter does not know what it has promised",
        (Edit(STATE, "self.promised_until = config.election_ticks\n", "self.promised_until = 0\n"),),
        checks=WHERE,
        tests=("tests/raft/test_lease.py",),
    ),
    Mutant(
        "keep the lease through a change of the members",
        "answers of another configuration confirm nothing",
        (Edit("raftd/raft/reconfiguration.py", "        state.lease.restart()\n", ""),),
        checks=WHERE,
        tests=("tests/raft/test_lease.py",),
    ),
    Mutant(
        "keep the lease when another is told to stand",
        "TimeoutNow ends the lease",
        (Edit(LEASE, "        self._ended = True\n", "        self._ended = False\n"),),
        checks=WHERE,
        tests=("tests/raft/test_lease.py",),
    ),
)
