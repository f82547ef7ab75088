"""Slots for a `FakeCluster` that run tasks of the kind ``python``, as real ones do: one thread each, in order.

They keep the contract of that kind: the payload, or the blob that the second argument names, is a pickled call; a
value comes back pickled, an exception as ``(exception, traceback)`` with a failed task.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from types import TracebackType
from typing import Self

import cloudpickle

from raftd.pb import scheduler_pb2 as pb
from tests.raftctl.fake_server import FakeCluster

INLINE_RESULT_BYTES = 4096


class FakeSlots:
    """So many slots. Use it as a context manager; `hold` stops them before their next task."""

    def __init__(self, cluster: FakeCluster, count: int = 2) -> None:
        self._cluster = cluster
        self._ended = False
        self.held = False
        self.ran: list[str] = []
        self._threads = [threading.Thread(target=self._serve, name=f"fake-slot-{n}") for n in range(count)]

    def __enter__(self) -> Self:
        self._cluster.kinds.add("python")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._cluster.changed:
            self._ended = True
            self._cluster.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def hold(self, *, held: bool = True) -> None:
        """Whether they wait with what is pending."""
        with self._cluster.changed:
            self.held = held
            self._cluster.changed.notify_all()

    def _serve(self) -> None:
        while (task := self._next()) is not None:
            self._run(task)

    def _next(self) -> pb.Task | None:
        cluster = self._cluster
        with cluster.changed:
            while True:
                if self._ended:
                    return None
                pending = (
                    None
                    if self.held
                    else next(
                        (task for task in cluster.tasks.values() if task.state == pb.TASK_STATE_PENDING), None
                    )
                )
                if pending is not None:
                    pending.state = pb.TASK_STATE_RUNNING
                    cluster._change("running", pending)
                    self.ran.append(pending.task_id)
                    return pending
                cluster.changed.wait()

    def _run(self, task: pb.Task) -> None:
        cluster = self._cluster
        payload = cluster.payloads[task.task_id]
        if len(task.args) == 2:
            payload = cluster.blobs[task.args[1]]
        try:
            fn, args, kwargs = pickle.loads(payload)
            result = cloudpickle.dumps(fn(*args, **kwargs))
        except Exception as error:  # whatever the called function raises
            told = cloudpickle.dumps((error, traceback.format_exc()))
            cluster.end(task.task_id, pb.TASK_STATE_FAILED, told, reason=f"{type(error).__name__}: {error}")
            return
        if len(result) > INLINE_RESULT_BYTES:
            cluster.end(task.task_id, blob=result)
        else:
            cluster.end(task.task_id, inline=result)
