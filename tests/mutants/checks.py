"""One kind of check on the tree that it is started in: ``python -m tests.mutants.checks``, run by ``campaign``.

What may live here: running seeds until one fails, and naming what failed. It prints a line of JSON for each seed that
it begins and one for how it ended, so that whoever started it knows where it was if it never came back.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import raftd
from raftd.raft.types import InvariantViolation
from tests.mutants.mutant import EXPLORATION, SIMULATOR, SOAK, TESTS
from tests.raft.exploration import Bound, Exploration
from tests.raft.soak import soak
from tests.sim.plan import plan_of
from tests.sim.world import run

SEED_LIMIT_S = 120
"""No seed takes a tenth of it; a loop without end takes all."""
MEMORY_BYTES = 4 << 30
SAID_CHARS = 500
BOUND = Bound(proposals=1, losses=0, crashes=0, states=60_000)
NOT_A_RULE = (NameError, ImportError, SyntaxError, AttributeError, TypeError)
"""What a patch with a mistake in it raises: that something noticed says nothing then."""
_INVARIANT = re.compile(r"([A-Z][A-Za-z]{4,}): ")


class Found(Exception):
    """Something noticed.

    Attributes:
        said: in its words.
    """

    def __init__(self, by: str, said: object = "") -> None:
        super().__init__(by)
        self.said = str(said)[:SAID_CHARS]


class Mistaken(Exception):
    """The patch is no code."""


def main(words: list[str]) -> int:
    """Run one kind of check; the last line says what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("check")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--leaning")
    parser.add_argument("paths", nargs="*")
    options = parser.parse_args(words)
    if Path(raftd.__file__).parent.parent != Path.cwd():
        raise RuntimeError(f"{raftd.__file__} would be checked, and not {Path.cwd()}")
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    tried = 0
    answer: dict[str, object] = {"by": None}
    try:
        for look in _looks(options.check, options.seeds, options.leaning, options.paths):
            say({"tried": tried})
            faulthandler.dump_traceback_later(SEED_LIMIT_S if options.check != TESTS else 1800, exit=True)
            tried += 1
            look()
    except Found as found:
        answer = {"by": str(found), "said": found.said}
    except Mistaken as mistake:
        answer = {"mistake": str(mistake)}
    faulthandler.cancel_dump_traceback_later()
    say({"tried": tried, **answer})
    return 0


def say(line: dict[str, object]) -> None:
    """To whoever has started this."""
    print(json.dumps(line), flush=True)


def _looks(
    check: str, seeds: tuple[int, int], leaning: str | None, paths: list[str]
) -> Iterator[Callable[[], None]]:
    if check == SIMULATOR:
        return (partial(_simulate, seed, leaning) for seed in range(*seeds))
    if check == SOAK:
        return (partial(_soak, seed) for seed in range(*seeds))
    return iter((_explore,) if check == EXPLORATION else (partial(_test, paths),))


def _simulate(seed: int, leaning: str | None) -> None:
    try:
        failure = run(plan_of(seed, leaning)).failure
    except Exception as error:
        raise _named(error) from error
    if failure is not None:
        cause: BaseException | None = failure.__cause__
        if isinstance(cause, NOT_A_RULE):
            raise Mistaken(repr(cause))
        raise Found(failure.invariant, failure)


def _soak(seed: int) -> None:
    try:
        # By turns with an operator who changes the members all the time.
        soak(seed // 2, busy=bool(seed % 2))
    except Exception as error:
        raise _named(error) from error


def _explore() -> None:
    try:
        Exploration(BOUND).run()
    except Exception as error:
        raise _named(error) from error


def _test(paths: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 0:
        return
    failed = re.search(r"^FAILED (\S+?)(?:\[.*)?(?: - .*)?$", ran.stdout, re.MULTILINE)
    mistake = re.search(
        r"^E +(NameError|ImportError|SyntaxError|UnboundLocalError).*", ran.stdout, re.MULTILINE
    )
    if ran.returncode != 1 or failed is None or mistake is not None:
        raise Mistaken(mistake[0] if mistake else ran.stdout[-2000:] + ran.stderr[-500:])
    raise Found(failed[1], failed[0])


def _named(error: Exception) -> Exception:
    """By its invariant, or the next best."""
    if isinstance(error, NOT_A_RULE):
        return Mistaken(repr(error))
    said = _INVARIANT.match(str(error))
    if said is not None:
        return Found(said[1], error)
    if isinstance(error, InvariantViolation):
        return Found("CoreInvariants", error)
    if "does not heal" in str(error):
        return Found("HealsInTime", error)
    if isinstance(error, AssertionError):
        return Found(f"“{str(error).splitlines()[0][:60] or 'assert'}”", error)
    return Found(type(error).__name__, error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
