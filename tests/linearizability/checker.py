"""Is a history linearizable? The search of Wing and Gong, just in time as by Lowe, with a memory of where it was.

What may live here: operations, what a specification has to say, and the search. What a task is stands in `task`.

A history is linearizable if every operation can be given one moment between its call and its answer at which it took
effect, so that the answers are those of the specification in that order. The search walks over calls and answers by
time and keeps every configuration in which the object may be: its state, and which of the operations that are under
way have taken effect already. At an answer, its operation must have taken effect: whatever else has to take effect
before it may do so now, and not sooner than something needs it (J. M. Wing and C. Gong, *Testing and Verifying
Concurrent Objects*, 1993; G. Lowe, *Testing for Linearizability*, 2017). A configuration that was met is not met again.

Linearizability is local: a history is linearizable if and only if that of every single object in it is. So a history is
split by object first, which is what keeps thousands of operations cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
C = TypeVar("C")
A = TypeVar("A")
K = TypeVar("K", bound=Hashable)
C_contra = TypeVar("C_contra", contravariant=True)
A_contra = TypeVar("A_contra", contravariant=True)

SHOWN_COUNT = 12


class TooManyConfigurations(Exception):
    """The search gave up: more is open at once than it can keep apart. It says nothing about the history."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[C, A]):
    """One operation of one client.

    Attributes:
        client: who asked.
        call: what was asked.
        answer: what came back; None: nothing did, and the operation may take effect at any later time, or never.
        invoked: when it was asked; any clock that all operations share.
        returned: when the answer was there; None together with `answer`.
    """

    client: str
    call: C
    answer: A | None
    invoked: int
    returned: int | None

    def __post_init__(self) -> None:
        if (self.answer is None) != (self.returned is None):
            raise ValueError("an answer has its time, and no answer has none")
        if self.returned is not None and self.returned < self.invoked:
            raise ValueError("an answer cannot come before its call")

    def __str__(self) -> str:
        until = "..." if self.returned is None else str(self.returned)
        told = "no answer" if self.answer is None else str(self.answer)
        return f"[{self.invoked}, {until}] {self.client}: {self.call} -> {told}"


class Specification(Protocol[S, C_contra, A_contra]):
    """What one object does when one operation comes after the other."""

    @property
    def initial(self) -> S:
        """The state before everything."""
        ...

    def after(self, state: S, call: C_contra, answer: A_contra | None) -> Iterable[S]:
        """The states that this call may lead to from here, answered so (None: however it is answered).

        Empty where the call cannot take effect now, or cannot be answered so.
        """
        ...

    def only_reads(self, call: C_contra) -> bool:
        """Whether such a call never changes the state, whatever the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Unexplained(Generic[S, C, A]):
    """Where the search ended: no order explains this answer.

    Attributes:
        operation: whose answer it is.
        states: in which the object may have been just before.
        under_way: what else could have taken effect.
        before: what had been answered, oldest first.
    """

    operation: Operation[C, A]
    states: tuple[S, ...]
    under_way: tuple[Operation[C, A], ...]
    before: tuple[Operation[C, A], ...]

    def __str__(self) -> str:
        lines = [f"no order explains {self.operation}", "before it:"]
        left_out = len(self.before) - SHOWN_COUNT
        lines += [f"  ({left_out} more)"] * (left_out > 0)
        lines += [f"  {one}" for one in self.before[-SHOWN_COUNT:]] or ["  nothing"]
        lines += ["at the same time:", *([f"  {one}" for one in self.under_way] or ["  nothing"])]
        lines += ["then it may have been:", *(f"  {one}" for one in self.states[:SHOWN_COUNT])]
        return "\n".join(lines)


def check(
    history: Iterable[Operation[C, A]], specification: Specification[S, C, A], limit: int = 200_000
) -> Unexplained[S, C, A] | None:
    """Look for an order of this history of one object; None if there is one.

    Args:
        limit: how many configurations one answer may take.

    Raises:
        TooManyConfigurations: it takes more than that.
    """
    return _Search(tuple(history), specification, limit).run()


def check_each(
    parts: Mapping[K, Iterable[Operation[C, A]]], specification: Callable[[K], Specification[S, C, A]]
) -> Mapping[K, Unexplained[S, C, A] | TooManyConfigurations]:
    """Check the history of every object for itself; what nothing explains, by key, and where the search gave up."""
    found: dict[K, Unexplained[S, C, A] | TooManyConfigurations] = {}
    for part, history in parts.items():
        try:
            verdict = check(history, specification(part))
        except TooManyConfigurations as error:
            found[part] = error
        else:
            if verdict is not None:
                found[part] = verdict
    return found


class _Search(Generic[S, C, A]):
    """One search. A configuration is a state and the numbers of open operations that have taken effect."""

    def __init__(
        self, history: Sequence[Operation[C, A]], specification: Specification[S, C, A], limit: int
    ) -> None:
        self._history = history
        self._specification = specification
        self._limit = limit
        self._open: dict[int, Operation[C, A]] = {}
        self._configurations: set[tuple[S, frozenset[int]]] = {(specification.initial, frozenset())}

    def run(self) -> Unexplained[S, C, A] | None:
        answered: list[int] = []
        for _, is_answer, number in self._events():
            operation = self._history[number]
            if not is_answer:
                self._open[number] = operation
                continue
            following = self._take_effect(number)
            if not following:
                return Unexplained(
                    operation,
                    tuple({state: None for state, _ in self._configurations}),
                    tuple(one for other, one in self._open.items() if other != number),
                    tuple(self._history[one] for one in answered),
                )
            self._configurations = following
            del self._open[number]
            answered.append(number)
        return None

    def _events(self) -> list[tuple[int, bool, int]]:
        """Calls and answers by time. At the same moment calls come first: then the two may be in either order."""
        events = []
        for number, operation in enumerate(self._history):
            if operation.answer is None and self._specification.only_reads(operation.call):
                continue  # it has done nothing and told nothing
            events.append((operation.invoked, False, number))
            if operation.returned is not None:
                events.append((operation.returned, True, number))
        return sorted(events)

    def _take_effect(self, wanted: int) -> set[tuple[S, frozenset[int]]]:
        """Every configuration in which this operation has taken effect, reached with no more steps than that needs."""
        reached: set[tuple[S, frozenset[int]]] = set()
        met = set(self._configurations)
        left = list(met)
        while left:
            state, done = left.pop()
            if wanted in done:
                reached.add((state, done - {wanted}))
                continue
            for following in self._steps(state, done):
                if following not in met:
                    met.add(following)
                    left.append(following)
            if len(met) > self._limit:
                raise TooManyConfigurations(
                    f"over {self._limit} at {self._history[wanted]}, with {len(self._open)} under way"
                )
        return reached

    def _steps(self, state: S, done: frozenset[int]) -> list[tuple[S, frozenset[int]]]:
        """Where one open operation more, taking effect now, leads to."""
        steps = []
        reads = []
        for number, operation in self._open.items():
            if number in done:
                continue
            for following in self._specification.after(state, operation.call, operation.answer):
                if self._specification.only_reads(operation.call):
                    reads.append(number)
                elif operation.answer is not None or following != state:
                    # What is not answered and changes nothing might as well never take effect.
                    steps.append((following, done | {number}))
        # A read that is right now takes effect now: it stands in nobody's way, and no later moment is better.
        return [(state, done.union(reads))] if reads else steps
