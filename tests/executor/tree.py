"""A program that grows a family which is hard to kill, for the tests: run as `tree.py FILE stay|leave`.

It writes one process id a line to FILE: its own, a child in a session of its own, a daemon that forked twice and wiped
its environment, a stopped one, and one that ignores TERM. Then it stays, or leaves them all behind.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

IGNORER = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def daemon() -> int:
    """Forks twice, leaves session, environment and files; returns the daemon's process id."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.closerange(0, 64)
        os.chdir("/")
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os.close(writer)
    os.wait()
    return int(os.read(reader, 32))


def main() -> None:
    file, what = sys.argv[1:]
    own_session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    stopped = subprocess.Popen(["sleep", "1000"])
    os.kill(stopped.pid, signal.SIGSTOP)
    ignorer = subprocess.Popen(
        [sys.executable, "-S", "-c", IGNORER], stdout=subprocess.PIPE, start_new_session=True
    )
    assert ignorer.stdout is not None
    ignorer.stdout.readline()
    pids = [os.getpid(), own_session.pid, stopped.pid, ignorer.pid, daemon()]
    unfinished = Path(file + ".new")
    unfinished.write_text("".join(f"{pid}\n" for pid in pids))
    unfinished.rename(file)
    print("grown", flush=True)
    if what == "stay":
        signal.pause()


if __name__ == "__main__":
    main()
