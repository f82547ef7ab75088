"""The measurements of scripts/bench: each prints one line with its figure and how many runs it comes from.

Every measurement uses the product as its users do: the command line and the SDK, on clusters of real processes that it
starts under a state directory of its own and takes down. Medians and ranges, never a best run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from raftctl import ArrayRange, AsyncClient, Submission

RAFTCTL = str(Path(sys.executable).parent / "raftctl")
KILLS = 50
ENTRIES = 1_000_000
GROWTH = """
import asyncio, json, sys, time
from pathlib import Path
from raftd.config import Config
from raftd.founding import found
from raftd.node import proposals
from raftd.scheduler.commands import Cancel
from raftd.storage.directory import DataDirectory
from raftd.wiring.member import Server

proposals.MAX_CLIENT_COMMANDS = 1  # each command is an entry of its own
page = __import__("os").sysconf("SC_PAGE_SIZE")
rss = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * page / 2**20

def end(error):
    raise SystemExit(f"the node ended: {error}")

async def main(directory, listen, entries):
    found(Path(directory), "n1", "c1", [f"n1=1@{listen}"], 16 << 20)
    server = Server(Config(Path(directory), listen=listen), DataDirectory.open(directory), end)
    await server.start()
    while not server.node.leads:
        await server.node.leader_changed()
    began, first, most = time.monotonic(), rss(), 0.0
    while (last := server.node.status().last_index) < entries:
        await asyncio.gather(*(server.node.propose([Cancel(task_id=10**9)], timeout=60) for _ in range(2000)))
        most = max(most, rss())
    took = time.monotonic() - began
    status = server.node.status()
    log = sum(file.stat().st_size for file in Path(directory, "log").iterdir()) / 2**20
    print(json.dumps([first, most, rss(), took, status.last_index, status.first_index, log]))
    await server.stop()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
"""One voter in a process of its own, as raftd wires it, which writes entries as fast as its disk takes them."""
FRAME = ("--width", "400", "--height", "225", "--tiles", "8x8", "--samples", "256")


def raftctl(*words: str) -> str:
    """Runs one command line; its failure ends the benchmark with what it said."""
    ran = subprocess.run((RAFTCTL, *words), capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"raftctl {' '.join(words)}: exit {ran.returncode}\n{ran.stderr}")
    return ran.stdout


@contextmanager
def cluster(nodes: int, *options: str) -> Iterator[None]:
    """A cluster for one measurement."""
    raftctl("cluster", "up", "-n", str(nodes), "-q", *options)
    try:
        yield
    finally:
        raftctl("cluster", "down", "--purge", "-q")


@asynccontextmanager
async def client() -> AsyncIterator[AsyncClient]:
    """A client that has its connections and knows the leader."""
    async with AsyncClient() as made:
        await made.wait([(await made.submit(Submission("noop"))).task_id])
        yield made


def figure(name: str, value: str, how: str) -> None:
    """One line of the result."""
    print(f"{name:<46} {value:<34} {how}", flush=True)


def spread(values: list[float], unit: str) -> str:
    """Median and range."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.1f} {unit} ({ordered[0]:.1f} to {ordered[-1]:.1f})"


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def seconds(action: Callable[[], object]) -> float:
    """How long it took."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


def up() -> None:
    """cluster up -n 5, from the command to every slot ready."""
    times = []
    for _ in range(5):
        times.append(seconds(lambda: raftctl("cluster", "up", "-n", "5", "-q")))
        raftctl("cluster", "down", "--purge", "-q")
    figure("cluster up -n 5", spread(times, "s"), "5 runs of the command, interpreter start included")


def submit() -> None:
    """One submit, from the call to the acknowledgement, on five nodes."""

    async def measure() -> list[float]:
        times = []
        async with client() as made:
            for _ in range(500):
                start = time.monotonic()
                accepted = await made.submit(Submission("noop"))
                times.append(1000 * (time.monotonic() - start))
                await made.wait([accepted.task_id])
        return sorted(times)

    with cluster(5):
        times = asyncio.run(measure())
        lines = [1000 * seconds(lambda: raftctl("submit", "noop")) for _ in range(11)]
    figure(
        "submit, from the SDK, p50",
        f"{times[250]:.1f} ms (p99 {times[495]:.1f} ms)",
        "500, one at a time, 5 nodes",
    )
    figure("raftctl submit noop", spread(lines, "ms"), "11 runs of the command, interpreter start included")


def noop() -> None:
    """No-op tasks from submission to result, on three nodes."""

    async def alone() -> list[float]:
        times = []
        async with client() as made:
            for _ in range(200):
                start = time.monotonic()
                await made.wait([(await made.submit(Submission("noop"))).task_id])
                times.append(1000 * (time.monotonic() - start))
        return times

    async def many(count: int) -> float:
        async with client() as made:
            start = time.monotonic()
            accepted = await made.submit(Submission("noop", array=ArrayRange(0, count - 1)))
            await made.wait_job(accepted.job_id)
            return count / (time.monotonic() - start)

    for slots in (1, 4):
        with cluster(3, "--slots", str(slots)):
            rates = [asyncio.run(many(1000)) for _ in range(3)]
            times = asyncio.run(alone()) if slots == 1 else []
        figure(
            f"no-op tasks, 3 nodes of {slots} slot(s)",
            spread(rates, "/s"),
            "3 arrays of 1,000, submission to result",
        )
        if times:
            figure("one no-op, submission to result", spread(times, "ms"), "200, one at a time")


def failover() -> None:
    """SIGKILL of the leader to the next acknowledged command."""

    async def once(made: AsyncClient, pid: int) -> float:
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await made.submit(Submission("noop"))
        return 1000 * (time.monotonic() - start)

    async def measure(kills: int) -> list[float]:
        times = []
        async with AsyncClient() as made:
            for _ in range(kills):
                leader = (await made.status()).leader or ""
                pids = {node["id"]: node["pid"] for node in json.loads(raftctl("node", "list", "-o", "json"))}
                times.append(await once(made, pids[leader]))
                raftctl("node", "start", leader)
                raftctl("cluster", "wait", "--for", "healthy", "--timeout", "60s")
        return times

    with cluster(5):
        times = asyncio.run(measure(KILLS))
    figure("SIGKILL of the leader to the next ack", spread(times, "ms"), f"{KILLS} kills, 5 nodes")
    figure("the same, p99", f"{percentile(times, 99):.1f} ms", "the same kills")


def idle() -> None:
    """CPU and memory of an idle node."""
    with cluster(5):
        nodes = json.loads(raftctl("node", "list", "-o", "json"))
        pids = [node["pid"] for node in nodes]
        before, start = sum(map(cpu_seconds, pids)), time.monotonic()
        time.sleep(30)
        used = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - start) / len(pids)
        memory = [memory_mib(pid) for pid in pids]
    figure("an idle node: CPU of one core", f"{100 * used:.2f} %", "mean of 5 nodes over 30 s")
    figure(
        "an idle node: memory of raftd (RSS)", spread(memory, "MiB"), "5 nodes, without supervisor and slots"
    )


def cpu_seconds(pid: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Its resident memory (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth() -> None:
    """Memory and log of a node after 1,000,000 entries, with compaction as it is by default."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        child = (sys.executable, "-c", GROWTH, f"{scratch}/data", listen, str(ENTRIES))
        ran = subprocess.run(child, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"growth: exit {ran.returncode}\n{ran.stderr}")
    first, most, last, took, last_index, first_index, log = json.loads(ran.stdout)
    how = f"1 node, {last_index} entries in {took:.0f} s"
    figure("memory of a node (RSS) before, most, after", f"{first:.0f}, {most:.0f}, {last:.0f} MiB", how)
    figure("its log on the disk", f"{log:.0f} MiB", f"entries {first_index} to {last_index}")


def render() -> None:
    """One frame on the cluster, against as many processes that do nothing else."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        with cluster(5):
            raftctl("submit", "render-tile", "0", "--array", "0-4", "--wait")
            on_cluster = seconds(lambda: raftctl("render", *FRAME, "-o", f"{scratch}/a.png"))
        reference = (sys.executable, "-m", "raftd.tasks.render", *FRAME, "--out", f"{scratch}/b.tiles")
        alone = seconds(lambda: subprocess.run(reference, check=True, capture_output=True))
    figure("a frame of 64 tiles on 5 nodes", f"{on_cluster:.1f} s", f"400x225, 256 samples, {cores} cores")
    figure(
        "the same in one process of one thread", f"{alone:.1f} s", f"/ {cores} cores = {alone / cores:.1f} s"
    )


MEASUREMENTS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (up, submit, noop, failover, idle, growth, render)
}


def main() -> None:
    """Runs the measurements that are named."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    names = ", ".join(f"{name} ({(one.__doc__ or '').rstrip('.')})" for name, one in MEASUREMENTS.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {names}")
    asked = parser.parse_args().names or list(MEASUREMENTS)
    unknown = [name for name in asked if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"no measurement is called {unknown[0]}")
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as home:
        os.environ["XDG_STATE_HOME"] = home
        for name in [name for name in os.environ if name.startswith("RAFTCTL_")]:
            del os.environ[name]
        for name in asked:
            MEASUREMENTS[name]()


if __name__ == "__main__":
    main()
