"""The workload's tasks: each writes down itself when it runs, so that the cluster's word need not be taken for it.

A line is `WHAT TASK ATTEMPT TOKEN NANOSECONDS PID`, appended in one write: the order of the lines is the order in which
things happened. While an attempt runs it goes on writing: one that is believed dead and is not gives itself away.
"""

import os
import threading
import time

from raftd.tasks.context import TaskCancelled, TaskContext
from raftd.tasks.registry import Args, task

BEAT_S = 0.05


def run(ctx: TaskContext, args: Args) -> str:
    """`FILE DURATION_MS FAILING DYING RESULT_BYTES`: the first attempts die, then some fail, then one succeeds."""
    path, duration_ms, failing, dying, result_bytes = args[0], *map(int, args[1:])
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def say(what: str) -> None:
        line = f"{what} {ctx.task_id} {ctx.attempt} {ctx.fencing_token} {time.time_ns()} {os.getpid()}\n"
        os.write(ledger, line.encode())

    say("start")
    try:
        never = threading.Event()
        end = time.monotonic() + duration_ms / 1000
        while (left_s := end - time.monotonic()) > 0:
            never.wait(min(left_s, BEAT_S))
            say("beat")
        if ctx.attempt <= dying:
            say("die")
            os._exit(9)
        if ctx.attempt <= dying + failing:
            say("fail")
            raise RuntimeError("as asked")
        say("end")
        return f"{ctx.task_id} {ctx.attempt} {ctx.fencing_token}".ljust(result_bytes, ".")
    except TaskCancelled:
        say("stop")
        raise
    finally:
        os.close(ledger)


@task("workload", workdir=False)
def workload(ctx: TaskContext, args: Args) -> str:
    """Writes to the ledger, in the slot's own process."""
    return run(ctx, args)


@task("workload-isolated", isolated=True)
def workload_isolated(ctx: TaskContext, args: Args) -> str:
    """Writes to the ledger, in a process of its own."""
    return run(ctx, args)
