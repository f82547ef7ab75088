"""The clients of a run: they submit, submit again, cancel and read, and note what they asked and what they were told.

What may live here: what a client does, by chance that is drawn from a seed, and the requests that all of them know of.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from grpc import aio

from raftctl.client import AsyncClient, wire
from raftctl.client import models as m
from raftctl.client.channel import error_of
from raftctl.client.errors import ClientError, NotFound, RequestIdConflict, Unavailable
from raftctl.client.nodes import Cut
from raftctl.cluster.faults import FaultChange
from raftctl.endpoints import Endpoints
from raftd.pb.scheduler_pb2 import GetRequest
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from tests.e2e.workload.history import CANCEL, READ, RECORD, RESULT, SUBMIT, WATCH, History, TaskView

CALL_S = 4.0
"""What a client waits for an answer before it asks again, or asks for something else."""
RESULT_S = 60.0
DIRECTLY = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500))
BACKLOG_COUNT = 30
"""So many tasks may wait or run before clients submit nothing new: what is queued for ever is not tested."""

DURATIONS_MS = ((60, (0, 0)), (25, (50, 300)), (10, (1_000, 2_500)), (5, (7_000, 9_000)))
"""How often, and how long: some outlive a lease."""
AFTER_CHANCE = 0.3
"""How many of the requests come after others."""
RESULT_SIZES = ((20, 0), (1, 6_000))
"""How often, and how many bytes: more than 4096 become a blob."""


@dataclass(slots=True)
class Request:
    """A request that some client has made, perhaps more than once.

    Attributes:
        task_ids, job_id: as they were acknowledged; empty before.
    """

    submission: m.Submission
    task_ids: tuple[str, ...] = ()
    job_id: str = ""

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.submission.request_id

    @property
    def count(self) -> int:
        """How many tasks it asks for."""
        array = self.submission.array
        return 1 if array is None else array.last_index - array.first_index + 1

    def asked(self) -> dict[str, Any]:
        """What an audit has to know of it."""
        one = self.submission
        _, duration_ms, failing, dying, result_bytes = one.args
        after = [[other.id, str(other.condition)] for other in one.after]
        return {
            "count": self.count,
            "content": f"{one.kind} {' '.join(one.args[1:])} x{self.count} after {after}",
            "after": after,
            "duration_ms": int(duration_ms),
            "failing": int(failing),
            "dying": int(dying),
            "result_bytes": int(result_bytes),
            "retries": one.retries,
            "run_timeout_ms": one.run_timeout_ms,
            "max_failures": one.array.max_failures if one.array is not None else 0,
        }


@dataclass(slots=True)
class Shared:
    """What all clients of a run have in common."""

    seed: int
    endpoints: Endpoints
    ledger: str
    history: History
    pause_s: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[Request] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def acknowledged(self) -> list[Request]:
        """Those that have an answer."""
        return [one for one in self.requests if one.task_ids]

    def backlog(self) -> int:
        """How many tasks have not ended, as far as the watch has told."""
        return sum(len(one.task_ids) for one in self.requests) - len(self.ended)


class Client:
    """One client; runs until the run is stopping, and until everything that it began is acknowledged."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._name = f"c{number}"
        self._random = Random(f"{shared.seed}/{self._name}")
        self._made = 0
        self._channels: dict[str, aio.Channel] = {}

    async def run(self) -> None:
        """Asks for one thing after the other."""
        random, stopping = self._random, self._shared.stopping
        try:
            async with AsyncClient(self._shared.endpoints, timeout_s=CALL_S) as client:
                while not stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(random.expovariate(1 / self._shared.pause_s)):
                            await stopping.wait()
                    await self._ask(client, random.randrange(100))
        finally:
            await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def _ask(self, client: AsyncClient, chance: int) -> None:
        known = self._shared.acknowledged()
        # Mostly what came last: that is what still moves.
        recent = known[-20:] if self._random.random() < 0.8 else known
        if recent and chance < 40 and self._shared.backlog() >= BACKLOG_COUNT:
            chance = 60  # a read instead
        if not recent or chance < 40:
            request = Request(self._new(recent))
            self._shared.requests.append(request)
            await self._submit(client, request)
        elif chance < 48:
            # Perhaps while its first client is still at it.
            await self._submit(client, self._random.choice(self._shared.requests[-20:]))
        elif chance < 50:
            await self._contradict(client, self._random.choice(recent))
        elif chance < 60:
            await self._cancel(client, self._random.choice(recent))
        elif chance < 90:
            await self._read(client, self._random.choice(self._random.choice(recent).task_ids))
        else:
            await self._read_job(client, [one for one in recent if one.job_id])

    # --- what it asks for ---------------------------------------------------------------------------------------------

    def _new(self, others: Sequence[Request]) -> m.Submission:
        random = self._random
        self._made += 1
        first_ms, last_ms = _weighted(random, DURATIONS_MS)
        failing, dying = random.choice((0, 0, 0, 0, 0, 1, 2)), random.choice((0,) * 12 + (1,))
        array = None
        if random.random() < 0.15:
            array = m.ArrayRange(0, random.randrange(1, 7), random.choice((0, 0, 1)))
        duration_ms = random.randint(first_ms, last_ms)
        numbers = (duration_ms, failing, dying, _weighted(random, RESULT_SIZES))
        return m.Submission(
            random.choice(("workload",) * 7 + ("workload-isolated",)),
            (self._shared.ledger, *map(str, numbers)),
            priority=random.choice((0, 0, 0, 5)),
            retries=random.choice((0, 1, 3)),
            backoff_first_ms=20,
            backoff_max_ms=500,
            run_timeout_ms=random.choice((0,) * 9 + (1_500,)),
            array=array,
            after=self._after(others),
            request_id=f"{self._name}-{self._made}",
        )

    def _after(self, others: Sequence[Request]) -> tuple[m.Dependency, ...]:
        """Some of what was acknowledged lately: it waits, runs, or has ended one way or another."""
        random = self._random
        if not others or random.random() >= AFTER_CHANCE:
            return ()
        found: dict[str, m.Dependency] = {}
        for other in random.sample(others, min(len(others), random.choice((1, 1, 2, 3)))):
            whole = bool(other.job_id) and random.random() < 0.5
            target = other.job_id if whole else random.choice(other.task_ids)
            found[target] = m.Dependency(target, random.choice((m.Condition.OK, m.Condition.ANY)))
        return tuple(found.values())

    async def _submit(self, client: AsyncClient, request: Request) -> None:
        """Asks until it is acknowledged: every time under the same id, as a program does that wants it once."""
        while True:
            invoked_ns = time.monotonic_ns()
            try:
                accepted = await client.submit(request.submission)
            except ClientError as error:
                self._note(SUBMIT, request.request_id, invoked_ns, asked=request.asked(), error=error)
                continue
            task_ids = accepted.task_ids or (accepted.task_id,)
            answer = {
                "task_ids": task_ids,
                "job_id": accepted.job_id,
                "fresh": not accepted.duplicate,
            }
            self._note(SUBMIT, request.request_id, invoked_ns, asked=request.asked(), answer=answer)
            request.task_ids, request.job_id = task_ids, accepted.job_id
            return

    async def _contradict(self, client: AsyncClient, known: Request) -> None:
        """Another request under an id that was acknowledged: it must be refused."""
        other = Request(
            m.Submission("workload", (self._shared.ledger, "1", "0", "0", "1"), request_id=known.request_id)
        )
        invoked_ns = time.monotonic_ns()
        try:
            accepted = await client.submit(other.submission)
        except RequestIdConflict:
            answer: dict[str, Any] = {"conflict": True}
        except Unavailable as error:
            self._note(SUBMIT, known.request_id, invoked_ns, asked=other.asked(), error=error)
            return
        else:
            answer = {"task_ids": [accepted.task_id], "job_id": "", "fresh": not accepted.duplicate}
        self._note(SUBMIT, known.request_id, invoked_ns, asked=other.asked(), answer=answer)

    async def _cancel(self, client: AsyncClient, request: Request) -> None:
        whole = bool(request.job_id) and self._random.random() < 0.5
        target = request.job_id if whole else self._random.choice(request.task_ids)
        invoked_ns = time.monotonic_ns()
        try:
            [cancelled] = await client.cancel(target)
        except ClientError as error:
            self._note(CANCEL, target, invoked_ns, error=error)
            return
        if isinstance(cancelled.error, NotFound):
            self._note(CANCEL, target, invoked_ns, answer={"not_found": True})
        elif cancelled.error is not None:
            raise AssertionError(f"cancel of {target}: {cancelled.error}")
        else:
            self._note(CANCEL, target, invoked_ns, answer={"state": None if whole else cancelled.state})

    async def _read(self, client: AsyncClient, task_id: str) -> None:
        invoked_ns = time.monotonic_ns()
        try:
            if self._random.random() < 0.5:
                task = await client.task(task_id)
            else:
                task = await self._read_at(self._random.choice(self._shared.endpoints.addresses)[1], task_id)
        except NotFound:
            self._note(READ, task_id, invoked_ns, answer={"not_found": True})
        except Unavailable as error:
            self._note(READ, task_id, invoked_ns, error=error)
        else:
            self._note(READ, task_id, invoked_ns, answer={}, tasks=(TaskView.of(task),))

    async def _read_at(self, address: str, task_id: str) -> m.Task:
        """From this node, whoever it is: the SDK would ask the leader, and what others say is to be true as well."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = aio.insecure_channel(address, options=DIRECTLY)
        signed = (("authorization", f"Bearer {self._shared.endpoints.token}"),)
        try:
            answer = await SchedulerStub(channel).Get(
                GetRequest(task_id=task_id), timeout=CALL_S, metadata=signed
            )
        except aio.AioRpcError as error:
            raise error_of(error, address) from error
        return wire.task(answer.task)

    async def _read_job(self, client: AsyncClient, requests: Sequence[Request]) -> None:
        if not requests:
            return
        job_id = self._random.choice(requests).job_id
        invoked_ns = time.monotonic_ns()
        try:
            tasks = [TaskView.of(task) async for task in client.tasks(job_id=job_id)]
        except Unavailable as error:
            self._note(READ, job_id, invoked_ns, error=error)
        else:
            self._note(READ, job_id, invoked_ns, answer={}, tasks=tuple(tasks))

    def _note(
        self,
        what: str,
        about: str,
        invoked_ns: int,
        *,
        asked: dict[str, Any] | None = None,
        answer: dict[str, Any] | None = None,
        tasks: tuple[TaskView, ...] = (),
        error: ClientError | None = None,
    ) -> None:
        """Whatever it was that went wrong, it is taken as if the call may have had its effect."""
        if error is not None:
            if not isinstance(error, Unavailable):
                raise AssertionError(f"{what} {about}: {error}") from error
            asked = {**(asked or {}), "error": f"{type(error).__name__}: {error}"}
        self._shared.history.note(
            self._name, what, about, invoked_ns, asked=asked, answer=answer, tasks=tasks
        )


async def applied_index(shared: Shared) -> int:
    """How far the cluster is."""
    async with AsyncClient(shared.endpoints, timeout_s=RESULT_S) as client:
        return (await client.status(recent_count=0)).read.applied_index


async def watch(shared: Shared, since: int) -> None:
    """Follows every change from an index on, until it is cancelled."""
    async with AsyncClient(shared.endpoints, timeout_s=CALL_S) as client:
        async for batch in client.watch(from_index=since):
            now_ns = time.monotonic_ns()
            if batch.gap or batch.interruption is not None:
                answer = {"gap": batch.gap, "interruption": batch.interruption or ""}
                shared.history.note("watch", WATCH, "", now_ns, answer=answer)
            for change in batch.changes:
                if change.task is not None:
                    if change.task.state.terminal:
                        shared.ended.add(change.task.task_id)
                    answer = {"index": change.index, "change": change.change}
                    seen = (TaskView.of(change.task),)
                    shared.history.note(
                        "watch", WATCH, change.task.task_id, now_ns, answer=answer, tasks=seen
                    )


async def find_leader(shared: Shared) -> str:
    """Who leads; empty where nobody says so at once."""
    async with AsyncClient(shared.endpoints, timeout_s=1.0) as client:
        try:
            return (await client.status(recent_count=0)).leader or ""
        except Unavailable:
            return ""


async def change_faults(shared: Shared, node: str, change: FaultChange) -> None:
    """Has a node that is up change its cuts."""
    async with AsyncClient(shared.endpoints, timeout_s=RESULT_S) as client:
        add = [Cut(*pair) for pair in sorted(change.add)]
        await client.set_faults(node, add=add, heal=change.heal)


async def read_the_record(shared: Shared) -> None:
    """Reads everything at the end: every task, and the result of every one that succeeded."""
    async with AsyncClient(shared.endpoints, timeout_s=RESULT_S) as client:
        invoked_ns = time.monotonic_ns()
        tasks = [task async for task in client.tasks()]
        views = tuple(map(TaskView.of, tasks))
        shared.history.note("auditor", RECORD, "", invoked_ns, answer={}, tasks=views)
        for task in tasks:
            if task.state is m.TaskState.SUCCEEDED:
                result = await client.result(task)
                answer = {"result": result.decode()}
                shared.history.note("auditor", RESULT, task.task_id, time.monotonic_ns(), answer=answer)


def _weighted(random: Random, choices: Iterable[tuple[int, Any]]) -> Any:
    weights, values = zip(*choices, strict=True)
    return random.choices(values, weights)[0]
