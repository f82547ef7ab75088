"""The genesis entry between dataclass and bytes.

What may live here: entry 1 of the log, which must be the same bytes on every founding node.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from raftd.codec.values import unknown
from raftd.pb import log_pb2 as pb
from raftd.scheduler.model import Genesis, Member

FORMAT_VERSION = 1


def encode_genesis(genesis: Genesis) -> bytes:
    """The data of entry 1: equal bytes for equal values."""
    return to_message(genesis).SerializeToString(deterministic=True)


def decode_genesis(data: bytes) -> Genesis:
    """What the cluster was founded with.

    Raises:
        UnknownFormat: these are not such bytes, or of a version that this build does not know.
    """
    try:
        message = pb.Genesis.FromString(data)
    except DecodeError:
        raise unknown("what is in entry 1") from None
    return from_message(message)


def to_message(genesis: Genesis) -> pb.Genesis:
    """As it is stored."""
    return pb.Genesis(
        format_version=FORMAT_VERSION,
        cluster_id=genesis.cluster_id,
        epoch=genesis.epoch,
        members=[
            pb.GenesisMember(
                name=member.name, store_id=member.store_id, address=member.address, voter=member.voter
            )
            for member in genesis.members
        ],
    )


def from_message(message: pb.Genesis) -> Genesis:
    """As the model knows it.

    Raises:
        UnknownFormat: of a version that this build does not know.
    """
    if message.format_version != FORMAT_VERSION:
        raise unknown(f"genesis format {message.format_version}")
    return Genesis(
        cluster_id=message.cluster_id,
        epoch=message.epoch,
        members=tuple(
            Member(member.name, member.store_id, member.address, member.voter) for member in message.members
        ),
    )
