"""A process that behaves like raftd and does nothing: it makes and locks a directory, listens, ends on TERM and QUIT.

What it says of itself stands in ``view.json`` beside its data directory, and the signal that it ended on in the file
``signals`` of the state directory. Files beside it change its ways: ``refuse`` (init fails), ``crash`` (run ends at
once), ``deaf`` (signals are ignored), ``child`` (it leaves a child behind).
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


def value_of(flag: str) -> str:
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{flag}=")), "")


def fail(code: int, message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def init(data: Path) -> None:
    if (data.parent / "refuse").exists() or (data.parent.parent.parent / "refuse").exists():
        fail(2, "refused, as the test wants it")
    if data.exists():
        fail(3, f"{data} is initialised already")
    if "--join" in sys.argv and not value_of("store-id"):
        fail(2, "no store id")
    data.mkdir()
    members = [word for word in sys.argv if word.startswith("--member=")]
    made = {"name": value_of("name"), "members": members, "config": value_of("config")}
    (data / "identity.json").write_text(json.dumps(made))


def run(data: Path) -> None:
    if "--role=worker" in sys.argv and not data.exists() and value_of("join"):
        data.mkdir()  # a worker's first start makes it
        (data / "identity.json").write_text(json.dumps({"name": value_of("name"), "members": []}))
    if not (data / "identity.json").exists():
        fail(3, f"{data} is not initialised")
    if (data.parent / "crash").exists() or (data.parent.parent.parent / "crash").exists():
        fail(1, "crashed, as the test wants it")
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT)  # held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(3, f"{data} is in use by another raftd")
    host, _, port = value_of("listen").partition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        fail(1, f"{host}:{port}: {error.strerror}")
    listener.listen()
    if (data.parent / "child").exists():
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    name = json.loads((data / "identity.json").read_text())["name"]

    def end(number: int, _: object) -> None:
        with (data.parent.parent.parent / "signals").open("a") as file:
            file.write(f"{name} {signal.Signals(number).name}\n")
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN if (data.parent / "deaf").exists() else end)
    Path(value_of("log-file")).write_text("serving\n")
    (data.parent / "view.json").write_text(json.dumps({"name": name, "pid": os.getpid()}))
    while True:
        signal.pause()


if __name__ == "__main__":
    {"init": init, "run": run}[sys.argv[1]](Path(value_of("data-dir")))
