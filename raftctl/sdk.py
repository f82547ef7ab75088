"""``from raftctl import Client``: the clients of ``raftctl.client``, found by a cluster's name.

What may live here: how a name, an address and a token become `Endpoints`, for the command line and for programs alike.
"""

from __future__ import annotations

import os
from typing import Any

from raftctl import client
from raftctl.client.calls import PATIENCE_S
from raftctl.cluster.layout import load_endpoints
from raftctl.context import Invocation, resolve_cluster
from raftctl.endpoints import Endpoints
from raftctl.errors import CliError, UsageError

DEFAULT_TIMEOUT_S = 10.0


def find_endpoints(
    cluster: str | None = None, address: str | None = None, token: str | None = None
) -> Endpoints:
    """Where to reach the cluster that is meant.

    Args:
        cluster: NAME; None for RAFTCTL_CLUSTER, what ``cluster use`` said, or ``default``.
        address: ``host:port,...`` to ask instead of the nodes of a local cluster.
        token: what calls carry; None for RAFTCTL_TOKEN, or the cluster's own where every address is one of its nodes:
            a token never goes to a stranger.

    Raises:
        CliError: there is no such cluster.
        UsageError: an address is none.
    """
    token = os.environ.get("RAFTCTL_TOKEN") if token is None else token
    if address is None:
        found = load_endpoints(resolve_cluster(cluster))
        return found if token is None else Endpoints(found.addresses, token, found.cluster)
    addresses = tuple(_checked(one.strip()) for one in address.split(",") if one.strip())
    if not addresses:
        raise UsageError("--address names no node", "--address 127.0.0.1:4001,127.0.0.1:4002")
    try:
        local = load_endpoints(resolve_cluster(cluster))
    except CliError:
        local = Endpoints(())
    names = {local_address: name for name, local_address in local.addresses}
    own = all(one in names for one in addresses)
    if token is None:
        token = local.token if own else ""
    return Endpoints(
        tuple((names.get(one, ""), one) for one in addresses), token, local.cluster if own else ""
    )


def _checked(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{address!r} is no address", "--address HOST:PORT")
    return address


class AsyncClient(client.AsyncClient):
    """A cluster by name, for coroutines: ``async with AsyncClient() as client: await client.submit(...)``."""

    def __init__(
        self,
        cluster: str | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Finds the cluster as `find_endpoints` says; raises what it does."""
        super().__init__(find_endpoints(cluster, address, token), timeout_s=timeout_s, patience_s=patience_s)


class Client(client.Client):
    """A cluster by name, for everyone else: ``with Client() as client: client.submit(...)``."""

    def __init__(
        self,
        cluster: str | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Finds the cluster as `find_endpoints` says; raises what it does."""
        super().__init__(find_endpoints(cluster, address, token), timeout_s=timeout_s, patience_s=patience_s)


class RaftExecutor(client.RaftExecutor):
    """An executor on a cluster by name: ``with RaftExecutor() as executor: executor.map(fn, xs)``."""

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        cluster: str | None = None,
        address: str | None = None,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
        **options: Any,
    ) -> None:
        """Finds the cluster as `find_endpoints` says, and raises what it does; the rest is `client.RaftExecutor`'s."""
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        super().__init__(
            find_endpoints(cluster, address, token), max_workers, patience_s=patience_s, **options
        )


def connect(asked: Invocation, *, timeout_s: float | None = None) -> AsyncClient:
    """The client that a command line asked for; `timeout_s` is the default of a command without ``--timeout``."""
    limit_s = asked.timeout_s(DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)
    return AsyncClient(asked.cluster, address=asked.address, timeout_s=limit_s)
