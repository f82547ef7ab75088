"""A large job and a graph of diamonds beside it, while leaders are killed: is what the cluster says of them true?

What may live here: that run. What it was told is gathered with the log index at which it was to be true, and held
against the end of every task, whose index the record keeps, by `truth`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from raftctl.client import AsyncClient
from raftctl.client import models as m
from raftctl.client.errors import Unavailable
from raftctl.cluster.process import send_signal
from raftctl.endpoints import Endpoints
from tests.e2e.conftest import Cluster
from tests.e2e.workload import ledger
from tests.e2e.workload.truth import CountsTold, Explained, ran_wrongly, untruths

T = TypeVar("T")

WIDTH = 8
"""Tasks side by side in a diamond."""
READ_S = 0.05
EXPLAIN_S = 0.02
CALL_S = 10.0
PATIENCE_S = 600.0
PRIORITY = 1_000
"""Of the graph: else it would begin when the job has ended."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a run is: the job, the graph, and at which parts of the job's end a leader is killed."""

    job_count: int = 10_000
    graph_count: int = 1_000
    kills_at: tuple[float, ...] = (0.25, 0.6)


@dataclass(frozen=True, slots=True)
class JobReport:
    """What came of it."""

    sizes: Sizes
    took_s: float
    killed: Sequence[str]
    counts: Sequence[CountsTold]
    explained: Sequence[Explained]
    failures: Sequence[str]

    def __str__(self) -> str:
        waiting = [one for one in self.explained if not one.state.terminal]
        on_others = sum(bool(one.waits_for) for one in waiting)
        lines = [
            f"{self.sizes}",
            f"all ended after {self.took_s:.1f} s; leaders killed: {', '.join(self.killed)}",
            f"counts of the jobs told: {len(self.counts)} times",
            f"explained: {len(self.explained)} times, {len(waiting)} before the end, {on_others} waiting for others",
        ]
        if not self.failures:
            return "\n".join([*lines, "everything holds"])
        return "\n".join([*lines, f"{len(self.failures)} things do not hold:", *self.failures[:20]])


def diamonds(count: int) -> list[tuple[int, ...]]:
    """What each task of a graph comes after: one, then WIDTH side by side, then one after all of them, ..."""
    after: list[tuple[int, ...]] = [()]
    while len(after) < count:
        top = len(after) - 1
        middle = range(top + 1, min(top + 1 + WIDTH, count))
        after += [(top,)] * len(middle)
        if len(after) < count:
            after.append(tuple(middle))
    return after


def run_job(sizes: Sizes, cluster: Cluster, directory: Path, seed: int = 1) -> JobReport:
    """Works on a cluster of five that is up and knows the workload's kinds."""
    directory.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_Run(sizes, cluster, directory, seed).run())


class _Run:
    def __init__(self, sizes: Sizes, cluster: Cluster, directory: Path, seed: int) -> None:
        self._sizes = sizes
        self._cluster = cluster
        self._random = Random(seed)
        self._ledger = directory / "ledger"
        self._counts: list[CountsTold] = []
        self._explained: list[Explained] = []
        self._failures: list[str] = []
        self._killed: list[str] = []
        self._over = asyncio.Event()
        addresses = tuple((name, row["address"]) for name, row in cluster.nodes().items())
        token = (cluster.directory / "token").read_text().strip()
        self._endpoints = Endpoints(addresses, token, cluster.name)

    async def run(self) -> JobReport:
        """All of it."""
        began = time.monotonic()
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            job, graph = await self._submit(client)
            over = self._over
            readers = [
                asyncio.create_task(self._read_counts(job.job_id)),
                asyncio.create_task(self._read_counts(graph.job_id)),
                asyncio.create_task(self._explain(job.task_ids)),
                asyncio.create_task(self._explain(graph.task_ids)),
            ]
            killing = asyncio.create_task(self._kill_leaders(job.job_id))
            waits = [asyncio.create_task(self._wait(one.job_id)) for one in (job, graph)]
            commands = [asyncio.create_task(self._wait_by_command(one.job_id)) for one in (job, graph)]
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.gather(killing, *waits, *commands)
            finally:
                over.set()
                for work in (killing, *waits, *commands):
                    work.cancel()
            await asyncio.gather(*readers)
            took_s = time.monotonic() - began
            tasks = [task for one in (job, graph) async for task in client.tasks(job_id=one.job_id)]
        after = diamonds(self._sizes.graph_count)
        edges = {
            task_id: tuple(graph.task_ids[place] for place in places)
            for task_id, places in zip(graph.task_ids, after, strict=True)
        }
        expected = {job.job_id: self._sizes.job_count, graph.job_id: self._sizes.graph_count}
        self._failures += untruths(expected, tasks, edges, self._counts, self._explained)
        self._failures += ran_wrongly(tasks, edges, ledger.load(self._ledger))
        return JobReport(
            self._sizes, took_s, self._killed, self._counts, self._explained, tuple(self._failures)
        )

    async def _submit(self, client: AsyncClient) -> tuple[m.Accepted, m.Accepted]:
        words = (str(self._ledger), "0", "0", "0", "0")
        array = m.ArrayRange(0, self._sizes.job_count - 1)
        job = await client.submit(m.Submission("workload", words, array=array))
        one = m.Submission("workload", words, priority=PRIORITY)
        conditions = (m.Condition.OK, m.Condition.ANY)
        tasks = tuple(
            m.GraphTask(one, tuple((place, self._random.choice(conditions)) for place in places))
            for places in diamonds(self._sizes.graph_count)
        )
        return job, await client.submit_graph(m.Graph(tasks))

    # --- what is told -------------------------------------------------------------------------------------------------

    async def _wait(self, job_id: str) -> None:
        """What `wait_job` tells on the way and at the end."""
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            told = await client.wait_job(
                job_id, on_progress=lambda job: self._counts.append(CountsTold.of("wait", job))
            )
            self._counts.append(CountsTold.of("wait", told))
            if told.ended != told.total:
                self._failures.append(f"the wait for {job_id} is over, and it is not: {told}")

    async def _wait_by_command(self, job_id: str) -> None:
        """`raftctl job wait`, as a process; when it has ended, so has the job."""
        outcome = await asyncio.to_thread(self._job_wait, job_id)
        if outcome:
            self._failures.append(outcome)
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            job = await self._ask(lambda: client.job(job_id))
            if job is not None and job.succeeded != job.total:
                self._failures.append(f"raftctl job wait {job_id} has ended, and the job is so: {job}")

    def _job_wait(self, job_id: str) -> str:
        command = self._cluster.start("job", "wait", job_id)
        try:
            output, errors = command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()
        return "" if command.returncode == 0 else f"job wait {job_id}: {command.returncode} {output} {errors}"

    async def _read_counts(self, job_id: str) -> None:
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            while not await self._over_in(READ_S):
                job = await self._ask(lambda: client.job(job_id))
                if job is not None:
                    self._counts.append(CountsTold.of("info", job))

    async def _explain(self, task_ids: Sequence[str]) -> None:
        """Asks about tasks a little ahead of what runs, and about any."""
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            place = 0
            while not await self._over_in(EXPLAIN_S):
                near = min(place + self._random.randrange(3 * WIDTH), len(task_ids) - 1)
                asked = self._random.choice((near, near, self._random.randrange(len(task_ids))))
                told = await self._ask(partial(client.explain, task_ids[asked]))
                if told is not None:
                    self._explained.append(Explained.of(told))
                    if told.task.state.terminal and asked == near:
                        place = asked

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """None where nobody answers, while there is no leader."""
        with contextlib.suppress(Unavailable):
            return await call()
        return None

    async def _over_in(self, seconds: float) -> bool:
        """Whether everything is over, which is waited for that long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()

    # --- what is done to it -------------------------------------------------------------------------------------------

    async def _has_ended(self, client: AsyncClient, job_id: str, part: float) -> bool:
        job = await self._ask(lambda: client.job(job_id))
        return job is not None and job.ended >= part * job.total

    async def _kill_leaders(self, job_id: str) -> None:
        """Kills whoever leads when a part of the job has ended, and starts that node again."""
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            for part in self._sizes.kills_at:
                while not await self._has_ended(client, job_id, part):
                    if await self._over_in(READ_S):
                        return
                leader = await asyncio.to_thread(self._cluster.leader)
                process = self._cluster.process(leader)
                assert process is not None, f"{leader} ended by itself"
                assert send_signal(process, signal.SIGKILL), f"{leader} ended by itself"
                self._killed.append(leader)
                await asyncio.to_thread(self._cluster.run, "node", "start", leader)
