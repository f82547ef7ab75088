"""Submissions while something happens to a cluster, for tests of what is left of them.

A command line takes about as long to start as an isolated leader believes that it leads, so that these speak to the
nodes directly, over connections that are there before.
"""

import asyncio
import dataclasses
import threading
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import grpc

from raftctl.client import AsyncClient
from raftctl.client.errors import Unavailable
from raftctl.client.models import Submission as OneTask
from raftctl.endpoints import Endpoints
from raftd.pb.admin_pb2 import GetFaultsRequest
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.pb.scheduler_pb2 import Submission, SubmitRequest
from raftd.pb.scheduler_pb2_grpc import SchedulerStub
from tests.e2e.conftest import COMMAND_TIMEOUT_S, Cluster
from tests.support import eventually, wait_until

ACKNOWLEDGED = ""
CALL_S = 5.0
LANES = 2
PAUSE_S = 0.05
"""Between two submissions of a lane: a client, not a load test."""


class Writer:
    """A client that submits one task after another until it is stopped, whatever happens to the cluster.

    It asks again under the same request id until that is acknowledged, as a user's program would. It is told of the
    nodes that there are when it begins; who comes later it has to find by itself.

    Args:
        cluster: what it writes to.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        addresses = tuple((name, row["address"]) for name, row in cluster.nodes().items())
        token = (cluster.directory / "token").read_text().strip()
        self._endpoints = Endpoints(addresses, token, cluster.name)
        self._acknowledged: dict[str, str] = {}
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")

    @property
    def acknowledged(self) -> dict[str, str]:
        """The task ids that were acknowledged up to now, by request id."""
        return dict(self._acknowledged)

    def start(self) -> None:
        """Begins; returns with the first acknowledgement."""
        self._thread.start()
        self.go_on(1)

    def go_on(self, count: int) -> None:
        """Waits until so many more are acknowledged than there were."""
        goal = len(self._acknowledged) + count

        def reached() -> bool:
            if self._failure is not None:
                raise AssertionError("the writer has failed") from self._failure
            return len(self._acknowledged) >= goal

        wait_until(reached, 60, f"{count} more acknowledgements")

    def stop(self) -> None:
        """Ends it. Raises AssertionError where it had failed."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise AssertionError("the writer has failed") from self._failure

    def check_kept(self) -> None:
        """Asserts that nothing that was acknowledged is lost, nothing is there twice, and all of it has ended."""
        self._cluster.run("cluster", "wait", "--for", "idle", "--timeout", "60s")
        tasks = self._cluster.tasks()
        kept = {task["request_id"]: task["task_id"] for task in tasks}
        lost = self._acknowledged.items() - kept.items()
        assert not lost, f"acknowledged, and lost or under another id: {sorted(lost)[:10]}"
        for what in ("task_id", "request_id"):
            often = [key for key, count in Counter(task[what] for task in tasks).items() if count > 1]
            assert not often, f"more than one task has the {what} {often[:10]}"
        ended = Counter(task["state"] for task in tasks)
        assert set(ended) == {"succeeded"}, ended

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except BaseException as failure:
            self._failure = failure  # told to whoever waits for it

    async def _write(self) -> None:
        async with AsyncClient(self._endpoints, timeout_s=CALL_S) as client:
            await asyncio.gather(*(self._write_lane(client, lane) for lane in range(LANES)))

    async def _write_lane(self, client: AsyncClient, lane: int) -> None:
        number = 0
        while not self._stopping.is_set():
            name = f"write-{lane}-{number}"
            try:
                accepted = await client.submit(OneTask("noop", request_id=name))
            except Unavailable:
                continue  # the same one again: nobody knows what became of it
            self._acknowledged[name] = accepted.task_id
            number += 1
            await asyncio.to_thread(self._stopping.wait, PAUSE_S)


@contextmanager
def writing(cluster: Cluster) -> Iterator[Writer]:
    """A `Writer` that has begun, and is stopped at the end."""
    writer = Writer(cluster)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()


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
