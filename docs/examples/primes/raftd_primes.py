"""Task kinds about prime numbers; docs/writing-tasks.md goes through them.

What may live here: everything light at the top, for servers import this module to check submissions. A library that is
slow to import belongs inside the function that needs it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from raftd.errors import InvalidArguments
from raftd.tasks.context import TaskCancelled, TaskContext, TaskFailed
from raftd.tasks.registry import Args, task

MAX_NUMBER = 10**9
PROGRESS_EVERY = 1_000


def _bounds(args: Sequence[str]) -> tuple[int, int]:
    if len(args) != 2 or not all(arg.isascii() and arg.isdecimal() and len(arg) <= 10 for arg in args):
        raise InvalidArguments(
            "give two whole numbers: FROM TO", try_="raftctl submit count-primes -- 0 1000"
        )
    low, high = int(args[0]), int(args[1])
    if not low <= high <= MAX_NUMBER:
        raise InvalidArguments(f"{low} to {high}: numbers go from 0 to {MAX_NUMBER}, the smaller one first")
    return low, high


def check_bounds(args: Sequence[str]) -> None:
    """Refuses arguments when they are submitted, in the server; `raftctl submit` shows the message."""
    _bounds(args)


def _primes(ctx: TaskContext, low: int, high: int) -> Iterator[int]:
    for number in range(max(low, 2), high + 1):
        if number % PROGRESS_EVERY == 0:
            ctx.progress((number - low) / max(1, high - low), f"at {number}")
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
            yield number


@task("count-primes", check=check_bounds)
def count_primes(ctx: TaskContext, args: Args) -> str:
    """Counts the primes between two numbers."""
    low, high = _bounds(args)
    found = sum(1 for _ in _primes(ctx, low, high))
    return json.dumps({"from": low, "to": high, "primes": found})


@task("list-primes", check=check_bounds)
def list_primes(ctx: TaskContext, args: Args) -> str:
    """Lists them in a blob; its digest is the result. Keeps what it has found when it is stopped."""
    low, high = _bounds(args)
    found = 0
    path = ctx.workdir / "primes"  # private, and gone when the attempt ends
    with path.open("w") as file:
        try:
            for prime in _primes(ctx, low, high):
                print(prime, file=file)
                found += 1
        except TaskCancelled:
            ctx.log(f"stopped after {found} primes")  # a moment for tidying up: until the grace is over
            raise
    if not found:
        raise TaskFailed("there is no prime", json.dumps({"from": low, "to": high}).encode())
    return json.dumps({"primes": found, "blob": ctx.blobs.put(path)})


def _check_publish(args: Sequence[str]) -> None:
    if len(args) != 1 or not args[0].startswith("/"):
        raise InvalidArguments(
            "publish takes the absolute path of a file, and its content by --stdin",
            try_="echo 42 | raftctl submit publish --stdin - -- /srv/shared/answer",
        )


@task("publish", check=_check_publish, isolated=True)
def publish(ctx: TaskContext, args: Args) -> str:
    """Writes the payload to a shared file, unless a later attempt has done so already.

    A task may run more than once: a node that seemed lost may still be at work while its successor is, too. The fencing
    token of the later attempt is the greater one, so whoever remembers the greatest can turn the earlier away.
    """
    path = Path(args[0])
    mine = [int(part) for part in ctx.fencing_token.split(".")]
    with (path.parent / f"{path.name}.token").open("a+") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        guard.seek(0)
        greatest = json.loads(guard.read() or "[0, 0]")
        if mine < greatest:
            raise TaskFailed(f"token {ctx.fencing_token} is older than what was published")
        # First the token, then the content: an attempt that dies in between has shut out its predecessors only.
        guard.truncate(0)
        guard.write(json.dumps(mine))
        guard.flush()
        os.fsync(guard.fileno())
        fresh = path.with_name(f"{path.name}.{ctx.fencing_token}")
        fresh.write_bytes(ctx.payload)
        fresh.replace(path)
    return f"{len(ctx.payload)} bytes"
