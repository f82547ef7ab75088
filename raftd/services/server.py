"""The gRPC server of one node: its port, its services, health and reflection.

What may live here: how the server is set up, bound, started and stopped. What the services do is theirs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from raftd.config import split_address
from raftd.errors import ConfigError
from raftd.pb import admin_pb2, blobs_pb2, consensus_pb2, scheduler_pb2
from raftd.pb.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server
from raftd.pb.blobs_pb2_grpc import BlobsServicer, add_BlobsServicer_to_server
from raftd.pb.consensus_pb2_grpc import ConsensusServicer, add_ConsensusServicer_to_server
from raftd.pb.scheduler_pb2_grpc import SchedulerServicer, add_SchedulerServicer_to_server
from raftd.services.auth import PeerInterceptor, TokenInterceptor
from raftd.services.identity import Stores
from raftd.transport.base import MAX_MESSAGE_BYTES, LocalNode
from raftd.transport.faults import FaultTable

SCHEDULER = scheduler_pb2.DESCRIPTOR.services_by_name["Scheduler"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name
CONSENSUS = consensus_pb2.DESCRIPTOR.services_by_name["Consensus"].full_name
BLOBS = blobs_pb2.DESCRIPTOR.services_by_name["Blobs"].full_name

MAX_CALLS = 4096
"""Under way on one connection; a client that starts more waits for its own."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def server_options() -> list[tuple[str, int]]:
    """Options of the server.

    Peers ping every 10 s, also while nothing is asked; a server of default settings would call that abuse and hang
    up. Two servers must never share a port: the second is told that the port is in use.
    """
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", MAX_CALLS),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


class LeaderKnown(Protocol):
    """Whether a leader is known, for health."""

    @property
    def leader_known(self) -> bool:
        """Whether one is."""

    async def leader_changed(self) -> None:
        """Return when that may have changed."""


@dataclass(frozen=True, slots=True)
class Services:
    """What is served, and what tells the nodes that belong here from others. A worker has no part in consensus, and no
    blobs that others count on."""

    scheduler: SchedulerServicer
    admin: AdminServicer
    stores: Stores
    consensus: ConsensusServicer | None = None
    blobs: BlobsServicer | None = None


class ServerHost:
    """Serves one node.

    Args:
        listen: ``host:port``; port 0 takes any that is free.
        local: this node; its token is asked of every call.
        faults: injected cuts.
        node: who leads, for health.
        services: what is served, and to which nodes.

    Raises:
        ConfigError: the port is in use, or the address is not one of this machine.
    """

    def __init__(
        self, listen: str, local: LocalNode, faults: FaultTable, node: LeaderKnown, services: Services
    ) -> None:
        self._node = node
        self._health = health.aio.HealthServicer()
        self._health_task: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=(TokenInterceptor(local.token), PeerInterceptor(local, faults, services.stores)),
            options=server_options(),
        )
        add_SchedulerServicer_to_server(services.scheduler, self._server)
        add_AdminServicer_to_server(services.admin, self._server)
        self._always = [ADMIN]
        if services.consensus is not None:
            add_ConsensusServicer_to_server(services.consensus, self._server)
            self._always.append(CONSENSUS)
        if services.blobs is not None:
            add_BlobsServicer_to_server(services.blobs, self._server)
            self._always.append(BLOBS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SCHEDULER, *self._always, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.port = _bind(self._server, listen)

    async def start(self) -> None:
        """Answer calls from now on."""
        for service in self._always:
            await self._health.set(service, _SERVING)
        await self._tell_health(self._node.leader_known)
        await self._server.start()
        self._health_task = asyncio.create_task(self._follow_leader(), name="health")

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, give those under way ``grace_s`` seconds, then end them."""
        if self._health_task is not None:
            self._health_task.cancel()
            await asyncio.gather(self._health_task, return_exceptions=True)
            self._health_task = None
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _follow_leader(self) -> None:
        told = not self._node.leader_known
        while True:
            # No await between this look and the waiting: a change in between would be missed.
            if told != self._node.leader_known:
                told = self._node.leader_known
                await self._tell_health(told)
            else:
                await self._node.leader_changed()

    async def _tell_health(self, leader_known: bool) -> None:
        for service in ("", SCHEDULER):
            await self._health.set(service, _SERVING if leader_known else _NOT_SERVING)


def _bind(server: grpc.aio.Server, listen: str) -> int:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise _cannot_listen(listen, str(error)) from None
    if port == 0:
        raise _cannot_listen(listen, "gRPC does not say why")
    return port


def _cannot_listen(listen: str, otherwise: str) -> ConfigError:
    """Why an address cannot be bound: gRPC only says that it cannot, so ask the system."""
    host, port = split_address(listen)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return ConfigError(
            f"cannot listen on {listen}: {error.strerror}", try_="name an address of this machine"
        )
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return ConfigError(
                        f"port in use: something listens on {listen} already",
                        try_="choose another port, or end what listens there",
                    )
                return ConfigError(
                    f"cannot listen on {listen}: {os.strerror(error.errno or 0)}",
                    try_="name an address of this machine",
                )
    return ConfigError(f"cannot listen on {listen}: {otherwise}")
