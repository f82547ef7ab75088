"""Task kinds of an installed distribution, as a user would write them."""

import os
import signal
import subprocess
import threading
import time

from raftd.tasks.context import TaskCancelled, TaskContext
from raftd.tasks.registry import Args, task


@task("test-bytes")
def give_bytes(ctx: TaskContext, args: Args) -> bytes:
    """Returns so many bytes."""
    return b"x" * int(args[0])


@task("test-blob")
def give_blob(ctx: TaskContext, args: Args) -> bytes:
    """Returns a blob's bytes."""
    return ctx.blobs.get(args[0]).read_bytes()


@task("test-leaver")
def leaver(ctx: TaskContext, args: Args) -> str | None:
    """Leaves a thread or a process behind."""
    if args[0] == "thread":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    elif args[0] == "process":
        return str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
    return None


@task("test-isolated", isolated=True)
def isolated(ctx: TaskContext, args: Args) -> str:
    """Does as it is told, in a process of its own."""
    if args[0] == "raise":
        raise ValueError("as asked")
    if args[0] == "die":
        os._exit(7)
    if args[0] == "wait":
        print("up")
        try:
            signal.pause()
        except TaskCancelled:
            print("tidied")
            raise
    return f"{os.getpid()} {ctx.stdin.decode()}"
