"""Loopback ports for nodes: found by asking the kernel for free ones."""

import contextlib
import socket

from raftctl.cluster.layout import HOST


def free_ports(count: int) -> tuple[int, ...]:
    """That many different free ports. All are held until all are chosen; another program may take one afterwards."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return tuple(one.getsockname()[1] for one in sockets)


def is_taken(port: int) -> bool:
    """Whether somebody listens on this port of the loopback address."""
    with socket.socket() as probe:
        # As a server does: a connection of the last minute that lingers in TIME_WAIT is nobody.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
