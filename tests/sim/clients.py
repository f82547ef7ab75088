"""Clients that submit, cancel and read, ask again under the same request id, and remember what they were told.

What may live here: what a client does, over calls to nodes, and what the node's service does for it, as
``raftd.services.scheduler`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, TypeVar, cast

from raftd.errors import NoLeader, NotLeader, OutcomeUnknown, RaftdError, TooManyUncommitted
from raftd.scheduler.commands import Cancel, Command, GraphEdge, GraphTask, Purge, Retry, Submit, SubmitGraph
from raftd.scheduler.model import ArraySpec, Condition, Dependency, TaskSpec, TaskState
from raftd.scheduler.replies import Accepted, Refused, Reply
from raftd.scheduler.requests import created_ms, graph_digest, request_digest, retry_digest
from tests.sim.books import Broken
from tests.sim.clock import EPOCH_MS
from tests.sim.loop import sleep
from tests.sim.network import Host
from tests.sim.steward import LABELS

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.world import World

T = TypeVar("T")

CALL_TIMEOUT_S = 3.0
LONGEST_PAUSE_S = 5.0


class Client:
    """One client.

    Args:
        world: where it lives.
        number: its number.
    """

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._random = Random(f"{world.plan.seed}/client/{number}")
        self._made = 0
        self._target = self._random.choice(world.store_ids)
        self._accepted: list[tuple[Submit | SubmitGraph | Retry, Accepted]] = []
        self._term_read = 0

    async def run(self, until_s: float) -> None:
        """Ask for things until then, and go on asking for what was begun until it is answered."""
        under_way: list[asyncio.Task[None]] = []
        while self._world.loop.time() < until_s:
            await sleep(self._random.expovariate(4.0))
            if len(under_way) >= self._world.plan.outstanding:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            under_way = [task for task in under_way if not task.done()]
            for _ in range(self._random.choice((1, 1, 3))):
                under_way.append(asyncio.create_task(self._ask_something()))
        await asyncio.gather(*under_way)

    async def _ask_something(self) -> None:
        what = self._random.randrange(10)
        if self._world.plan.orders and self._random.random() < 0.3:
            await self._order_something()
        elif what < 5:
            await self._submit(self._new_submission())
        elif what < 7:
            await self._read()
        elif what < 8 and self._accepted:
            await self._cancel()
        elif self._accepted:
            await self._again()

    async def _order_something(self) -> None:
        """What only a scheduler with an order of things can do."""
        what = self._random.randrange(10)
        if what < 6:
            await self._submit(self._new_graph())
        elif not self._accepted:
            await self._submit(self._new_submission())
        elif what < 8:
            task_id = self._random.choice(self._random.choice(self._accepted)[1].task_ids)
            request_id = self._new_id()
            retry = Retry(task_id, request_id, retry_digest(task_id), created_ms(request_id))
            await self._submit(retry, patient=False)
        else:
            await self._propose(self._new_purge(), patient=False)

    # What it asks.

    def _new_id(self) -> str:
        self._made += 1
        now_ms = EPOCH_MS + int(self._world.loop.time() * 1000)
        request_id = f"c{self._number}-{self._made}"
        return f"{now_ms:012x}-{request_id}" if self._random.random() < 0.5 else request_id

    def _new_submission(self) -> Submit:
        random = self._random
        request_id = self._new_id()
        spec = self._new_spec()
        array = (
            ArraySpec(0, random.randrange(1, 6), random.choice((0, 0, 1))) if random.random() < 0.15 else None
        )
        after = self._new_after() if self._world.plan.orders and random.random() < 0.3 else ()
        digest = request_digest(spec, array, after)
        return Submit(request_id, digest, created_ms(request_id), spec, array, after)

    def _new_spec(self) -> TaskSpec:
        random = self._random
        kind = random.choice(("noop", "noop", "sleep", "sleep", "fail"))
        spec = TaskSpec(
            kind=kind,
            args=(str(random.choice((20, 200, self._world.plan.longest_ms))),) if kind == "sleep" else (),
            payload=bytes(random.choice((0, 0, self._world.plan.payload_bytes))),
            priority=random.choice((0, 0, 3)),
            retries=random.choice((0, 1, 3)),
            backoff_first_ms=random.choice((0, 50, 400)),
            backoff_max_ms=800,
            run_timeout_ms=random.choice((0, 0, 0, 500)),
        )
        if not self._world.plan.orders or random.random() < 0.5:
            return spec
        return replace(
            spec,
            queue_timeout_ms=random.choice((0, 0, 0, 300, 2_000)),
            delay_ms=random.choice((0, 0, 100, 1_500)),
            require=tuple((name, "1") for name in LABELS if random.random() < 0.2),
            slots=random.randrange(1, self._world.plan.slots + 1),
        )

    def _new_after(self) -> tuple[Dependency, ...]:
        """Some of what was accepted here, the latest above all."""
        random, known = self._random, self._accepted[-6:]
        made: list[Dependency] = []
        for _, answer in random.sample(known, random.randrange(len(known) + 1)):
            condition = random.choice((Condition.OK, Condition.OK, Condition.ANY))
            if answer.job_id is not None and random.random() < 0.5:
                made.append(Dependency(answer.job_id, True, condition))
            else:
                made.append(Dependency(random.choice(answer.task_ids), False, condition))
        return tuple(made)

    def _new_graph(self) -> SubmitGraph:
        random = self._random
        request_id, count = self._new_id(), random.randrange(1, 7)
        tasks = []
        for position in range(count):
            # Now and then one comes after a later one, or after itself: that may be a cycle.
            limit = count if random.random() < 0.08 else position
            before = random.sample(range(limit), random.randrange(min(limit, 3) + 1))
            edges = tuple(GraphEdge(one, random.choice((Condition.OK, Condition.ANY))) for one in before)
            others = self._new_after() if random.random() < 0.2 else ()
            tasks.append(GraphTask(self._new_spec(), edges, others))
        graph, limit = tuple(tasks), random.choice((0, 0, 0, 1))
        digest = graph_digest("graph", graph, limit)
        return SubmitGraph(request_id, digest, created_ms(request_id), "graph", graph, limit)

    def _new_purge(self) -> Purge:
        random = self._random
        if random.random() < 0.3:
            before_ms = EPOCH_MS + int(self._world.loop.time() * 1000) - random.choice((0, 1_000, 3_000))
            return Purge(ended_before_ms=before_ms, states=random.choice(((), (TaskState.FAILED,))))
        chosen = [answer for _, answer in random.sample(self._accepted, min(3, len(self._accepted)))]
        jobs = tuple(sorted({answer.job_id for answer in chosen[1:] if answer.job_id is not None}))
        return Purge(tuple(chosen[0].task_ids), jobs if chosen[0].job_id not in jobs else ())

    async def _submit(self, command: Submit | SubmitGraph | Retry, *, patient: bool = True) -> None:
        reply = await self._propose(command, patient=patient)
        if isinstance(reply, Accepted):
            self._told(lambda: self._world.checks.ledger.acknowledged(command.request_id, reply))
            self._accepted.append((command, reply))

    async def _again(self) -> None:
        """The same request once more: the same answer. Another one under its id: refused."""
        command, answer = self._random.choice(self._accepted)
        if self._random.random() < 0.3:
            reply = await self._propose(self._other(command))
            if isinstance(reply, Accepted):
                self._told(
                    lambda: self._broken("ReplyStable", f"{command.request_id} stands for two requests")
                )
            return
        reply = await self._propose(command)
        if reply is not None:
            same = isinstance(reply, Accepted) and reply.first_task_id == answer.first_task_id
            if not same:
                self._told(
                    lambda: self._broken("ReplyStable", f"{command.request_id}: {answer}, then {reply}")
                )

    def _other(self, command: Submit | SubmitGraph | Retry) -> Submit:
        """Another request under the same id: another task, or the same after something else."""
        spec = TaskSpec(kind="noop", name="another")
        after: tuple[Dependency, ...] = ()
        array: ArraySpec | None = None
        if self._world.plan.orders and isinstance(command, Submit) and self._random.random() < 0.5:
            spec, array = command.spec, command.array
            after = (*command.after, Dependency(self._accepted[0][1].first_task_id, False, Condition.ANY))
            self._world.trace.count("same id, after something else")
        digest = request_digest(spec, array, after)
        return Submit(command.request_id, digest, command.created_ms, spec, array, after)

    async def _cancel(self) -> None:
        _, answer = self._random.choice(self._accepted)
        if answer.job_id is not None and self._random.random() < 0.5:
            await self._propose(Cancel(job_id=answer.job_id, reason="test"))
        else:
            await self._propose(Cancel(task_id=self._random.choice(answer.task_ids), reason="test"))

    async def _read(self) -> None:
        ledger = self._world.checks.ledger
        floor = ledger.floor

        async def work(host: Host) -> tuple[int, int]:
            life = cast("Life", host)
            return await life.node.read(
                lambda: (life.state.applied_index, life.raw.state.term), timeout=CALL_TIMEOUT_S
            )

        try:
            # Anybody may be asked, and an old leader above all: it may not know yet that it is one.
            answer: tuple[int, int] | None = await self._world.network.call(
                self._random.choice(self._world.store_ids), work, CALL_TIMEOUT_S
            )
        except RaftdError:
            answer = await self._ask(work, tries=3)
        if answer is not None:
            index, term = answer
            if self._term_read and term > self._term_read:
                self._world.trace.count("read after failover")
            self._term_read = max(term, self._term_read)
            self._told(lambda: ledger.read(floor, index))

    # How it asks.

    async def _propose(self, command: Command, *, patient: bool = True) -> Reply | None:
        """Until there is an answer, under the same request id; None if the client has given up.

        Args:
            patient: whether what is refused for now is asked again.
        """

        async def work(host: Host) -> Reply:
            (reply,) = await cast("Life", host).node.propose((command,), timeout=CALL_TIMEOUT_S)
            return reply

        longest_s = 0.6
        while (reply := await self._ask(work)) is not None:
            if not isinstance(reply, Refused) or not reply.retryable or not patient:
                return reply
            await sleep(0.3 + self._random.random() * longest_s)
            longest_s = min(2 * longest_s, LONGEST_PAUSE_S)
        return None

    async def _ask(self, work: Callable[[Host], Awaitable[T]], tries: int = 1_000_000) -> T | None:
        # As the SDK does: ever more slowly. Clients that do not hold back can ask for more than a log carries that
        # takes one entry at a time, and then nobody is ever answered.
        world, longest_s = self._world, 0.3
        for _ in range(tries):
            if world.over:
                return None
            try:
                return await world.network.call(self._target, work, CALL_TIMEOUT_S + 1)
            except (OutcomeUnknown, TooManyUncommitted) as error:
                unknown = isinstance(error, OutcomeUnknown)
                world.trace.count("outcome unknown" if unknown else "quota refused")
            except (NoLeader, NotLeader) as error:
                self._follow(error)
                await sleep(0.02)
                continue
            except RaftdError as error:
                world.trace.say(f"c{self._number} hears {error.code}")
            self._target = self._random.choice(world.store_ids)
            await sleep(0.05 + self._random.random() * longest_s)
            longest_s = min(2 * longest_s, LONGEST_PAUSE_S)
        return None

    def _follow(self, _error: RaftdError) -> None:
        """Go where that node thinks the leader is, or anywhere."""
        life = self._world.machines[self._target - 1].life
        leader = 0 if life is None else life.node.leader
        self._target = leader or self._random.choice(self._world.store_ids)

    def _told(self, book: Callable[[], object]) -> None:
        try:
            book()
        except Broken as error:
            self._world.checks.fail(error.invariant, str(error), error)

    def _broken(self, invariant: str, what: str) -> None:
        raise Broken(invariant, what)
