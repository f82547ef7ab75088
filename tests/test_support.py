"""The waiting that every other test relies on: it returns what it waited for, or says what never came."""

import asyncio
import socket

import pytest

from tests.support import eventually, free_ports, wait_until


def test_wait_until_returns_what_came() -> None:
    answers = iter(["", "", "leader"])
    assert wait_until(lambda: next(answers), 5, "a leader") == "leader"


def test_wait_until_names_what_never_came() -> None:
    with pytest.raises(AssertionError, match="a leader"):
        wait_until(lambda: False, 0, "a leader")


def test_eventually_takes_functions_and_coroutine_functions() -> None:
    answers = iter([0, 7, 0, 8])

    async def ask() -> int:
        return next(answers)

    async def scenario() -> tuple[int, int]:
        return await eventually(lambda: next(answers), 5, "seven"), await eventually(ask, 5, "eight")

    assert asyncio.run(scenario()) == (7, 8)


def test_eventually_names_what_never_came() -> None:
    with pytest.raises(AssertionError, match="a leader"):
        asyncio.run(eventually(lambda: None, 0, "a leader"))


def test_free_ports_are_distinct_and_can_be_bound() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
