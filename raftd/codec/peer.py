"""Raft's messages between dataclass and wire.

What may live here: one encoder and one decoder a message. Sender and receiver are in the batch's header, once, and
not in every message.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.errors import UnknownFormat
from raftd.pb import consensus_pb2 as pb
from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.types import Configuration, Entry, EntryType, NodeId, Snapshot


def encode_entry(entry: Entry) -> pb.LogEntry:
    """One log entry as it travels."""
    return pb.LogEntry(
        term=entry.term, index=entry.index, type=pb.EntryType.ValueType(entry.type), data=entry.data
    )


def decode_entry(entry: pb.LogEntry) -> Entry:
    """One log entry as the core knows it.

    Raises:
        UnknownFormat: its type is of a newer version.
    """
    try:
        return Entry(entry.term, entry.index, EntryType(entry.type), entry.data)
    except ValueError:
        raise UnknownFormat(f"entry {entry.index} has the unknown type {entry.type}") from None


def encode_snapshot(snapshot: Snapshot) -> pb.InstallSnapshot:
    """What a snapshot is of, as it travels at the head of its bytes."""
    return pb.InstallSnapshot(
        last_included_index=snapshot.index,
        last_included_term=snapshot.term,
        voters=snapshot.configuration.voters,
        learners=snapshot.configuration.learners,
        outgoing=snapshot.configuration.outgoing,
        size_bytes=snapshot.size_bytes,
    )


def decode_snapshot(message: pb.InstallSnapshot) -> Snapshot:
    """What a snapshot is of, as the core knows it.

    Raises:
        UnknownFormat: its configuration contradicts itself.
    """
    try:
        configuration = Configuration(tuple(message.voters), tuple(message.learners), tuple(message.outgoing))
    except ValueError as error:
        raise UnknownFormat(f"the configuration of a snapshot makes no sense: {error}") from None
    return Snapshot(
        message.last_included_index, message.last_included_term, configuration, message.size_bytes
    )


def encode_message(message: Message) -> pb.PeerMessage:
    """One message of the core as it travels."""
    match message:
        case AppendEntries():
            return pb.PeerMessage(
                term=message.term,
                append_entries=pb.AppendEntries(
                    prev_log_index=message.prev_log_index,
                    prev_log_term=message.prev_log_term,
                    entries=[encode_entry(entry) for entry in message.entries],
                    leader_commit=message.leader_commit,
                    round=message.round,
                    heartbeat=message.heartbeat,
                ),
            )
        case AppendEntriesReply():
            return pb.PeerMessage(
                term=message.term,
                append_entries_reply=pb.AppendEntriesReply(
                    success=message.success,
                    match_index=message.match_index,
                    reject_index=message.reject_index,
                    hint_index=message.hint_index,
                    hint_term=message.hint_term,
                    round=message.round,
                    heartbeat=message.heartbeat,
                ),
            )
        case RequestVote():
            return pb.PeerMessage(
                term=message.term,
                request_vote=pb.RequestVote(
                    last_log_index=message.last_log_index,
                    last_log_term=message.last_log_term,
                    pre_vote=message.pre_vote,
                    transfer=message.transfer,
                    commit=message.commit,
                    commit_term=message.commit_term,
                ),
            )
        case RequestVoteReply():
            return pb.PeerMessage(
                term=message.term,
                request_vote_reply=pb.RequestVoteReply(
                    granted=message.granted,
                    pre_vote=message.pre_vote,
                    commit=message.commit,
                    commit_term=message.commit_term,
                ),
            )
        case InstallSnapshot():
            return pb.PeerMessage(term=message.term, install_snapshot=encode_snapshot(message.snapshot))
        case InstallSnapshotReply():
            return pb.PeerMessage(
                term=message.term,
                install_snapshot_reply=pb.InstallSnapshotReply(
                    success=message.success, match_index=message.match_index
                ),
            )
        case TimeoutNow():
            return pb.PeerMessage(term=message.term, timeout_now=pb.TimeoutNow())


def decode_message(message: pb.PeerMessage, sender: NodeId, receiver: NodeId) -> Message:
    """One message as the core knows it; the ends come from the batch's header.

    Raises:
        UnknownFormat: a message of a newer version.
    """
    kind = message.WhichOneof("message")
    if kind == "append_entries":
        append = message.append_entries
        return AppendEntries(
            sender,
            receiver,
            message.term,
            append.prev_log_index,
            append.prev_log_term,
            tuple(decode_entry(entry) for entry in append.entries),
            append.leader_commit,
            append.round,
            append.heartbeat,
        )
    if kind == "append_entries_reply":
        reply = message.append_entries_reply
        return AppendEntriesReply(
            sender,
            receiver,
            message.term,
            reply.success,
            reply.match_index,
            reply.reject_index,
            reply.hint_index,
            reply.hint_term,
            reply.round,
            reply.heartbeat,
        )
    if kind == "request_vote":
        vote = message.request_vote
        return RequestVote(
            sender,
            receiver,
            message.term,
            vote.last_log_index,
            vote.last_log_term,
            vote.pre_vote,
            vote.transfer,
            vote.commit,
            vote.commit_term,
        )
    if kind == "request_vote_reply":
        answer = message.request_vote_reply
        return RequestVoteReply(
            sender,
            receiver,
            message.term,
            answer.granted,
            answer.pre_vote,
            answer.commit,
            answer.commit_term,
        )
    if kind == "install_snapshot":
        return InstallSnapshot(sender, receiver, message.term, decode_snapshot(message.install_snapshot))
    if kind == "install_snapshot_reply":
        installed = message.install_snapshot_reply
        return InstallSnapshotReply(sender, receiver, message.term, installed.success, installed.match_index)
    if kind == "timeout_now":
        return TimeoutNow(sender, receiver, message.term)
    raise UnknownFormat("a peer sent a message of a kind that this version does not know")


def message_bytes(message: Message) -> int:
    """About how much a message adds to a batch; used to cut batches."""
    if isinstance(message, AppendEntries):
        return 64 + sum(len(entry.data) + 32 for entry in message.entries)
    if isinstance(message, InstallSnapshot):
        return 64 + 8 * len(message.snapshot.configuration.members())
    return 64


def encode_batch(header: pb.PeerHeader, messages: Sequence[Message]) -> pb.PeerBatch:
    """A batch for one receiver."""
    return pb.PeerBatch(header=header, messages=[encode_message(message) for message in messages])


def decode_batch(batch: pb.PeerBatch) -> tuple[Message, ...]:
    """All messages of a batch, in order."""
    sender, receiver = batch.header.sender_store_id, batch.header.receiver_store_id
    return tuple(decode_message(message, sender, receiver) for message in batch.messages)
