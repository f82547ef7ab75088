"""What a mutant is: a small patch of the source that breaks one rule, and where to look for what comes of it.

What may live here: the patch, applying it to a copy of the tree, and nothing that runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SIMULATOR = "simulator"
SOAK = "soak"
EXPLORATION = "exploration"
TESTS = "tests"
CHECKS = (SIMULATOR, SOAK, EXPLORATION, TESTS)
"""In the order in which they are tried: whole clusters first, single functions last."""


@dataclass(frozen=True)
class Edit:
    """A text of a file, found there exactly once, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One broken rule.

    Attributes:
        name: what the broken code does.
        breaks: the rule, as it should be.
        edits: the patch.
        checks: that could see it. Left out are those in whose world the code does not run.
        tests: files of unit tests, for what nothing else sees.
        leaning: of the simulator's plans (``tests.sim.plan``); None for plans as they are drawn.
    """

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    checks: tuple[str, ...] = CHECKS
    tests: tuple[str, ...] = ()
    leaning: str | None = None

    @property
    def file(self) -> str:
        """Where the rule is."""
        return self.edits[0].file


class DoesNotApply(Exception):
    """The code has changed: the patch does not mean anything there any more."""


def apply(mutant: Mutant, root: Path) -> None:
    """Patch the tree at ``root``. Raises ``DoesNotApply``."""
    for edit in mutant.edits:
        path = root / edit.file
        source = path.read_text("utf-8")
        count = source.count(edit.old)
        if count != 1:
            raise DoesNotApply(f"{mutant.name!r}: {count} places in {edit.file} read {edit.old!r}")
        path.write_text(source.replace(edit.old, edit.new), "utf-8")


def blind(part: str) -> Edit:
    """Have the core's own invariants look away from one part, so that what is said outside must give it away."""
    return Edit("raftd/raft/invariants.py", f"*_broken_in_{part}(state)", "*()")
