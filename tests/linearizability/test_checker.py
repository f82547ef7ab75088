"""The checker itself: on a register, which everybody knows, and against trying every order of many histories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings

from tests.linearizability.checker import (
    Operation,
    TooManyConfigurations,
    Unexplained,
    check,
    check_each,
)
from tests.linearizability.histories import SPECIFICATION, History, changed, linearizable
from tests.linearizability.oracle import explains


@dataclass(frozen=True)
class Write:
    """Set it."""

    value: int


@dataclass(frozen=True)
class Get:
    """Look at it."""


class Register:
    """A number, 0 at first."""

    initial = 0

    def after(self, state: int, call: Write | Get, answer: int | None) -> Iterable[int]:
        """A write is answered with what it wrote, a read with what there is."""
        if isinstance(call, Write):
            return (call.value,)
        return (state,) if answer in (None, state) else ()

    def only_reads(self, call: Write | Get) -> bool:
        """Whether it is a read."""
        return isinstance(call, Get)


RegisterOperation = Operation[Write | Get, int]


def write(value: int, invoked: int, returned: int | None) -> RegisterOperation:
    """A write; without an end, nobody knows whether it happened."""
    return Operation("w", Write(value), None if returned is None else value, invoked, returned)


def get(value: int, invoked: int, returned: int) -> RegisterOperation:
    """A read and what it saw."""
    return Operation("r", Get(), value, invoked, returned)


@pytest.mark.parametrize(
    ("history", "is_right"),
    [
        ([], True),
        ([get(0, 0, 1)], True),
        ([get(1, 0, 1)], False),
        ([write(1, 0, 1), get(1, 2, 3)], True),
        ([write(1, 0, 1), get(0, 2, 3)], False),
        # While it is being written, a reader may see either; but nobody sees the old one after the new one was seen.
        ([write(1, 0, 9), get(0, 1, 2), get(1, 3, 4)], True),
        ([write(1, 0, 9), get(1, 1, 2), get(0, 3, 4)], False),
        ([write(1, 0, 9), get(1, 1, 4), get(0, 3, 5)], True),
        # Unknown: it may come at any time later, or never; but once it has come it stays.
        ([write(1, 0, None), get(0, 1, 2), get(0, 3, 4)], True),
        ([write(1, 0, None), get(0, 1, 2), get(1, 90, 99)], True),
        ([write(1, 0, None), get(1, 1, 2), get(0, 3, 4)], False),
        ([write(1, 5, None), get(1, 1, 2)], False),
        # At the same moment: in either order.
        ([write(1, 0, 1), get(0, 1, 2)], True),
        # A write and its undoing overlap, and a third value was there before both.
        ([write(3, 0, 1), write(1, 2, 9), write(2, 2, 9), get(1, 3, 4), get(2, 5, 6), get(1, 7, 8)], False),
        ([write(3, 0, 1), write(1, 2, 9), write(2, 2, 9), get(1, 3, 4), get(2, 5, 6), get(2, 7, 8)], True),
    ],
)
def test_a_register(history: list[RegisterOperation], is_right: bool) -> None:
    assert explains(history, Register()) is is_right, "the oracle is right"
    assert (check(history, Register()) is None) is is_right


def test_what_is_not_explained_says_where() -> None:
    history = [write(1, 0, 1), get(0, 2, 3), write(2, 2, None)]
    found = check(history, Register())
    assert isinstance(found, Unexplained)
    assert found.operation == history[1]
    assert found.states == (1,)
    assert found.under_way == (history[2],)
    assert found.before == (history[0],)
    assert "no order explains [2, 3] r: Get() -> 0" in str(found)


def test_an_answer_before_its_call_is_no_operation() -> None:
    with pytest.raises(ValueError, match="before its call"):
        get(0, 2, 1)
    with pytest.raises(ValueError, match="has its time"):
        Operation("r", Get(), None, 0, 1)


def test_a_search_that_grows_too_large_says_so() -> None:
    history = [write(value, 0, 100) for value in range(12)]
    with pytest.raises(TooManyConfigurations, match="over 50"):
        check([*history, get(99, 1, 2)], Register(), limit=50)


@given(linearizable(max_size=14))
def test_what_was_made_in_order_is_accepted(history: History) -> None:
    assert check(history, SPECIFICATION) is None


@settings(max_examples=400)
@given(changed())
def test_the_checker_says_what_trying_every_order_says(history: History) -> None:
    assert (check(history, SPECIFICATION) is None) is explains(history, SPECIFICATION)


def test_many_operations_on_many_objects_are_checked_one_object_at_a_time() -> None:
    """Ten thousand, ten clients at once on each of forty registers, a tenth without an answer; one of them is wrong."""
    random = Random(5)
    history: dict[int, list[RegisterOperation]] = {key: [] for key in range(40)}
    for part in history.values():
        value = 0
        for number in range(250):
            moment = number * 10
            invoked, returned = moment - random.randrange(50), moment + random.randrange(50)
            if random.random() < 0.3:
                value = number
                part.append(write(value, invoked, returned if random.random() > 0.1 else None))
            else:
                part.append(get(value, invoked, returned))
    wrong = get(1_000_000, 700, 701)
    history[7].append(wrong)
    found = check_each(history, lambda _: Register())
    assert list(found) == [7]
    assert isinstance(found[7], Unexplained)
    assert found[7].operation is wrong


def test_where_the_search_of_one_object_gives_up_the_others_are_checked() -> None:
    too_much = [*(write(value, 0, 100) for value in range(20)), get(99, 1, 2)]
    found = check_each({1: too_much, 2: [get(0, 0, 1)], 3: [get(1, 0, 1)]}, lambda _: Register())
    assert isinstance(found[1], TooManyConfigurations)
    assert isinstance(found[3], Unexplained)
    assert list(found) == [1, 3]
