"""A cluster as a test sees it: a state machine, a log index that counts up, a clock that the test moves.

Every entry is applied with all invariants checked after it, so a scenario fails at the entry that breaks one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from raftd.scheduler import invariants, planner, queries, requests
from raftd.scheduler.commands import (
    Batch,
    Cancel,
    Command,
    GraphTask,
    Header,
    MarkStopping,
    NodeLost,
    Occupy,
    RegisterNode,
    Retry,
    SetEligibility,
    SetLabels,
    Submit,
    SubmitGraph,
    Vacate,
)
from raftd.scheduler.effects import Effect
from raftd.scheduler.machine import Outcome, StateMachine
from raftd.scheduler.model import (
    ArraySpec,
    Attempt,
    AttemptOutcome,
    BlobRef,
    Dependency,
    Eligibility,
    FencingToken,
    Genesis,
    Member,
    NodeRole,
    Settings,
    StopReason,
    Task,
    TaskSpec,
    TaskState,
)
from raftd.scheduler.replies import Accepted, Occupied, Refused, Registered, Reply
from raftd.scheduler.slots import line_of
from raftd.scheduler.state import State

T = TypeVar("T")

START_MS = 1_800_000_000_000
KINDS = ("noop", "render-tile", "sleep")
GENESIS = Genesis(
    cluster_id=0xC0FFEE,
    epoch=1,
    members=tuple(Member(f"n{number}", number, f"127.0.0.1:{7000 + number}") for number in range(1, 6)),
)


def store_of(name: str) -> int:
    """The store id of n1, n2, ..."""
    return int(name[1:])


def registration(
    name: str,
    incarnation: int = 1,
    slots: int = 1,
    kinds: tuple[str, ...] = KINDS,
    labels: tuple[tuple[str, str], ...] = (),
) -> RegisterNode:
    return RegisterNode(
        name=name,
        store_id=store_of(name),
        incarnation=incarnation,
        role=NodeRole.VOTER,
        slots=slots,
        labels=labels,
        kinds=kinds,
        address=f"127.0.0.1:{7000 + store_of(name)}",
    )


def submission(
    request_id: str, spec: TaskSpec, array: ArraySpec | None = None, after: tuple[Dependency, ...] = ()
) -> Submit:
    digest = requests.request_digest(spec, array, after)
    return Submit(request_id, digest, requests.created_ms(request_id), spec, array, after)


def graph(request_id: str, *tasks: GraphTask, max_failures: int = 0) -> SubmitGraph:
    digest = requests.graph_digest("graph", tasks, max_failures)
    return SubmitGraph(request_id, digest, requests.created_ms(request_id), "graph", tasks, max_failures)


def resubmission(request_id: str, task_id: int) -> Retry:
    return Retry(task_id, request_id, requests.retry_digest(task_id), requests.created_ms(request_id))


class World:
    """One replica."""

    def __init__(
        self, nodes: Iterable[str] = (), *, slots: int = 1, settings: Settings | None = None
    ) -> None:
        self.machine = StateMachine(State(settings))
        self.now_ms = START_MS
        self.effects: list[Effect] = []
        self._last_token = FencingToken(0, 0)
        self._requests = 0
        self.machine.apply_genesis(1, GENESIS)
        for name in nodes:
            self.register(name, slots=slots)

    @property
    def state(self) -> State:
        return self.machine.state

    def apply(self, *commands: Command, random_u64: int = 0) -> Outcome:
        """One entry; its effects are kept in ``effects`` until the next."""
        header = Header(self.now_ms, random_u64)
        outcome = self.machine.apply(self.state.applied_index + 1, Batch(header, commands))
        self._last_token = invariants.check_step(self._last_token, self.state)
        assert len(outcome.replies) == len(commands)
        self.effects = list(outcome.effects)
        return outcome

    def do(self, command: Command, *, random_u64: int = 0) -> Reply:
        """An entry of one command, and its reply."""
        return self.apply(command, random_u64=random_u64).replies[0]

    def refused(self, command: Command) -> str:
        """The code of the refusal; the state must not have changed but for the index and the time."""
        before = self.state.freeze()
        reply = self.do(command)
        assert isinstance(reply, Refused), reply
        after = self.state.freeze()
        for name in (
            "counters",
            "nodes",
            "jobs",
            "tasks",
            "requests",
            "blobs",
            "kinds",
            "members",
            "removed_stores",
            "settings",
        ):
            assert getattr(before, name) == getattr(after, name)
        assert not self.effects
        return reply.code

    def later(self, ms: int) -> None:
        self.now_ms += ms

    def register(
        self,
        name: str,
        incarnation: int = 1,
        slots: int = 1,
        kinds: tuple[str, ...] = KINDS,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> Registered:
        reply = self.do(registration(name, incarnation, slots, kinds, labels))
        assert isinstance(reply, Registered), reply
        return reply

    def accept(self, submit: Submit | SubmitGraph | Retry) -> Accepted:
        reply = self.do(submit)
        assert isinstance(reply, Accepted), reply
        return reply

    def submit(
        self,
        kind: str = "noop",
        *,
        request_id: str = "",
        priority: int = 0,
        retries: int = 0,
        run_timeout_ms: int = 0,
        args: tuple[str, ...] = (),
        require: tuple[tuple[str, str], ...] = (),
        slots: int = 1,
    ) -> int:
        """Submit one task; its id."""
        spec = TaskSpec(
            kind,
            args=args,
            priority=priority,
            retries=retries,
            run_timeout_ms=run_timeout_ms,
            require=require,
            slots=slots,
        )
        return self.accept(submission(request_id or self.new_request_id(), spec)).first_task_id

    def submit_after(self, *after: Dependency, count: int = 0, max_failures: int = 0) -> Accepted:
        """Submit one task, or an array of them, that comes after others."""
        array = ArraySpec(0, count - 1, max_failures) if count else None
        return self.accept(submission(self.new_request_id(), TaskSpec("noop"), array, after))

    def submit_array(self, count: int, *, max_failures: int = 0, retries: int = 0) -> Accepted:
        spec = TaskSpec("render-tile", args=("{}",), retries=retries)
        return self.accept(submission(self.new_request_id(), spec, ArraySpec(0, count - 1, max_failures)))

    def new_request_id(self) -> str:
        self._requests += 1
        return f"request-{self._requests}"

    def occupy(self, task_id: int, node: str = "n1", slot: int = 0, *extra_slots: int) -> Occupied:
        incarnation = self.state.nodes[node].incarnation
        reply = self.do(Occupy(task_id, node, incarnation, slot, extra_slots))
        assert isinstance(reply, Occupied), reply
        return reply

    def reserve(self, task_id: int, node: str = "n1", slot: int = 0) -> Occupied:
        """The task waits for its turn on that slot."""
        incarnation = self.state.nodes[node].incarnation
        reply = self.do(Occupy(task_id, node, incarnation, slot, reserve=True))
        assert isinstance(reply, Occupied), reply
        return reply

    def withdraw(self, task_id: int) -> Reply:
        attempt = self.attempt(task_id)
        return self.do(MarkStopping(task_id, attempt.number, attempt.token, StopReason.WITHDRAWN))

    def line(self, node: str = "n1", slot: int = 0) -> list[int]:
        """The tasks on a slot: the one that it executes, then those that wait for their turn."""
        head = self.state.nodes[node].executing[slot]
        return [] if head is None else [head, *line_of(self.state.nodes[node], slot)]

    def end(
        self,
        task_id: int,
        outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED,
        *,
        reason: str = "",
        result: bytes | BlobRef | None = None,
        holders: tuple[str, ...] = (),
        started_at_ms: int = 0,
    ) -> Reply:
        """The current attempt of the task ends."""
        attempt = self.attempt(task_id)
        return self.do(
            Vacate(
                task_id,
                attempt.number,
                attempt.token,
                outcome,
                reason,
                result,
                holders,
                started_at_ms=started_at_ms,
                ended_at_ms=self.now_ms,
            )
        )

    def run(
        self, task_id: int, outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED, node: str = "n1"
    ) -> TaskState:
        """One whole attempt; the state it leaves."""
        self.occupy(task_id, node)
        self.end(task_id, outcome, reason="boom" if outcome is AttemptOutcome.FAILED else "")
        return self.task(task_id).state

    def cancel(self, task_id: int) -> Reply:
        return self.do(Cancel(task_id=task_id))

    def cancel_job(self, job_id: int) -> Reply:
        return self.do(Cancel(job_id=job_id))

    def time_out(self, task_id: int) -> Reply:
        return self.stop(task_id, StopReason.TIMED_OUT)

    def stop(self, task_id: int, reason: StopReason) -> Reply:
        """Ask the current attempt of the task to end."""
        attempt = self.attempt(task_id)
        return self.do(MarkStopping(task_id, attempt.number, attempt.token, reason))

    def set_eligibility(self, node: str, eligibility: Eligibility, deadline_ms: int = 0) -> Reply:
        return self.do(SetEligibility(node, eligibility, deadline_ms))

    def set_labels(self, node: str, *labels: tuple[str, str], remove: tuple[str, ...] = ()) -> Reply:
        return self.do(SetLabels(node, labels, remove))

    def lose(self, node: str) -> Reply:
        return self.do(NodeLost(node, self.state.nodes[node].incarnation))

    def task(self, task_id: int) -> Task:
        task = queries.task(self.state, task_id)
        assert task is not None
        return task

    def attempt(self, task_id: int) -> Attempt:
        return self.task(task_id).attempts[-1]

    def caused(self, kind: type[T]) -> list[T]:
        """The effects of the last entry that are of this kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def queue(self, limit: int = 1_000) -> list[int]:
        """Ids of the pending tasks, the next first."""
        return [task.id for task in queries.next_pending(self.state, limit)]

    def executing(self) -> dict[tuple[str, int], int]:
        return {(row.node, row.slot): row.task.id for row in queries.executing(self.state)}

    def free(self) -> dict[str, int]:
        return {row.node: row.slots_free for row in queries.free_nodes(self.state)}

    def plan(self, in_flight: planner.InFlight | None = None, **kwargs: int) -> tuple[Command, ...]:
        view = planner.PlanningView(self.state, in_flight or planner.InFlight())
        return planner.plan(view, planner.Observations(), self.now_ms, **kwargs)

    def place(self) -> None:
        """Plan and apply, as a leader does."""
        commands = self.plan()
        outcome = self.apply(*commands)
        assert not [reply for reply in outcome.replies if isinstance(reply, Refused)]
