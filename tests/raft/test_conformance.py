"""docs/conformance.md names tests and scenarios that exist, and all of the scenarios."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE)
    assert len(named) > 40
    gone = [
        f"{file}::{test}"
        for file, test in named
        if not (HERE / file).exists() or f"\ndef {test}(" not in (HERE / file).read_text(encoding="utf-8")
    ]
    assert not gone


def test_every_scenario_that_the_page_names_exists() -> None:
    named = re.findall(r"`(scenarios/\w+\.txt)`", PAGE)
    assert len(named) > 20
    assert not [name for name in named if not (HERE / name).exists()]


def test_no_scenario_of_the_list_is_without_a_test() -> None:
    scenarios, _, _ = PAGE.partition("## The paper's figures")
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", scenarios, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 30))
    assert all(tests.startswith("`") for _, tests in rows)
