"""Submissions to a leader while it is being isolated, for tests of what it alone wrote to its log.

A command line takes about as long to start as an isolated leader believes that it leads, so that these speak to it
directly, over a connection that is there before the cut.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable

import grpc

from raftd.pb.admin_pb2 import GetFaultsRequest
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.pb.scheduler_pb2 import Submission, SubmitRequest
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from tests.e2e.conftest import COMMAND_TIMEOUT_S, Cluster
from tests.support import eventually

ACKNOWLEDGED = ""


@dataclasses.dataclass(frozen=True)
class WritesAmidCut:
    """Request ids of what was submitted to a leader, one by one, while it was isolated.

    Attributes:
        acknowledged: it answered that these were accepted.
        behind_the_cut: these were sent when it was cut off already.
        appended_alone: of those, the ones that it wrote to its log before it stepped down; never empty.
    """

    acknowledged: frozenset[str]
    behind_the_cut: frozenset[str]
    appended_alone: frozenset[str]


def isolate_amid_writes(cluster: Cluster, leader: str, payload: bytes = b"") -> WritesAmidCut:
    """Isolates a leader under a stream of submissions to it alone, until it refuses them; each carries `payload`."""
    token = (cluster.directory / "token").read_text().strip()
    address = cluster.nodes()[leader]["address"]
    isolating = cluster.start("isolate", leader)
    behind_the_cut, outcomes = asyncio.run(_write_until_refused(address, token, payload))
    said = isolating.communicate(timeout=COMMAND_TIMEOUT_S)
    assert isolating.returncode == 0, said
    unknown = {name for name, outcome in outcomes.items() if outcome == "outcome_unknown"}
    assert unknown & behind_the_cut, f"nothing was written behind the cut: {outcomes}"
    return WritesAmidCut(
        frozenset(name for name, outcome in outcomes.items() if outcome == ACKNOWLEDGED),
        frozenset(behind_the_cut),
        frozenset(unknown & behind_the_cut),
    )


async def _write_until_refused(address: str, token: str, payload: bytes) -> tuple[set[str], dict[str, str]]:
    """Which were sent behind the cut, and for each either ACKNOWLEDGED or the error's code (raftd/errors.py)."""
    signed = (("authorization", f"Bearer {token}"),)
    behind_the_cut: set[str] = set()
    sent: dict[str, asyncio.Task[str]] = {}
    async with grpc.aio.insecure_channel(address) as channel:
        scheduler, admin = SchedulerStub(channel), AdminStub(channel)

        async def submit(name: str) -> str:
            one = Submission(kind="noop", request_id=name, payload=payload)
            request = SubmitRequest(submissions=[one])
            try:
                response = await scheduler.Submit(request, metadata=signed, timeout=20)
            except grpc.aio.AioRpcError as error:
                return str(dict(error.trailing_metadata()).get("raftd-error", error.code().name))
            return response.replies[0].refusal.code or ACKNOWLEDGED

        async def one_more() -> bool:
            is_cut = bool((await admin.GetFaults(GetFaultsRequest(), metadata=signed)).cuts)
            name = f"amid-{len(sent)}"
            sent[name] = asyncio.create_task(submit(name))
            if is_cut:
                behind_the_cut.add(name)
            return is_cut and any(one.done() and one.result() != ACKNOWLEDGED for one in sent.values())

        def refused() -> bool | Awaitable[bool]:
            return one_more()

        await eventually(refused, 30, "the leader is isolated and steps down")
        return behind_the_cut, {name: await one for name, one in sent.items()}
