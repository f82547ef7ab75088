"""The commands that make tasks, and those that end or forget them unrun, between dataclass and message.

What may live here: encoders and decoders for ``commands``, which knows the table of all of them.
"""

from __future__ import annotations

from raftd.codec.values import (
    decode_array,
    decode_dependencies,
    decode_enum,
    decode_spec,
    encode_array,
    encode_dependencies,
    encode_spec,
)
from raftd.pb import log_pb2 as pb
from raftd.scheduler.commands import Expire, GraphEdge, GraphTask, Purge, Retry, Submit, SubmitGraph
from raftd.scheduler.model import Condition, TaskState


def encode_submit(command: Submit) -> pb.LogCommand:
    """A Submit, as it is logged."""
    return pb.LogCommand(
        submit=pb.SubmitCommand(
            request_id=command.request_id,
            digest=command.digest,
            created_ms=command.created_ms,
            spec=encode_spec(command.spec),
            array=encode_array(command.array),
            after=encode_dependencies(command.after) if command.after else None,
        )
    )


def decode_submit(message: pb.SubmitCommand) -> Submit:
    """A Submit, as the model knows it."""
    return Submit(
        request_id=message.request_id,
        digest=message.digest,
        created_ms=message.created_ms,
        spec=decode_spec(message.spec),
        array=decode_array(message.array) if message.HasField("array") else None,
        after=decode_dependencies(message.after),
    )


def encode_submit_graph(command: SubmitGraph) -> pb.LogCommand:
    """A SubmitGraph, as it is logged."""
    return pb.LogCommand(
        submit_graph=pb.SubmitGraphCommand(
            request_id=command.request_id,
            digest=command.digest,
            created_ms=command.created_ms,
            name=command.name,
            tasks=[
                pb.LogGraphTask(
                    spec=encode_spec(task.spec),
                    after=[
                        pb.LogGraphEdge(position=edge.position, condition=edge.condition)
                        for edge in task.after
                    ],
                    after_others=encode_dependencies(task.after_others),
                )
                for task in command.tasks
            ],
            max_failures=command.max_failures,
        )
    )


def decode_submit_graph(message: pb.SubmitGraphCommand) -> SubmitGraph:
    """A SubmitGraph, as the model knows it."""
    return SubmitGraph(
        request_id=message.request_id,
        digest=message.digest,
        created_ms=message.created_ms,
        name=message.name,
        tasks=tuple(
            [
                GraphTask(
                    decode_spec(task.spec),
                    tuple(
                        [
                            GraphEdge(edge.position, decode_enum(Condition, edge.condition))
                            for edge in task.after
                        ]
                    ),
                    decode_dependencies(task.after_others),
                )
                for task in message.tasks
            ]
        ),
        max_failures=message.max_failures,
    )


def encode_retry(command: Retry) -> pb.LogCommand:
    """A Retry, as it is logged."""
    return pb.LogCommand(
        retry=pb.RetryCommand(
            task_id=command.task_id,
            request_id=command.request_id,
            digest=command.digest,
            created_ms=command.created_ms,
        )
    )


def decode_retry(message: pb.RetryCommand) -> Retry:
    """A Retry, as the model knows it."""
    return Retry(message.task_id, message.request_id, message.digest, message.created_ms)


def encode_expire(command: Expire) -> pb.LogCommand:
    """An Expire, as it is logged."""
    return pb.LogCommand(expire=pb.ExpireCommand(task_id=command.task_id))


def decode_expire(message: pb.ExpireCommand) -> Expire:
    """An Expire, as the model knows it."""
    return Expire(message.task_id)


def encode_purge(command: Purge) -> pb.LogCommand:
    """A Purge, as it is logged."""
    return pb.LogCommand(
        purge=pb.PurgeCommand(
            task_ids=command.task_ids,
            job_ids=command.job_ids,
            ended_before_ms=command.ended_before_ms,
            states=command.states,
        )
    )


def decode_purge(message: pb.PurgeCommand) -> Purge:
    """A Purge, as the model knows it."""
    return Purge(
        tuple(message.task_ids),
        tuple(message.job_ids),
        message.ended_before_ms,
        tuple([decode_enum(TaskState, state) for state in message.states]),
    )
