"""Where a cluster can be reached: the one thing that the SDK must be told before it can say anything.

What may live here: the value that passes between the launcher's files (``raftctl.cluster.layout``), the
options of a command and the client. It imports nothing of the project, so that all three may import it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The nodes of one cluster.

    Attributes:
        addresses: ``(node name, host:port)``; the name is empty where it is not known (``--address``). token:
        what every call carries as ``authorization: Bearer``; empty for none. Never shown: not in ``repr``.
        cluster: the cluster's name; empty when only addresses are known.
    """

    addresses: tuple[tuple[str, str], ...]
    token: str = ""
    cluster: str = ""

    def __repr__(self) -> str:
        token = "***" if self.token else ""
        return f"Endpoints(cluster={self.cluster!r}, addresses={self.addresses!r}, token={token!r})"
