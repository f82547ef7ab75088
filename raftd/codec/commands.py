"""The commands of an entry between dataclass and bytes.

What may live here: encoders and decoders of ``raftd.scheduler.commands``, and the check of versions. An entry that
this build cannot read in full stops it: a node that guessed would differ from the others for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from raftd.codec.submissions import (
    decode_expire,
    decode_purge,
    decode_retry,
    decode_submit,
    decode_submit_graph,
    encode_expire,
    encode_purge,
    encode_retry,
    encode_submit,
    encode_submit_graph,
)
from raftd.codec.values import (
    decode_enum,
    decode_pairs,
    decode_ref,
    decode_token,
    encode_pairs,
    encode_ref,
    encode_token,
    unknown,
)
from raftd.pb import log_pb2 as pb
from raftd.scheduler.commands import (
    COMMAND_VERSION,
    FORMAT_VERSION,
    Batch,
    Cancel,
    Command,
    Expire,
    ForgetNode,
    Header,
    MarkStopping,
    NodeLost,
    Occupy,
    OccupyNew,
    Purge,
    RecordBlob,
    RegisterNode,
    Retry,
    SetEligibility,
    SetLabels,
    SetSettings,
    Submit,
    SubmitGraph,
    Vacate,
)
from raftd.scheduler.model import (
    AttemptOutcome,
    BlobRef,
    Eligibility,
    NodeRole,
    StopReason,
)


def encode_batch(batch: Batch) -> bytes:
    """The data of an entry.

    Raises:
        ValueError: a number does not fit its field.
    """
    header = batch.header
    message = pb.LogBatch(
        header=pb.LogHeader(
            format_version=header.format_version,
            command_version=header.command_version,
            cluster_time_ms=header.cluster_time_ms,
            random_u64=header.random_u64,
        ),
        commands=[_ENCODERS[type(command)](command) for command in batch.commands],
    )
    return message.SerializeToString(deterministic=True)


def decode_batch(data: bytes) -> Batch:
    """The commands in an entry's data.

    Raises:
        UnknownFormat: a version, a command or a value that this build does not know, or no such bytes at all.
    """
    try:
        message = pb.LogBatch.FromString(data)
    except DecodeError:
        raise unknown("what is in this entry") from None
    header = message.header
    if header.format_version != FORMAT_VERSION:
        raise unknown(f"entry format {header.format_version}")
    if header.command_version != COMMAND_VERSION:
        raise unknown(f"command version {header.command_version}")
    return Batch(
        Header(header.cluster_time_ms, header.random_u64),
        tuple([_decode_command(command) for command in message.commands]),
    )


def _decode_command(message: pb.LogCommand) -> Command:
    name = message.WhichOneof("command")
    if name is None:
        raise unknown("a command in this entry")
    command: Command = _DECODERS[name](getattr(message, name))
    return command


def _encode_register_node(command: RegisterNode) -> pb.LogCommand:
    return pb.LogCommand(
        register_node=pb.RegisterNodeCommand(
            name=command.name,
            store_id=command.store_id,
            incarnation=command.incarnation,
            role=command.role,
            slots=command.slots,
            labels=encode_pairs(command.labels),
            kinds=command.kinds,
            address=command.address,
        )
    )


def _decode_register_node(message: pb.RegisterNodeCommand) -> RegisterNode:
    return RegisterNode(
        name=message.name,
        store_id=message.store_id,
        incarnation=message.incarnation,
        role=decode_enum(NodeRole, message.role),
        slots=message.slots,
        labels=decode_pairs(message.labels),
        kinds=tuple(message.kinds),
        address=message.address,
    )


def _encode_occupy(command: Occupy) -> pb.LogCommand:
    return pb.LogCommand(
        occupy=pb.OccupyCommand(
            task_id=command.task_id,
            node=command.node,
            incarnation=command.incarnation,
            slot=command.slot,
            extra_slots=command.extra_slots,
            reserve=command.reserve,
        )
    )


def _decode_occupy(message: pb.OccupyCommand) -> Occupy:
    return Occupy(
        message.task_id,
        message.node,
        message.incarnation,
        message.slot,
        tuple(message.extra_slots),
        message.reserve,
    )


def _encode_occupy_new(command: OccupyNew) -> pb.LogCommand:
    return pb.LogCommand(
        occupy_new=pb.OccupyNewCommand(
            position=command.position,
            offset=command.offset,
            node=command.node,
            incarnation=command.incarnation,
            slot=command.slot,
            extra_slots=command.extra_slots,
        )
    )


def _decode_occupy_new(message: pb.OccupyNewCommand) -> OccupyNew:
    return OccupyNew(
        message.position,
        message.offset,
        message.node,
        message.incarnation,
        message.slot,
        tuple(message.extra_slots),
    )


def _encode_vacate(command: Vacate) -> pb.LogCommand:
    message = pb.VacateCommand(
        task_id=command.task_id,
        attempt=command.attempt,
        token=encode_token(command.token),
        outcome=command.outcome,
        reason=command.reason,
        blob_holders=command.blob_holders,
        started_at_ms=command.started_at_ms,
        ended_at_ms=command.ended_at_ms,
    )
    if isinstance(command.result, BlobRef):
        message.blob.CopyFrom(encode_ref(command.result))
    elif command.result is not None:
        message.inline = command.result
    return pb.LogCommand(vacate=message)


def _decode_vacate(message: pb.VacateCommand) -> Vacate:
    result: bytes | BlobRef | None = None
    match message.WhichOneof("result"):
        case "inline":
            result = message.inline
        case "blob":
            result = decode_ref(message.blob)
        case None:
            pass
    return Vacate(
        task_id=message.task_id,
        attempt=message.attempt,
        token=decode_token(message.token),
        outcome=decode_enum(AttemptOutcome, message.outcome),
        reason=message.reason,
        result=result,
        blob_holders=tuple(message.blob_holders),
        started_at_ms=message.started_at_ms,
        ended_at_ms=message.ended_at_ms,
    )


def _encode_cancel(command: Cancel) -> pb.LogCommand:
    message = pb.CancelCommand(reason=command.reason)
    if command.task_id is not None:
        message.task_id = command.task_id
    elif command.job_id is not None:
        message.job_id = command.job_id
    return pb.LogCommand(cancel=message)


def _decode_cancel(message: pb.CancelCommand) -> Cancel:
    return Cancel(
        task_id=message.task_id if message.HasField("task_id") else None,
        job_id=message.job_id if message.HasField("job_id") else None,
        reason=message.reason,
    )


def _encode_mark_stopping(command: MarkStopping) -> pb.LogCommand:
    return pb.LogCommand(
        mark_stopping=pb.MarkStoppingCommand(
            task_id=command.task_id,
            attempt=command.attempt,
            token=encode_token(command.token),
            reason=command.reason,
        )
    )


def _decode_mark_stopping(message: pb.MarkStoppingCommand) -> MarkStopping:
    return MarkStopping(
        message.task_id,
        message.attempt,
        decode_token(message.token),
        decode_enum(StopReason, message.reason),
    )


def _encode_set_eligibility(command: SetEligibility) -> pb.LogCommand:
    return pb.LogCommand(
        set_eligibility=pb.SetEligibilityCommand(
            name=command.name, eligibility=command.eligibility, deadline_ms=command.deadline_ms
        )
    )


def _decode_set_eligibility(message: pb.SetEligibilityCommand) -> SetEligibility:
    return SetEligibility(message.name, decode_enum(Eligibility, message.eligibility), message.deadline_ms)


def _encode_set_labels(command: SetLabels) -> pb.LogCommand:
    return pb.LogCommand(
        set_labels=pb.SetLabelsCommand(
            name=command.name, set=encode_pairs(command.set), remove=command.remove
        )
    )


def _decode_set_labels(message: pb.SetLabelsCommand) -> SetLabels:
    return SetLabels(message.name, decode_pairs(message.set), tuple(message.remove))


def _encode_set_settings(command: SetSettings) -> pb.LogCommand:
    return pb.LogCommand(
        set_settings=pb.SetSettingsCommand(
            changes=[pb.LogSetting(name=name, value=value) for name, value in command.changes]
        )
    )


def _decode_set_settings(message: pb.SetSettingsCommand) -> SetSettings:
    return SetSettings(tuple([(change.name, change.value) for change in message.changes]))


def _encode_forget_node(command: ForgetNode) -> pb.LogCommand:
    return pb.LogCommand(forget_node=pb.ForgetNodeCommand(name=command.name))


def _decode_forget_node(message: pb.ForgetNodeCommand) -> ForgetNode:
    return ForgetNode(message.name)


def _encode_node_lost(command: NodeLost) -> pb.LogCommand:
    return pb.LogCommand(node_lost=pb.NodeLostCommand(name=command.name, incarnation=command.incarnation))


def _decode_node_lost(message: pb.NodeLostCommand) -> NodeLost:
    return NodeLost(message.name, message.incarnation)


def _encode_record_blob(command: RecordBlob) -> pb.LogCommand:
    return pb.LogCommand(
        record_blob=pb.RecordBlobCommand(ref=encode_ref(command.ref), holders=command.holders)
    )


def _decode_record_blob(message: pb.RecordBlobCommand) -> RecordBlob:
    return RecordBlob(decode_ref(message.ref), tuple(message.holders))


_ENCODERS: dict[type, Callable[[Any], pb.LogCommand]] = {
    RegisterNode: _encode_register_node,
    Submit: encode_submit,
    Occupy: _encode_occupy,
    Vacate: _encode_vacate,
    Cancel: _encode_cancel,
    MarkStopping: _encode_mark_stopping,
    NodeLost: _encode_node_lost,
    RecordBlob: _encode_record_blob,
    SubmitGraph: encode_submit_graph,
    OccupyNew: _encode_occupy_new,
    Retry: encode_retry,
    Expire: encode_expire,
    Purge: encode_purge,
    SetEligibility: _encode_set_eligibility,
    SetLabels: _encode_set_labels,
    SetSettings: _encode_set_settings,
    ForgetNode: _encode_forget_node,
}

_DECODERS: dict[str, Callable[[Any], Command]] = {
    "register_node": _decode_register_node,
    "submit": decode_submit,
    "occupy": _decode_occupy,
    "vacate": _decode_vacate,
    "cancel": _decode_cancel,
    "mark_stopping": _decode_mark_stopping,
    "node_lost": _decode_node_lost,
    "record_blob": _decode_record_blob,
    "submit_graph": decode_submit_graph,
    "occupy_new": _decode_occupy_new,
    "retry": decode_retry,
    "expire": decode_expire,
    "purge": decode_purge,
    "set_eligibility": _decode_set_eligibility,
    "set_labels": _decode_set_labels,
    "set_settings": _decode_set_settings,
    "forget_node": _decode_forget_node,
}
