"""Every scenario of ``scenarios/`` leads to what its file says.

``UPDATE_SCENARIOS=1 scripts/test tests/raft/test_scenarios.py`` writes down what they lead to now: look at what that
changes.
"""

import os
from pathlib import Path

import pytest

from tests.raft.scenario import commands_of, transcript

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
UPDATE = bool(os.environ.get("UPDATE_SCENARIOS"))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_scenario_leads_to_what_its_file_says(file: Path) -> None:
    written = file.read_text(encoding="utf-8")
    now = transcript(written)
    if UPDATE:
        file.write_text(now, encoding="utf-8")
    else:
        assert now.splitlines() == written.splitlines()


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_scenario_says_first_what_it_shows(file: Path) -> None:
    first = next(commands_of(file.read_text(encoding="utf-8")))
    assert first.startswith("# ")


def test_what_a_file_says_does_not_matter_to_what_happens() -> None:
    assert transcript("# x\nvoters 1\nelect 1\n    1 lost\nshow\n") == (
        "# x\nvoters 1\nelect 1\n    1 won the election: leader in term 1\nshow\n"
        "    1: leader in term 1, commit 1, terms: 1\n"
    )


def test_a_command_that_is_none_is_an_error() -> None:
    with pytest.raises(AttributeError, match="_do_elevate"):
        transcript("elevate 1\n")
