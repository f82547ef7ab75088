"""One change of a local cluster at a time: an advisory lock per cluster that says who holds it.

The lock file lies beside the clusters' directories and not inside, so that removing a cluster removes no lock that
somebody else waits for. It is the kernel's lock: it goes with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator

from raftctl.context import state_home
from raftctl.errors import CliError, ExitCode

POLL_S = 0.05


@contextlib.contextmanager
def exclusive(cluster_name: str, timeout_s: float) -> Iterator[None]:
    """Holds the cluster's lock; waits for it up to `timeout_s`.

    Raises CliError (exit code 6), naming the holder, when the time runs out.
    """
    path = state_home() / ".locks" / cluster_name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, cluster_name, time.monotonic() + timeout_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} (raftctl {' '.join(sys.argv[1:4])})".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which unlocks it


def _acquire(descriptor: int, cluster_name: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                raise CliError(
                    f"cluster {cluster_name!r} is being changed by {holder}",
                    "wait for it to end, then again",
                    ExitCode.REJECTED,
                ) from None
            time.sleep(POLL_S)
        else:
            return
