"""Who speaks to whom between nodes, and how a connection to a node is made.

What may live here: the identities that every node-to-node call carries as metadata, and the options of a channel.
Clients carry none of these headers, which is how a node tells a peer's call from a client's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Of one gRPC message. Well above every limit of ours (1 MiB of entries, payload limits, 256 KiB blob frames)."""

RECONNECT_MAX_MS = 500
"""gRPC's own default of 120 s would leave a healed peer alone for minutes."""

CONNECT_TIMEOUT_MS = 2_000
"""Of one attempt to connect. gRPC's own least is 100 ms, which a busy machine can miss again and again."""

FROM_NAME = "raftd-from"
FROM_STORE = "raftd-from-store"
TO_STORE = "raftd-to-store"
CLUSTER = "raftd-cluster"

ACCEPTED_KEY = "raftd-accepted"
"""In the initial metadata of Raft's stream: the receiver takes it."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This node, as it presents itself to others."""

    cluster_id: int
    store_id: int
    name: str
    token: str  # of the cluster; empty where none is asked for
    address: str = ""  # where it serves
    start: int = 0  # a random number of this process's own; 0 says nothing


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """Another node, as this one knows it; ``store_id`` 0 where it is not known."""

    name: str
    store_id: int
    address: str


def hex_id(number: int) -> str:
    """A cluster or store id as people see it."""
    return f"{number:016x}"


def call_metadata(local: LocalNode, remote: RemoteNode) -> Metadata:
    """What a node-to-node call carries besides its message."""
    pairs = [
        (CLUSTER, hex_id(local.cluster_id)),
        (FROM_NAME, local.name),
        (FROM_STORE, hex_id(local.store_id)),
    ]
    if remote.store_id:
        pairs.append((TO_STORE, hex_id(remote.store_id)))
    if local.token:
        pairs.append(("authorization", f"Bearer {local.token}"))
    return tuple(pairs)


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """What the metadata of an incoming call says of its sender; ``name`` is empty for a client."""

    name: str = ""
    store_id: int = 0
    cluster_id: int = 0
    receiver_store_id: int = 0


def caller_identity(metadata: Iterable[tuple[str, str | bytes]] | Mapping[str, str]) -> CallerIdentity:
    """Read the sender's identity from an incoming call's metadata; unreadable numbers count as 0."""
    pairs = dict(metadata)

    def number(key: str) -> int:
        try:
            return int(str(pairs.get(key, "0")), 16)
        except ValueError:
            return 0

    return CallerIdentity(
        name=str(pairs.get(FROM_NAME, "")),
        store_id=number(FROM_STORE),
        cluster_id=number(CLUSTER),
        receiver_store_id=number(TO_STORE),
    )


def channel_options() -> list[tuple[str, int | str]]:
    """Options of every channel between nodes.

    Keepalive finds a peer that vanished without a word; a local subchannel pool keeps the connections of different
    purposes apart, so that bulk never shares a connection with Raft.
    """
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Named for what it was once; in gRPC's core it is the timeout of an attempt, and no pause.
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]


def open_channel(address: str) -> grpc.aio.Channel:
    """A new channel with a connection of its own; closed by whoever opened it."""
    return grpc.aio.insecure_channel(address, options=channel_options())
