"""How a task moves from state to state, as tables: which moves there are, and what each end of an attempt costs.

What may live here: the tables and the pure functions that read them. No records are changed here.

``settle`` decides by three things: how the attempt ended, whether it had been asked to stop, and what the task has
used up so far.

- What the task did (an error, its timeout) is a *failure* and uses up its retries.
- What happened under it (its slot's process died, its node was lost) is a *crash*. Crashes do not use up retries; they
  have a limit of their own, so that a task that takes down what runs it ends, and an unlucky one is not blamed. A lost
  node counts as a crash: from outside, a node that a task killed and a node that was cut off look the same.
- What never began, or was given back unasked, is a *return* and costs nothing but a short wait.
- What was reserved and is withdrawn, or goes with its node before its turn, costs nothing at all.
- An attempt that was asked to stop ends as that says, whatever the executor reports, but for one case: if it had
  succeeded before the request reached it, the success stands, for its work is done and its result is there. One that
  was stopped because its node is drained costs nothing and goes back to the queue at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from raftd.scheduler.model import AttemptOutcome, StopReason, Task, TaskState

MOVES: Mapping[TaskState, tuple[TaskState, ...]] = MappingProxyType(
    {
        TaskState.PENDING: (
            TaskState.RUNNING,
            TaskState.RESERVED,
            TaskState.FAILED,  # its queue timeout
            TaskState.CANCELLED,
        ),
        # Its end can be told before the end of the one whose turn was before it.
        TaskState.RESERVED: (
            TaskState.PENDING,
            TaskState.RUNNING,
            TaskState.SUCCEEDED,
            TaskState.FAILED,
            TaskState.CANCELLED,
        ),
        TaskState.RUNNING: (
            TaskState.PENDING,
            TaskState.SUCCEEDED,
            TaskState.FAILED,
            TaskState.CANCELLED,
        ),
        TaskState.SUCCEEDED: (),
        TaskState.FAILED: (),
        TaskState.CANCELLED: (),
    }
)
"""Every move that there is; a state without moves absorbs."""


class Charge(IntEnum):
    """Which count of the task an attempt's end goes to."""

    NOTHING = 0
    FAILURE = 1
    CRASH = 2
    RETURN = 3


CHARGES: Mapping[AttemptOutcome, Charge] = MappingProxyType(
    {
        AttemptOutcome.SUCCEEDED: Charge.NOTHING,
        AttemptOutcome.FAILED: Charge.FAILURE,
        AttemptOutcome.TIMED_OUT: Charge.FAILURE,
        # Without a Cancel in the record nobody asked for it: only the record's own intent cancels a task.
        AttemptOutcome.CANCELLED: Charge.RETURN,
        AttemptOutcome.CRASHED: Charge.CRASH,
        AttemptOutcome.LOST: Charge.CRASH,
        AttemptOutcome.NOT_STARTED: Charge.RETURN,
        AttemptOutcome.WITHDRAWN: Charge.NOTHING,
    }
)
"""What each outcome costs an attempt that nobody had asked to stop."""

RETURN_BACKOFF_FIRST_MS = 200
RETURN_BACKOFF_MAX_MS = 10_000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the end of an attempt makes of its task.

    Attributes:
        delay_ms: how long a task that goes back to pending waits.
        reason: for a task that failed or was cancelled.
    """

    state: TaskState
    charge: Charge
    delay_ms: int
    reason: str


def settle(task: Task, outcome: AttemptOutcome, reason: str, crash_limit: int, random_u64: int) -> Settlement:
    """Decide what becomes of a running or reserved task whose current attempt ended with this outcome.

    Args:
        random_u64: the entry's; spreads retries that fall due together.
    """
    attempt = task.attempts[-1]
    if outcome is AttemptOutcome.SUCCEEDED:
        return Settlement(TaskState.SUCCEEDED, Charge.NOTHING, 0, "")
    if attempt.stopping is StopReason.CANCELLED:
        return Settlement(TaskState.CANCELLED, Charge.NOTHING, 0, attempt.reason or reason)
    if attempt.stopping is StopReason.DRAINED:
        # Asked to go, and not by its own fault: whatever its end looks like is no word about the task.
        return Settlement(TaskState.PENDING, Charge.NOTHING, 0, "")
    if attempt.stopping is StopReason.TIMED_OUT:
        outcome = AttemptOutcome.TIMED_OUT
    if outcome is AttemptOutcome.LOST and task.state is TaskState.RESERVED:
        # Its turn had not come, as far as the record knows: whatever took the node down, it was not to blame.
        return Settlement(TaskState.PENDING, Charge.NOTHING, 0, "")
    charge = CHARGES[outcome]
    if charge is Charge.NOTHING:
        return Settlement(TaskState.PENDING, charge, 0, "")
    if charge is Charge.FAILURE:
        failures = task.failures + 1
        if failures > task.spec.retries:
            return Settlement(TaskState.FAILED, charge, 0, reason or _WORDS[outcome])
        delay_ms = backoff_ms(
            failures, task.spec.backoff_first_ms, task.spec.backoff_max_ms, mix(random_u64, task.id)
        )
        return Settlement(TaskState.PENDING, charge, delay_ms, "")
    if charge is Charge.CRASH:
        crashes = task.crashes + 1
        if crashes >= crash_limit:
            return Settlement(
                TaskState.FAILED, charge, 0, f"its slot or node died under it {crashes} times: {reason}"
            )
        return Settlement(TaskState.PENDING, charge, 0, "")
    delay_ms = backoff_ms(
        task.returns + 1, RETURN_BACKOFF_FIRST_MS, RETURN_BACKOFF_MAX_MS, mix(random_u64, task.id)
    )
    return Settlement(TaskState.PENDING, charge, delay_ms, "")


_WORDS: Mapping[AttemptOutcome, str] = MappingProxyType(
    {AttemptOutcome.FAILED: "it failed", AttemptOutcome.TIMED_OUT: "its run timeout passed"}
)


def backoff_ms(times: int, first_ms: int, max_ms: int, random_u64: int) -> int:
    """The delay before try ``times`` (from 1): doubling, capped, the upper half of it left to chance.

    Integers only: every node computes the same from the entry's random number.
    """
    full_ms = min(first_ms << min(times - 1, 40), max(first_ms, max_ms))
    half_ms = full_ms // 2
    return full_ms - half_ms + random_u64 % (half_ms + 1)


def mix(random_u64: int, salt: int) -> int:
    """Another 64 bits for each salt out of one random number (the finaliser of SplitMix64, Steele et al. 2014)."""
    mask = (1 << 64) - 1
    value = (random_u64 + salt * 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)
