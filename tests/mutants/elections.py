"""Broken rules of elections: who may stand, who may be voted for, and when.

What may live here: patches of ``raftd.raft`` around terms, votes and roles.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, SOAK, TESTS, Edit, Mutant, blind

ELECTION = "raftd/raft/election.py"
STATE = "raftd/raft/state.py"
CORE = "raftd/raft/core.py"
LEADER = "raftd/raft/leader.py"
WHERE = (SIMULATOR, SOAK, TESTS)
TESTED = ("tests/raft/test_elections.py",)

MUTANTS = (
    Mutant(
        "vote without the log rule",
        "only who has a log at least as complete gets a vote (§5.4.1)",
        (
            Edit(
                ELECTION,
                "granted = may_vote and state.log.is_up_to_date(message.last_log_index, message.last_log_term)",
                "granted = may_vote",
            ),
        ),
        leaning="short reigns",
    ),
    Mutant(
        "vote twice in a term",
        "one vote a term",
        (
            Edit(
                ELECTION,
                "or (state.vote == NO_NODE and state.leader == NO_NODE)",
                "or state.role is Role.FOLLOWER",
            ),
            blind("role"),
        ),
        leaning="short reigns",
    ),
    Mutant(
        "forget the vote in a restart",
        "a vote given is known after a crash",
        (
            Edit(
                STATE,
                "self.vote: NodeId = hard_state.vote if self.term == hard_state.term else NO_NODE",
                "self.vote: NodeId = NO_NODE",
            ),
            blind("role"),
        ),
        leaning="short reigns",
    ),
    Mutant(
        "take the vote into the next term",
        "a new term begins without a vote",
        (Edit(STATE, "            self.vote = NO_NODE\n", ""), blind("role")),
    ),
    Mutant(
        "a pre-vote changes the vote",
        "a pre-vote promises nothing and changes nothing (thesis §9.6)",
        (
            Edit(
                ELECTION,
                "if granted and not message.pre_vote and state.vote != message.sender:",
                "if granted and state.vote != message.sender:",
            ),
            blind("role"),
        ),
    ),
    Mutant(
        "say the vote before it is durable",
        "a vote is on the disk before anybody hears of it",
        (
            Edit(
                ELECTION,
                "    state.send_when_durable(\n        RequestVoteReply(",
                "    state.send(\n        RequestVoteReply(",
            ),
        ),
    ),
    Mutant(
        "lead before the own vote is on the disk",
        "a candidate's vote for itself is like any other's",
        (
            Edit(
                ELECTION,
                "    # The own vote is counted by `own_vote_durable`, when it is.\n",
                "    _count(state, state.tracker.record_vote(state.id, granted=True))\n",
            ),
            blind("role"),
        ),
    ),
    Mutant(
        "stand without a new term",
        "every election has a term of its own",
        (Edit(ELECTION, "    state.term += 1\n", "    state.term = max(1, state.term)\n"), blind("role")),
    ),
    Mutant(
        "keep the leader as a pre-candidate",
        "pre-candidates clear their leader, or a cluster may stay without one",
        (
            Edit(
                ELECTION,
                "    # such nodes would stay leaderless.\n    state.leader = NO_NODE\n",
                "    # such nodes would stay leaderless.\n",
            ),
            blind("role"),
        ),
        tests=TESTED,
    ),
    Mutant(
        "keep the lease while campaigning",
        "who has given the leader up does not refuse others for its sake",
        (
            Edit(
                STATE,
                "            and self.leader != NO_NODE\n"
                "            and self.election_elapsed < self.config.election_ticks\n",
                "            and self.role is not Role.LEADER\n            and self.term > 0\n",
            ),
        ),
    ),
    Mutant(
        "vote while the leader is heard",
        "a leader that is heard is not unseated: (pre-)votes are ignored (thesis §6.2)",
        (
            Edit(
                STATE,
                "            self.config.check_quorum\n            and self.leader",
                "            False\n            and self.leader",
            ),
        ),
        checks=WHERE,
        tests=TESTED,
    ),
    Mutant(
        "be silent to an old leader",
        "a leader behind in its term is told, or a node ahead of it could never rejoin",
        (Edit(CORE, "        _answer_stale(state, message)\n        return\n", "        return\n"),),
    ),
    Mutant(
        "lead on without a quorum",
        "a leader that no quorum answers steps down",
        (Edit(LEADER, "if not state.tracker.quorum_is_active() and config.check_quorum:", "if False:"),),
        checks=WHERE,
        tests=TESTED,
    ),
    Mutant(
        "lead on with a disk that stands still",
        "a leader watches its own append: its heartbeats need no disk",
        (
            Edit(
                LEADER, "if patience and stalled_since is not None", "if False and stalled_since is not None"
            ),
        ),
        checks=WHERE,
        tests=("tests/raft/test_durability.py", "tests/raft/test_elections.py"),
    ),
    Mutant(
        "stand with a disk that stands still",
        "who cannot write its own vote does not raise the term again and again",
        (
            Edit(
                ELECTION,
                "return since is not None and state.ticks - since >= state.config.election_ticks",
                "return False",
            ),
        ),
        checks=(TESTS,),
        tests=("tests/raft/test_durability.py",),
    ),
    Mutant(
        "fall behind the own log after a torn write",
        "the term is never lower than the last entry's",
        (Edit(STATE, "self.term = max(hard_state.term, self.log.last_term)", "self.term = hard_state.term"),),
        # The simulator's disk is the real log, which writes the two in one record.
        checks=(SOAK, TESTS),
    ),
    Mutant(
        "speak of a term that is not durable",
        "no message carries a term that a crash could take back",
        (Edit(STATE, "if message.term > self.durability.term:", "if False:"), blind("role")),
    ),
)
