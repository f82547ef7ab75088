"""What a watcher is told: which changes were asked for, and how many go into one message.

What may live here: turning a page of the history into messages of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raftd.codec.api import encode_change
from raftd.codec.attach import parse_id
from raftd.node.history import Changed, Page
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.effects import JobChanged, TaskChanged

WATCH_BYTES = 1024 * 1024
"""A message of changes ends with the change that reaches this: an array of tasks is one entry of many changes."""


def watch_responses(page: Page, asked_for: Callable[[Changed], bool]) -> Iterator[pb.WatchResponse]:
    """A page as messages of bounded size. One that ends within an entry says that a reconnect goes on with that entry
    again, for an index cannot say how much of it has been told."""
    response = pb.WatchResponse(gap=page.gap)
    size = 0
    for change in filter(asked_for, page.changes):
        if size >= WATCH_BYTES:
            response.next_index = change.index
            yield response
            response, size = pb.WatchResponse(), 0
        encoded = encode_change(change)
        response.changes.append(encoded)
        size += encoded.ByteSize()
    if response.changes or response.gap:
        response.next_index = page.next_index
        yield response


def wanted(request: pb.WatchRequest) -> Callable[[Changed], bool]:
    """Whether a watcher asked for a change."""
    if request.task_id:
        task_id = parse_id(request.task_id, "t")
        return lambda change: isinstance(change, TaskChanged) and change.task.id == task_id
    if request.job_id:
        job_id = parse_id(request.job_id, "j")
        return lambda change: (
            (isinstance(change, TaskChanged) and change.task.job_id == job_id)
            or (isinstance(change, JobChanged) and change.job.id == job_id)
        )
    return lambda _: True
