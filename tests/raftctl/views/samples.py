"""One cluster in the middle of its work, for every test that draws."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console, RenderableType

from raftctl.client import models as m
from raftctl.client import nodes as n
from raftctl.client.overview import ClusterView

NOW = 1_700_000_100_000


def drawn(renderable: RenderableType, width: int = 80) -> str:
    """What a console of this width shows, without colours and without blanks at the ends of lines."""
    out = StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def attempt(
    number: int = 1,
    node: str = "n2",
    outcome: m.AttemptOutcome = m.AttemptOutcome.SUCCEEDED,
    reason: str = "",
) -> m.Attempt:
    """One that took 1.5 s."""
    return m.Attempt(
        number=number,
        node=node,
        slot=0,
        fencing_token=m.FencingToken(1, 56 + number),
        outcome=outcome,
        reason=reason,
        occupied_ms=NOW - 60_000,
        started_ms=NOW - 59_500,
        ended_ms=None if outcome is m.AttemptOutcome.RUNNING else NOW - 58_000,
        stopping=False,
    )


def task(
    number: int, state: m.TaskState, *attempts: m.Attempt, args: tuple[str, ...] = ("42",), reason: str = ""
) -> m.Task:
    """A tile."""
    return m.Task(
        task_id=f"t{number}",
        name="",
        kind="render-tile",
        args=args,
        env={},
        priority=0,
        state=state,
        job_id=None,
        array_index=None,
        request_id=f"request-{number}",
        submitted_ms=NOW - 61_000,
        finished_ms=NOW - 58_000 if state.terminal else None,
        not_before_ms=None,
        retries=0,
        run_timeout_ms=0,
        attempts=attempts,
        result=None,
        reason=reason,
        changed_index=100 + number,
    )


def node_row(name: str, **changes: object) -> m.NodeRow:
    """A voter that is well."""
    row = m.NodeRow(
        name=name,
        store_id="00000000000000aa",
        role="voter",
        raft_role="follower",
        health="up",
        eligibility="ready",
        address=f"127.0.0.1:400{name[1:]}",
        pid=4000 + int(name[1:]),
        incarnation=1,
        slots=1,
        slots_free=1,
        kinds=("noop", "render-tile"),
        last_seen_ms=120,
        reachable=True,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # by name, as a test likes


def node_info(name: str, role: str = "follower", **changes: object) -> n.NodeInfo:
    """What a node says of itself; a leader has two followers."""
    peers = tuple(
        n.PeerProgress(peer, 1200 - 3 * number, 1201, "replicate", number, number == 0)
        for number, peer in enumerate(("n2", "n5"))
    )
    info = n.NodeInfo(
        name=name,
        cluster_id="00000000000000c1",
        store_id="00000000000000aa",
        incarnation=1,
        address=f"127.0.0.1:400{name[1:]}",
        pid=4000 + int(name[1:]),
        version="0.1.0",
        role=role,
        leader="n3",
        leader_address="127.0.0.1:4003",
        term=4,
        voted_for="n3",
        commit_index=1204,
        last_applied=1204,
        first_index=1,
        last_index=1204,
        peers=peers if role == "leader" else (),
        fault_injection=True,
        started_ms=NOW - 3_600_000,
        fsync_ms=1.25,
        storage_queue=0,
        slots_ready=True,
    )
    return replace(info, **changes)  # type: ignore[arg-type]  # by name, as a test likes


def view(*, stale: bool = False) -> ClusterView:
    """Five nodes: n3 leads, n1 and n2 work, n5 is lost."""
    executing = tuple(
        m.ExecutingRow(
            node=node,
            slot=0,
            task_id=f"t{number}",
            task=f"render-tile {number} --tiles 8x8 --width 400 --height 225 --samples 256",
            attempt=1 + (number == 18),
            fencing_token=m.FencingToken(1, 40 + number),
            elapsed_ms=4_200,
            progress=0.62 if number == 17 else None,
            message="",
            stopping=False,
        )
        for node, number in (("n1", 17), ("n2", 18))
    )
    status = m.Status(
        cluster_id="00000000000000c1",
        leader=None if stale else "n3",
        term=4,
        commit_index=1204,
        quorum=m.Quorum(5, 2 if stale else 4, not stale),
        read=m.ReadInfo(stale, 1204, "n3", None if stale else "n3", 4),
        executing=executing,
        free_nodes=(
            m.FreeNodeRow("n3", "voter", 1, 1, 90),
            m.FreeNodeRow("n4", "voter", 1, 2, 1_400),
        ),
        nodes=(
            *(node_row(name) for name in ("n1", "n2", "n3", "n4")),
            node_row("n5", health="lost", raft_role="unknown", pid=None, reachable=False),
        ),
        pending=14,
        running=2,
        succeeded=43,
        failed=1,
        cancelled=0,
        next_pending=tuple(task(number, m.TaskState.PENDING) for number in (19, 20)),
        recent=(
            task(16, m.TaskState.SUCCEEDED, attempt(node="n4")),
            task(15, m.TaskState.FAILED, attempt(outcome=m.AttemptOutcome.FAILED), reason="boom"),
        ),
    )
    infos = {
        name: node_info(name, "leader" if name == "n3" else "follower") for name in ("n1", "n2", "n3", "n4")
    }
    return ClusterView(status, infos, ("n5",), None)
