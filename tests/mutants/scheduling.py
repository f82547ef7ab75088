"""Broken rules of the scheduler's state machine.

What may live here: patches of ``raftd.scheduler``.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, TESTS, Edit, Mutant

ATTEMPTS = "raftd/scheduler/attempts.py"
MEMBERSHIP = "raftd/scheduler/membership.py"
REQUESTS = "raftd/scheduler/requests.py"
REGISTRATION = "raftd/scheduler/registration.py"
WHERE = (SIMULATOR, TESTS)
ATTEMPT_TESTS = ("tests/scheduler/test_attempts.py",)
MEMBER_TESTS = ("tests/scheduler/test_membership.py", "tests/scheduler/test_nodes.py")
NODE_TESTS = ("tests/scheduler/test_nodes.py",)
SUBMISSION_TESTS = ("tests/scheduler/test_submission.py", "tests/scheduler/test_retention.py")

MUTANTS = (
    Mutant(
        "accept an old token",
        "only the current attempt's token ends it",
        (
            Edit(
                ATTEMPTS,
                "if attempt is None or attempt.number != command.attempt or attempt.token != command.token:",
                "if attempt is None:",
            ),
        ),
        checks=WHERE,
        tests=ATTEMPT_TESTS,
        leaning="lonely leaders",
    ),
    Mutant(
        "give two attempts one token",
        "fencing tokens only grow",
        (Edit(ATTEMPTS, "    state.token_counter += 1\n", ""),),
        checks=WHERE,
        tests=ATTEMPT_TESTS,
    ),
    Mutant(
        "occupy a slot that is taken",
        "one attempt a slot",
        (
            Edit(
                ATTEMPTS,
                "        if node.executing[slot] is not None and not (command.reserve and len(slots) == 1):\n",
                "        if False:\n",
            ),
        ),
        checks=WHERE,
        tests=ATTEMPT_TESTS,
    ),
    Mutant(
        "occupy a task that is not pending",
        "a task has one current attempt",
        (Edit(ATTEMPTS, "    if task.state is not TaskState.PENDING:\n", "    if task.state.terminal:\n"),),
        checks=WHERE,
        tests=ATTEMPT_TESTS,
    ),
    Mutant(
        "occupy a node of another incarnation",
        "an attempt is meant for one incarnation of a node",
        (
            Edit(
                ATTEMPTS,
                "if node.health is not Health.UP or node.incarnation != command.incarnation:",
                "if node.health is not Health.UP:",
            ),
        ),
        checks=WHERE,
        tests=ATTEMPT_TESTS,
    ),
    Mutant(
        "lose another incarnation than was meant",
        "a loss is of one incarnation, and of one that is up",
        (
            Edit(
                REGISTRATION,
                "if node.incarnation != command.incarnation or node.health is Health.LOST:",
                "if node.health is Health.LOST:",
            ),
        ),
        checks=WHERE,
        tests=NODE_TESTS,
    ),
    Mutant(
        "forget what a lost node ran",
        "the end of an incarnation ends its attempts",
        (
            Edit(
                REGISTRATION,
                '    ended = _end_all(turn, node, f"node {node.name} was lost")\n',
                "    ended = 0\n",
            ),
        ),
        checks=WHERE,
        tests=NODE_TESTS,
    ),
    Mutant(
        "forget request ids",
        "a request that is sent again is one task",
        (
            Edit(
                "raftd/scheduler/submission.py",
                "known = state.requests.get(command.request_id)",
                "known = None",
            ),
        ),
        checks=WHERE,
        tests=SUBMISSION_TESTS,
    ),
    Mutant(
        "forget request ids too early",
        "a record outlives the last moment at which its id could be accepted",
        (
            Edit(
                REQUESTS,
                "return max(now_ms, command.created_ms) + settings.request_retention_ms",
                "return now_ms",
            ),
        ),
        checks=WHERE,
        tests=SUBMISSION_TESTS,
    ),
    Mutant(
        "forget the request id of a task that is still known",
        "an id is no new one while people see what it made",
        (
            Edit(
                "raftd/scheduler/retention.py",
                "        if _must_be_held(state, oldest):\n",
                "        if False:\n",
            ),
        ),
        checks=WHERE,
        tests=SUBMISSION_TESTS,
    ),
    Mutant(
        "take another request under a known id",
        "two requests under one id are told apart",
        (Edit(REQUESTS, "        if known.digest != command.digest:\n", "        if False:\n"),),
        checks=WHERE,
        tests=SUBMISSION_TESTS,
    ),
    Mutant(
        "accept a request that is too old to be known",
        "an id that is older than ids are remembered is refused",
        (
            Edit(
                REQUESTS,
                "if now_ms - command.created_ms > settings.request_retention_ms:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=SUBMISSION_TESTS,
    ),
    Mutant(
        "draw by each replica's own chance",
        "what an entry does depends on the state and the entry alone",
        (
            Edit(
                ATTEMPTS,
                "state.settings.crash_limit, turn.random_u64)",
                "state.settings.crash_limit, id(turn))",
            ),
        ),
        checks=WHERE,
        tests=("tests/scheduler/test_histories.py",),
    ),
    Mutant(
        "keep no tombstone",
        "a removed store never comes back",
        (
            Edit(
                MEMBERSHIP,
                "    state.removed_stores |= {member.store_id for member in removed}\n",
                "",
            ),
        ),
        checks=WHERE,
        tests=MEMBER_TESTS,
    ),
    Mutant(
        "place work on a node that was removed",
        "a removed node takes nothing new",
        (Edit(MEMBERSHIP, "eligibility=Eligibility.DRAINING, changed_index", "changed_index"),),
        checks=WHERE,
        tests=MEMBER_TESTS,
    ),
    Mutant(
        "register a store that was removed",
        "a removed store never comes back",
        (Edit(REGISTRATION, "    if command.store_id in state.removed_stores:\n", "    if False:\n"),),
        checks=WHERE,
        tests=MEMBER_TESTS,
    ),
    Mutant(
        "add a store that was removed",
        "a removed store never comes back",
        (Edit(MEMBERSHIP, "    if change.store_id in state.removed_stores:\n", "    if False:\n"),),
        checks=WHERE,
        tests=MEMBER_TESTS,
    ),
    Mutant(
        "remove the last voter",
        "somebody is left to vote",
        (Edit(MEMBERSHIP, "    if not any(after.values()):\n", "    if False:\n"),),
        checks=WHERE,
        tests=MEMBER_TESTS,
    ),
)
