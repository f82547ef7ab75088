"""The mutants' command line; ``scripts/mutants`` runs it.

What may live here: words and exit codes. 0: all died; 1: one lives, or a patch does not apply any more; 2: wrong words.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.campaign import Campaign, Result
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import TESTS, Mutant

ROOT = Path(__file__).parent.parent.parent
SEEDS = 100


def main(words: list[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Breaks the code on purpose, one rule at a time, in a copy, and shows which check notices.",
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only mutants with this in their name"
    )
    parser.add_argument(
        "--seeds", metavar="N", type=int, default=SEEDS, help="of the simulator, at most (%(default)s)"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="so many mutants at a time")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--list", action="store_true", help="print their names, and try none")
    options = parser.parse_args(words)
    mutants = [
        mutant for mutant in MUTANTS if not options.only or any(part in mutant.name for part in options.only)
    ]
    if not mutants:
        parser.error(f"no mutant is called {options.only}")
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    results = _tried(mutants, options.jobs, options.seeds)
    if options.output == "json":
        print(json.dumps([_record(result) for result in results], indent=2))
    else:
        print("\n".join(_table(results)))
    return 0 if all(result.killed for result in results) else 1


def _tried(mutants: Sequence[Mutant], jobs: int, seeds: int) -> list[Result]:
    count = 0

    def said(result: Result) -> None:
        nonlocal count
        count += 1
        print(f"{count}/{len(mutants)} {result.mutant.name}: {_fate(result)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        # Its real name: on some systems it is reached through a link, and the copy looks for itself.
        return list(Campaign(ROOT, Path(scratch).resolve(), seeds).run(mutants, jobs, said))


def _fate(result: Result) -> str:
    if result.problem:
        return f"{result.check} NOT TRIED: {result.problem}"
    if not result.killed:
        return "LIVES"
    return result.by if result.check == TESTS else f"{result.check}: {result.by}"


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield "| mutant | file | what it breaks | killed by | seeds | s |"
    yield "|---|---|---|---|---:|---:|"
    for result in results:
        mutant = result.mutant
        # Table cells end at a bar, and a line at its end.
        fate = " ".join(_fate(result).replace("|", "/").split())
        seeds = str(result.tried) if result.tried else ""
        yield f"| {mutant.name} | {mutant.file} | {mutant.breaks} | {fate} | {seeds} | {result.took_s:.0f} |"
    killed = sum(result.killed for result in results)
    yield ""
    yield f"{killed} of {len(results)} mutants were killed."


def _record(result: Result) -> dict[str, object]:
    return {
        "mutant": result.mutant.name,
        "file": result.mutant.file,
        "breaks": result.mutant.breaks,
        "killed": result.killed,
        "check": result.check,
        "by": result.by,
        "said": result.said,
        "seeds": result.tried,
        "seconds": round(result.took_s, 1),
        "problem": result.problem,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
