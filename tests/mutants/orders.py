"""Broken rules of what tasks wait for, where they may be put, and what people say of nodes, records and settings.

What may live here: patches of ``raftd.scheduler``, of what goes beyond one task on one slot.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, TESTS, Edit, Mutant

ATTEMPTS = "raftd/scheduler/attempts.py"
DEPENDENCIES = "raftd/scheduler/dependencies.py"
INDEXES = "raftd/scheduler/indexes.py"
REGISTRATION = "raftd/scheduler/registration.py"
SLOTS = "raftd/scheduler/slots.py"
SUBMISSION = "raftd/scheduler/submission.py"
TRANSITIONS = "raftd/scheduler/transitions.py"
WHERE = (SIMULATOR, TESTS)
DEPENDENCY_TESTS = ("tests/scheduler/test_dependencies.py",)
NODE_TESTS = ("tests/scheduler/test_operations.py", "tests/scheduler/test_requirements.py")
PURGE_TESTS = ("tests/scheduler/test_purge.py",)
QUEUE_TESTS = ("tests/scheduler/test_queue.py",)
RESERVATION_TESTS = ("tests/scheduler/test_reservations.py",)
SLOT_TESTS = ("tests/scheduler/test_slots.py",)

WAITING = (
    Mutant(
        "take a failure for a success",
        "what needs a success is cancelled when that fails",
        (Edit(DEPENDENCIES, "if fails and condition is Condition.OK:", "if False:"),),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "stop a cascade at its first level",
        "whoever needs what was cancelled is cancelled as well, to the end of the chain",
        (Edit(DEPENDENCIES, "for ended in turn.ended:", "for ended in tuple(turn.ended):"),),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "run what needs a failure that is known",
        "what has ended already is settled at the submission",
        (
            Edit(
                SUBMISSION,
                "    if outlook.doomed:\n        for task in added:",
                "    if False:\n        for task in added:",
            ),
        ),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "cancel who waits for an end only",
        "a task that comes after any end runs after a failure too",
        (
            Edit(
                DEPENDENCIES,
                "elif one.condition is Condition.OK and not _succeeded(target):",
                "elif not _succeeded(target):",
            ),
        ),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "tell nobody of the end of a job",
        "who comes after a job is released by its end",
        (
            Edit(
                "raftd/scheduler/turn.py",
                "if change is JobChange.FINISHED and self.state.indexes.dependents:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "accept a cycle",
        "a graph that waits for itself is refused",
        (
            Edit(
                "raftd/scheduler/graphs.py",
                '"take one of them out") if cycle else None',
                '"take one of them out") if False else None',
            ),
        ),
        checks=WHERE,
        tests=("tests/scheduler/test_graphs.py",),
    ),
    Mutant(
        "place a task that waits for others",
        "an Occupy is checked against the record, whatever the leader thought",
        (
            Edit(
                ATTEMPTS,
                "    if task.after:\n        return _not_now",
                "    if False:\n        return _not_now",
            ),
        ),
        checks=(TESTS,),
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "leave what comes before out of the digest",
        "the same task after something else is another request",
        (
            Edit(
                "raftd/scheduler/requests.py",
                '["submit", *_spec_parts(spec), *_dependency_parts(after)]',
                '["submit", *_spec_parts(spec)]',
            ),
        ),
        checks=WHERE,
        tests=DEPENDENCY_TESTS,
    ),
    Mutant(
        "forget the delay",
        "a task waits as long as was asked",
        (Edit(SUBMISSION, "MAX_TIME_MS) if spec.delay_ms else 0,", "MAX_TIME_MS) if False else 0,"),),
        checks=WHERE,
        tests=QUEUE_TESTS,
    ),
    Mutant(
        "expire what has had its turn",
        "a queue timeout is over with the first attempt",
        (
            Edit(
                INDEXES,
                "if any(attempt.occupied_at_ms or attempt.started_at_ms for attempt in task.attempts):",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=QUEUE_TESTS,
    ),
    Mutant(
        "age the wrong way",
        "who has waited for long goes before who is a little more urgent",
        (
            Edit(
                INDEXES,
                "task.submitted_at_ms - task.spec.priority * ageing_ms",
                "-task.submitted_at_ms - task.spec.priority * ageing_ms",
            ),
        ),
        checks=(TESTS,),
        tests=QUEUE_TESTS,
    ),
)

TURNS = (
    Mutant(
        "ride with a submission that was known",
        "a rider is for the task that its entry makes",
        (
            Edit(
                ATTEMPTS,
                "if not isinstance(made, Accepted) or made.duplicate:",
                "if not isinstance(made, Accepted):",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "give a promoted attempt a new token",
        "an attempt keeps its token when its turn comes: its executor has that one",
        (
            Edit(
                ATTEMPTS,
                "        attempt.token,\n        turn.now_ms,\n",
                "        FencingToken(attempt.token.epoch, attempt.token.counter + 1),\n        turn.now_ms,\n",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "promote the last in line",
        "turns come in the order of the reservations",
        (
            Edit(SLOTS, "line[0] if line else None", "line[-1] if line else None"),
            Edit(SLOTS, "_with_line(node, first, line[1:])", "_with_line(node, first, line[:-1])"),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "charge a loss before its turn",
        "what goes with its node before its turn costs nothing",
        (
            Edit(
                TRANSITIONS,
                "if outcome is AttemptOutcome.LOST and task.state is TaskState.RESERVED:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "charge what is withdrawn",
        "what is withdrawn before its turn costs nothing",
        (
            Edit(
                TRANSITIONS,
                "AttemptOutcome.WITHDRAWN: Charge.NOTHING,",
                "AttemptOutcome.WITHDRAWN: Charge.RETURN,",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "withdraw what has its turn",
        "only what still waits for its turn is withdrawn",
        (
            Edit(
                "raftd/scheduler/cancellation.py",
                "if command.reason is StopReason.WITHDRAWN and task.state is not TaskState.RESERVED:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "forget who waits on a lost node",
        "what is reserved goes back to the queue with its node",
        (
            Edit(
                REGISTRATION,
                "(*node.occupants, *(task_id for line in node.reserved for task_id in line))",
                "node.occupants",
            ),
        ),
        checks=WHERE,
        tests=RESERVATION_TESTS,
    ),
    Mutant(
        "free one slot of several",
        "a task holds all of its slots, and its end frees them all",
        (Edit(SLOTS, "for slot in slots[1:]:", "for slot in slots[:0]:"),),
        checks=WHERE,
        tests=SLOT_TESTS,
    ),
    Mutant(
        "wait behind a task of several slots",
        "nobody waits for one slot of several",
        (Edit(ATTEMPTS, "if head.attempts[-1].extra_slots:", "if False:"),),
        checks=(TESTS,),
        tests=RESERVATION_TESTS,
    ),
)

WORDS = (
    Mutant(
        "place on a node that is cordoned",
        "nothing is placed on a node after the entry that says so",
        (
            Edit(
                ATTEMPTS,
                "if node.eligibility is not Eligibility.READY:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=NODE_TESTS,
    ),
    Mutant(
        "forget a cordon in a restart",
        "what an operator said of a node outlives its process",
        (
            Edit(
                REGISTRATION,
                "eligibility=Eligibility.READY if old is None else old.eligibility,",
                "eligibility=Eligibility.READY,",
            ),
        ),
        checks=WHERE,
        tests=NODE_TESTS,
    ),
    Mutant(
        "place without the label",
        "a label that was taken back since it was planned counts",
        (Edit(ATTEMPTS, "if (name, value) not in node.all_labels:", "if False:"),),
        checks=WHERE,
        tests=SLOT_TESTS,
    ),
    Mutant(
        "charge a drain",
        "what a drain stops goes back free of charge",
        (Edit(TRANSITIONS, "if attempt.stopping is StopReason.DRAINED:", "if False:"),),
        checks=WHERE,
        tests=NODE_TESTS,
    ),
    Mutant(
        "purge what has not ended",
        "only records of ended tasks are purged",
        (Edit("raftd/scheduler/purge.py", "elif not task.state.terminal:", "elif False:"),),
        checks=WHERE,
        tests=PURGE_TESTS,
    ),
    Mutant(
        "submit again what has not ended",
        "only what has ended is submitted again",
        (Edit("raftd/scheduler/resubmission.py", "if not old.state.terminal:", "if False:"),),
        checks=WHERE,
        tests=PURGE_TESTS,
    ),
    Mutant(
        "change settings by halves",
        "settings change all or nothing",
        (
            Edit(
                "raftd/scheduler/settings.py",
                "            return refusal\n        values[name]",
                "            state.change_settings(replace(old, **values))\n"
                "            return refusal\n        values[name]",
            ),
        ),
        checks=WHERE,
        tests=("tests/scheduler/test_settings.py",),
    ),
)

MUTANTS = (*WAITING, *TURNS, *WORDS)
