"""`Client`: `AsyncClient` for callers without an event loop.

What may live here: the thread that runs the loop, and one blocking method per coroutine. It decides nothing
of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from raftctl.client import models as m
from raftctl.client.async_client import DEFAULT_TIMEOUT_S, AsyncClient
from raftctl.client.caller import Caller
from raftctl.client.calls import MAX_IN_FLIGHT, PATIENCE_S
from raftctl.client.explanations import Explanation, Purged
from raftctl.client.futures import Future
from raftctl.client.overview import ClusterView
from raftctl.client.sync_operator_calls import SyncOperatorCalls
from raftctl.endpoints import Endpoints

T = TypeVar("T")


class Client(Caller, SyncOperatorCalls):
    """A cluster, seen from outside; safe to use from several threads. Use it as ``with Client(...) as client``.

    Every method is that of `AsyncClient` of the same name, with its errors.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """See `AsyncClient`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="raftctl-client", daemon=True)
        self._thread.start()

        async def connect() -> AsyncClient:
            return AsyncClient(
                endpoints, timeout_s=timeout_s, patience_s=patience_s, max_in_flight=max_in_flight
            )

        self._client = self._run(connect())
        super().__init__(self._client.calls)
        self._calls.attach(self._loop)
        self.cluster = endpoints.cluster  # its name; empty when only addresses are known

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread; a second time it does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._calls.join()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        # The runner cancels what still runs on the loop at its end: gRPC leaves a task of its own behind some calls.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # KeyboardInterrupt: the call must not go on behind the caller's back
            raise

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        async def following() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        async def close() -> None:
            await items.aclose()

        try:
            while (found := self._run(following())) is not None:
                yield found[0]
        finally:
            self._run(close())

    def submit(self, submission: m.Submission) -> m.Accepted:
        """See `AsyncClient.submit`."""
        return self._run(self._client.submit(submission))

    def submit_many(self, submissions: Sequence[m.Submission]) -> list[m.Accepted | Exception]:
        """See `AsyncClient.submit_many`."""
        return self._run(self._client.submit_many(submissions))

    def submit_graph(self, graph: m.Graph, *, timeout_s: float | None = None) -> m.Accepted:
        """See `AsyncClient.submit_graph`."""
        return self._run(self._client.submit_graph(graph, timeout_s=timeout_s))

    def retry(self, task_id: str, *, request_id: str = "") -> m.Accepted:
        """See `AsyncClient.retry`."""
        return self._run(self._client.retry(task_id, request_id=request_id))

    def purge(self, *ids: str, ended_before_ms: int = 0, states: Iterable[m.TaskState] = ()) -> Purged:
        """See `AsyncClient.purge`."""
        return self._run(self._client.purge(*ids, ended_before_ms=ended_before_ms, states=states))

    def cancel(self, *work: str | Future[Any]) -> list[m.Cancelled]:
        """See `AsyncClient.cancel`."""
        return self._run(self._client.cancel(*work))

    def gather(
        self,
        futures: Iterable[Future[Any]],
        *,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """See `AsyncClient.gather`."""
        return self._run(
            self._client.gather(futures, return_exceptions=return_exceptions, timeout_s=timeout_s)
        )

    def as_completed(
        self, futures: Iterable[Future[T]], *, timeout_s: float | None = None
    ) -> Iterator[Future[T]]:
        """See `AsyncClient.as_completed`."""
        return self._iterate(self._client.as_completed(futures, timeout_s=timeout_s))

    def task(self, task_id: str, *, stale: bool = False) -> m.Task:
        """See `AsyncClient.task`."""
        return self._run(self._client.task(task_id, stale=stale))

    def job(self, job_id: str, *, stale: bool = False) -> m.Job:
        """See `AsyncClient.job`."""
        return self._run(self._client.job(job_id, stale=stale))

    def jobs(
        self, *, unfinished: bool = False, limit: int | None = None, stale: bool = False
    ) -> Iterator[m.Job]:
        """See `AsyncClient.jobs`."""
        return self._iterate(self._client.jobs(unfinished=unfinished, limit=limit, stale=stale))

    def explain(self, task_id: str, *, stale: bool = False) -> Explanation:
        """See `AsyncClient.explain`."""
        return self._run(self._client.explain(task_id, stale=stale))

    def tasks(
        self,
        *,
        states: Iterable[m.TaskState] = (),
        job_id: str = "",
        limit: int | None = None,
        stale: bool = False,
    ) -> Iterator[m.Task]:
        """See `AsyncClient.tasks`."""
        return self._iterate(self._client.tasks(states=states, job_id=job_id, limit=limit, stale=stale))

    def status(self, *, stale: bool = False, recent_count: int = 10) -> m.Status:
        """See `AsyncClient.status`."""
        return self._run(self._client.status(stale=stale, recent_count=recent_count))

    def cluster_view(
        self, *, timeout_s: float | None = None, recent_count: int = 10, stale: bool = False
    ) -> ClusterView:
        """See `AsyncClient.cluster_view`."""
        return self._run(
            self._client.cluster_view(timeout_s=timeout_s, recent_count=recent_count, stale=stale)
        )

    def watch(
        self, *, from_index: int = 0, to_index: int = 0, job_id: str = "", task_id: str = ""
    ) -> Iterator[m.WatchBatch]:
        """See `AsyncClient.watch`."""
        return self._iterate(
            self._client.watch(from_index=from_index, to_index=to_index, job_id=job_id, task_id=task_id)
        )

    def wait(self, task_ids: Iterable[str], *, timeout_s: float | None = None) -> list[m.Task]:
        """See `AsyncClient.wait`."""
        return self._run(self._client.wait(task_ids, timeout_s=timeout_s))

    def wait_job(self, job_id: str, *, timeout_s: float | None = None) -> m.Job:
        """See `AsyncClient.wait_job`."""
        return self._run(self._client.wait_job(job_id, timeout_s=timeout_s))

    def result(self, task: m.Task | str, *, timeout_s: float | None = None) -> bytes:
        """See `AsyncClient.result`."""
        return self._run(self._client.result(task, timeout_s=timeout_s))

    def logs(self, task_id: str, *, attempt: int = 0, follow: bool = False) -> Iterator[m.LogChunk]:
        """See `AsyncClient.logs`."""
        return self._iterate(self._client.logs(task_id, attempt=attempt, follow=follow))

    def blob_get(self, digest: str, *, timeout_s: float | None = None) -> bytes:
        """See `AsyncClient.blob_get`."""
        return self._run(self._client.blob_get(digest, timeout_s=timeout_s))

    def blob_put(self, data: bytes, *, replicas: int = 0) -> m.BlobRef:
        """See `AsyncClient.blob_put`."""
        return self._run(self._client.blob_put(data, replicas=replicas))

    def blob_stat(self, digest: str) -> m.BlobStat:
        """See `AsyncClient.blob_stat`."""
        return self._run(self._client.blob_stat(digest))
