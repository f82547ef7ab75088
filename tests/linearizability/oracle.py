"""The same question answered without any thought: try every order. For the tests of the checker alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tests.linearizability.checker import Operation, S, Specification

C = TypeVar("C")
A = TypeVar("A")


def explains(history: Sequence[Operation[C, A]], specification: Specification[S, C, A]) -> bool:
    """Whether some order does. What was not answered may be left out."""
    return _goes_on(specification.initial, tuple(history), specification)


def _goes_on(state: S, left: tuple[Operation[C, A], ...], specification: Specification[S, C, A]) -> bool:
    if all(operation.answer is None for operation in left):
        return True
    for number, operation in enumerate(left):
        others = left[:number] + left[number + 1 :]
        overtakes = any(one.returned is not None and one.returned < operation.invoked for one in others)
        if overtakes:
            continue
        for following in specification.after(state, operation.call, operation.answer):
            if _goes_on(following, others, specification):
                return True
    return False
