"""Every mutant in a copy of the tree of its own: the checks one after the other, until one notices.

What may live here: the copies, the processes, and what came of each mutant.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from tests.mutants.mutant import SIMULATOR, SOAK, TESTS, DoesNotApply, Mutant, apply

COPIED = ("raftd", "raftctl", "tests", "pyproject.toml")
SOAK_SEEDS_PER_SEED = 6
"""One of the simulator takes as long as several of the soak."""
HANGS = "HangsForEver"


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        check: that killed it; empty where it lives.
        by: the invariant or the test that failed.
        tried: seeds of that check until then; 0 where it has none.
        said: by what failed, in its words.
        problem: why nothing can be said: the patch does not apply, or is no code.
    """

    mutant: Mutant
    check: str = ""
    by: str = ""
    tried: int = 0
    took_s: float = 0.0
    said: str = ""
    problem: str = ""

    @property
    def killed(self) -> bool:
        """Whether a check noticed, and would not have without the patch."""
        return bool(self.check) and not self.problem


@dataclass(frozen=True)
class _Verdict:
    by: str | None
    tried: int
    said: str = ""
    mistake: str = ""


class Campaign:
    """Tries mutants of one tree.

    Args:
        root: the tree; never written to.
        scratch: an empty directory for the copies.
        seeds: of the simulator, at most; the soak has as many as take as long.
    """

    def __init__(self, root: Path, scratch: Path, seeds: int) -> None:
        self._scratch = scratch
        self._seeds = seeds
        self._base = scratch / "as-it-is"
        self._sound: dict[tuple[str, ...], bool] = {}
        self._lock = Lock()
        copy_tree(root, self._base)

    def run(self, mutants: Sequence[Mutant], jobs: int, said: Callable[[Result], None]) -> Iterator[Result]:
        """Try them; the results come in the order of the mutants, ``said`` hears of each at once."""

        def one(mutant: Mutant) -> Result:
            began_s = time.monotonic()
            result = replace(self.try_one(mutant), took_s=time.monotonic() - began_s)
            with self._lock:
                said(result)
            return result

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, mutants)

    def try_one(self, mutant: Mutant) -> Result:
        """Apply it to a copy, and check that until something notices."""
        tree = self._scratch / mutant.name.replace(" ", "-").replace("/", "-")
        copy_tree(self._base, tree)
        try:
            apply(mutant, tree)
            for edit in mutant.edits:
                compile((tree / edit.file).read_text("utf-8"), edit.file, "exec")
        except (DoesNotApply, SyntaxError) as error:
            return Result(mutant, problem=str(error))
        try:
            return self._look(mutant, tree)
        finally:
            shutil.rmtree(tree)

    def _look(self, mutant: Mutant, tree: Path) -> Result:
        for check in mutant.checks:
            if check == TESTS and not mutant.tests:
                continue
            words = self._words(mutant, check)
            verdict = _run(tree, words)
            if verdict.mistake:
                return Result(mutant, check, problem=verdict.mistake)
            if verdict.by is not None:
                tried = verdict.tried if check in (SIMULATOR, SOAK) else 0
                result = Result(mutant, check, verdict.by, tried, said=verdict.said)
                again = _same_again(words, verdict)
                if not self._is_sound(again):
                    return replace(result, problem="the code as it is fails that check too")
                if check == TESTS and _run(tree, again).by is None:
                    return replace(result, problem=f"{verdict.by} fails only now and then")
                return result
        return Result(mutant)

    def _words(self, mutant: Mutant, check: str) -> tuple[str, ...]:
        if check == TESTS:
            return (check, "--", *mutant.tests)
        seeds = self._seeds * (SOAK_SEEDS_PER_SEED if check == SOAK else 1)
        leaning = () if mutant.leaning is None else (f"--leaning={mutant.leaning}",)
        return (check, "--seeds", "0", str(seeds), *leaning)

    def _is_sound(self, words: tuple[str, ...]) -> bool:
        """Whether the code without a patch passes."""
        if words not in self._sound:
            self._sound[words] = _run(self._base, words).by is None
        return self._sound[words]


def _same_again(words: tuple[str, ...], verdict: _Verdict) -> tuple[str, ...]:
    """The one seed, or the one test, that has noticed."""
    check, *rest = words
    if check == TESTS:
        return (check, "--", str(verdict.by))
    return (check, "--seeds", str(verdict.tried - 1), str(verdict.tried), *rest[3:])


def _run(tree: Path, words: Sequence[str]) -> _Verdict:
    """One kind of check in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.mutants.checks", *words],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"tried"')]
    last = lines[-1] if lines else {}
    if ran.returncode == 0 and "by" in last:
        return _Verdict(last["by"], last["tried"], last.get("said", ""))
    if "Timeout" in ran.stderr and last:
        return _Verdict(HANGS, last["tried"] + 1)
    return _Verdict(
        None, 0, mistake=last.get("mistake") or ran.stderr[-2000:] or f"it ended with {ran.returncode}"
    )


def copy_tree(root: Path, target: Path) -> None:
    """What the checks need, with its compiled modules, which stay valid for what is not patched."""
    target.mkdir(parents=True)
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, target / name)
        else:
            shutil.copy2(root / name, target / name)
