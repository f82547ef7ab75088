"""One run: a cluster, its clients and its nemesis for some time, then calm, then the record and the audit.

What may live here: the order of these, what is kept, and the words for who wants to run it again.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from raftctl.cluster.faults import FaultChange
from raftctl.endpoints import Endpoints
from tests.e2e.conftest import Cluster
from tests.e2e.workload import ledger
from tests.e2e.workload.audit import audit
from tests.e2e.workload.clients import (
    Client,
    Shared,
    applied_index,
    change_faults,
    find_leader,
    read_the_record,
    watch,
)
from tests.e2e.workload.history import FAULT, RECORD, SUBMIT, WATCH, Event, History, load
from tests.e2e.workload.nemesis import Nemesis
from tests.e2e.workload.operations import CASCADED

PLUGIN = Path(__file__).parent / "plugin"
SETTLE_S = 60.0
SETTLE_TIMES = 4
"""Patience for a machine that has other things to do: a command line is given less."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is: the same plan makes the same choices, though not the same history, for time is real.

    Attributes:
        for_s: how long faults go on.
        pause_s: between two operations of a client, on average.
    """

    seed: int
    for_s: float
    client_count: int = 8
    pause_s: float = 0.3


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run."""

    plan: Plan
    directory: Path
    events: Sequence[Event]
    failures: Sequence[str]

    def __str__(self) -> str:
        counts = Counter(event.what for event in self.events if event.what != WATCH)
        unknown = sum(event.answer is None for event in self.events)
        [record] = [event for event in self.events if event.what == RECORD]
        states = Counter(str(task.state) for task in record.tasks)
        outcomes = Counter(str(one.outcome) for task in record.tasks for one in task.attempts)
        faults = Counter(event.about.split()[0] for event in self.events if event.what == FAULT)
        after = {event.about for event in self.events if event.what == SUBMIT and event.asked["after"]}
        cascaded = sum(CASCADED in task.reason for task in record.tasks)
        lines = [
            f"{self.plan}",
            f"operations: {_words(counts)}; {unknown} without an answer",
            f"tasks: {_words(states)}",
            f"come after others: {len(after)} submissions; {cascaded} tasks cancelled for it",
            f"attempts: {_words(outcomes)}",
            f"faults: {_words(faults)}",
        ]
        if not self.failures:
            return "\n".join([*lines, "everything holds"])
        return "\n".join(
            [*lines, f"{len(self.failures)} things do not hold:", *self.failures[:20], how_to_repeat(self)]
        )


def how_to_repeat(report: Report) -> str:
    """For a failure."""
    plan = report.plan
    return (
        f"seed {plan.seed}; history and ledger: {report.directory}\n"
        f"the same choices again:  scripts/workload --seed {plan.seed} --for-s {plan.for_s:g}\n"
        f"the same audit again:    scripts/workload --audit {report.directory}"
    )


def run(plan: Plan, cluster: Cluster, directory: Path) -> Report:
    """Works on a cluster of five that is up and knows the workload's kinds; leaves it whole."""
    directory.mkdir(parents=True, exist_ok=True)
    history = History(directory / "history.jsonl")
    offset_ns = time.time_ns() - time.monotonic_ns()
    (directory / "plan.json").write_text(json.dumps({**asdict(plan), "clock_offset_ns": offset_ns}))
    asyncio.run(_run(plan, cluster, directory, history))
    return again(directory)


def again(directory: Path) -> Report:
    """The audit of a run that was kept."""
    found = json.loads((directory / "plan.json").read_text())
    offset_ns = found.pop("clock_offset_ns")
    events = load(directory / "history.jsonl")
    failures = audit(events, ledger.load(directory / "ledger"), offset_ns)
    return Report(Plan(**found), directory, events, failures)


async def _run(plan: Plan, cluster: Cluster, directory: Path, history: History) -> None:
    addresses = tuple((name, row["address"]) for name, row in cluster.nodes().items())
    endpoints = Endpoints(addresses, (cluster.directory / "token").read_text().strip(), cluster.name)
    shared = Shared(plan.seed, endpoints, str(directory / "ledger"), history, plan.pause_s)
    stopping = threading.Event()
    loop = asyncio.get_running_loop()

    def leader() -> str:
        return asyncio.run_coroutine_threadsafe(find_leader(shared), loop).result()

    def tell(node: str, change: FaultChange) -> None:
        asyncio.run_coroutine_threadsafe(change_faults(shared, node, change), loop).result()

    nemesis = Nemesis(cluster, plan.seed, history, leader, tell, stopping)
    # Before anything is submitted: a watch from now on begins a moment later than the clients.
    watching = asyncio.create_task(watch(shared, await applied_index(shared)))
    async with asyncio.TaskGroup() as group:
        for number in range(1, plan.client_count + 1):
            group.create_task(Client(shared, number).run())
        striking = group.create_task(asyncio.to_thread(nemesis.run))
        try:
            await asyncio.wait({striking, watching}, timeout=plan.for_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
        await striking
        # Only now: what was begun under faults is asked for until the cluster is whole again.
        shared.stopping.set()
    idle = ("cluster", "wait", "--for", "idle", "--timeout", f"{SETTLE_S:g}s")
    for _ in range(SETTLE_TIMES):  # what has not ended after that, the audit will say
        if (await asyncio.to_thread(cluster.run, *idle, code=None)).code == 0:
            break
    await read_the_record(shared)
    assert not watching.done(), f"the watch has ended: {watching}"
    watching.cancel()


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"
