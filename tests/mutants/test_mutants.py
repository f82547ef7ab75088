"""That every mutant still means something, and that those who judge them can tell: a few are tried, one of each kind.

``scripts/mutants`` tries all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.campaign import Campaign, Result, copy_tree
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import EXPLORATION, SIMULATOR, SOAK, TESTS, DoesNotApply, Edit, Mutant, apply

ROOT = Path(__file__).parent.parent.parent
SEEDS = 10


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(ROOT, tmp_path_factory.mktemp("mutants"), SEEDS)


def named(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def test_every_patch_applies_and_is_code(tmp_path: Path) -> None:
    wrong = []
    for mutant in MUTANTS:
        for edit in mutant.edits:
            copy = tmp_path / edit.file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((ROOT / edit.file).read_text("utf-8"), "utf-8")
        try:
            apply(mutant, tmp_path)
            for edit in mutant.edits:
                compile((tmp_path / edit.file).read_text("utf-8"), edit.file, "exec")
        except (DoesNotApply, SyntaxError) as error:
            wrong.append(f"{mutant.name}: {error}")
    assert not wrong, "mend these patches, or take them out where the rule is gone:\n" + "\n".join(wrong)


def test_every_mutant_has_a_name_of_its_own_and_something_that_could_see_it() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 40
    for mutant in MUTANTS:
        assert mutant.checks, mutant.name
        assert mutant.tests or mutant.checks != (TESTS,), mutant.name
        assert all((ROOT / path).is_file() for path in mutant.tests), mutant.name


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "check", "by"),
    [
        ("skip an fsync", SIMULATOR, "DurableBeforeSay"),
        ("confirm reads alone", SIMULATOR, "ReadFresh"),
        ("count a learner", SOAK, "QuorumsMeet"),
        ("commit with half of the voters", EXPLORATION, "OneLeaderPerTerm"),
        ("vote without the log rule", EXPLORATION, "LeaderComplete"),
        ("keep no tombstone", TESTS, "tests/scheduler/test_membership.py"),
    ],
)
def test_a_mutant_is_killed(campaign: Campaign, name: str, check: str, by: str) -> None:
    result = campaign.try_one(replace(named(name), checks=(check,)))
    assert result.killed, result
    assert result.by.startswith(by), result


def tried(campaign: Campaign, new: str) -> Result:
    edit = Edit("raftd/raft/quorum.py", "return voter_count // 2 + 1", new)
    checks = (SOAK, TESTS)
    return campaign.try_one(Mutant("one of a kind", "", (edit,), checks, ("tests/raft/test_quorum.py",)))


def test_a_mutant_that_changes_nothing_lives(campaign: Campaign) -> None:
    result = tried(campaign, "return 1 + voter_count // 2")
    assert not result.killed
    assert not result.problem


def test_a_patch_with_a_mistake_in_it_proves_nothing(campaign: Campaign) -> None:
    result = tried(campaign, "return voters_count // 2 + 1")
    assert not result.killed
    assert "NameError" in result.problem


def test_a_patch_whose_text_is_gone_says_so(tmp_path: Path) -> None:
    copy_tree(ROOT, tmp_path / "tree")
    mutant = Mutant("one of a kind", "", (Edit("raftd/raft/quorum.py", "no such text", ""),))
    with pytest.raises(DoesNotApply, match="one of a kind"):
        apply(mutant, tmp_path / "tree")
