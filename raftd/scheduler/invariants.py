"""What must hold after every entry, checked record by record.

What may live here: statements about the state with the reason for each. They walk over everything, so they are for
tests, the simulator and a self-check after a restore, not for every entry.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from itertools import pairwise

from raftd.scheduler.indexes import Indexes
from raftd.scheduler.model import FencingToken, Health, Node, RequestRecord, Standing, Task, TaskState
from raftd.scheduler.packing import as_task
from raftd.scheduler.state import State


class InvariantBroken(AssertionError):
    """The state contradicts itself; the message names the invariant and the records."""


def check(state: State) -> None:
    """Check every invariant.

    Raises:
        InvariantBroken: one does not hold.
    """
    tables_partition(state)
    tasks_conserved(state)
    token_grows(state)
    jobs_count(state)
    requests_indexed(state)
    dependencies_unmet(state)
    indexes_derived(state)
    members_unique(state)
    members_stand(state)
    holders_known(state)


def check_step(before: FencingToken, state: State) -> FencingToken:
    """Check everything, and that no token is smaller than one that was seen; returns the new last token."""
    check(state)
    last = FencingToken(state.epoch, state.token_counter)
    _require(before <= last, "TokenGrows", f"{before} was given out, now it is {last}")
    return last


def tables_partition(state: State) -> None:
    """TablesPartition: each slot is executing one running task or is free; each running task is on its own slots; each
    reserved task waits behind one of them, in the order of the tokens."""
    where: dict[int, list[int]] = {}
    waiting: list[int] = []
    for node in state.nodes.values():
        busy = node.slots_free < node.slots
        _require(
            node.health is Health.UP or not busy, "TablesPartition", f"lost node {node.name} executes tasks"
        )
        here: dict[int, list[int]] = {}
        for slot, task_id in enumerate(node.executing):
            if task_id is not None:
                here.setdefault(task_id, []).append(slot)
        for task_id, slots in here.items():
            _require(task_id not in where, "TablesPartition", f"t{task_id} is on two nodes")
            where[task_id] = slots
            _check_place(state, node, slots, task_id)
        waiting += _check_lines(state, node)
    running = [task.id for task in state.tasks.values() if task.state is TaskState.RUNNING]
    _require(sorted(running) == sorted(where), "TablesPartition", f"running {running}, on slots {where}")
    reserved = [task.id for task in state.tasks.values() if task.state is TaskState.RESERVED]
    _require(
        sorted(reserved) == sorted(waiting), "TablesPartition", f"reserved {reserved}, waiting {waiting}"
    )


def _check_place(state: State, node: Node, slots: list[int], task_id: int) -> None:
    task = state.tasks.get(task_id)
    attempt = None if task is None else task.current
    _require(
        attempt is not None
        and (attempt.node, attempt.incarnation) == (node.name, node.incarnation)
        and task is not None
        and list(attempt.slots) == slots
        and len(slots) == task.spec.slots,
        "TablesPartition",
        f"slots {slots} of {node.name} are for t{task_id}, whose record says otherwise: {task}",
    )


def _check_lines(state: State, node: Node) -> list[int]:
    """Check who waits on the slots of a node; returns them."""
    if not node.reserved:
        return []
    fits = len(node.reserved) == node.slots and any(node.reserved)
    _require(fits, "TablesPartition", f"{node.name} has the lines {node.reserved}")
    for slot, line in enumerate(node.reserved):
        if not line:
            continue
        head_id = node.executing[slot]
        _require(head_id is not None, "TablesPartition", f"{line} wait for a free slot of {node.name}")
        for task_id in line:
            _check_place(state, node, [slot], task_id)
        attempts = [state.tasks[task_id].attempts[-1] for task_id in (head_id or 0, *line)]
        tokens = [attempt.token for attempt in attempts]
        _require(tokens == sorted(set(tokens)), "TablesPartition", f"slot {slot} of {node.name} has {tokens}")
        _require(
            not attempts[0].extra_slots, "TablesPartition", f"{line} wait behind a task of several slots"
        )
        early = [attempt for attempt in attempts[1:] if attempt.occupied_at_ms]
        _require(not early, "TablesPartition", f"{early} have not had their turn")
    return [task_id for line in node.reserved for task_id in line]


def tasks_conserved(state: State) -> None:
    """TasksConserved: a task is pending, running or ended, its record fits, and only ended ones are ever gone."""
    for key, task in state.tasks.items():
        _require(key == task.id < state.next_task_id, "TasksConserved", f"t{task.id} is at {key}")
        _check_task(task)
    for record in state.requests.values():
        _require(
            record.first_task_id + record.count <= state.next_task_id,
            "TasksConserved",
            f"request {record.request_id!r} promises tasks that were never made",
        )


def _check_task(task: Task) -> None:
    open_attempts = [attempt for attempt in task.attempts if attempt.outcome is None]
    running = task.state in (TaskState.RUNNING, TaskState.RESERVED)
    _require(
        open_attempts == ([task.attempts[-1]] if running else []),
        "TasksConserved",
        f"t{task.id} is {task.state.name} with open attempts {open_attempts}",
    )
    _require(
        bool(task.finished_at_ms) <= task.state.terminal, "TasksConserved", f"t{task.id} is not over: {task}"
    )
    _require(
        task.result is None or task.state in (TaskState.SUCCEEDED, TaskState.FAILED),
        "TasksConserved",
        f"t{task.id} has a result and is {task.state.name}",
    )
    numbers = [attempt.number for attempt in task.attempts]
    _require(
        all(later == earlier + 1 for earlier, later in pairwise(numbers)),
        "TasksConserved",
        f"t{task.id} has attempts {numbers}",
    )


def token_grows(state: State) -> None:
    """TokenGrows: of one task each attempt has a greater token; none is beyond the counter, none is given twice."""
    seen: set[FencingToken] = set()
    for task in state.tasks.values():
        tokens = [attempt.token for attempt in task.attempts]
        _require(tokens == sorted(tokens), "TokenGrows", f"t{task.id} has tokens {tokens}")
        for token in tokens:
            _require(token not in seen, "TokenGrows", f"{token} was given out twice")
            _require(token.counter <= state.token_counter, "TokenGrows", f"{token} was never given out")
            seen.add(token)


def jobs_count(state: State) -> None:
    """JobsCount: a job's counts are those of its tasks, and add up to its total."""
    members: dict[int, Counter[TaskState]] = {}
    for task in state.tasks.values():
        if task.job_id is not None:
            _require(
                task.job_id in state.jobs, "JobsCount", f"t{task.id} is of the missing job {task.job_id}"
            )
            members.setdefault(task.job_id, Counter())[task.state] += 1
    for job in state.jobs.values():
        counted = members.get(job.id, Counter())
        total = job.pending + job.running + job.succeeded + job.failed + job.cancelled
        kept = job.total - job.forgotten
        _require(total == job.total and kept == counted.total(), "JobsCount", f"{job} has {counted}")
        pending = counted[TaskState.PENDING] + counted[TaskState.RESERVED]
        _require(
            (job.pending, job.running) == (pending, counted[TaskState.RUNNING]),
            "JobsCount",
            f"{job} has {counted}",
        )
        over = not job.pending and not job.running
        _require(bool(job.finished_at_ms) <= over, "JobsCount", f"{job} is not over")
        _require(
            not job.stopping or not counted[TaskState.PENDING],
            "JobsCount",
            f"{job} is stopping with tasks in the queue",
        )


def requests_indexed(state: State) -> None:
    """RequestsIndexed: those in line are numbered without gaps, those held have tasks, and each id finds its own."""
    requests = state.requests
    line: dict[int, RequestRecord] = {}
    for number, record in requests.items():
        _require(requests.get(record.request_id) == record, "RequestsIndexed", record.request_id)
        if number >= requests.oldest_number:
            line[number] = record
        elif record.job_id is None:
            _require(record.first_task_id in state.tasks, "RequestsIndexed", f"{record} is held for nothing")
        else:
            _require(record.job_id in state.jobs, "RequestsIndexed", f"{record} is held for nothing")
    wanted = list(range(requests.oldest_number, requests.next_number))
    _require(list(line) == wanted, "RequestsIndexed", f"{list(line)[:3]}... instead of {wanted[:3]}...")
    first = next(iter(line.values()), None)
    _require(requests.oldest == first, "RequestsIndexed", f"{requests.oldest} is first instead of {first}")


def dependencies_unmet(state: State) -> None:
    """DependenciesUnmet: only pending tasks wait, each for what is there and has not ended, and for nothing twice."""
    for task in state.tasks.values():
        _require(
            not task.after or task.state is TaskState.PENDING,
            "DependenciesUnmet",
            f"t{task.id} waits: {task}",
        )
        for one in task.after:
            if one.job:
                job = state.jobs.get(one.target)
                lasts = job is not None and bool(job.pending or job.running)
            else:
                target = state.tasks.get(one.target)
                lasts = target is not None and not target.state.terminal
            _require(lasts, "DependenciesUnmet", f"t{task.id} waits for {one}, which has ended")
        wanted = {(one.job, one.target) for one in task.after}
        _require(len(wanted) == len(task.after), "DependenciesUnmet", f"t{task.id} waits twice: {task.after}")


def indexes_derived(state: State) -> None:
    """IndexesDerived: the orders and counts are exactly what the records give."""
    fresh = Indexes(state.settings.ageing_ms)
    fresh.now_ms = state.cluster_time_ms
    for task in state.tasks.values():
        fresh.add_task(task)
    for node in state.nodes.values():
        fresh.add_node(node)
        fresh.relabel(None, node)
    kept = state.indexes
    for name in ("delayed", "dependents", "queue_deadlines", "reserving", "run_deadlines", "unready"):
        _same(name, getattr(kept, name), getattr(fresh, name))
    for ended_state, ended in fresh.ended.items():
        _same(f"ended, {ended_state.name}", kept.ended[ended_state], ended)
    for mine, theirs, name in ((kept.queue, fresh.queue, "queue"),):
        _require(sorted(mine) == sorted(theirs), "IndexesDerived", f"{name}: {sorted(mine)}")
        for wanted, keys in mine.items():
            _same(f"{name} of {wanted}", keys, theirs[wanted])
    _require(sorted(kept.free) == sorted(fresh.free), "IndexesDerived", f"free: {sorted(kept.free)}")
    for kinds, ranked in kept.free.items():
        _same(f"free {kinds}", ranked, fresh.free[kinds])
    _require(kept.labelled == fresh.labelled, "IndexesDerived", f"labelled: {kept.labelled}")
    for task_state in TaskState:
        _require(kept.count(task_state) == fresh.count(task_state), "IndexesDerived", task_state.name)


def members_unique(state: State) -> None:
    """MembersUnique: one name, one store and one address each; nobody who was removed is one, or takes new work."""
    for what, values in (
        ("name", [member.name for member in state.members]),
        ("store", [member.store_id for member in state.members]),
        ("address", [member.address for member in state.members]),
    ):
        _require(len(set(values)) == len(values), "MembersUnique", f"two members have one {what}: {values}")
    for member in state.members:
        gone = member.store_id in state.removed_stores
        _require(not gone, "MembersUnique", f"{member.name} was removed, and is a member")
    for node in state.nodes.values():
        gone = node.store_id in state.removed_stores
        _require(not gone or not node.takes_work, "MembersUnique", f"{node.name} was removed, and takes work")
        _require(
            not gone or node.health is Health.UP,
            "MembersUnique",
            f"{node.name} is gone, and its record is not",
        )


def members_stand(state: State) -> None:
    """MembersStand: somebody votes, only a learner waits for something, and a node is what its membership says."""
    standings = {member.store_id: member.standing for member in state.members}
    votes = not standings or Standing.VOTER in standings.values()
    _require(votes, "MembersStand", f"nobody votes: {state.members}")
    for member in state.members:
        waits = member.promote or member.replaces
        _require(not waits or member.standing is Standing.LEARNER, "MembersStand", f"{member} waits")
        known = not member.replaces or member.replaces in standings.keys() - {member.store_id}
        _require(known, "MembersStand", f"{member} replaces nobody")
    for node in state.nodes.values():
        own = state.member(node.store_id)
        fits = own is None or node.role is own.role
        _require(fits, "MembersStand", f"{node.name} is {node.role.name}, and {own}")
    stores = [node.store_id for node in state.nodes.values()]
    _require(len(set(stores)) == len(stores), "MembersStand", f"two nodes have one store: {stores}")


def holders_known(state: State) -> None:
    """HoldersKnown: who holds a blob is a node or a member; the next of its name does not inherit what it held."""
    names = {*state.nodes, *(member.name for member in state.members)}
    for record in state.blobs.values():
        unknown = set(record.holders) - names
        _require(not unknown, "HoldersKnown", f"{record.ref.digest[:12]} is on {sorted(unknown)}")


def state_hash(state: State) -> str:
    """A digest of everything that is replicated: equal states have equal digests in every process."""
    digest = hashlib.sha256()
    frozen = state.freeze()
    for part in (
        frozen.genesis,
        frozen.applied_index,
        frozen.cluster_time_ms,
        frozen.counters,
        frozen.settings,
        frozen.kinds,
        frozen.members,
        frozen.removed_stores,
        tuple(sorted(frozen.nodes, key=lambda node: node.name)),
    ):
        digest.update(_canonical(part))
    tasks = tuple(
        {task_id: as_task(task_id, task) for task_id, task in chunk.items()} for chunk in frozen.tasks
    )
    for chunks in (frozen.jobs, tasks, frozen.requests, frozen.blobs):
        records = sorted(
            ((key, record) for chunk in chunks for key, record in chunk.items()), key=lambda at: at[0]
        )
        for key, record in records:
            digest.update(_canonical(key))
            digest.update(_canonical(record))
    return digest.hexdigest()


def _canonical(value: object) -> bytes:
    """Bytes that tell any two values of the model apart and do not depend on how Python prints them."""
    if value is None:
        return b"n"
    if isinstance(value, bytes):
        return b"b%d:" % len(value) + value
    if isinstance(value, str):
        return b"s" + _canonical(value.encode())
    if isinstance(value, int):
        return b"i%d;" % int(value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_canonical, value)) + b")"
    if is_dataclass(value):
        return b"{" + b"".join(_canonical(getattr(value, field.name)) for field in fields(value)) + b"}"
    raise TypeError(f"{type(value).__name__} is no part of the model")


def _same(name: str, kept: Iterable[object], fresh: Iterable[object]) -> None:
    _require(list(kept) == list(fresh), "IndexesDerived", f"{name}: {list(kept)} is not {list(fresh)}")


def _require(holds: bool, invariant: str, why: str) -> None:
    if not holds:
        raise InvariantBroken(f"{invariant}: {why}")
