"""Task kinds of an installed distribution, as a user would write them."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from raftd.tasks.context import TaskCancelled, TaskContext, TaskFailed, current_context
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
    return f"{os.getpid()} {ctx.payload.decode()}"


@task("test-fails")
def fails(ctx: TaskContext, args: Args) -> None:
    """Fails, and brings so many bytes."""
    raise TaskFailed("as  asked", b"e" * int(args[0]))


@task("test-puts")
def puts(ctx: TaskContext, args: Args) -> str:
    """Puts a blob, out of memory or out of a file."""
    if args[0] == "bytes":
        return ctx.blobs.put(b"eight")
    if args[0] == "file":
        Path("made").write_bytes(b"nine")
        return ctx.blobs.put(ctx.workdir / "made")
    return ctx.blobs.put(Path(args[0]))


@task("test-puts-isolated", isolated=True)
def puts_isolated(ctx: TaskContext, args: Args) -> str:
    """The same in a process of its own."""
    digest = puts.run(ctx, args)
    assert isinstance(digest, str)
    return ctx.blobs.get(digest).read_text() + " " + digest


@task("test-who")
def who(ctx: TaskContext, args: Args) -> str:
    """What the context knows, from the argument and from nowhere, in another thread also."""
    found: list[object] = []

    def look() -> None:
        found.append(current_context())
        ctx.progress(0.5, "from a thread")
        try:
            ctx.blobs.put(b"x")
        except RuntimeError as error:
            ctx.log(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [ctx]
    assert ctx.workdir == Path.cwd()
    return (
        f"{ctx.task_id} {ctx.attempt} {ctx.fencing_token} {ctx.array_index} {ctx.payload!r} {ctx.cancelled}"
    )


def greedy(args: Args) -> None:
    """Uses what there is of something."""
    what, amount = args[0], int(args[1])
    if what == "cpu":
        while True:
            sum(range(1000))
    elif what == "deaf":  # swallows what is raised
        while True:
            with suppress(BaseException):
                while True:
                    sum(range(1000))
    elif what == "memory":
        kept = bytearray(amount)
        print(len(kept))
    elif what == "file":
        with open("large", "wb") as file:
            file.write(b"x" * amount)
    elif what == "output":
        written = 0
        while written < amount:
            written += os.write(1, b"x" * 1000)
    elif what == "abort":
        os.abort()


@task("test-greedy")
def greedy_here(ctx: TaskContext, args: Args) -> bytes | None:
    """Uses what there is of something, in the slot."""
    greedy(args)
    if args[0] == "result":
        return b"x" * int(args[1])
    return ctx.blobs.put(b"x" * int(args[1])).encode() if args[0] == "put" else None


@task("test-greedy-isolated", isolated=True)
def greedy_isolated(ctx: TaskContext, args: Args) -> None:
    """The same in a process of its own."""
    greedy(args)
